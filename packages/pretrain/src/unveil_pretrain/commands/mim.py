"""`pretrain mim RECIPE FLAGS`: masked image modelling."""

from collections.abc import Sequence
from dataclasses import dataclass

from unveil_pretrain.commands.parsing import parse
from unveil_pretrain.commands.training import Place, open_place, recipe_named, start
from unveil_pretrain.config import MimConfig
from unveil_pretrain.recipes import MIM_RECIPES

__all__ = ["MimCommand", "run"]


@dataclass(frozen=True, kw_only=True, slots=True)
class MimCommand:
    """Masked image modelling. The same command again continues an interrupted run."""

    place: Place
    config: MimConfig


def run(given: Sequence[str]) -> int:
    """Train what the recipe and the flags say."""
    default = MimCommand(place=open_place(), config=recipe_named("mim", MIM_RECIPES, given))
    command = parse(MimCommand, given[1:], prog=f"pretrain mim {given[0]}", default=default)
    return start(command.config, command.place, ("pretrain", "mim", *given))
