"""`pretrain ls`: the recipes."""

from collections.abc import Sequence

from unveil_pretrain.recipes import FLIP_RECIPES, MIM_RECIPES

__all__ = ["run"]


def run(given: Sequence[str]) -> int:
    """Print a line per recipe."""
    del given
    rows = [
        (command, name, (recipe.__doc__ or "").splitlines()[0])
        for command, recipes in (("mim", MIM_RECIPES), ("flip", FLIP_RECIPES))
        for name, recipe in recipes.items()
    ]
    width = max(len(name) for _, name, _ in rows)
    for command, name, summary in rows:
        print(f"{command:5s} {name:{width}s} {summary}")
    return 0
