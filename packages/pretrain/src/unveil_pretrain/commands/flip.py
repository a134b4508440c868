"""`pretrain flip RECIPE FLAGS`: masked image-text training, and the unmasked stage after it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import tyro

from unveil_pretrain.commands.open_clip_flags import from_open_clip
from unveil_pretrain.commands.parsing import parse
from unveil_pretrain.commands.training import Place, open_place, recipe_named, start
from unveil_pretrain.config import FlipConfig
from unveil_pretrain.errors import ConfigError
from unveil_pretrain.recipes import FLIP_RECIPES, unmasked

__all__ = ["Beginning", "FlipCommand", "Stage", "run"]

Stage = Literal["masked", "unmasked"]
"""The recipe as it stands, or FLIP's unmasked tuning after it (arXiv:2212.00794, table 1e)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Beginning:
    """What a run begins with."""

    initial: Annotated[Path | None, tyro.conf.arg(name="from")] = None
    """Checkpoint, or run, whose weights to begin with, with a fresh optimiser; its hash becomes part of the run."""
    stage: Stage = "masked"
    """unmasked: tune --from on whole images; the schedule's defaults become those of the paper's tuning."""

    def __post_init__(self) -> None:
        if self.stage == "unmasked" and self.initial is None:
            raise ConfigError("stage unmasked tunes what was trained before; give its checkpoint or run with --from")


@dataclass(frozen=True, kw_only=True, slots=True)
class FlipCommand:
    """Masked image-text training. The same command again continues an interrupted run."""

    place: Place
    beginning: Beginning
    config: FlipConfig


def run(given: Sequence[str]) -> int:
    """Train what the recipe and the flags say; flags may have open_clip's names where they mean the same."""
    words = from_open_clip(given[1:])
    prog = f"pretrain flip {given[0] if given else ''}"
    default = FlipCommand(place=open_place(), beginning=Beginning(), config=recipe_named("flip", FLIP_RECIPES, given))
    command = parse(FlipCommand, words, prog=prog, default=default)
    if command.beginning.stage == "unmasked":
        # Once more: flags that were given stand, all others have the defaults of the stage.
        command = parse(FlipCommand, words, prog=prog, default=replace(default, config=unmasked(default.config)))
    return start(command.config, command.place, ("pretrain", "flip", *given), initial=command.beginning.initial)
