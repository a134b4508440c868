"""Least squares on groups that are left out, and intervals learnt from them."""

import numpy as np
import pytest
import statsmodels.api as sm
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import LeaveOneGroupOut, cross_val_predict
from unveil_evalharness.predict.interval import half_width, held_out_hits, method_for
from unveil_evalharness.predict.linear import fit_linear, leave_group_out_errors


def _data(seed: int, num_runs: int = 30, num_groups: int = 6) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    features = generator.normal(size=(num_runs, 3)) * [1.0, 100.0, 1e-3] + [0.0, 1e4, 1.0]
    values = features @ [1.0, 0.02, 500.0] + generator.normal(size=num_runs)
    return features, values, np.arange(num_runs) % num_groups


def test_fit_is_ordinary_least_squares():
    features, values, _ = _data(0)
    theirs = sm.OLS(values, sm.add_constant(features)).fit().predict(sm.add_constant(features))
    np.testing.assert_allclose(fit_linear(features, values)(features), theirs, rtol=1e-9)


def test_columns_that_say_the_same_share_the_coefficient():
    features, values, _ = _data(1)
    twice = np.column_stack([features, features[:, 0]])
    np.testing.assert_allclose(fit_linear(twice, values)(twice), fit_linear(features, values)(features), rtol=1e-8)


def test_errors_of_left_out_groups_are_those_of_scikit_learn():
    features, values, groups = _data(2)
    theirs = cross_val_predict(LinearRegression(), features, values, groups=groups, cv=LeaveOneGroupOut())
    np.testing.assert_allclose(leave_group_out_errors(features, values, groups), values - theirs, rtol=1e-7)


def test_distance_is_mahalanobis():
    features, values, _ = _data(3)
    fit = fit_linear(features, values)
    centred = features - features.mean(axis=0)
    inverse = np.linalg.inv(np.cov(features.T, bias=True))
    np.testing.assert_allclose(fit.distance(features), np.sqrt(np.einsum("ij,jk,ik->i", centred, inverse, centred)))


@pytest.mark.parametrize(
    ("num_groups", "level", "method"), [(10, 0.9, "conformal"), (9, 0.9, "t"), (20, 0.95, "conformal")]
)
def test_method_by_number_of_groups(num_groups, level, method):
    assert method_for(num_groups, level) == method


def test_conformal_half_width_by_hand():
    # Ten groups of one error each: the 0.9 quantile with one more group at infinity is the 10th of 11.
    errors = np.array([1.0, -2, 3, -4, 5, -6, 7, -8, 9, -10])
    assert half_width(errors, np.arange(10), level=0.9) == 10
    assert half_width(errors, np.arange(10), level=0.5) == 6


def test_every_group_weighs_the_same():
    # A thousand small errors of one group do not outweigh nine groups with one large error each.
    errors = np.concatenate([np.full(1000, 0.1), np.full(9, 5.0)])
    groups = np.concatenate([np.zeros(1000, dtype=int), np.arange(1, 10)])
    assert half_width(errors, groups, level=0.5) == 5.0


def test_t_half_width_by_hand():
    errors, groups = np.array([1.0, -1, 3, -3]), np.array([0, 0, 1, 1])
    assert half_width(errors, groups, level=0.9) == pytest.approx(stats.t.ppf(0.95, 1) * np.sqrt((1 + 9) / 2))


@given(st.integers(0, 10_000), st.sampled_from([3, 5, 12]))
def test_a_higher_level_is_never_narrower(seed, num_groups):
    generator = np.random.default_rng(seed)
    errors, groups = generator.normal(size=36), np.arange(36) % num_groups
    widths = [half_width(errors, groups, level=level) for level in (0.5, 0.7, 0.75, 0.9)]
    by_method: dict[str, list[float]] = {}
    for level, width in zip((0.5, 0.7, 0.75, 0.9), widths, strict=True):
        by_method.setdefault(method_for(num_groups, level), []).append(width)
    assert all(series == sorted(series) for series in by_method.values())


@pytest.mark.parametrize("num_groups", [5, 12])
def test_coverage_by_simulation_of_groups_that_err_together(num_groups):
    generator = np.random.default_rng(7)
    hits = []
    for _ in range(60 if num_groups < 10 else 20):
        groups = np.repeat(np.arange(num_groups), 4)
        shift = generator.normal(size=num_groups)[groups]
        features = generator.normal(size=(len(groups), 1))
        values = features[:, 0] + shift + 0.3 * generator.normal(size=len(groups))
        hits.append(held_out_hits(features, values, groups, level=0.9).mean())
    assert np.mean(hits) >= 0.9 - 3 * np.std(hits) / np.sqrt(len(hits))


def test_an_interval_without_groups_would_be_too_narrow_there():
    # The guard of the test above: pooling the errors as if runs were independent misses the level.
    generator = np.random.default_rng(8)
    inside = []
    for _ in range(60):
        shift = generator.normal(size=5)
        errors = (shift[:, None] + 0.3 * generator.normal(size=(5, 4)))[:4].ravel()
        inside.append(abs(shift[4]) <= np.quantile(np.abs(errors), 0.9))
    assert np.mean(inside) < 0.9
