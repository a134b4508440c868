"""What the children of a fork server do in the tests of faults: a command line, under a fault."""

import sys
import time
from pathlib import Path

import kill_points

__all__ = ["evalharness", "pretrain"]


def pretrain(words: list[str], fault: dict[str, object]) -> None:
    """The `pretrain` command with a fault arranged."""
    arrange(fault)
    from unveil_pretrain.cli import main

    main(words)


def evalharness(words: list[str], fault: dict[str, object]) -> None:
    """The `evalharness` command with a fault arranged."""
    arrange(fault)
    from unveil_evalharness.cli import main

    sys.exit(main(words))


def arrange(fault: dict[str, object]) -> None:
    """Have a fault happen in this process; by its name, nothing for an empty one."""
    match fault:
        case {"count": str(tally), "below": str(folder)}:
            kill_points.count_operations(folder, tally)
        case {"kill": int(number), "below": str(folder)}:
            kill_points.at_operation(folder, number)
        case {"refuse": int(number), "code": int(code), "below": str(folder)}:
            kill_points.refuse_everything_behind(folder, number, code)
        case {"slow": str(what), "mark": str(mark)}:
            slow_down(what, Path(mark))
        case _ if fault:
            raise ValueError(f"unknown fault {fault}")


def slow_down(what: str, mark: Path) -> None:
    """Make the first validation, or the first writing of a checkpoint, take seconds; `mark` says that it has begun."""
    from unveil_pretrain import checkpointing, loop

    module, name = (loop, "record_validation") if what == "validation" else (checkpointing, "save_train_state")
    real = getattr(module, name)

    def slowly(*given, **named):
        if not mark.exists():
            mark.touch()
            ends = time.monotonic() + 3.0
            while time.monotonic() < ends:  # an interrupted sleep would go on, but end no earlier
                time.sleep(0.01)
        return real(*given, **named)

    setattr(module, name, slowly)
