"""Multi-block masking: a context block less several target blocks, as in I-JEPA (arXiv:2301.08243, section 3)."""

import math
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, get_args

from unveil_masking._arrays import library
from unveil_masking._base import Share, Strategy, batch_key, check_share
from unveil_masking._blocks import AspectRange, ShareRange, check_image, num_true, offset, rectangle, sides
from unveil_masking._noise import noise_range
from unveil_masking.errors import KeyArrayError, UnitError
from unveil_masking.grid import Grid

__all__ = ["BlockSizes", "MultiBlockMask"]

Array = TypeVar("Array")

BlockSizes = Literal["sample", "batch"]
"""Who shares the sizes of the blocks: nobody, or a batch, whose sizes are keyed as `Share` says; places differ."""

_SLACK = 1e-4  # bounds of counts are of floats, blocks of integers: a side may round the other way
_SIZE_WORDS = 4  # area and aspect of the targets, then of the context


@dataclass(frozen=True, slots=True)
class MultiBlockMask(Strategy):
    """Keep one large block less `num_targets` smaller ones, whose tokens are to be predicted; `targets` has those.

    Areas are drawn uniformly between two shares of the grid, height / width uniformly between two aspects, and places
    uniformly within the grid; targets may overlap each other. The targets of a sample have one size, as in I-JEPA's
    code. All that is not kept is hidden: the targets, and what lies outside the context block.

    Samples keep unequal numbers of tokens: use `pack`, or the mask. Nothing is cut to the batch's minimum, as I-JEPA's
    code does. Should fewer than `min_context` tokens remain of a context, it no longer avoids its last target, nor the
    one before if need be, and so on: I-JEPA's code gives in likewise, after 20 attempts at each. On grids too small
    for the areas a block has one token at least. On a grid of one row or column blocks are runs.

    Differences from I-JEPA's code, on purpose: area and aspect are two draws instead of one, and a block may touch the
    grid's last row and column.

    Raises:
        UnitError: counts, areas or aspects out of range.
        KeyArrayError: unknown `sizes` or way of sharing.
        GridError: (on sampling) a grid with several temporal slots, unless `share="clip"`.
    """

    num_targets: int = 4
    """Number of target blocks, at least 1."""
    target_area: tuple[float, float] = (0.15, 0.2)
    """Smallest and largest share of the grid that a target covers, in (0, 1]."""
    target_aspect: tuple[float, float] = (0.75, 1.5)
    """Smallest and largest height / width of a target, in [1/16, 16]."""
    context_area: tuple[float, float] = (0.85, 1.0)
    """Smallest and largest share of the grid that the context block covers, in (0, 1]."""
    context_aspect: tuple[float, float] = (1.0, 1.0)
    """Smallest and largest height / width of the context block, in [1/16, 16]."""
    min_context: int = 10
    """Tokens that a context should keep, at least 1; fewer only where the context block itself has fewer."""
    sizes: BlockSizes = "sample"
    """Who shares the blocks' sizes, see `BlockSizes`; "batch" is I-JEPA's code."""
    share: Share = "sample"
    """Who shares a mask, see `Share`."""

    def __post_init__(self) -> None:
        for name, count in (("num_targets", self.num_targets), ("min_context", self.min_context)):
            if not isinstance(count, int) or isinstance(count, bool) or count < 1:
                raise UnitError(
                    f"{name}={count!r} is not a positive int. I-JEPA has 4 targets and a min_context of 10."
                )
        for name, pair in (
            ("target_area", self.target_area),
            ("target_aspect", self.target_aspect),
            ("context_area", self.context_area),
            ("context_aspect", self.context_aspect),
        ):
            if not isinstance(pair, tuple) or len(pair) != 2:
                raise UnitError(
                    f"{name}={pair!r} is not a pair. Give the smallest and the largest, such as (0.15, 0.2)."
                )
        self._kinds()  # which checks the numbers
        if self.sizes not in get_args(BlockSizes):
            raise KeyArrayError(f"sizes={self.sizes!r} is unknown. Allowed: {', '.join(get_args(BlockSizes))}.")
        check_share(self.share)

    def targets(self, grid: Grid, sample_ids: Array, *, seed: int, epoch: int | Array = 0) -> Array:
        """Bool [b, num_targets, n], True on the tokens of each target block of the masks that `sample` gives.

        Arguments and errors are those of `sample`.
        """
        self.hidden_range(grid)

        def draw(layout: Grid, ids: Any, seed: int, epoch: Any) -> Any:
            return self._blocks(layout, ids, seed, epoch)[0]

        return self._masks(draw, grid, sample_ids, seed, epoch)

    def describe(self) -> dict[str, str | int | float]:
        """A JSON-able record of the strategy."""
        return {
            "strategy": "multi_block",
            "num_targets": self.num_targets,
            "min_target_area": self.target_area[0],
            "max_target_area": self.target_area[1],
            "min_target_aspect": self.target_aspect[0],
            "max_target_aspect": self.target_aspect[1],
            "min_context_area": self.context_area[0],
            "max_context_area": self.context_area[1],
            "min_context_aspect": self.context_aspect[0],
            "max_context_aspect": self.context_aspect[1],
            "min_context": self.min_context,
            "sizes": self.sizes,
            "share": self.share,
        }

    def _kinds(self) -> tuple["_Kind", "_Kind"]:
        """Targets and contexts."""
        return (
            _Kind(ShareRange(*self.target_area), AspectRange(*self.target_aspect)),
            _Kind(ShareRange(*self.context_area), AspectRange(*self.context_aspect)),
        )

    def _hidden_range(self, grid: Grid) -> tuple[int, int]:
        """Bounds of the number of hidden tokens, which need not be attained."""
        check_image(self, grid)
        (smallest_target, largest_target), (smallest_context, largest_context) = (
            kind.num_tokens(grid) for kind in self._kinds()
        )
        least = min(self.min_context, smallest_context)  # what a context keeps in any case
        avoids_one = smallest_context - largest_target >= self.min_context
        fewest = max(grid.num - largest_context, smallest_target if avoids_one else 0)
        return fewest, grid.num - max(least, smallest_context - self.num_targets * largest_target)

    def _draw(self, grid: Grid, sample_ids: Any, seed: int, epoch: Any) -> Any:
        targets, visible = self._blocks(grid, sample_ids, seed, epoch)
        xp: Any = library(visible)
        enough = num_true(visible).clip(max=self.min_context)
        avoids = enough > 0
        for number in range(self.num_targets):
            fewer = visible & ~targets[:, number]
            avoids = avoids & (num_true(fewer) >= enough)
            visible = xp.where(avoids[:, None], fewer, visible)
        return ~visible

    def _blocks(self, grid: Grid, sample_ids: Any, seed: int, epoch: Any) -> tuple[Any, Any]:
        """Targets [b, num_targets, n] and the context block [b, n], True on their tokens."""
        num_words = _SIZE_WORDS + 2 * (self.num_targets + 1)
        words: Any = noise_range(seed, epoch, sample_ids, num_words)
        size = words
        if self.sizes == "batch" and len(sample_ids):
            one_id, _, one_epoch = batch_key(sample_ids, epoch, seed)
            size = noise_range(seed, one_epoch, one_id, _SIZE_WORDS) + 0 * words[:, :_SIZE_WORDS]
        places = words[:, _SIZE_WORDS:].reshape(-1, self.num_targets + 1, 2)
        target, context = self._kinds()
        targets = target.place(grid, size[:, 0:2], places[:, 1:])
        return targets, context.place(grid, size[:, 2:4], places[:, :1])[:, 0]


