"""Partitions: their algebra, and their independence of everything but (seed, epoch, sample id)."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from unveil_masking import Grid, GridError, RandomMask, Strategy, UnitError, UnitMask, noise

IDS = np.array([11, -5, 2**45 + 3, 0, 77], dtype=np.int64)


@st.composite
def strategies_and_grids(draw) -> tuple[Strategy, Grid]:
    """A strategy with a grid it is legal on, never square by habit."""
    unit = draw(st.integers(1, 4))
    units = Grid(draw(st.integers(1, 6)), draw(st.integers(1, 6)))
    hidden = draw(st.integers(0, units.num - 1))
    # Rounding the ratio up could reach the next count: round the decimal down, then ceil gives exactly `hidden`.
    ratio = int(hidden / units.num * 1e6) / 1e6
    if unit == 1 and draw(st.booleans()):
        return RandomMask(ratio), units
    return UnitMask(unit, ratio), Grid(units.rows * unit, units.cols * unit)


@given(case=strategies_and_grids(), seed=st.integers(0, 2**64 - 1), epoch=st.integers(0, 2**32 - 1))
def test_a_partition_is_a_partition(case, seed, epoch):
    strategy, grid = case
    part = strategy.sample(grid, IDS, seed=seed, epoch=epoch)
    both = np.concatenate([part.keep, part.hidden], 1)
    everything = np.broadcast_to(np.arange(grid.num), both.shape)
    np.testing.assert_array_equal(np.sort(both, 1), everything)
    np.testing.assert_array_equal(np.take_along_axis(both, part.restore, 1), everything)
    assert (np.diff(part.keep, axis=1) > 0).all()
    assert (np.diff(part.hidden, axis=1) > 0).all()
    assert part.keep.dtype == part.hidden.dtype == part.restore.dtype == np.int64
    expected = np.zeros(both.shape, dtype=bool)
    np.put_along_axis(expected, part.hidden, values=True, axis=1)
    np.testing.assert_array_equal(part.mask, expected)
    assert part.mask.dtype == bool


@given(case=strategies_and_grids())
def test_counts_agree_everywhere(case):
    strategy, grid = case
    part = strategy.sample(grid, IDS, seed=1)
    assert part.hidden.shape == (len(IDS), strategy.num_hidden(grid))
    assert part.keep.shape == (len(IDS), part.num_kept)
    assert part.num_kept + part.num_hidden == grid.num
    assert part.num_kept >= 1
    assert part.ratio == strategy.realised_ratio(grid) == part.mask.mean()
    assert part.grid == grid


@given(case=strategies_and_grids(), order=st.permutations(range(len(IDS))), cut=st.integers(0, len(IDS)))
def test_a_mask_does_not_depend_on_batch_or_order(case, order, cut):
    strategy, grid = case
    whole = strategy.sample(grid, IDS, seed=3, epoch=2)
    for rows in (list(order[:cut]), list(order[cut:])):
        part = strategy.sample(grid, IDS[rows], seed=3, epoch=2)
        np.testing.assert_array_equal(part.keep, whole.keep[rows])
        np.testing.assert_array_equal(part.restore, whole.restore[rows])


def test_epochs_per_sample_equal_epochs_one_by_one():
    grid, epochs = Grid(6, 4), np.array([0, 1, 1, 5, 2**31])
    together = RandomMask(0.5).sample(grid, IDS, seed=8, epoch=epochs)
    for row, epoch in enumerate(epochs.tolist()):
        alone = RandomMask(0.5).sample(grid, IDS[row : row + 1], seed=8, epoch=epoch)
        np.testing.assert_array_equal(together.keep[row], alone.keep[0])


def test_seed_epoch_and_sample_each_change_the_mask():
    grid, mask = Grid(14, 14), RandomMask(0.75)
    base = mask.sample(grid, IDS, seed=0, epoch=0).keep
    assert (mask.sample(grid, IDS, seed=1, epoch=0).keep != base).any(1).all()
    assert (mask.sample(grid, IDS, seed=0, epoch=1).keep != base).any(1).all()
    assert len({tuple(row) for row in base.tolist()}) == len(IDS)


def test_random_mask_keeps_the_smallest_noise():
    grid = Grid(3, 5)
    part = RandomMask(0.6).sample(grid, IDS, seed=4, epoch=9)
    values = noise(4, 9, IDS, np.arange(grid.num))
    np.testing.assert_array_equal(part.keep, np.sort(np.argsort(values, 1)[:, :6], 1))


def test_unit_mask_hides_whole_units():
    grid = Grid(8, 12)
    mask = UnitMask(4, 0.5).sample(grid, IDS, seed=0).mask.reshape(len(IDS), 2, 4, 3, 4)
    share = mask.mean((2, 4))
    assert set(np.unique(share)) == {0.0, 1.0}
    np.testing.assert_array_equal(share.sum((1, 2)), 3)


def test_unit_mask_on_units_is_random_mask_on_the_coarse_grid():
    fine = UnitMask(3, 0.4).sample(Grid(9, 15), IDS, seed=6).mask.reshape(len(IDS), 9, 15)[:, ::3, ::3]
    coarse = RandomMask(0.4).sample(Grid(3, 5), IDS, seed=6).mask.reshape(len(IDS), 3, 5)
    np.testing.assert_array_equal(fine, coarse)


def test_every_token_is_hidden_equally_often():
    """4096 samples at 0.75: a token's frequency has standard deviation 0.0068; the bound is 0.03 (4.4 deviations)."""
    mask = RandomMask(0.75).sample(Grid(7, 7), np.arange(4096), seed=0).mask
    realised = RandomMask(0.75).realised_ratio(Grid(7, 7))
    assert np.abs(mask.mean(0) - realised).max() < 0.03


