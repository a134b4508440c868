"""A process of `benchmarks.scaling`: builds its part of a run and does updates when it is told to."""

import json
import sys
import time
from dataclasses import asdict, dataclass, replace
from functools import cache
from typing import Any, cast

import torch
from unveil_backbones import create
from unveil_pretrain.config import FlipConfig, MimConfig
from unveil_pretrain.data import Batch
from unveil_pretrain.objectives.base import BuildContext, Objective
from unveil_pretrain.objectives.flip import FLIPConfig
from unveil_pretrain.parallel import Parallel, ParallelKind, shard
from unveil_pretrain.planning.cluster import fsdp_bytes, pair_bytes, ring_bytes
from unveil_pretrain.recipes import FLIP_RECIPES, MIM_RECIPES
from unveil_pretrain.train_state import Position
from unveil_pretrain.update import train_step
from unveil_pretrain.world import World, joined, world_of_environment

from benchmarks._bare_run import bare_run
from benchmarks._processes import Turn, answer_turns, tcp_bytes_sent

__all__ = ["Task", "expected_bytes"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """What a group of processes computes."""

    recipe: str
    batch: int
    """Samples of a step, over all processes."""
    kind: ParallelKind
    device: str
    threads: int
    bfloat16: bool
    quick: bool

    def to_json(self) -> str:
        """For the command line of a process."""
        return json.dumps(asdict(self))

    def config(self) -> MimConfig | FlipConfig:
        """The recipe as it is measured."""
        config = {**MIM_RECIPES, **FLIP_RECIPES}[self.recipe]()
        return replace(
            config,
            batch_size=self.batch,
            precision="bfloat16" if self.bfloat16 else "float32",
            image_size=(32, 32) if self.quick else config.image_size,
        )


def expected_bytes(task: Task, num_processes: int) -> float:
    """What each process sends in a step by the formulas of `pretrain plan --cluster`."""
    config, num_parameters = task.config(), _num_parameters(task.recipe, task.quick)
    total = ring_bytes(4.0 * num_parameters, num_processes)
    if task.kind == "fsdp":
        total = sum(fsdp_bytes(num_parameters, num_processes, num_micro_batches=1, half=task.bfloat16))
    width = config.objective.embed_dim if isinstance(config.objective, FLIPConfig) else 0
    return total + (pair_bytes(task.batch, width, num_processes) if width else 0.0)


@cache
def _num_parameters(recipe: str, quick: bool) -> int:
    known = Task(recipe=recipe, batch=1, kind="ddp", device="cpu", threads=1, bfloat16=False, quick=quick)
    return sum(one.numel() for one in _objective(known.config()).parameters() if one.requires_grad)


def _objective(config: MimConfig | FlipConfig) -> Objective:
    torch.manual_seed(0)
    encoder = create(config.encoder, image_size=config.image_size, drop_path=config.drop_path)
    return config.objective.build(
        BuildContext(encoder, config.image_size, captions=lambda most: _captions(most), tokenizer_json=None)
    )


def _captions(num: int) -> list[str]:
    return [f"a thing {number}" for number in range(min(num, 400))]


def _batch(config: MimConfig | FlipConfig, world: World) -> Batch:
    """This process's part of a batch of noise, the same in every step."""
    generator = torch.Generator().manual_seed(0)
    share = world.share(config.batch_size)
    sides = (config.batch_size, 3, *config.image_size)
    pixels = torch.randint(0, 256, sides, generator=generator, dtype=torch.uint8)[share]
    ids = torch.arange(config.batch_size)[share]
    texts = [f"a thing {int(one) % 400}" for one in ids] if config.objective.needs_captions else None
    return Batch(images=pixels, sample_ids=ids, epochs=torch.zeros_like(ids), captions=texts)


def main() -> None:
    """Build, then answer."""
    task, world = Task(**json.loads(sys.argv[1])), world_of_environment()
    torch.set_num_threads(task.threads)
    device = torch.device(task.device, world.local_rank) if task.device == "cuda" else torch.device("cpu")
    config = task.config()
    with joined(world, device):
        objective, parallel = _objective(config), Parallel(kind=task.kind)
        shard(objective, parallel, world, device, bfloat16=task.bfloat16)
        run: Any = bare_run(objective, config, device, world=world)
        batch, position = _batch(config, world), replace(Position(), step=config.warmup_steps)

        def measure(times: int) -> Turn:
            world.barrier()
            sent, wall, cpu = tcp_bytes_sent(), time.perf_counter(), time.process_time()
            for _ in range(times):
                train_step(cast(Any, run), position, batch)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            now = tcp_bytes_sent()
            known = device.type == "cpu" and sent is not None and now is not None
            return Turn(wall / times, cpu / times, (cast(int, now) - cast(int, sent)) / times if known else None)

        answer_turns(measure)


if __name__ == "__main__":
    main()