@dataclass(frozen=True, slots=True)
class _Kind:
    """Targets or contexts: the ranges that their blocks are drawn from."""

    area: ShareRange
    aspect: AspectRange

    def place(self, grid: Grid, size: Any, places: Any) -> Any:
        """Bool [b, m, n] from the words of a size [b, 2] and of m places [b, m, 2]."""
        height, width = sides(
            grid, self.area.areas(grid, size[:, 0, None]), self.aspect.uniform_roots(size[:, 1, None])
        )
        height, width = height.clip(1, grid.rows), width.clip(1, grid.cols)
        top, left = offset(places[..., 0], grid.rows - height), offset(places[..., 1], grid.cols - width)
        return rectangle(grid, top, left, height, width).reshape(*places.shape[:2], grid.num)

    def num_tokens(self, grid: Grid) -> tuple[int, int]:
        """Bounds of the number of tokens of one block."""
        smallest, largest = self.area.low * grid.num, self.area.high * grid.num
        if 1 in (grid.rows, grid.cols):
            runs = math.floor(smallest + 0.5 - _SLACK), math.floor(largest + 0.5 + _SLACK)
            return min(max(runs[0], 1), grid.num), min(max(runs[1], 1), grid.num)
        low, high = self.aspect.low, self.aspect.high
        least = _sides(grid, math.sqrt(smallest * low), math.sqrt(smallest / high), -_SLACK)
        most = _sides(grid, math.sqrt(largest * high), math.sqrt(largest / low), _SLACK)
        return least[0] * least[1], most[0] * most[1]


def _sides(grid: Grid, height: float, width: float, slack: float) -> tuple[int, int]:
    rounded = math.floor(height + 0.5 + slack), math.floor(width + 0.5 + slack)
    return min(max(rounded[0], 1), grid.rows), min(max(rounded[1], 1), grid.cols)