def test_two_epochs_overlap_as_two_independent_draws_do():
    """Hidden tokens shared by two independent draws of 147 of 196: 110.25 on average; mean of 4096, bound 0.3."""
    mask, ids = RandomMask(0.75), np.arange(4096)
    first, second = (mask.sample(Grid(14, 14), ids, seed=0, epoch=epoch).mask for epoch in (0, 1))
    assert abs((first & second).sum(1).mean() - 147 * 147 / 196) < 0.3


def test_an_empty_batch_stays_empty():
    part = UnitMask(2, 0.5).sample(Grid(4, 4), np.array([], dtype=np.int64), seed=0)
    assert (part.keep.shape, part.hidden.shape, part.mask.shape) == ((0, 8), (0, 8), (0, 16))


def test_a_partial_unit_is_refused_with_the_allowed_units():
    with pytest.raises(UnitError, match=r"unit=4\) does not tile a grid of 14×14.*: 1, 2, 7, 14\."):
        UnitMask(4, 0.6).sample(Grid(14, 14), IDS, seed=0)
    with pytest.raises(UnitError, match="Units allowed on this grid: 1, 2, 4"):
        UnitMask(8, 0.6).num_hidden(Grid(8, 12))


@pytest.mark.parametrize("unit", [0, -2, 1.5, True, "4"])
def test_an_impossible_unit_is_refused(unit):
    with pytest.raises(UnitError, match="is not a positive int"):
        UnitMask(unit, 0.5)


@pytest.mark.parametrize("sides", [(0, 3), (3, -1), (2.0, 2), (True, 4), (2**16, 2**16)])
def test_an_impossible_grid_is_refused(sides):
    with pytest.raises(GridError):
        Grid(*sides)


def test_descriptions_are_json_and_tell_strategies_apart():
    assert RandomMask(0.75).describe() == {
        "strategy": "random",
        "ratio": 0.75,
        "rounding": "floor_keep",
        "unit": 1,
        "share": "sample",
    }
    described = UnitMask(8, 0.6).describe()
    assert json.loads(json.dumps(described)) == described
    assert described == {"strategy": "unit", "ratio": 0.6, "rounding": "ceil_hidden", "unit": 8, "share": "sample"}


def test_strategies_are_values():
    assert RandomMask(0.75) == RandomMask(0.75)
    assert len({UnitMask(2, 0.5), UnitMask(2, 0.5), UnitMask(4, 0.5)}) == 2
    with pytest.raises(AttributeError):
        RandomMask(0.75).ratio = 0.5
