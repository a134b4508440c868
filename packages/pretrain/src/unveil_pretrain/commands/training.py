"""What `pretrain mim` and `pretrain flip` share: places, recipes by name, and the run itself."""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

import tyro

from unveil_pretrain.config import FlipConfig, MimConfig
from unveil_pretrain.data.retrying import ReadPolicy
from unveil_pretrain.errors import ConfigError
from unveil_pretrain.loggers import LoggerName
from unveil_pretrain.loop import train
from unveil_pretrain.parallel import Parallel, ParallelKind
from unveil_pretrain.recipes import no_recipe
from unveil_pretrain.run import DeviceName
from unveil_pretrain.saving import CheckpointFormat
from unveil_pretrain.world import world_of_environment

__all__ = ["Place", "open_place", "recipe_named", "start"]

_Config = TypeVar("_Config", MimConfig, FlipConfig)
_LISTS: Final = "`pretrain ls` lists them"


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where a run reads, writes and computes; none of it changes the result beyond rounding."""

    out: Path
    """Folder of the run: run.json, metrics.jsonl, val.jsonl, checkpoints/."""
    train_data: str
    """Training shards (path or fsspec URL with braces, as in 'train-{00000..00007}.tar', several joined with '::'), a
    folder of images, or a .zip of one."""
    val_data: str
    """Validation data, written in the same way."""
    train_list: Path | None = None
    """A list of `pretrain subset`: only its samples are trained on."""
    device: DeviceName = "auto"
    """Where to compute; auto takes CUDA where there is one."""
    num_workers: int = 0
    """Threads that read and decode images ahead of training; 0 decodes when a batch is asked for."""
    read_timeout: float = 60.0
    """Seconds that one try to read a sample may take, on a disk or from a store; a batch that takes ten times as long
    ends the run."""
    read_tries: int = 5
    """Tries before a read has failed for good, with waits that double; each is counted in OUT/reads.jsonl."""
    loggers: tuple[LoggerName, ...] = ("tensorboard",)
    """Where to show the scalars of the run: tensorboard (in OUT/tensorboard), wandb, mlflow, or several of them."""
    micro_batch_size: int = 0
    """Images to compute at once on each process, to save memory; 0 for all of its part of the batch."""
    checkpoint_blocks: bool = False
    """Compute the inside of the encoder's blocks again in the backward pass, to save memory."""
    parallel: ParallelKind = "ddp"
    """On several processes: ddp keeps a whole copy of the weights on each, fsdp cuts them into shards (FSDP2)."""
    shard_over: int = 0
    """fsdp: processes that share one copy of the weights, for example those of a machine; 0 for all."""
    checkpoint_format: CheckpointFormat = "contract"
    """contract: every checkpoint can be evaluated. sharded: those before the last hold what each process has, which is
    cheaper for large models; `pretrain export` makes one of the contract."""
    async_checkpoints: bool = False
    """Write checkpoints in the background; costs host memory for a copy of weights and optimiser."""
    memory_limit: float = 0.0
    """GB that each process may take; 0 for what there is. A run that is predicted not to fit is refused before its
    first step; predictions err, and a larger limit runs it nevertheless."""
    compile: bool = False
    """Compile the encoder's blocks by torch.compile."""


def open_place() -> Place:
    """A place whose three required flags are still open."""
    return Place(out=tyro.MISSING, train_data=tyro.MISSING, val_data=tyro.MISSING)


def recipe_named(command: str, recipes: Mapping[str, Callable[[], _Config]], given: Sequence[str]) -> _Config:
    """The settings of the recipe that the first word names.

    Raises:
        ConfigError: there is no such recipe; names up to three that are written alike.
    """
    if given and given[0] in recipes:
        return recipes[given[0]]()
    if not given or given[0].startswith("-"):
        raise ConfigError(
            f"pretrain {command} needs a recipe before its flags, such as {next(iter(recipes))}; {_LISTS}"
        )
    raise ConfigError(f"{no_recipe(given[0], recipes)}; {_LISTS}, `pretrain {command} RECIPE --help` its settings")


def start(config: MimConfig | FlipConfig, place: Place, command: Sequence[str], *, initial: Path | None = None) -> int:
    """Train in this place, from the weights of `initial` if given; errors as `train`.

    The first of a run's processes prints the last checkpoint: a script that reads it wants it once.
    """
    checkpoint = train(
        config,
        out=place.out,
        train_data=place.train_data,
        val_data=place.val_data,
        train_list=place.train_list,
        device=place.device,
        num_workers=place.num_workers,
        reading=ReadPolicy(timeout=place.read_timeout, tries=place.read_tries, seed=config.seed),
        loggers=place.loggers,
        micro_batch_size=place.micro_batch_size,
        checkpoint_blocks=place.checkpoint_blocks,
        parallel=Parallel(kind=place.parallel, shard_over=place.shard_over),
        checkpoint_format=place.checkpoint_format,
        async_checkpoints=place.async_checkpoints,
        memory_limit=place.memory_limit,
        compile_blocks=place.compile,
        log=lambda line: print(line, file=sys.stderr, flush=True),
        command=command,
        initial=initial,
    )
    if world_of_environment().writes:
        print(checkpoint)
    return 0
