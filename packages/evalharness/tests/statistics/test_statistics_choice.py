"""Ordering, regret, the two sides of a step, offset between sources and noise of seeds: by hand and where known."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import fisher_exact
from unveil_evalharness.published import read_published
from unveil_evalharness.statistics.attenuation import disattenuated, noise_floor, reliability, replicate_noise
from unveil_evalharness.statistics.offset import matched_offset, source_offset
from unveil_evalharness.statistics.ordering import choice_by_length, ordering, ordering_of_counts, regret
from unveil_evalharness.statistics.resampling import draw_counts
from unveil_evalharness.statistics.steps import steps


def codes(values: list[str]) -> np.ndarray:
    return np.unique(np.array(values), return_inverse=True)[1]


@pytest.fixture(scope="module")
def xie() -> dict[str, np.ndarray]:
    runs = read_published("xie2023")
    return {
        "x": runs["loss"].to_numpy(), "y": runs["value"].to_numpy(), "model": codes(runs["model"].to_list()),
        "pair": codes(runs["pair"].to_list()), "steps": runs["steps"].to_numpy().astype(float),
        "source": (runs["source"] == "IN22K").to_numpy().astype(float), "fraction": runs["fraction"].to_numpy(),
    }  # fmt: skip


def test_ordering_by_hand() -> None:
    x, y = np.array([1.0, 2.0, 3.0, 3.0]), np.array([9.0, 7.0, 8.0, 8.0])
    found = ordering(x, y)
    # Pairs of different y: (0,1), (0,2), (0,3) right; (1,2), (1,3) wrong. The pair (2,3) has no order in y.
    assert (found.accuracy, found.num_pairs) == (3 / 5, 5)
    assert ordering(x, np.array([9.0, 7.0, 8.0, 8.5])).accuracy == pytest.approx(3.5 / 6)  # a tie in x counts half
    assert ordering(x, y, min_gap=1.5).num_pairs == 1
    within = ordering(x, y, groups=np.array([0, 0, 1, 1]))
    assert (within.accuracy, within.num_pairs) == (1.0, 1)
    assert np.isnan(ordering(x, y, groups=np.arange(4)).accuracy)


def test_ordering_of_resamples_is_that_of_the_drawn_points() -> None:
    generator = np.random.default_rng(0)
    x, y = generator.standard_normal((2, 10))
    groups = np.arange(10) % 3
    counts = draw_counts(generator, 10, 10)
    for labels in (None, groups):
        for row, found in zip(counts, ordering_of_counts(x, y, counts, groups=labels), strict=True):
            drawn = np.repeat(np.arange(10), row.astype(int))
            expected = ordering(x[drawn], y[drawn], groups=None if labels is None else labels[drawn])
            assert found == pytest.approx(expected.accuracy)


def test_regret_takes_the_worst_of_equal_losses() -> None:
    found = regret(np.array([0.4, 0.4, 0.5]), np.array([80.0, 82.0, 83.0]))
    assert (found.chosen, found.best, found.regret) == (0, 2, 3.0)


def test_choice_by_length_by_hand() -> None:
    x = np.array([0.5, 0.4, 0.45, 0.3])
    y = np.array([80.0, 82.0, 81.0, 90.0])
    last, lowest = choice_by_length(x, y, np.array([0, 0, 0, 1]), np.array([1.0, 2.0, 4.0, 1.0]))
    assert (last.tolist(), lowest.tolist()) == ([1.0], [0.0])


def test_known_choices_of_the_63_runs(xie) -> None:
    assert ordering(xie["x"], xie["y"], groups=xie["model"]).accuracy == pytest.approx(0.886, abs=5e-4)
    assert ordering(xie["x"], xie["y"], min_gap=0.2).accuracy == pytest.approx(0.904, abs=5e-4)
    last, lowest = choice_by_length(xie["x"], xie["y"], xie["pair"], xie["steps"])
    assert (last.mean(), lowest.mean()) == pytest.approx((0.079, 0.074), abs=5e-4)
    assert (last.max(), lowest.max()) == pytest.approx((0.91, 0.48))


def test_falling_steps_gain_and_rising_ones_are_a_coin_toss(xie) -> None:
    found = steps(xie["x"], xie["y"], xie["pair"], xie["steps"])
    assert (found.falling.num_gained, found.falling.num_steps) == (28, 28)
    assert (found.rising.num_gained, found.rising.num_lost, found.rising.num_steps) == (7, 7, 14)
    assert (found.falling.gained.low, found.rising.gained.low) == pytest.approx((0.879, 0.268), abs=5e-4)
    assert len(found.steps) == 42
    assert found.p_value == pytest.approx(0.000127, abs=5e-7)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=30))
def test_gains_of_both_sides_are_compared_by_fishers_exact_test(kinds) -> None:
    """Pairs of two runs each: (whether x falls, whether y gains)."""
    x = np.array([value for falls, _ in kinds for value in ((1.0, 0.0) if falls else (0.0, 1.0))])
    y = np.array([value for _, gains in kinds for value in ((0.0, 1.0) if gains else (1.0, 0.0))])
    found = steps(x, y, np.repeat(np.arange(len(kinds)), 2), np.tile([1.0, 2.0], len(kinds)))
    table = [[kinds.count((falls, gains)) for gains in (True, False)] for falls in (True, False)]
    if 0 in map(sum, table):
        assert found.p_value is None
    else:
        assert found.p_value == pytest.approx(fisher_exact(table, alternative="greater").pvalue, rel=1e-9)


def test_steps_average_seeds_and_skip_none() -> None:
    x, y = np.array([0.5, 0.4, 0.6, 0.4]), np.array([1.0, 2.0, 4.0, 5.0])
    found = steps(x, y, np.zeros(4, dtype=int), np.array([1.0, 2.0, 2.0, 3.0]))
    # The two runs of length 2 have mean loss 0.5: that step neither falls nor rises.
    assert [round(step.change_x, 9) for step in found.steps] == [0.0, -0.1]
    assert (found.falling.num_steps, found.rising.num_steps) == (1, 0)


def test_offset_is_found_where_it_was_planted() -> None:
    generator = np.random.default_rng(6)
    source = np.repeat([0.0, 1.0], 30)
    y = generator.standard_normal(60)
    x = 0.5 - 0.02 * y + 0.01 * source + 0.002 * generator.standard_normal(60)
    found = source_offset(x, y, source, draw_counts(generator, 500, 60))
    assert found.value == pytest.approx(0.01, abs=0.002)
    assert found.interval is not None
    assert not found.interval.excludes(0.01)
    assert found.interval.excludes(0.0)


def test_offset_of_imagenet_22k_at_equal_model_and_length(xie) -> None:
    whole = (xie["fraction"] == 1) & np.isin(xie["model"], np.unique(xie["model"][xie["source"] == 1]))
    settings = (xie["model"] * 1_000_000 + xie["steps"]).astype(int)
    found = matched_offset(xie["x"][whole], xie["y"][whole], xie["source"][whole], settings[whole])
    assert found is not None
    assert (found.num_pairs, round(found.difference_x, 4), round(found.difference_y, 2)) == (12, 0.0029, -0.09)
    assert matched_offset(xie["x"], xie["y"], np.zeros(63), settings) is None


def test_noise_of_seeds_by_hand() -> None:
    noise = replicate_noise(np.array([1.0, 3.0, 5.0, 5.0, 9.0]), np.array([0, 0, 1, 1, 2]))
    assert noise is not None
    assert (noise.standard_deviation, noise.degrees) == (1.0, 2)
    assert replicate_noise(np.arange(3.0), np.arange(3)) is None
    assert noise_floor(0.08) == pytest.approx(1.959964 * 2**0.5 * 0.08, abs=1e-6)
    assert reliability(np.array([0.0, 1.0, 2.0]), 0.25) == 0.75
    assert disattenuated(-0.6, 1.0, 0.64) == pytest.approx(-0.75)
    assert disattenuated(-0.9, 0.5, 0.5) == -1.0
    assert disattenuated(-0.6, -0.1, 1.0) is None


def test_correction_gives_back_the_correlation_without_noise() -> None:
    generator = np.random.default_rng(9)
    x = generator.standard_normal(4000)
    y = -0.8 * x + 0.6 * generator.standard_normal(4000)
    repeats = y + 0.7 * generator.standard_normal((2, 4000))
    noise = replicate_noise(repeats.ravel(), np.tile(np.arange(4000), 2))
    assert noise is not None
    assert noise.standard_deviation == pytest.approx(0.7, rel=0.05)
    observed = float(np.corrcoef(x, repeats[0])[0, 1])
    assert observed > -0.7
    corrected = disattenuated(observed, 1.0, reliability(repeats[0], noise.standard_deviation**2))
    assert corrected == pytest.approx(-0.8, abs=0.03)
