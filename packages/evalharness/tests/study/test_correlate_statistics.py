"""Coefficients and intervals against scipy, by hand, by simulation and by invariance."""

import dataclasses
import itertools
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy
from scipy import stats
from unveil_evalharness.correlate.columns import Columns
from unveil_evalharness.correlate.conditioned import partial_of
from unveil_evalharness.correlate.details import _conditioned
from unveil_evalharness.correlate.statistics import LARGE, MIN_POINTS, estimates, refusal, summarise
from unveil_evalharness.published import read_published


def published() -> tuple[np.ndarray, np.ndarray]:
    runs = read_published("xie2023")
    return runs["loss"].to_numpy(), runs["value"].to_numpy()


def test_published_runs_give_the_known_coefficients() -> None:
    start = time.perf_counter()
    result = summarise(*published(), num_resamples=10_000, seed=0)
    assert time.perf_counter() - start < 5.0  # 0.1 s on one free core; the bound only catches a loop over resamples
    assert result.n == 63
    assert round(result.pearson.value, 3) == -0.786
    assert round(result.spearman.value, 3) == -0.897
    assert round(result.kendall.value, 3) == -0.746
    assert -0.43 < result.slope.value < -0.41  # -42 accuracy points per unit of loss
    # Published intervals of an independent bootstrap: Pearson -0.85..-0.71, Spearman -0.95..-0.81.
    assert result.pearson.low == pytest.approx(-0.85, abs=0.02)
    assert result.pearson.high == pytest.approx(-0.71, abs=0.02)
    assert result.spearman.low == pytest.approx(-0.95, abs=0.02)
    assert result.spearman.high == pytest.approx(-0.81, abs=0.02)


def test_five_points_by_hand() -> None:
    x = np.array([1.0, 2.0, 3.0, 4.0, 5.0])
    y = np.array([2.0, 1.0, 4.0, 3.0, 5.0])
    result = summarise(x, y, num_resamples=200, seed=0)
    # Rank differences 1, 1, 1, 1, 0: 1 - 6 * 4 / (5 * 24) = 0.8. Eight pairs agree, two do not: 6 / 10.
    assert result.spearman.value == pytest.approx(0.8)
    assert result.pearson.value == pytest.approx(0.8)
    assert result.kendall.value == pytest.approx(0.6)
    assert result.slope.value == pytest.approx(0.8 * 0.01)
    # Of 120 orders, those with |sum of squared rank differences - 20| >= 16: 1+4+3+6 at one end, as many at the other.
    squares = (((np.array(list(itertools.permutations(x))) - x) ** 2).sum(axis=1) - 20) / 20
    assert result.permutation_p_value == pytest.approx((np.abs(squares) >= 0.8 - 1e-9).mean())


def test_perfect_order_of_six_by_chance() -> None:
    x = np.arange(6.0)
    result = summarise(x, -(x**3), num_resamples=200, seed=0)
    assert result.spearman.value == pytest.approx(-1.0)
    assert result.spearman.low == pytest.approx(-1.0)
    assert result.permutation_p_value == pytest.approx(2 / 720)


@settings(deadline=None, max_examples=60)
@given(
    st_numpy.arrays(
        np.float64,
        st.tuples(st.just(2), st.integers(MIN_POINTS, 12)),
        elements=st.integers(-4, 4).map(float),  # a small range, so that ties are common
    )
)
def test_values_equal_scipys_with_ties(columns: np.ndarray) -> None:
    x, y = columns
    if refusal(x, y) is not None:
        return
    result = summarise(x, y, num_resamples=100, seed=0)
    assert result.pearson.value == pytest.approx(stats.pearsonr(x, y).statistic, abs=1e-12)
    assert result.spearman.value == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-12)
    assert result.kendall.value == pytest.approx(stats.kendalltau(x, y).statistic, abs=1e-12)
    assert result.slope.value == pytest.approx(stats.linregress(x, y).slope * 0.01, abs=1e-12)


def test_each_resample_equals_scipy_on_the_drawn_points() -> None:
    """The count form of the bootstrap against drawing the points and calling scipy on them."""
    generator = np.random.default_rng(5)
    x, y = np.sort(generator.integers(0, 6, 9).astype(float)), generator.integers(0, 5, 9).astype(float)
    order = np.lexsort((y, x))
    x, y = x[order], y[order]
    drawn = np.random.default_rng(11).integers(0, 9, size=(300, 9))
    table = []
    for row in drawn:
        if np.ptp(x[row]) > 0 and np.ptp(y[row]) > 0:
            a, b = x[row], y[row]
            table.append((stats.pearsonr(a, b)[0], stats.spearmanr(a, b)[0], stats.kendalltau(a, b)[0]))
    result = summarise(x, y, num_resamples=300, seed=11)
    assert result.num_degenerate == 300 - len(table)
    for estimate, column in zip((result.pearson, result.spearman, result.kendall), np.array(table).T, strict=True):
        low, high = np.quantile(column, [0.025, 0.975])
        assert estimate.low == pytest.approx(low, abs=1e-10)
        assert estimate.high == pytest.approx(high, abs=1e-10)


