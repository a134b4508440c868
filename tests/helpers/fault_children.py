"""What the children of a fork server do in the tests of faults: a command line, under a fault."""

import datetime
import itertools
import os
import resource
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import kill_points

YEAR = 365.0 * 24 * 3600

__all__ = ["backbones", "evalharness", "masking", "pretrain"]


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


def backbones(words: list[str], fault: dict[str, object]) -> None:
    """The command of the backbones with a fault arranged."""
    arrange(fault)
    from unveil_backbones.cli import main

    sys.exit(main(words))


def masking(words: list[str], fault: dict[str, object]) -> None:
    """The command of the masks with a fault arranged."""
    arrange(fault)
    from unveil_masking.show.cli import main

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
        case {"both": [dict(one), dict(another)]}:
            arrange(one)
            arrange(another)
        case {"slow": str(what), "mark": str(mark)}:
            slow_down(what, Path(mark))
        case {"nan": str(where), "sample": int(sample)}:
            not_a_number(where, sample)
        case _ if fault:
            arrange_surroundings(fault)


def arrange_surroundings(fault: dict[str, object]) -> None:
    """A fault of what surrounds a process: its memory, its clock, whoever reads what it says; what is counted of it."""
    match fault:
        case {"no_memory": str(program)}:
            no_memory(program)
        case {"clock": "jumps"}:
            jumping_clock()
        case {"reader": str(mark), "of": list(descriptors)}:
            lose_reader(descriptors, mark)
        case {"passes": str(tally)}:
            note_passes(Path(tally))
        case {"orphans": True}:
            leave_orphans()
        case _:
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


def note_passes(tally: Path) -> None:
    """Write the number of each training pass of a task of `evalharness` into a file, a line each."""
    from unveil_evalharness.engine._mm import KeyedTrainLoop

    real = KeyedTrainLoop.run_iter

    def noted(self: KeyedTrainLoop, batch: object) -> None:
        with tally.open("a") as stream:
            stream.write(f"{self.iter}\n")
        real(self, batch)

    KeyedTrainLoop.run_iter = noted


def leave_orphans() -> None:
    """Have the process of `val_loss` outlive this one, as on systems other than Linux."""
    from unveil_evalharness.tasks.val_loss import model

    model.bound = list


def lose_reader(descriptors: list[int], mark: str) -> None:
    """Have stdout or stderr (1 or 2) be pipes whose reader goes: at once, or when the file `mark` is there."""
    from unveil_backbones.terminal import guard_output

    reader, writer = os.pipe()
    for descriptor in descriptors:
        os.dup2(writer, descriptor)
    os.close(writer)
    guard_output()

    def leave() -> None:
        while mark and not Path(mark).exists():
            time.sleep(0.01)
        os.close(reader)

    if mark:
        threading.Thread(target=leave, daemon=True).start()
    else:
        leave()


def jumping_clock() -> None:
    """Have the clock on the wall jump by a year at every look, forth and back; that of durations goes on."""
    real, strftime, jumps = time.time, time.strftime, itertools.cycle((0.0, YEAR, -YEAR, 2 * YEAR))

    def look() -> float:
        return real() + next(jumps)

    def written(form: str, moment: time.struct_time | None = None) -> str:
        return strftime(form, time.localtime(look()) if moment is None else moment)

    class Jumping(datetime.datetime):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> "Jumping":
            return cls.fromtimestamp(look(), tz)

    time.time, time.strftime = look, written
    datetime.datetime = Jumping
    for name in ("unveil_evalharness.record", "unveil_evalharness.output"):
        if name in sys.modules:
            vars(sys.modules[name])["datetime"] = Jumping


def not_a_number(where: str, sample: int) -> None:
    """Spoil step 2 of a run: what the sample gives in training, or the state that the step begins with."""
    import torch
    from unveil_pretrain import loop
    from unveil_pretrain.objectives.mae import MAE

    forward, update = MAE.forward, loop.train_step

    def spoilt(self, inputs, *, seed):
        hit = (inputs.sample_ids == sample) & self.training
        if where == "pixels":
            images = torch.where(hit[:, None, None, None], torch.nan, inputs.images)
            return forward(self, replace(inputs, images=images), seed=seed)
        output = forward(self, inputs, seed=seed)
        if where == "loss":
            return replace(output, per_sample=torch.where(hit, torch.nan, output.per_sample))
        if where == "gradient" and bool(hit.any()):  # the root of zero is zero, and rises without bound
            return replace(output, per_sample=output.per_sample + (0.0 * output.per_sample).sqrt())
        return output

    def spoiling(run, position, batch):
        first = next(run.objective.parameters())
        if position.step == 2 and where == "weights":
            first.data.fill_(torch.nan)
        if position.step == 2 and where == "optimiser":
            run.optimizer.state[first]["exp_avg"].fill_(torch.nan)
        return update(run, position, batch)

    MAE.forward, loop.train_step = spoilt, spoiling


def no_memory(program: str) -> None:
    """Have a training step of MAE, or the encoder of nearest neighbours, ask for more than this process may have."""
    import torch

    if program == "pretrain":
        from unveil_pretrain.objectives.mae import MAE

        kind, name = MAE, "forward"
    else:
        from unveil_evalharness.tasks.classification.features import FrozenEncoder

        kind, name = FrozenEncoder, "pooled"
    resource.setrlimit(resource.RLIMIT_AS, (2**36, 2**36))
    real = getattr(kind, name)

    def greedy(self, *given, **named):
        torch.empty(2**38, dtype=torch.uint8)
        return real(self, *given, **named)

    setattr(kind, name, greedy)
