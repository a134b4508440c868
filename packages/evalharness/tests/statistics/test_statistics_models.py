"""Least squares, monotone and mixed models against statsmodels and scipy; forecasts against truth by simulation."""

import numpy as np
import pytest
import statsmodels.api
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize, stats
from unveil_evalharness.published import read_published
from unveil_evalharness.statistics.forecast import leave_group_out
from unveil_evalharness.statistics.isotonic import fit_decreasing, predict_between
from unveil_evalharness.statistics.least_squares import (
    demeaned,
    indicators,
    least_squares_of_counts,
    partial_correlation,
    partial_of_counts,
    r_squared,
)
from unveil_evalharness.statistics.mixed import fit_random_intercept
from unveil_evalharness.statistics.resampling import draw_counts


def codes(values: list[str]) -> np.ndarray:
    return np.unique(np.array(values), return_inverse=True)[1]


@pytest.fixture(scope="module")
def xie() -> dict[str, np.ndarray]:
    runs = read_published("xie2023")
    return {
        "x": runs["loss"].to_numpy(), "y": runs["value"].to_numpy(), "model": codes(runs["model"].to_list()),
        "size": np.log(runs["params"].to_numpy()), "length": np.log(runs["steps"].to_numpy()),
    }  # fmt: skip


def test_partial_correlations_and_r_squared_equal_statsmodels(xie) -> None:
    controls = np.column_stack([xie["size"], xie["length"]])
    design = statsmodels.api.add_constant(controls)
    left = [statsmodels.api.OLS(xie[name], design).fit().resid for name in "xy"]
    assert partial_correlation(xie["x"], xie["y"], controls) == pytest.approx(np.corrcoef(*left)[0, 1], abs=1e-10)
    full = statsmodels.api.OLS(xie["y"], np.column_stack([design, xie["x"]])).fit()
    assert r_squared(xie["y"], np.column_stack([controls, xie["x"]])) == pytest.approx(full.rsquared, abs=1e-10)


def test_known_figures_of_the_63_runs(xie) -> None:
    x, y, size, length = xie["x"], xie["y"], xie["size"], xie["length"]
    assert r_squared(y, x[:, None]) == pytest.approx(0.618, abs=5e-4)
    assert r_squared(y, np.column_stack([size, length])) == pytest.approx(0.632, abs=5e-4)
    assert r_squared(y, np.column_stack([size, length, x])) == pytest.approx(0.916, abs=5e-4)
    given = np.column_stack([indicators(xie["model"]), length])
    assert partial_correlation(x, y, given) == pytest.approx(-0.958, abs=5e-4)
    a, b = demeaned(x, xie["model"]), demeaned(y, xie["model"])
    assert np.corrcoef(a, b)[0, 1] == pytest.approx(-0.852, abs=5e-4)
    assert stats.spearmanr(a, b).statistic == pytest.approx(-0.896, abs=5e-4)


def test_partial_correlation_of_each_resample_is_that_of_the_drawn_points(xie) -> None:
    controls = np.column_stack([xie["size"], xie["length"]])
    counts = draw_counts(np.random.default_rng(0), 20, 63)
    for row, found in zip(counts, partial_of_counts(xie["x"], xie["y"], controls, counts), strict=True):
        drawn = np.repeat(np.arange(63), row.astype(int))
        expected = partial_correlation(xie["x"][drawn], xie["y"][drawn], controls[drawn])
        assert found == pytest.approx(expected, abs=1e-8)


def test_partial_correlation_is_nan_where_controls_leave_nothing() -> None:
    x = np.arange(6.0)
    assert np.isnan(partial_of_counts(x, x**2, x[:, None], np.ones((1, 6))))[0]


def test_partial_rank_correlation_sees_order_only() -> None:
    generator = np.random.default_rng(2)
    x, y, control = generator.standard_normal((3, 30))
    plain = partial_correlation(x, y, control[:, None], of_ranks=True)
    assert partial_correlation(np.exp(x), y**3, np.exp(control)[:, None], of_ranks=True) == pytest.approx(plain)


def test_least_squares_of_counts_equals_weighted_least_squares() -> None:
    generator = np.random.default_rng(3)
    design = np.column_stack([np.ones(20), generator.standard_normal((20, 2))])
    y, counts = generator.standard_normal(20), draw_counts(generator, 5, 20)
    for row, found in zip(counts, least_squares_of_counts(y, design, counts), strict=True):
        assert found == pytest.approx(statsmodels.api.WLS(y, design, weights=row).fit().params, abs=1e-8)


def test_isotonic_fit_equals_scipys() -> None:
    generator = np.random.default_rng(5)
    x = generator.permutation(30).astype(float)
    y = -x + 6 * generator.standard_normal(30)
    knots, fitted = fit_decreasing(x, y)
    reference = optimize.isotonic_regression(y[np.argsort(x)], increasing=False).x
    assert knots.tolist() == sorted(x)
    assert fitted == pytest.approx(reference, abs=1e-12)