def test_degenerate_resamples_are_counted_and_left_out() -> None:
    x, y = np.arange(5.0), np.array([0.0, 0.0, 0.0, 0.0, 1.0])
    result = summarise(x, y, num_resamples=2000, seed=0)
    assert result.num_degenerate / 2000 == pytest.approx(0.8**5 + 0.2**5, abs=0.03)
    assert result.spearman.low is not None
    assert -1 <= result.spearman.low <= result.spearman.high <= 1


def test_no_interval_when_most_resamples_are_degenerate(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = np.arange(5.0), np.array([0.0, 0.0, 0.0, 0.0, 1.0])

    def mostly_first(generator: np.random.Generator, num_resamples: int, n: int) -> np.ndarray:
        counts = np.zeros((num_resamples, n))
        counts[:, 0] = n
        counts[:10] = 1.0
        return counts

    monkeypatch.setattr("unveil_evalharness.correlate.statistics.draw_counts", mostly_first)
    result = summarise(x, y, num_resamples=100, seed=0)
    assert result.num_degenerate == 90
    assert (result.pearson.low, result.pearson.high) == (None, None)


def test_pearson_interval_covers_the_truth() -> None:
    """150 samples of 30 points with correlation -0.8: the nominal 95 % interval holds it about as often."""
    generator = np.random.default_rng(2)
    covered = 0
    for number in range(150):
        x = generator.standard_normal(30)
        y = -0.8 * x + 0.6 * generator.standard_normal(30)
        estimate = summarise(x, y, num_resamples=200, seed=number).pearson
        covered += estimate.low <= -0.8 <= estimate.high
    assert 0.88 <= covered / 150 <= 0.99


def test_permutation_test_keeps_its_level() -> None:
    generator = np.random.default_rng(4)
    p_values = np.array(
        [
            summarise(
                generator.standard_normal(6), generator.standard_normal(6), num_resamples=1, seed=0
            ).permutation_p_value
            for _ in range(400)
        ]
    )
    assert 0.01 <= (p_values <= 0.05).mean() <= 0.085


points = st_numpy.arrays(np.float64, st.tuples(st.just(2), st.integers(MIN_POINTS, 15)), elements=st.floats(-5, 5))


def test_spreads_that_no_float_can_divide_by_are_none():
    tiny = np.array([0.0, 5e-324, 5e-324, 5e-324, 5e-324])
    refused = refusal(tiny, np.arange(5.0))
    assert refused is not None
    assert refused.reason == "constant_loss"
    assert refusal(np.arange(5.0) * 1e-80, np.arange(5.0)) is None
    near = summarise(np.arange(5.0) * 1e-80, np.arange(5.0), num_resamples=20, seed=0)
    assert near.pearson.value == pytest.approx(1.0)


@settings(deadline=None, max_examples=40)
@given(columns=points, data=st.data())
def test_order_of_points_changes_nothing(columns: np.ndarray, data: st.DataObject) -> None:
    x, y = columns
    if refusal(x, y) is not None:
        return
    order = np.array(data.draw(st.permutations(range(len(x)))))
    assert summarise(x, y, num_resamples=100, seed=3) == summarise(x[order], y[order], num_resamples=100, seed=3)


@settings(deadline=None, max_examples=40)
@given(columns=points, scale=st.sampled_from([0.25, 3.0, 1000.0]), shift=st.sampled_from([0.0, -2.0, 64.0]))
def test_units_of_the_loss_do_not_matter(columns: np.ndarray, scale: float, shift: float) -> None:
    x, y = np.round(columns, 2)  # so that a shift cannot merge two values
    if refusal(x, y) is not None:
        return
    before = summarise(x, y, num_resamples=100, seed=1)
    after = summarise(scale * x + shift, y, num_resamples=100, seed=1)
    assert after.spearman == before.spearman
    assert after.kendall == before.kendall
    assert after.permutation_p_value == before.permutation_p_value
    assert after.pearson.value == pytest.approx(before.pearson.value, abs=1e-9)
    assert after.slope.value == pytest.approx(before.slope.value / scale, abs=1e-9)


def test_negated_loss_negates_the_values() -> None:
    x, y = published()
    before, after = (summarise(sign * x, y, num_resamples=50, seed=1) for sign in (1, -1))
    assert after.spearman.value == pytest.approx(-before.spearman.value)
    assert after.kendall.value == pytest.approx(-before.kendall.value)


def test_seed_decides_the_interval() -> None:
    x, y = published()
    first, again, other = (summarise(x, y, num_resamples=200, seed=seed) for seed in (0, 0, 1))
    assert first == again
    assert first.pearson.low != other.pearson.low


@pytest.mark.parametrize(
    ("x", "y", "reason"),
    [
        ([0.1, 0.2, 0.3, 0.4], [1, 2, 3, 4], "too_few_points"),
        ([], [], "too_few_points"),
        ([0.5] * 6, [1, 2, 3, 4, 5, 6], "constant_loss"),
        ([1, 2, 3, 4, 5, 6], [0.1 * 3, 0.3, 0.3, 0.3, 0.3, 0.3], "constant_metric"),  # 0.1 * 3 != 0.3 by rounding only
    ],
)
def test_refusals_are_named(x: list[float], y: list[float], reason: str) -> None:
    refused = refusal(np.array(x, dtype=float), np.array(y, dtype=float))
    assert refused is not None
    assert refused.reason == reason
    with pytest.raises(ValueError, match="checkpoint"):
        summarise(np.array(x, dtype=float), np.array(y, dtype=float), num_resamples=10, seed=0)


def test_bad_arguments_are_named() -> None:
    x = np.arange(5.0)
    with pytest.raises(ValueError, match="one length"):
        summarise(x, x[:4], num_resamples=10, seed=0)
    with pytest.raises(ValueError, match="not finite"):
        summarise(x, np.array([1, 2, np.nan, 4, 5]), num_resamples=10, seed=0)
    with pytest.raises(ValueError, match="num_resamples=0"):
        summarise(x, x, num_resamples=0, seed=0)


def test_groups_give_a_third_interval_and_the_one_to_quote() -> None:
    x, y = published()
    models = np.unique(read_published("xie2023")["model"].to_numpy(), return_inverse=True)[1]
    alone, grouped = (summarise(x, y, num_resamples=2000, seed=0, groups=groups) for groups in (None, models))
    assert alone.pearson.grouped is None
    assert alone.pearson.best.low == alone.pearson.low
    assert (grouped.pearson.low, grouped.pearson.bca) == (alone.pearson.low, alone.pearson.bca)
    assert grouped.num_groups == 5
    # Of an independent computation by resampling whole models.
    assert grouped.pearson.best == grouped.pearson.grouped
    assert grouped.pearson.best.low == pytest.approx(-0.924, abs=0.015)
    assert grouped.pearson.best.high == pytest.approx(-0.641, abs=0.015)
    quick = estimates(x, y, num_resamples=2000, seed=0, groups=models)
    assert quick["kendall"].grouped == grouped.kendall.grouped
    assert quick["kendall"].low is None


def test_one_group_or_groups_of_one_are_no_groups() -> None:
    x, y = published()
    for groups in (np.zeros(63, dtype=int), np.arange(63)):
        assert summarise(x, y, num_resamples=100, seed=0, groups=groups).num_groups is None


def test_large_samples_have_the_limits_of_the_bootstrap(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(3)
    x = generator.standard_normal(LARGE + 1)
    y, groups = -x + generator.standard_normal(LARGE + 1), np.arange(LARGE + 1) // 3
    limit = summarise(x, y, num_resamples=500, seed=0, groups=groups)
    monkeypatch.setattr("unveil_evalharness.correlate.statistics.LARGE", LARGE + 1)
    drawn = summarise(x, y, num_resamples=500, seed=0, groups=groups)
    assert (limit.method, drawn.method) == ("infinitesimal jackknife", "bootstrap")
    for name in ("pearson", "spearman", "kendall", "slope"):
        one, other = getattr(limit, name), getattr(drawn, name)
        assert one.value == pytest.approx(other.value)
        width = other.high - other.low
        assert (one.low, one.high) == pytest.approx((other.low, other.high), abs=0.15 * width)
        assert one.grouped.low == pytest.approx(other.grouped.low, abs=0.15 * width)
    assert limit.permutation_p_value < 1e-10


def test_a_partial_correlation_of_ranks_that_are_all_explained_is_none():
    """The control is in the order of the loss: its ranks leave nothing of the loss's, while its numbers do."""
    control = np.arange(1.0, 13.0)
    value = np.random.default_rng(0).normal(size=12)
    loss = np.exp(control / 4)
    columns = Columns(
        x=loss, y=value, loss=loss, value=value, model=None, cluster=None, setting=None, length=None,
        control_names=("c",), controls=control[:, None],
    )  # fmt: skip
    partial = partial_of(columns, num_resamples=20, seed=0, confidence=0.95)
    assert partial is not None
    assert partial.spearman is None
    assert np.isfinite(partial.pearson)
    assert "partial Spearman nothing is left of the ranks" in " ".join(_conditioned(None, partial, None, "loss"))
    other = dataclasses.replace(columns, controls=np.roll(control, 5)[:, None])
    left = partial_of(other, num_resamples=20, seed=0, confidence=0.95)
    assert left is not None
    assert left.spearman is not None
