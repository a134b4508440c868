"""`pretrain flip RECIPE FLAGS`: masked image-text training."""

from collections.abc import Sequence
from dataclasses import dataclass

from unveil_pretrain.commands.parsing import parse
from unveil_pretrain.commands.training import Place, open_place, recipe_named, start
from unveil_pretrain.config import FlipConfig
from unveil_pretrain.recipes import FLIP_RECIPES

__all__ = ["FlipCommand", "run"]


@dataclass(frozen=True, kw_only=True, slots=True)
class FlipCommand:
    """Masked image-text training. The same command again continues an interrupted run."""

    place: Place
    config: FlipConfig


def run(given: Sequence[str]) -> int:
    """Train what the recipe and the flags say."""
    default = FlipCommand(place=open_place(), config=recipe_named("flip", FLIP_RECIPES, given))
    command = parse(FlipCommand, given[1:], prog=f"pretrain flip {given[0]}", default=default)
    return start(command.config, command.place, ("pretrain", "flip", *given))
