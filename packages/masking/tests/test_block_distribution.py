"""Rectangles against the papers' definitions, written here as plain loops over Python's own generator.

Two samples of 2,000 masks are compared by the Kolmogorov-Smirnov distance of a number computed from each mask. Equal
distributions exceed 0.062 with probability 0.001 (1.95 · √(2 / 2000)); seeds are fixed. Each comparison is shown to
tell a changed strategy from the definition.
"""

import math
import random
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from unveil_masking import BlockMask, Grid, InverseBlockMask, MultiBlockMask
from unveil_masking._blocks import AspectRange, ShareRange, area_bits, covering_sides, sides
from unveil_masking._fixed_point import exp, log_of

NUM = 2000
IDS = np.arange(NUM)
CRITICAL = 1.95 * math.sqrt(2 / NUM)


def distance(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Kolmogorov-Smirnov distance of two samples."""
    points = np.unique(np.concatenate([ours, theirs]))
    ranks = [np.searchsorted(np.sort(side), points, side="right") / len(side) for side in (ours, theirs)]
    return float(np.abs(ranks[0] - ranks[1]).max())


def hidden_tokens(mask: np.ndarray) -> np.ndarray:
    return mask.sum((1, 2))


def vertical_edges(mask: np.ndarray) -> np.ndarray:
    """Neighbours in a column of which one is hidden: few for high blocks."""
    return (mask[:, 1:] != mask[:, :-1]).sum((1, 2))


def horizontal_edges(mask: np.ndarray) -> np.ndarray:
    return (mask[:, :, 1:] != mask[:, :, :-1]).sum((1, 2))


def hidden_at_the_border(mask: np.ndarray) -> np.ndarray:
    return mask[:, [0, -1]].sum((1, 2)) + mask[:, :, [0, -1]].sum((1, 2))


def visible_rows(mask: np.ndarray) -> np.ndarray:
    return (~mask).any(2).sum(1)


def visible_cols(mask: np.ndarray) -> np.ndarray:
    return (~mask).any(1).sum(1)


def largest_distance(strategy, grid: Grid, theirs: np.ndarray, numbers: list[Callable]) -> float:
    ours = strategy.sample(grid, IDS, seed=0).mask.reshape(NUM, grid.rows, grid.cols)
    return max(distance(number(ours), number(theirs)) for number in numbers)


def beit(rows: int, cols: int, wanted: int, smallest: int, aspect: float, draw: random.Random) -> np.ndarray:
    """BEiT, algorithm 1, with the ten attempts and the log-uniform aspect of its code."""
    mask = np.zeros((rows, cols), dtype=bool)
    failures = 0
    while (rest := wanted - int(mask.sum())) > 0 and failures < 10:
        area = draw.uniform(smallest, rest)
        ratio = math.exp(draw.uniform(math.log(aspect), -math.log(aspect)))
        height, width = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        failures += 1
        if height >= rows or width >= cols:
            continue
        top, left = draw.randint(0, rows - height), draw.randint(0, cols - width)
        block = np.zeros_like(mask)
        block[top : top + height, left : left + width] = True
        if 0 < (block & ~mask).sum() <= rest:
            mask |= block
            failures = 0
    return mask


BEIT_NUMBERS = [hidden_tokens, vertical_edges, horizontal_edges, hidden_at_the_border]


@pytest.mark.parametrize(
    ("grid", "ratio", "smallest", "aspect"), [(Grid(14, 14), 0.383, 16, 0.3), (Grid(8, 20), 0.5, 4, 0.5)], ids=str
)
def test_blocks_are_those_of_beit(grid, ratio, smallest, aspect):
    draw = random.Random(1)
    wanted = BlockMask(ratio).hidden_range(grid)[1]
    theirs = np.stack([beit(grid.rows, grid.cols, wanted, smallest, aspect, draw) for _ in range(NUM)])
    strategy = BlockMask(ratio, min_block=smallest, min_aspect=aspect)
    assert largest_distance(strategy, grid, theirs, BEIT_NUMBERS) < CRITICAL
    for changed in (
        BlockMask(ratio, min_block=2 * smallest, min_aspect=aspect),
        BlockMask(ratio, min_block=smallest, min_aspect=0.8),
        BlockMask(ratio, min_block=smallest, max_block=30, min_aspect=aspect),
        BlockMask(ratio, min_block=smallest, min_aspect=aspect, max_aspect=1),
    ):
        assert largest_distance(changed, grid, theirs, BEIT_NUMBERS) > CRITICAL


def test_blocks_with_an_exact_count_are_completed_at_random():
    """DINOv3: what blocks leave open is hidden token by token; the blocks are those without `exact`."""
    ids, grid = np.arange(500), Grid(14, 14)
    blocks = BlockMask(0.4, min_block=4).sample(grid, ids, seed=3).mask
    exact = BlockMask(0.4, min_block=4, exact=True).sample(grid, ids, seed=3).mask
    assert (exact.sum(1) == 78).all()
    assert (exact | ~blocks).all()
    added = (exact & ~blocks).sum(1)
    assert added.max() > 0
    assert (added == 78 - blocks.sum(1)).all()


def test_hardly_any_sample_needs_more_attempts_than_it_has():
    """Stopped by their attempts, samples would be short of tokens and not have failed ten times: none of 100,000."""
    for grid, strategy in ((Grid(14, 14), BlockMask()), (Grid(16, 16), BlockMask(0.5, min_block=4))):
        assert attempts_needed(strategy, grid, 50_000) < 64


def attempts_needed(strategy: BlockMask, grid: Grid, batch: int) -> int:
    """The largest number of attempts, a multiple of 8, after which some sample is not done."""
    asked: list[int] = []

    class Watched(BlockMask):
        def _attempts(self, grid, state, words):
            asked.append(len(words))
            return BlockMask._attempts(self, grid, state, words)

    Watched(*(getattr(strategy, name) for name in BlockMask.__slots__)).sample(grid, np.arange(batch), seed=0)
    return 8 * len(asked)


def capi(rows: int, cols: int, visible: int, *, roll: bool, draw: random.Random) -> np.ndarray:
    """CAPI's visible rectangle: the smallest that holds the tokens, its last tokens cut off, rolled."""
    low, high = max(0.5, visible / cols**2), min(2.0, rows**2 / visible)
    aspect = math.exp(draw.uniform(math.log(low), math.log(high)))
    height, width = math.ceil(math.sqrt(visible * aspect)), math.ceil(math.sqrt(visible / aspect))
    top, left = draw.randint(0, rows - height), draw.randint(0, cols - width)
    inside = [row * cols + col for row in range(top, top + height) for col in range(left, left + width)]
    mask = np.ones(rows * cols, dtype=bool)
    mask[inside[:visible]] = False
    mask = mask.reshape(rows, cols)
    if roll:
        mask = np.roll(mask, (draw.randrange(rows), draw.randrange(cols)), (0, 1))
    return mask


CAPI_NUMBERS = [hidden_tokens, visible_rows, visible_cols, vertical_edges, horizontal_edges, hidden_at_the_border]


@pytest.mark.parametrize("grid", [Grid(16, 16), Grid(12, 18)], ids=str)
@pytest.mark.parametrize("roll", [True, False])
def test_the_visible_rectangle_is_capis(grid, roll):
    draw = random.Random(2)
    visible = grid.num - InverseBlockMask().num_hidden(grid)
    theirs = np.stack([capi(grid.rows, grid.cols, visible, roll=roll, draw=draw) for _ in range(NUM)])
    assert largest_distance(InverseBlockMask(roll=roll), grid, theirs, CAPI_NUMBERS) < CRITICAL
    assert largest_distance(InverseBlockMask(roll=not roll), grid, theirs, CAPI_NUMBERS) > CRITICAL
    assert largest_distance(InverseBlockMask(roll=roll, min_aspect=0.9), grid, theirs, CAPI_NUMBERS) > CRITICAL


def test_with_a_roll_every_token_is_visible_equally_often():
    """10,000 samples: a frequency has a standard deviation below 0.005; the bound is 0.022. Not so without a roll."""
    ids, grid = np.arange(10_000), Grid(16, 16)
    frequency = (~InverseBlockMask().sample(grid, ids, seed=4).mask).mean(0)
    assert np.abs(frequency - 90 / 256).max() < 0.022
    in_place = (~InverseBlockMask(roll=False).sample(grid, ids, seed=4).mask).mean(0)
    assert np.abs(in_place - 90 / 256).max() > 0.2


def ijepa(rows: int, cols: int, draw: random.Random) -> tuple[list[np.ndarray], np.ndarray]:
    """I-JEPA's four targets, of one size, and the context block; no sample of these grids gives up avoiding them."""

    def sides_of(area: tuple[float, float], aspect: tuple[float, float]) -> tuple[int, int]:
        tokens, ratio = draw.uniform(*area) * rows * cols, draw.uniform(*aspect)
        return round(math.sqrt(tokens * ratio)), round(math.sqrt(tokens / ratio))

    def place(height: int, width: int) -> np.ndarray:
        top, left = draw.randint(0, rows - height), draw.randint(0, cols - width)
        block = np.zeros((rows, cols), dtype=bool)
        block[top : top + height, left : left + width] = True
        return block

    size = sides_of((0.15, 0.2), (0.75, 1.5))
    targets = [place(*size) for _ in range(4)]
    return targets, place(*sides_of((0.85, 1.0), (1.0, 1.0)))


IJEPA_NUMBERS = [hidden_tokens, vertical_edges, horizontal_edges, hidden_at_the_border]


@pytest.mark.parametrize("grid", [Grid(14, 14), Grid(16, 16)], ids=str)
def test_contexts_and_targets_are_those_of_ijepa(grid):
    draw = random.Random(3)
    drawn = [ijepa(grid.rows, grid.cols, draw) for _ in range(NUM)]
    contexts = np.stack([~context | np.logical_or.reduce(targets) for targets, context in drawn])
    assert largest_distance(MultiBlockMask(), grid, contexts, IJEPA_NUMBERS) < CRITICAL
    for changed in (MultiBlockMask(3), MultiBlockMask(target_aspect=(1.4, 1.5)), MultiBlockMask(context_area=(0.6, 1))):
        assert largest_distance(changed, grid, contexts, IJEPA_NUMBERS) > CRITICAL
    theirs = np.stack([targets[3] for targets, _ in drawn])
    ours = MultiBlockMask().targets(grid, IDS, seed=0)[:, 3].reshape(NUM, grid.rows, grid.cols)
    for number in IJEPA_NUMBERS:
        assert distance(number(ours), number(theirs)) < CRITICAL
    changed = MultiBlockMask(target_area=(0.15, 0.16)).targets(grid, IDS, seed=0)[:, 3]
    assert distance(changed.sum(1), hidden_tokens(theirs)) > CRITICAL


@pytest.mark.parametrize("low", [0.3, 1 / 16])
def test_aspects_are_the_same_digits_in_torch(low):
    """Also beyond 1 : 55, where the product of a word and the range has more than 63 bits."""
    torch = pytest.importorskip("torch")
    drawn = np.array([0, 1, 2**16 - 1, 2**16, 3_098_164_011, 2**32 - 1])
    found = AspectRange(low, 1 / low).roots(drawn)
    assert found.tolist() == AspectRange(low, 1 / low).roots(torch.from_numpy(drawn)).tolist()
    first, last = (log_of(aspect) >> 1 for aspect in (low, 1 / low))
    exact = [first + (word * (last - first) >> 32) for word in drawn.tolist()]  # Python's integers have all the bits
    assert found.tolist() == exp(np.array(exact)).tolist()


words = st.integers(0, 2**32 - 1)


@given(word=words, low=st.floats(1 / 16, 16), high=st.floats(1 / 16, 16))
@example(word=3_098_164_011, low=1 / 16, high=16.0)
@example(word=2**32 - 1, low=1 / 16, high=16.0)
def test_aspects_follow_their_formulas(word, low, high):
    low, high = sorted((low, high))
    drawn, share = np.array([word]), word / 2**32
    log_uniform = AspectRange(low, high).roots(drawn)[0] / 2**30
    assert log_uniform == pytest.approx(math.sqrt(low ** (1 - share) * high**share), rel=1e-5)
    uniform = AspectRange(low, high).uniform_roots(drawn)[0] / 2**30
    assert uniform == pytest.approx(math.sqrt(low + (high - low) * share), rel=1e-5)


@given(word=words, rows=st.integers(2, 600), cols=st.integers(2, 600), aspect=st.floats(1 / 16, 16))
def test_sides_follow_their_formulas(word, rows, cols, aspect):
    grid = Grid(rows, cols)
    area = ShareRange(0.1, 0.9).areas(grid, np.array([word]))
    tokens = area[0] / 2 ** area_bits(grid)
    assert tokens == pytest.approx((0.1 + 0.8 * word / 2**32) * grid.num, rel=1e-6)
    root = np.array([round(math.sqrt(aspect) * 2**30)])
    height, width = (int(side[0]) for side in sides(grid, area, root))
    assert abs(height - math.sqrt(tokens * aspect)) < 0.5001
    assert abs(width - math.sqrt(tokens / aspect)) < 0.5001


@given(rows=st.integers(1, 80), cols=st.integers(1, 80), share=st.floats(0, 1), aspect=st.floats(1 / 16, 16))
def test_covering_rectangles_fit_and_hold_the_tokens(rows, cols, share, aspect):
    grid = Grid(rows, cols)
    num = max(1, round(share * grid.num))
    roots = np.array([round(math.sqrt(aspect) * 2**30)])
    height, width = (int(side[0]) for side in covering_sides(grid, num, roots))
    assert height <= rows
    assert width <= cols
    assert height * width >= num
    if math.sqrt(num * aspect) <= rows - 1 and math.sqrt(num / aspect) <= cols - 1:
        assert 0 <= height - math.sqrt(num * aspect) < 1.0001
        assert -0.0001 <= width - math.sqrt(num / aspect) < 1.0001
