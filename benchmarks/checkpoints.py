"""How long a step waits for a checkpoint, written at once or behind it: `python -m benchmarks.checkpoints RECIPE N`.

Whole updates as the loop does them, one after the other; some end with `save_checkpoint`, at once or in the background.
Two clocks: the wall, and the processor time of the thread that trains, which neighbours on the machine do not lengthen
(but which does not count waiting for a disk). The folder is a temporary one; give --folder for another disk.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import torch
from unveil_backbones import create
from unveil_pretrain.checkpointing import save_checkpoint
from unveil_pretrain.config import MimConfig
from unveil_pretrain.data import Batch
from unveil_pretrain.objectives.base import BuildContext
from unveil_pretrain.recipes import MIM_RECIPES
from unveil_pretrain.record import RunFolder
from unveil_pretrain.saving import CheckpointSaver
from unveil_pretrain.train_state import Position
from unveil_pretrain.update import train_step
from unveil_pretrain.world import World

from benchmarks._bare_run import bare_run

__all__ = ["main"]


@dataclass(frozen=True, slots=True)
class Span:
    """Seconds on the wall, and of the processor for this thread."""

    wall: float
    thread: float


def main() -> None:
    """Print a table."""
    given = _options().parse_args()
    torch.set_num_threads(given.threads)
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        run, step, size = _prepared(given, Path(folder))
        for _ in range(2):
            step()
        steps, stalls, beside, written = [], {False: list[Span](), True: list[Span]()}, list[Span](), list[float]()
        for number, asynchronous in enumerate((False, True) * given.rounds, start=1):
            steps.append(_timed(step))
            run.saver.asynchronous = asynchronous
            position = replace(Position(), step=number, samples_seen=1, tokens_seen=1)
            begun = time.perf_counter()
            stalls[asynchronous].append(_timed(lambda position=position: save_checkpoint(run, position)))
            if asynchronous:
                beside.append(_timed(step))
                run.saver.wait()
                written.append(time.perf_counter() - begun)
        run.saver.close()
    base = _median(steps)
    print(
        f"{given.recipe}, {given.samples} samples on {given.device}: {size / 2**20:,.0f} MiB of weights and optimiser"
    )
    print(f"a step {base.wall:.3f} s on the wall, {base.thread:.3f} s of this thread; medians of {given.rounds}")
    for name, spans in (("at once", stalls[False]), ("in the background", stalls[True][1:])):
        found = _median(spans)
        print(
            f"save {name}: {found.wall:.3f} s on the wall ({found.wall / base.wall:.1%} of a step), "
            f"{found.thread:.3f} s of this thread ({found.thread / base.thread:.1%})"
        )
    slow = _median(beside)
    print(
        f"a step beside the writing: {slow.wall / base.wall:.2f} of a step on the wall, "
        f"{slow.thread / base.thread:.2f} of this thread; written after {statistics.median(written):.2f} s"
    )


def _timed(work: Callable[[], object]) -> Span:
    wall, thread = time.perf_counter(), time.thread_time()
    work()
    return Span(time.perf_counter() - wall, time.thread_time() - thread)


def _median(spans: list[Span]) -> Span:
    return Span(statistics.median(one.wall for one in spans), statistics.median(one.thread for one in spans))


def _prepared(given: argparse.Namespace, folder: Path) -> tuple[Any, Callable[[], None], int]:
    """What `save_checkpoint` needs of a run, a function that does one update, and the bytes of the state."""
    device, world = torch.device(given.device), World()
    recipe = MIM_RECIPES[given.recipe]()
    assert isinstance(recipe, MimConfig)
    precision = "bfloat16" if device.type == "cuda" else "float32"
    config = replace(recipe, batch_size=given.samples, precision=precision, steps=10**9)
    torch.manual_seed(0)
    encoder = create(config.encoder, image_size=config.image_size, drop_path=config.drop_path)
    context = BuildContext(encoder, config.image_size, captions=lambda most: [], tokenizer_json=None)
    objective = config.objective.build(context).to(device)
    run = bare_run(objective, config, device, world=world)
    run.folder, run.saver = RunFolder(folder), CheckpointSaver(world)
    run.data, run.passport, run.initial = SimpleNamespace(train=_NoSamples()), None, None
    pixels = torch.randint(0, 256, (given.samples, 3, *config.image_size), dtype=torch.uint8)
    zeros = torch.zeros(given.samples, dtype=torch.int64)
    batch = Batch(images=pixels, sample_ids=torch.arange(given.samples), epochs=zeros, captions=None)

    def step() -> None:
        train_step(cast(Any, run), replace(Position(), step=config.warmup_steps), batch)
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    size = 3 * sum(value.numel() * value.element_size() for value in objective.parameters())
    return run, step, size


class _NoSamples:
    content_hash = "0" * 64

    def __len__(self) -> int:
        return 1


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m benchmarks.checkpoints")
    parser.add_argument("recipe", help="a recipe of `pretrain mim`")
    parser.add_argument("samples", type=int, help="samples of a step")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1, help="threads of the CPU")
    parser.add_argument("--rounds", type=int, default=5, help="saves of each kind; the first behind is left out")
    parser.add_argument("--folder", type=Path, help="where to make the temporary folder")
    return parser


if __name__ == "__main__":
    main()
