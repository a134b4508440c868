"""What `pretrain mim` and `pretrain flip` share: places, recipes by name, and the run itself."""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import tyro

from unveil_pretrain.config import FlipConfig, MimConfig
from unveil_pretrain.errors import ConfigError
from unveil_pretrain.loop import train
from unveil_pretrain.run import DeviceName

__all__ = ["Place", "open_place", "recipe_named", "start"]

_Config = TypeVar("_Config", MimConfig, FlipConfig)


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where a run reads, writes and computes; none of it changes the result beyond rounding."""

    out: Path
    """Folder of the run: run.json, metrics.jsonl, val.jsonl, checkpoints/."""
    train_data: str
    """Training shards: path or fsspec URL with braces, as in 'train-{00000..00007}.tar'; join several with '::'."""
    val_data: str
    """Validation shards, written in the same way."""
    device: DeviceName = "auto"
    """Where to compute; auto takes CUDA where there is one."""
    num_workers: int = 0
    """Processes that decode images; 0 decodes in the training process."""


def open_place() -> Place:
    """A place whose three required flags are still open."""
    return Place(out=tyro.MISSING, train_data=tyro.MISSING, val_data=tyro.MISSING)


def recipe_named(command: str, recipes: Mapping[str, Callable[[], _Config]], given: Sequence[str]) -> _Config:
    """The settings of the recipe that the first word names.

    Raises:
        ConfigError: there is no such recipe.
    """
    if given and given[0] in recipes:
        return recipes[given[0]]()
    what = f"there is no recipe {given[0]!r}" if given else f"pretrain {command} needs a recipe"
    raise ConfigError(
        f"{what}; give one of {', '.join(recipes)}; `pretrain {command} RECIPE --help` lists its settings"
    )


def start(config: MimConfig | FlipConfig, place: Place, command: Sequence[str]) -> int:
    """Train in this place, and print the last checkpoint; errors as `unveil_pretrain.loop.train`."""
    checkpoint = train(
        config,
        out=place.out,
        train_data=place.train_data,
        val_data=place.val_data,
        device=place.device,
        num_workers=place.num_workers,
        log=lambda line: print(line, file=sys.stderr, flush=True),
        command=command,
    )
    print(checkpoint)
    return 0
