"""Predicted against measured memory of a training step on the CPU: `python -m benchmarks.step_memory RECIPE SAMPLES`.

Measured is the most that a fresh process ever had resident, above what it had before the model was built, after a step
of a tiny model that loads the libraries. The step is that of a run: `GradientStep`, clipping, AdamW; two of them, since
the first makes AdamW's averages. glibc is told to give freed memory back at once (MALLOC_MMAP_THRESHOLD_), as a
prediction knows nothing of an allocator's holes; `--plain-malloc` leaves it as it is.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
from dataclasses import replace

import torch
from unveil_backbones import create
from unveil_pretrain.config import FlipConfig, MimConfig
from unveil_pretrain.data import Batch
from unveil_pretrain.inputs import Normaliser
from unveil_pretrain.objectives.base import BuildContext
from unveil_pretrain.optim import build_optimizer
from unveil_pretrain.parallel import Parallel, clip_gradients, shard
from unveil_pretrain.planning.memory import step_memory
from unveil_pretrain.recipes import FLIP_RECIPES, MIM_RECIPES, tiny_mae
from unveil_pretrain.step import GradientStep
from unveil_pretrain.stochastic_depth import StochasticDepth
from unveil_pretrain.world import World, joined, world_of_environment

from benchmarks._memory import high_water_mark, resident

__all__ = ["compare", "main"]

_MIB = 2**20


def main() -> None:
    """Print one line."""
    given = _options().parse_args()
    if given.child:
        print(_measure(given))
        return
    predicted, measured = compare(sys.argv[1:])
    print(
        f"{' '.join(sys.argv[1:])}: predicted {predicted / _MIB:,.0f} MB, measured {measured / _MIB:,.0f} MB, "
        f"ratio {predicted / measured:.2f}"
    )


def compare(words: list[str]) -> tuple[int, int]:
    """Predicted and measured bytes, the latter of the process that took most."""
    given = _options().parse_args(words)
    shards = given.processes if given.fsdp else 1
    predicted = step_memory(
        _config(given),
        micro_batch=given.micro_batch or given.samples,
        device="cpu",
        checkpointing=given.checkpoint_blocks,
        num_shards=shards,
        num_replicas=given.processes // shards,
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    surroundings = os.environ | {"OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    if not given.plain_malloc:
        surroundings["MALLOC_MMAP_THRESHOLD_"] = "131072"
    children = []
    for rank in range(given.processes):
        place = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(given.processes)}
        command = [sys.executable, "-m", "benchmarks.step_memory", *words, "--child"]
        children.append(
            subprocess.Popen(
                command, env=surroundings | place, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
        )
    said = [child.communicate() for child in children]
    for child, (_, errors) in zip(children, said, strict=True):
        if child.returncode:
            raise SystemExit(errors)
    return predicted.total, max(int(output.split()[-1]) for output, _ in said)


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser()
    parser.add_argument("recipe")
    parser.add_argument("samples", type=int, help="of each process")
    parser.add_argument("--encoder", default="")
    parser.add_argument("--objective", default="{}", help="settings of the objective, as JSON")
    parser.add_argument("--micro-batch", type=int, default=0)
    parser.add_argument("--bfloat16", action="store_true")
    parser.add_argument("--checkpoint-blocks", action="store_true")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--fsdp", action="store_true")
    parser.add_argument("--plain-malloc", action="store_true")
    parser.add_argument("--child", action="store_true")
    return parser


def _config(given: argparse.Namespace) -> MimConfig | FlipConfig:
    config = {**MIM_RECIPES, **FLIP_RECIPES}[given.recipe]()
    return replace(
        config,
        batch_size=given.samples * given.processes,
        precision="bfloat16" if given.bfloat16 else "float32",
        encoder=given.encoder or config.encoder,
        objective=replace(config.objective, **json.loads(given.objective)),
    )


def _measure(given: argparse.Namespace) -> int:
    world, device = world_of_environment(), torch.device("cpu")
    with joined(world, device):
        _steps(tiny_mae(), world, Parallel(), given, sizes=(2, 2))
        before = resident()
        parallel = Parallel(kind="fsdp" if given.fsdp else "ddp")
        _steps(_config(given), world, parallel, given, sizes=(given.samples, given.samples))
        return high_water_mark() - before


def _steps(
    config: MimConfig | FlipConfig, world: World, parallel: Parallel, given: argparse.Namespace, sizes: tuple[int, ...]
) -> None:
    device, captions = torch.device("cpu"), [f"a thing {number}" for number in range(400)]
    objective = config.objective.build(
        BuildContext(
            encoder=create(config.encoder, image_size=config.image_size, drop_path=config.drop_path),
            image_size=config.image_size,
            captions=lambda most: captions[:most],
            tokenizer_json=None,
        )
    ).train()
    depth = StochasticDepth.install(objective)
    objective.encoder.checkpoint_blocks = given.checkpoint_blocks
    shard(objective, parallel, world, device, bfloat16=given.bfloat16)
    optimizer = build_optimizer(
        objective, weight_decay=config.weight_decay, betas=config.betas, without_decay=objective.no_weight_decay()
    )
    step = GradientStep(
        objective=objective,
        depth=depth,
        normalise=Normaliser(mean=config.pixel_mean, std=config.pixel_std, device=device),
        world=world,
        device=device,
        seed=0,
        micro_batch_size=given.micro_batch,
        bfloat16=given.bfloat16,
    )
    batch: list[Batch] = []
    for size in sizes:
        # As the loader does, the next batch is made while the last one still exists.
        batch.append(_batch(config, size, captions))
        step(batch[-1])
        clip_gradients(objective.parameters(), config.clip_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        del batch[:-1]


def _batch(config: MimConfig | FlipConfig, size: int, captions: list[str]) -> Batch:
    texts = [captions[index % len(captions)] for index in range(size)] if config.objective.needs_captions else None
    pixels = torch.zeros(size, 3, *config.image_size, dtype=torch.uint8)
    return Batch(pixels.random_(256), torch.arange(size), torch.zeros(size, dtype=torch.int64), texts)


if __name__ == "__main__":
    main()
