"""The cells of an ablation: mask ratio × batch × how long, and what else differs from the recipe.

FLIP's table 1a (arXiv:2212.00794) lets masking pay for a larger batch: 50 % at twice the batch beats no mask by a
point. At equal batch the same table 1b gives 68.5 against 68.6. So every cell says which of three questions it answers:

    samples   as many samples as the reference; at the reference's batch this is also the comparison at equal batch
    time      as many seconds of training as the reference took
"""

import re
from dataclasses import dataclass, replace
from typing import Final, Literal

from unveil_pretrain.errors import ConfigError

__all__ = ["Budget", "Cell", "Shape", "Variant", "cells_of", "parse_shape"]

Budget = Literal["samples", "time"]
Variant = Literal["plain", "tuned", "reconstruct", "text_random", "text_priority", "resize"]

_SHAPE: Final = re.compile(r"(?P<ratio>\d*\.?\d+)(?:x(?P<multiple>\d+))?")


@dataclass(frozen=True, slots=True)
class Shape:
    """Mask ratio in [0, 1), and batch as a multiple of the reference's."""

    mask_ratio: float
    multiple: int

    def __str__(self) -> str:
        return f"mask{100 * self.mask_ratio:g}_batch{self.multiple}x"


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """One run of the ablation."""

    shape: Shape
    budget: Budget
    variant: Variant = "plain"
    seed: int = 0

    @property
    def name(self) -> str:
        """Name of its folder."""
        return f"{self.group}_seed{self.seed}"

    @property
    def group(self) -> str:
        """The name without the seed: what is averaged over seeds."""
        return "_".join([str(self.shape), self.budget, *([] if self.variant == "plain" else [self.variant])])


def parse_shape(text: str) -> Shape:
    """Read "0.5x2": half of the patches hidden, twice the batch; "0.5" is "0.5x1".

    Raises:
        ConfigError: the text is something else.
    """
    match = _SHAPE.fullmatch(text.strip())
    if match is None or not 0.0 <= float(match["ratio"]) < 1.0 or int(match["multiple"] or 1) < 1:
        raise ConfigError(
            f"{text!r} is no cell; give MASKxBATCH, as in 0.5x2: a mask ratio in [0, 1), a whole multiple of the batch"
        )
    return Shape(float(match["ratio"]), int(match["multiple"] or 1))


def cells_of(shapes: list[Shape], *, equal_time: bool, variants: list[Variant], seeds: list[int]) -> tuple[Cell, ...]:
    """All cells, the reference (the first shape, which no other may repeat) first.

    Every shape is trained for equal samples, all but the reference also for equal time. Variants are trained like the
    equal-samples cells of masked shapes: those with a larger batch, as in tables 1c, 1e and 1f, or all where there are
    none.

    Raises:
        ConfigError: there is no second shape or variant, a shape or seed is given twice, or tuning has no masked cell.
    """
    if not shapes or not seeds or len(set(shapes)) < len(shapes) or len(set(seeds)) < len(seeds):
        raise ConfigError("cells and seeds must be given, none of them twice; for example --cells 0x1 0.5x1 0.5x2")
    first: list[Cell] = [Cell(shape=shape, budget="samples") for shape in shapes]
    if equal_time:
        first += [Cell(shape=shape, budget="time") for shape in shapes[1:]]
    for variant in dict.fromkeys(variants):
        first += [Cell(shape=shape, budget="samples", variant=variant) for shape in _varied(shapes)]
    if len(first) < 2:
        raise ConfigError("one cell compares nothing; give a second one, as in --cells 0x1 0.5x1, or a variant")
    return tuple(replace(cell, seed=seed) for seed in seeds for cell in first)


def _varied(shapes: list[Shape]) -> list[Shape]:
    masked = [shape for shape in shapes if shape.mask_ratio > 0.0]
    return [shape for shape in masked if shape.multiple > shapes[0].multiple] or masked
