"""Coefficients, ranks, resamples and influence against scipy, against each other and by hand."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy
from scipy import stats
from unveil_evalharness.published import read_published
from unveil_evalharness.statistics.coefficients import (
    coefficients,
    coefficients_of_counts,
    kendall,
    pearson,
    slope,
    spearman,
)
from unveil_evalharness.statistics.influence import influences, standard_errors
from unveil_evalharness.statistics.ranks import concordance, midranks, num_below
from unveil_evalharness.statistics.resampling import draw_counts, draw_group_counts, leave_out_counts

tied_columns = st_numpy.arrays(
    np.float64, st.tuples(st.just(2), st.integers(3, 14)), elements=st.integers(-3, 3).map(float)
)


@settings(deadline=None, max_examples=25)
@given(tied_columns)
def test_coefficients_and_ranks_equal_scipys_with_ties(columns: np.ndarray) -> None:
    x, y = columns
    assert midranks(x) == pytest.approx(stats.rankdata(x))
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return
    expected = [
        stats.pearsonr(x, y).statistic, stats.spearmanr(x, y).statistic,
        stats.kendalltau(x, y).statistic, stats.linregress(x, y).slope,
    ]  # fmt: skip
    assert [pearson(x, y), spearman(x, y), kendall(x, y), slope(x, y)] == pytest.approx(expected, abs=1e-12)
    assert coefficients(x, y) == pytest.approx(expected, abs=1e-12)
    assert coefficients_of_counts(x, y, np.ones((1, len(x))))[0] == pytest.approx(expected, abs=1e-12)


@settings(deadline=None, max_examples=25)
@given(tied_columns)
def test_pairs_are_counted_as_one_by_one(columns: np.ndarray) -> None:
    x, y = columns
    below = [int(((x < a) & (y < b)).sum()) for a, b in zip(x, y, strict=True)]
    assert num_below(x, y).tolist() == below
    pairs = concordance(x, y)
    signs = np.sign(x[:, None] - x) * np.sign(y[:, None] - y)
    assert pairs.concordant.tolist() == (signs > 0).sum(axis=1).tolist()
    assert pairs.discordant.tolist() == (signs < 0).sum(axis=1).tolist()
    assert pairs.untied_x.tolist() == (x[:, None] != x).sum(axis=1).tolist()


def test_counts_are_the_drawn_points_repeated() -> None:
    generator = np.random.default_rng(1)
    x, y = generator.integers(0, 5, 12).astype(float), generator.standard_normal(12)
    counts = draw_counts(generator, 40, 12)
    for row, found in zip(counts, coefficients_of_counts(x, y, counts), strict=True):
        repeated = np.repeat(np.arange(12), row.astype(int))
        assert found == pytest.approx(coefficients(x[repeated], y[repeated]), abs=1e-12)


def test_a_constant_resample_is_nan_and_no_other() -> None:
    counts = np.array([[3.0, 0.0, 0.0], [1.0, 1.0, 1.0]])
    found = coefficients_of_counts(np.array([1.0, 2.0, 3.0]), np.array([1.0, 3.0, 2.0]), counts)
    assert np.isnan(found[0]).all()
    assert np.isfinite(found[1]).all()


def test_resamples_draw_points_groups_and_leave_out() -> None:
    generator = np.random.default_rng(0)
    groups = np.array([0, 0, 1, 2, 2, 2])
    assert (draw_counts(generator, 50, 6).sum(axis=1) == 6).all()
    drawn = draw_group_counts(generator, 50, groups)
    assert (drawn[:, 0] == drawn[:, 1]).all()
    assert (drawn[:, [0, 2, 3]].sum(axis=1) == 3).all()
    assert leave_out_counts(groups).tolist() == [[0, 0, 1, 1, 1, 1], [1, 1, 0, 1, 1, 1], [1, 1, 1, 0, 0, 0]]


@pytest.mark.parametrize("decimals", [1, 9])  # with ties and without
def test_influence_gives_the_spread_of_the_bootstrap(decimals: int) -> None:
    generator = np.random.default_rng(3)
    x = np.round(generator.standard_normal(300), decimals)
    y = np.round(-0.6 * x + generator.standard_normal(300), decimals)
    groups = np.argsort(np.argsort(x + generator.standard_normal(300))) // 5  # neighbours together: dependent
    influence = influences(x, y)
    assert influence.mean(axis=0) == pytest.approx(np.zeros(4), abs=1e-12)
    alone = coefficients_of_counts(x, y, draw_counts(generator, 1500, 300)).std(axis=0)
    assert standard_errors(influence) == pytest.approx(alone, rel=0.08)
    together = coefficients_of_counts(x, y, draw_group_counts(generator, 1500, groups)).std(axis=0)
    assert standard_errors(influence, groups) == pytest.approx(together, rel=0.12)


def test_influence_is_the_derivative_of_the_coefficient() -> None:
    """Weighting one point a little more moves each coefficient by its influence."""
    generator = np.random.default_rng(8)
    x, y = np.round(generator.standard_normal((2, 25)), 1)
    influence, small = influences(x, y), 1e-6
    for point in range(0, 25, 6):
        heavier, lighter = np.ones((2, 25))
        heavier[point] += small * 25
        lighter[point] -= small * 25
        up, down = coefficients_of_counts(x, y, np.stack([heavier, lighter]))
        assert (up - down) / (2 * small) == pytest.approx(influence[point], rel=1e-3, abs=1e-4)


def test_ten_thousand_resamples_of_63_runs_take_no_second() -> None:
    runs = read_published("xie2023")
    x, y = runs["loss"].to_numpy(), runs["value"].to_numpy()
    start = time.process_time()
    found = coefficients_of_counts(x, y, draw_counts(np.random.default_rng(0), 10_000, 63))
    assert time.process_time() - start < 1.0
    assert found.shape == (10_000, 4)


def test_ten_thousand_points_are_no_trouble() -> None:
    generator = np.random.default_rng(0)
    x, y = generator.standard_normal((2, 10_000))
    start = time.process_time()
    assert influences(x, y).shape == (10_000, 4)
    assert time.process_time() - start < 1.5
    assert kendall(x, y) == pytest.approx(stats.kendalltau(x, y).statistic, abs=1e-12)
