"""The edges of every strategy: nothing hidden, all but one token hidden, odd and very large grids, illegal input."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from unveil_masking import (
    BlockMask,
    CountError,
    FrameMask,
    Grid,
    GridError,
    GridMask,
    GuidedMask,
    InverseBlockMask,
    KeyArrayError,
    MultiBlockMask,
    RandomMask,
    RatioError,
    RatioRange,
    ScoreError,
    SplitMask,
    TubeMask,
    UnitError,
    UnitMask,
)

IDS = np.arange(5)


def sample(strategy, grid: Grid, ids: np.ndarray = IDS):
    if not isinstance(strategy, GuidedMask):
        return strategy.sample(grid, ids, seed=0)
    scores = np.random.default_rng(0).normal(size=(len(ids), grid.num))
    return strategy.sample(grid, ids, seed=0, scores=scores)


BY_RATIO = {
    "random": RandomMask,
    "unit": lambda ratio: UnitMask(1, ratio),
    "tube": TubeMask,
    "block, exact": lambda ratio: BlockMask(ratio, exact=True, min_block=2),
    "inverse block": InverseBlockMask,
    "inverse block in place": lambda ratio: InverseBlockMask(ratio, roll=False),
    "guided": GuidedMask,
    "guided by chance": lambda ratio: GuidedMask(ratio, "gumbel", easy=0.5),
    "guided, lowest": lambda ratio: GuidedMask(ratio, easy=0.5, easy_from="lowest"),
    "range": lambda ratio: RatioRange(RandomMask(0), ratio, ratio),
    "range of blocks": lambda ratio: RatioRange(BlockMask(exact=True), ratio, ratio),
}
GRIDS = [Grid(4, 4), Grid(3, 7), Grid(1, 9), Grid(9, 1), Grid(1, 1), Grid(2, 50)]


@pytest.mark.parametrize("make", BY_RATIO.values(), ids=BY_RATIO)
@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_a_ratio_of_0_hides_nothing_and_the_largest_all_but_one(make, grid):
    assert sample(make(0), grid).num_hidden == 0
    rounds_up = make(0.5).num_hidden(Grid(1, 3)) == 2
    exact = (grid.num - 1) / grid.num * 1e6
    largest = (int(exact) if rounds_up else math.ceil(exact)) / 1e6
    part = sample(make(largest), grid)
    assert part.num_kept == 1
    assert (part.mask.sum(1) == grid.num - 1).all()
    if rounds_up:
        with pytest.raises(RatioError, match=f"at most {grid.num - 1}/{grid.num}"):
            sample(make(largest + 1e-6), grid)


@given(
    rows=st.integers(1, 12),
    cols=st.integers(1, 12),
    share=st.integers(0, 999),
    name=st.sampled_from(sorted(BY_RATIO)),
)
def test_counts_on_any_grid_at_any_ratio(rows, cols, share, name):
    grid, ratio = Grid(rows, cols), share / 1000
    strategy = BY_RATIO[name](ratio)
    try:
        expected = strategy.num_hidden(grid)
    except RatioError:
        assert grid.num * ratio > grid.num - 1
        return
    part = sample(strategy, grid)
    assert part.num_hidden == expected
    assert (part.mask.sum(1) == expected).all()
    assert abs(expected - grid.num * ratio) < 1


@pytest.mark.parametrize(
    "strategy",
    [
        BlockMask(),
        BlockMask(0.9, min_block=1, min_aspect=1),
        BlockMask(0.5, min_block=200),
        BlockMask(0.5, max_aspect=16, min_aspect=1 / 16),
        MultiBlockMask(),
        MultiBlockMask(1, (1e-6, 1e-6), min_context=1),
        MultiBlockMask(9, (1, 1), (1, 1), (1, 1), (1, 1)),
        MultiBlockMask(2, (0.5, 1), (1 / 16, 16), (0.1, 0.2), (1 / 16, 16), sizes="batch"),
        RatioRange(BlockMask(), 0, 0.999),
        RatioRange(RandomMask(0), 0, 0.999, masked=0.01),
        GridMask(3),
        GridMask(50),
        SplitMask(),
    ],
    ids=str,
)
@pytest.mark.parametrize("grid", [*GRIDS, Grid(40, 3), Grid(5, 70)], ids=str)
def test_on_any_grid_the_counts_are_within_their_bounds(strategy, grid):
    fewest, most = strategy.hidden_range(grid)
    part = strategy.sample(grid, np.arange(200), seed=0)
    assert 0 <= fewest <= part.mask.sum(1).min()
    assert part.mask.sum(1).max() <= most < grid.num
    assert part.counts.max() <= part.most_kept <= grid.num


LARGE = [
    RandomMask(0.75),
    UnitMask(8, 0.6),
    GridMask(2),
    SplitMask(),
    BlockMask(),
    BlockMask(0.5, exact=True),
    InverseBlockMask(),
    MultiBlockMask(),
    RatioRange(RandomMask(0)),
    RatioRange(BlockMask(exact=True)),
    GuidedMask(0.75),
    GuidedMask(0.75, "gumbel", easy=0.2),
    TubeMask(0.9),
    FrameMask(0.0),
]


@pytest.mark.parametrize("strategy", LARGE, ids=str)
def test_very_large_grids(strategy):
    grid = Grid(512, 512)
    part = sample(strategy, grid, np.arange(2))
    fewest, most = strategy.hidden_range(grid)
    assert (fewest <= part.mask.sum(1)).all()
    assert (part.mask.sum(1) <= most).all()
    np.testing.assert_array_equal(np.take_along_axis(part.order, part.restore, 1)[0], np.arange(grid.num))


WRONG = [
    (lambda: BlockMask(1.0), RatioError, r"ratio=1.0 is not a number in \[0, 1\)"),
    (lambda: BlockMask(min_block=0), UnitError, "min_block=0 is not a positive int"),
    (lambda: BlockMask(max_block=2.5), UnitError, "max_block=2.5 is not a positive int"),
    (lambda: BlockMask(min_block=20, max_block=10), UnitError, "max_block=10 is below min_block=20"),
    (lambda: BlockMask(min_aspect=0.01), UnitError, "between 1/16 and 16"),
    (lambda: BlockMask(min_aspect=2, max_aspect=1), UnitError, "from 2 to 1 are not allowed"),
    (lambda: BlockMask(share="all"), KeyArrayError, "share='all' is unknown. Allowed: sample, clip, batch"),
    (lambda: BlockMask(0.99999, "ceil_hidden").hidden_range(Grid(3, 3)), RatioError, "at most 8/9"),
    (lambda: sample(BlockMask(), Grid(3, 3, 2)), GridError, 'BlockMask draws .* 2 temporal slots. Use share="clip"'),
    (lambda: BlockMask().num_hidden(Grid(14, 14)), CountError, "between 0 and 75 of 196"),
    (lambda: InverseBlockMask(-0.1), RatioError, r"ratio=-0.1 is not a number in \[0, 1\)"),
    (lambda: InverseBlockMask(0.5, "up"), RatioError, "rounding='up' is unknown"),
    (lambda: InverseBlockMask(min_aspect=3), UnitError, "from 3 to 0.33"),
    (lambda: InverseBlockMask(min_aspect="1"), UnitError, "aspects from '1' to None"),
    (lambda: BlockMask(min_aspect=0), UnitError, "aspects from 0 to None"),
    (lambda: InverseBlockMask(share=0), KeyArrayError, "Allowed: sample, clip, batch"),
    (lambda: sample(InverseBlockMask(), Grid(3, 3, 2)), GridError, 'Use share="clip"'),
    (lambda: MultiBlockMask(0), UnitError, "num_targets=0 is not a positive int"),
    (lambda: MultiBlockMask(min_context=0), UnitError, "min_context=0 is not a positive int"),
    (lambda: MultiBlockMask(target_area=0.2), UnitError, r"target_area=0.2 is not a pair"),
    (lambda: MultiBlockMask(target_area=(0.0, 0.2)), UnitError, "areas from 0.0 to 0.2 .* above 0 and at most 1"),
    (lambda: MultiBlockMask(context_area=(0.9, 1.1)), UnitError, "areas from 0.9 to 1.1"),
    (lambda: MultiBlockMask(target_aspect=(1.5, 0.75)), UnitError, "aspects from 1.5 to 0.75"),
    (lambda: MultiBlockMask(sizes="clip"), KeyArrayError, "sizes='clip' is unknown. Allowed: sample, batch"),
    (lambda: sample(MultiBlockMask(), Grid(3, 3, 2)), GridError, 'Use share="clip"'),
    (lambda: MultiBlockMask().targets(Grid(3, 3, 2), IDS, seed=0), GridError, 'Use share="clip"'),
    (lambda: RatioRange(UnitMask(2, 0.5)), CountError, "UnitMask cannot .* Allowed: RandomMask, BlockMask"),
    (lambda: RatioRange(RandomMask(0, share="clip")), KeyArrayError, "share='clip'. Leave it out there"),
    (lambda: RatioRange(RandomMask(0), 0.5, 0.1), RatioError, "low=0.5 is above high=0.1"),
    (lambda: RatioRange(RandomMask(0), 0.5, 1), RatioError, r"not a number in \[0, 1\)"),
    (lambda: RatioRange(RandomMask(0), masked=0), RatioError, r"masked=0 is not a number in \(0, 1\]"),
    (lambda: RatioRange(RandomMask(0), spread="even"), KeyArrayError, "Allowed: batch, sample"),
    (lambda: sample(RatioRange(BlockMask()), Grid(3, 3, 2)), GridError, 'Use share="clip"'),
    (lambda: GuidedMask(1), RatioError, r"ratio=1 is not a number in \[0, 1\)"),
    (lambda: GuidedMask(0.5, "best"), ScoreError, "choice='best' is unknown. Allowed: top, gumbel"),
    (lambda: GuidedMask(0.5, temperature=0), RatioError, r"temperature=0 is not a number in \[1e-06, 1000000.0\]"),
    (lambda: GuidedMask(0.5, easy=1.5), RatioError, r"easy=1.5 is not a number in \[0, 1\]"),
    (lambda: GuidedMask(0.5, easy_from="any"), ScoreError, "Allowed: lowest, random"),
    (lambda: GridMask(0), UnitError, "cell=0 is not a positive int"),
    (lambda: GridMask(2, "free"), KeyArrayError, "phase='free' is unknown. Allowed: sample, fixed"),
    (lambda: sample(GridMask(2), Grid(3, 3, 2)), GridError, 'Use share="clip"'),
    (lambda: FrameMask(0.5, share="clip"), KeyArrayError, "Allowed: sample, batch"),
    (lambda: FrameMask(0.9, "ceil_hidden").hidden_range(Grid(3, 3, 4)), RatioError, "hides all 4 units"),
    (lambda: TubeMask(0.99, "ceil_hidden").hidden_range(Grid(3, 3, 4)), RatioError, "at most 8/9"),
    (lambda: SplitMask(share="no"), KeyArrayError, "Allowed: sample, clip, batch"),
    (lambda: RandomMask(0.5, share=None), KeyArrayError, "Allowed: sample, clip, batch"),
    (lambda: UnitMask(2, 0.5).hidden_range(Grid(4, 5)), UnitError, "Units allowed on this grid: 1"),
]


@pytest.mark.parametrize(("call", "error", "message"), WRONG)
def test_illegal_input_is_a_named_error_with_what_is_allowed(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_bad_keys_are_refused_by_every_strategy(case):
    for ids in ([1, 2], np.array([0.5]), np.array([[1]]), None):
        with pytest.raises(KeyArrayError, match="sample_ids"):
            case.strategy.sample(case.grid, ids, seed=0)
    with pytest.raises(KeyArrayError, match="seed=-1"):
        case.strategy.sample(case.grid, IDS, seed=-1)
    with pytest.raises(KeyArrayError, match="epoch=-1"):
        case.strategy.sample(case.grid, IDS, seed=0, epoch=-1)


def test_an_empty_batch_stays_empty(case):
    part = case.strategy.sample(case.grid, np.array([], dtype=np.int64), seed=0)
    assert part.mask.shape == part.order.shape == (0, case.grid.num)
    assert part.counts.shape == (0,)
