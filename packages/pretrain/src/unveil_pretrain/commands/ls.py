"""`pretrain ls`: the recipes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from unveil_pretrain.commands.parsing import parse
from unveil_pretrain.recipes import FLIP_RECIPES, MIM_RECIPES, patterns

__all__ = ["LsCommand", "run"]

_CELLS = {
    "mim": "Data-scaling study (arXiv:2206.04664), 15 cells of one size; `pretrain ls --all` lists them.",
    "flip": "FLIP's towers of one size, masked or CLIP's (arXiv:2212.00794), 8 cells; `pretrain ls --all` lists them.",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class LsCommand:
    """List the recipes, a line each."""

    all: bool = False
    """List every cell of the papers' grids by itself, too."""


def run(given: Sequence[str]) -> int:
    """Print a line per recipe, and one for the cells of one size unless all are wanted."""
    every = parse(LsCommand, given, prog="pretrain ls").all
    rows = [*_rows("mim", MIM_RECIPES, every=every), *_rows("flip", FLIP_RECIPES, every=every)]
    width = max(len(name) for _, name, _ in rows if "{" not in name)
    for command, name, summary in rows:
        print(f"{command:5s} {name:{width}s} {summary}")
    return 0


def _rows(command: str, recipes: Mapping[str, Callable[[], object]], *, every: bool) -> list[tuple[str, str, str]]:
    shown = list(recipes) if every else patterns(recipes)
    return [
        (command, name, (recipes[name].__doc__ or "").splitlines()[0] if name in recipes else _CELLS[command])
        for name in shown
    ]
