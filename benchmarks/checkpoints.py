"""How long a step waits for a checkpoint, written at once or behind it: `python -m benchmarks.checkpoints RECIPE N`.

Whole updates as the loop does them, one after the other; some end with `save_checkpoint`, at once or in the background.
Two clocks: the wall, and the processor time of the thread that trains, which neighbours on the machine do not lengthen
(but which does not count waiting for a disk). The folder is a temporary one; give --folder for another disk.

Under torchrun the processes share a step and save together (`torchrun --standalone --nproc-per-node 2 -m
benchmarks.checkpoints RECIPE N --parallel fsdp --format sharded`); the times are those of the first.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast, get_args

import torch
from unveil_backbones import create
from unveil_pretrain.checkpointing import save_checkpoint
from unveil_pretrain.config import MimConfig
from unveil_pretrain.data import Batch
from unveil_pretrain.objectives.base import BuildContext
from unveil_pretrain.parallel import Parallel, ParallelKind, shard
from unveil_pretrain.recipes import MIM_RECIPES
from unveil_pretrain.record import RunFolder
from unveil_pretrain.saving import CheckpointFormat, CheckpointSaver
from unveil_pretrain.train_state import Position
from unveil_pretrain.update import train_step
from unveil_pretrain.world import World, joined, world_of_environment

from benchmarks._bare_run import bare_run

__all__ = ["main"]


@dataclass(frozen=True, slots=True)
class Span:
    """Seconds on the wall, and of the processor for this thread."""

    wall: float
    thread: float


def main() -> None:
    """Print a table."""
    parser = _options()
    given, world = parser.parse_args(), world_of_environment()
    if given.rounds < 2:
        parser.error(f"--rounds is {given.rounds}; give 2 or more, the first save in the background is left out")
    torch.set_num_threads(given.threads)
    device = torch.device(given.device, world.local_rank) if given.device == "cuda" else torch.device("cpu")
    with tempfile.TemporaryDirectory(dir=given.folder) as folder, joined(world, device):
        measured = _measure(given, Path(folder), device, world)
    if world.writes:
        _print(given, measured, world.size)


@dataclass(frozen=True, slots=True)
class Measured:
    """Rounds of one process."""

    size: int
    """Bytes of weights and optimiser, over all processes."""
    steps: list[Span]
    at_once: list[Span]
    behind: list[Span]
    beside: list[Span]
    """Steps beside the writing."""
    written: list[float]
    """Seconds from the beginning of a save in the background until it is on the disk."""


def _measure(given: argparse.Namespace, folder: Path, device: torch.device, world: World) -> Measured:
    run, step, size = _prepared(given, folder, device, world)
    found = Measured(size, [], [], [], [], [])
    for _ in range(2):
        step()
    for number, asynchronous in enumerate((False, True) * given.rounds, start=1):
        world.barrier()
        found.steps.append(_timed(step))
        run.saver.asynchronous = asynchronous
        position = replace(Position(), step=number, samples_seen=1, tokens_seen=1)
        begun = time.perf_counter()
        span = _timed(lambda position=position: save_checkpoint(run, position))
        if not asynchronous:
            found.at_once.append(span)
            continue
        found.behind.append(span)
        found.beside.append(_timed(step))
        run.saver.wait()
        found.written.append(time.perf_counter() - begun)
    run.saver.close()
    return found


def _print(given: argparse.Namespace, found: Measured, num_processes: int) -> None:
    base, slow = _median(found.steps), _median(found.beside)
    print(
        f"{given.recipe}, {given.samples} samples on {given.device}, {num_processes} processes, {given.parallel}, "
        f"{given.format}: {found.size / 2**20:,.0f} MiB of weights and optimiser"
    )
    print(f"a step {base.wall:.3f} s on the wall, {base.thread:.3f} s of this thread; medians of {given.rounds}")
    for name, spans in (("at once", found.at_once), ("in the background", found.behind[1:])):
        span = _median(spans)
        print(
            f"save {name}: {span.wall:.3f} s on the wall ({span.wall / base.wall:.1%} of a step), "
            f"{span.thread:.3f} s of this thread ({span.thread / base.thread:.1%})"
        )
    print(
        f"a step beside the writing: {slow.wall / base.wall:.2f} of a step on the wall, "
        f"{slow.thread / base.thread:.2f} of this thread; written after {statistics.median(found.written):.2f} s"
    )


def _timed(work: Callable[[], object]) -> Span:
    wall, thread = time.perf_counter(), time.thread_time()
    work()
    return Span(time.perf_counter() - wall, time.thread_time() - thread)


def _median(spans: list[Span]) -> Span:
    return Span(statistics.median(one.wall for one in spans), statistics.median(one.thread for one in spans))


def _prepared(
    given: argparse.Namespace, folder: Path, device: torch.device, world: World
) -> tuple[Any, Callable[[], None], int]:
    """What `save_checkpoint` needs of a run, a function that does one update, and the bytes of the state."""
    recipe = MIM_RECIPES[given.recipe]()
    assert isinstance(recipe, MimConfig)
    precision = "bfloat16" if device.type == "cuda" else "float32"
    config = replace(recipe, batch_size=given.samples, precision=precision, steps=10**9)
    torch.manual_seed(0)
    encoder = create(config.encoder, image_size=config.image_size, drop_path=config.drop_path)
    context = BuildContext(encoder, config.image_size, captions=lambda most: [], tokenizer_json=None)
    objective = config.objective.build(context)
    size = 3 * sum(value.numel() * value.element_size() for value in objective.parameters())
    shard(objective, Parallel(kind=given.parallel), world, device, bfloat16=precision == "bfloat16")
    run = bare_run(objective, config, device, world=world)
    run.folder, run.saver = RunFolder(folder), CheckpointSaver(world, format=given.format)
    run.data, run.passport, run.initial = SimpleNamespace(train=_NoSamples()), None, None
    share = world.share(given.samples)
    pixels = torch.randint(0, 256, (given.samples, 3, *config.image_size), dtype=torch.uint8)[share]
    ids = torch.arange(given.samples)[share]
    batch = Batch(images=pixels, sample_ids=ids, epochs=torch.zeros_like(ids), captions=None)

    def step() -> None:
        train_step(cast(Any, run), replace(Position(), step=config.warmup_steps), batch)
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return run, step, size


class _NoSamples:
    content_hash = "0" * 64

    def __len__(self) -> int:
        return 1


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m benchmarks.checkpoints")
    parser.add_argument("recipe", help="a recipe of `pretrain mim`")
    parser.add_argument("samples", type=int, help="samples of a step, over all processes")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1, help="threads of the CPU")
    parser.add_argument("--parallel", choices=get_args(ParallelKind), default="ddp")
    parser.add_argument(
        "--format", choices=get_args(CheckpointFormat), default="contract", help="what checkpoints hold"
    )
    parser.add_argument("--rounds", type=int, default=5, help="saves of each kind; the first behind is left out")
    parser.add_argument("--folder", type=Path, help="where to make the temporary folder")
    return parser


if __name__ == "__main__":
    main()
