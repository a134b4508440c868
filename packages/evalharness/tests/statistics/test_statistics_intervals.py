"""Intervals against scipy and statsmodels, and their coverage where the truth is known."""

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.proportion import proportion_confint
from unveil_evalharness.statistics.coefficients import coefficients, coefficients_of_counts
from unveil_evalharness.statistics.intervals import (
    Interval,
    bca_interval,
    normal_interval,
    percentile_interval,
    student_t_quantile,
    wilson_interval,
)
from unveil_evalharness.statistics.resampling import draw_counts, draw_group_counts, leave_out_counts


@pytest.mark.parametrize(("probability", "degrees"), [(0.975, 3), (0.95, 1), (0.999, 50), (0.6, 2.5), (0.05, 10)])
def test_quantiles_of_students_t_equal_scipys(probability: float, degrees: float) -> None:
    assert student_t_quantile(probability, degrees) == pytest.approx(stats.t.ppf(probability, degrees), abs=1e-9)


def test_quantiles_of_students_t_refuse_nonsense() -> None:
    with pytest.raises(ValueError, match="degrees"):
        student_t_quantile(0.5, 0)
    assert student_t_quantile(0.5, 4) == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize(("successes", "trials"), [(28, 28), (7, 14), (0, 5), (3, 40)])
def test_wilson_equals_statsmodels(successes: int, trials: int) -> None:
    found = wilson_interval(successes, trials)
    low, high = proportion_confint(successes, trials, method="wilson")
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-9)


def test_edges_of_intervals() -> None:
    assert wilson_interval(0, 0) == Interval(low=0.0, high=1.0)
    assert percentile_interval(np.array([np.nan, np.nan, 1.0]), 0.95) is None
    assert bca_interval(0.0, np.array([1.0, 2.0, 3.0]), np.array([0.0, 0.1]), 0.95) is None  # all on one side
    assert bca_interval(2.0, np.array([np.nan, np.nan, 1.0]), np.array([0.0, 0.1]), 0.95) is None
    assert Interval(low=-1.0, high=-0.5).excludes(0.0)
    assert not Interval(low=-1.0, high=0.5).excludes(0.0)
    found = normal_interval(1.0, 0.5, 0.95)
    assert (found.low, found.high) == pytest.approx((1 - 0.98, 1 + 0.98), abs=1e-3)


def test_bca_equals_scipys() -> None:
    generator = np.random.default_rng(4)
    x = generator.standard_normal(40)
    y = -0.7 * x + generator.standard_normal(40) ** 2
    reference = stats.bootstrap(
        (x, y), lambda a, b, axis: stats.pearsonr(a, b, axis=axis).statistic, paired=True, vectorized=True,
        n_resamples=4000, method="BCa", rng=np.random.default_rng(1),
    )  # fmt: skip
    resampled = coefficients_of_counts(x, y, draw_counts(generator, 8_000, 40))[:, 0]
    left_out = coefficients_of_counts(x, y, leave_out_counts(np.arange(40)))[:, 0]
    found = bca_interval(float(coefficients(x, y)[0]), resampled, left_out, 0.95)
    assert found is not None
    assert found.low == pytest.approx(reference.confidence_interval.low, abs=0.02)
    assert found.high == pytest.approx(reference.confidence_interval.high, abs=0.02)
    plain = percentile_interval(resampled, 0.95)
    assert plain is not None
    assert abs(found.low - plain.low) > 0.02  # skewed: the correction does something


def grouped_sample(generator: np.random.Generator, num_groups: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Four points per group; the groups share most of what they are. The correlation is -0.8 by construction."""
    groups = np.repeat(np.arange(num_groups), 4)
    a, b = generator.standard_normal((2, num_groups))[:, groups]
    c, d = generator.standard_normal((2, 4 * num_groups))
    x = np.sqrt(0.9) * a + np.sqrt(0.1) * c
    y = -0.8 * x + 0.6 * (np.sqrt(0.9) * b + np.sqrt(0.1) * d)
    return x, y, groups


def coverage_of(truth: float, *, by_group: bool, num_samples: int = 50) -> float:
    generator = np.random.default_rng(7)
    covered = 0
    for _ in range(num_samples):
        x, y, groups = grouped_sample(generator, 15)
        draws = draw_group_counts(generator, 200, groups) if by_group else draw_counts(generator, 200, len(x))
        interval = percentile_interval(coefficients_of_counts(x, y, draws)[:, 0], 0.95)
        assert interval is not None
        covered += not interval.excludes(truth)
    return covered / num_samples


def test_intervals_of_dependent_points_hold_the_truth_only_when_groups_are_resampled() -> None:
    assert 0.85 <= coverage_of(-0.8, by_group=True) <= 0.99
    assert coverage_of(-0.8, by_group=False) < 0.75  # the guard can fail: single points pretend to know four times more
