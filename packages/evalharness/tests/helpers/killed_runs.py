"""Runs of the harness that end by SIGKILL at chosen moments, each in a child of one process that has loaded torch once.

    python killed_runs.py CHECKPOINT DATA FOLDER

leaves one output folder per moment. Each run evaluates a toy, which is finished by then, and a line.
"""

import os
import signal
import sys
from pathlib import Path

from line_training import LineTask
from toy_task import ToyTask, loader
from unveil_evalharness import compat
from unveil_evalharness import run as run_module
from unveil_evalharness.engine import interim
from unveil_evalharness.run import RunOptions, run

__all__ = ["MOMENTS", "options_for"]


def options_for(checkpoint, data, out):
    """Toy and line on one checkpoint."""
    return RunOptions(
        ckpt=(checkpoint,), data_root=data, output_path=out, tasks=("toy", "line"), device="cpu", progress=False
    )


def die(*args, **kwargs):
    os.kill(os.getpid(), signal.SIGKILL)


def while_saving():
    """The first checkpoint is written, but not yet in place."""
    interim._sha256 = die


def between_checkpoint_and_pointer():
    """The second checkpoint is in place, but the pointer still names the first."""
    number = iter(range(10))
    write_text = Path.write_text

    def write(path, *args, **kwargs):
        if path.name == ".interim.json.tmp" and next(number) == 1:
            die()
        return write_text(path, *args, **kwargs)

    Path.write_text = write


def before_rows():
    append = run_module.append_rows

    def before(path, rows):
        if rows[0].task == "line":
            die()
        append(path, rows)

    run_module.append_rows = before


def while_writing_rows():
    """Half of the line's row is in the file."""
    write = os.write

    def half(descriptor, block):
        if b"line.error" in block:
            write(descriptor, block[: len(block) // 2])
            die()
        return write(descriptor, block)

    os.write = half


def behind_rows():
    discard = run_module.discard_work

    def behind(session, stem):
        if stem.startswith("line"):
            die()
        discard(session, stem)

    run_module.discard_work = behind


# Passes of training that are left of twelve, with checkpoints after five, ten and twelve.
MOMENTS = {
    "first_pass": (0, None, 12),
    "before_a_checkpoint": (3, None, 12),
    "between_checkpoints": (8, None, 7),
    "last_pass": (11, None, 2),
    "while_saving": (None, while_saving, 12),
    "between_checkpoint_and_pointer": (None, between_checkpoint_and_pointer, 7),
    "before_rows": (None, before_rows, 0),
    "while_writing_rows": (None, while_writing_rows, 0),
    "behind_rows": (None, behind_rows, 0),
}


def main(checkpoint, data, folder):
    compat.install()  # once, for all children
    for name, (kill_at, arrange, _) in MOMENTS.items():
        child = os.fork()
        if child == 0:
            if arrange is not None:
                arrange()
            run(options_for(checkpoint, data, folder / name), load=loader(ToyTask(), LineTask(kill_at=kill_at)))
            os._exit(0)
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status), f"{name}: the run ended by itself"


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