def test_isotonic_by_hand_with_ties_and_beyond_the_ends() -> None:
    knots, fitted = fit_decreasing(np.array([1.0, 2.0, 2.0, 3.0]), np.array([3.0, 1.0, 3.0, 4.0]))
    assert knots.tolist() == [1.0, 2.0, 3.0]
    assert fitted == pytest.approx([3.0, 8 / 3, 8 / 3])  # 1 and 3 average to 2; with 4 that is 8 over three points
    assert predict_between(knots, fitted, np.array([0.0, 1.5, 9.0])) == pytest.approx([3.0, 17 / 6, 8 / 3])


@pytest.mark.parametrize("spread", [0.4, 2.0])
def test_random_intercept_equals_statsmodels(spread: float) -> None:
    generator = np.random.default_rng(11)
    groups = np.repeat(np.arange(8), [3, 5, 7, 4, 6, 5, 3, 8])
    x = generator.standard_normal(len(groups))
    y = 1.0 - 2.0 * x + spread * generator.standard_normal(8)[groups] + 0.5 * generator.standard_normal(len(groups))
    found = fit_random_intercept(y, np.column_stack([np.ones(len(x)), x]), groups)
    reference = statsmodels.api.MixedLM(y, statsmodels.api.add_constant(x), groups).fit(reml=True)
    assert found.coefficients == pytest.approx(np.asarray(reference.fe_params), abs=2e-3)
    assert found.residual_variance == pytest.approx(float(reference.scale), rel=2e-2)
    assert found.group_variance == pytest.approx(float(np.asarray(reference.cov_re)[0, 0]), abs=2e-2)
    assert np.sqrt(np.diag(found.covariance)) == pytest.approx(np.asarray(reference.bse_fe), rel=2e-2)


def test_groups_that_do_not_differ_have_no_variance() -> None:
    groups = np.repeat(np.arange(4), 4)
    x, y = np.arange(16.0), np.tile([1.0, -1.0, -1.0, 1.0], 4)
    found = fit_random_intercept(y, np.column_stack([np.ones(16), x]), groups)
    assert found.group_variance < 1e-9
    slope = statsmodels.api.OLS(y, statsmodels.api.add_constant(x)).fit()
    assert found.coefficients == pytest.approx(slope.params, abs=1e-9)
    assert found.residual_variance == pytest.approx(slope.scale, rel=1e-6)


def test_known_forecasts_of_the_63_runs(xie) -> None:
    """Errors and coverage of a plain linear forecast that was computed independently from the same table."""
    found = [
        leave_group_out(columns, xie["y"], xie["model"], model="linear")
        for columns in (
            xie["x"][:, None],
            np.column_stack([xie["x"], xie["size"]]),
            np.column_stack([xie["x"], xie["size"], xie["length"]]),
        )
    ]
    assert [round(one.mean_absolute_error, 2) for one in found] == [0.62, 0.44, 0.37]
    assert [round(one.coverage, 2) for one in found] == [0.83, 0.92, 0.76]
    assert round(found[0].worst_group_bias, 2) == -1.15


def test_hierarchical_intervals_keep_their_level_for_new_groups_and_linear_ones_do_not() -> None:
    generator = np.random.default_rng(1)
    covered = {"linear": [], "hierarchical": []}
    groups = np.repeat(np.arange(8), 6)
    for _ in range(6):
        x = generator.standard_normal(48)
        y = -x + generator.standard_normal(8)[groups] + 0.3 * generator.standard_normal(48)
        for model, shares in covered.items():
            shares.append(leave_group_out(x[:, None], y, groups, model=model, confidence=0.9).coverage)
    assert 0.82 <= np.mean(covered["hierarchical"]) <= 0.99
    assert np.mean(covered["linear"]) < np.mean(covered["hierarchical"])


def test_forecasts_are_refused_where_they_cannot_be_made() -> None:
    x, y = np.arange(8.0), -np.arange(8.0)
    assert leave_group_out(x[:, None], y, np.zeros(8, dtype=int), model="linear") is None
    assert leave_group_out(x[:, None], y, np.repeat([0, 1], [7, 1]), model="linear") is None
    assert leave_group_out(x[:, None], y, np.repeat([0, 1], 4), model="hierarchical") is None
    assert leave_group_out(x[:, None], y, np.repeat([0, 1], 4), model="isotonic") is not None


@pytest.mark.parametrize("model", ["linear", "isotonic", "hierarchical"])
@given(seed=st.integers(0, 10_000))
def test_points_on_one_line_have_intervals_that_are_numbers(model, seed) -> None:
    """What is left over is rounding, whose squares must not come out below 0 (on the machines tried they never did)."""
    generator = np.random.default_rng(seed)
    x, groups = generator.normal(size=(12, 2)), np.repeat(np.arange(4), 3)
    x[:, 1] = np.where(generator.random() < 0.5, x[:, 1], 3.0 * x[:, 0])  # two columns that say the same
    forecast = leave_group_out(x[:, : 1 if model == "hierarchical" else 2], 1.0 - 2.0 * x[:, 0], groups, model=model)
    assert forecast is not None
    assert np.isfinite([forecast.low, forecast.high]).all()
    if model != "isotonic":
        assert forecast.mean_absolute_error < 1e-9
