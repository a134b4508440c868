"""The over-fitting alarm: how often it is false over whole runs, how much it sees, and what it says."""

import math

import numpy as np
import pytest
from unveil_pretrain import ConfigError, alarm
from unveil_pretrain.alarm import WINDOWS, Alarm, detect_rise, num_tests

scipy_stats = pytest.importorskip("scipy.stats", reason="scikit-learn brings SciPy, the reference of these tests")

NUM_RUNS, LENGTH, IMAGES = 1000, 20, 12
STEPS = np.arange(100.0, 100.0 * (LENGTH + 1), 100.0)


def raised_at(courses, images=None):
    """The validation (from 1) that first raises the alarm in each run with these courses of losses [r, t]; 0 for none.

    What `detect_rise` does, for many runs at once and with SciPy's distribution; a test compares both.
    """
    values = courses[..., None] + (np.zeros((1, LENGTH, IMAGES)) if images is None else images)
    level = alarm.FALSE_ALARM_RATE / alarm.num_tests(LENGTH)
    first = np.zeros(len(values), dtype=int)
    for count in range(1, LENGTH + 1):
        for window in (window for window in WINDOWS if window <= count):
            inside = slice(count - window, count)
            rise, error, degrees = alarm._line(STEPS[inside], values[:, inside])
            raised = scipy_stats.t.sf(rise / error, degrees) < level
            first[raised & (first == 0)] = count
    return first


def scatter(rng, correlation=0.0, num=NUM_RUNS):
    """Scatter [r, t] of a run's validations of standard deviation 1; neighbours are correlated."""
    values = rng.normal(size=(num, LENGTH))
    for index in range(1, LENGTH):
        values[:, index] = correlation * values[:, index - 1] + math.sqrt(1 - correlation**2) * values[:, index]
    return values


def rate(make, seed=0):
    """Share of simulated runs that raise the alarm at any time."""
    return (raised_at(*make(np.random.default_rng(seed))) > 0).mean()


def wandering(rng):
    """Losses [r, t, n] of images that each go their own random way; their expectation stays."""
    return np.cumsum(rng.normal(size=(NUM_RUNS, LENGTH, IMAGES)), axis=1)


STATED = alarm.FALSE_ALARM_RATE
FALSE = {
    "flat": lambda rng: (scatter(rng),),
    "flat, neighbours correlated by 0.5": lambda rng: (scatter(rng, 0.5),),
    "falling": lambda rng: (20.0 / np.arange(1, LENGTH + 1) + scatter(rng),),
    "falling, then flat": lambda rng: (np.maximum(0.0, 10.0 - np.arange(LENGTH)) * 3 + scatter(rng, 0.5),),
    "one loss leaps": lambda rng: (
        scatter(rng) + 8.0 * (np.arange(LENGTH) == rng.integers(LENGTH, size=(NUM_RUNS, 1))),
    ),
    # The same images are scored again and again, and what training does to each of them wanders: the mean over the
    # images wanders as well, although the expected loss stays.
    "images wander": lambda rng: (np.zeros((1, LENGTH)), wandering(rng)),
    "images wander, and the run scatters": lambda rng: (0.3 * scatter(rng), wandering(rng)),
}


@pytest.mark.parametrize("truth", FALSE)
def test_at_most_the_stated_share_of_runs_raises_a_false_alarm(truth):
    """Over whole runs."""
    assert rate(FALSE[truth]) <= STATED


def test_the_bound_breaks_where_it_should(monkeypatch):
    """The meta-test: without either noise, or without dividing the rate by the number of tests, false alarms abound."""
    real = alarm._scatter
    with monkeypatch.context() as patch:
        patch.setattr(alarm, "_scatter", lambda centred, neighbours: (real(centred, neighbours)[0] / 9.0, 60))
        assert rate(FALSE["flat"]) > 0.5
    with monkeypatch.context() as patch:
        patch.setattr(alarm, "num_tests", lambda num: 1)
        assert rate(FALSE["flat, neighbours correlated by 0.5"]) > 2 * STATED
    # Images that wander together, which no pairing can tell from a rise: the residuals' part alone has to hold.
    assert rate(lambda rng: (np.cumsum(rng.normal(size=(NUM_RUNS, LENGTH)), axis=1),)) > STATED


def test_a_rise_is_seen_and_its_beginning_named():
    """A fall, then a rise by ten times the scatter: seen in nine of ten runs, after it has begun."""
    course = np.concatenate([np.linspace(8.0, 0.0, 8), np.linspace(0.0, 12.0, 12)])
    found = raised_at(course + scatter(np.random.default_rng(0)))
    assert (found > 0).mean() >= 0.9
    assert (found[found > 0] > 9).all()


def test_a_smooth_rise_is_seen_at_once():
    """Losses that hardly scatter, as at the end of a run: five validations are enough."""
    course = np.concatenate([np.linspace(1.0, 0.5, 10), 0.5 + 0.01 * np.arange(1, 11)])
    found = raised_at(course + 1e-5 * scatter(np.random.default_rng(0), num=50))
    assert set(found.tolist()) <= {14, 15, 16}


def test_the_simulation_does_what_the_alarm_does():
    course = np.concatenate([np.linspace(8.0, 0.0, 8), np.linspace(0.0, 12.0, 12)])
    courses = course + scatter(np.random.default_rng(0), num=6)
    for one, first in zip(courses, raised_at(courses), strict=True):
        values, steps = one[:, None] * np.ones(IMAGES), STEPS.astype(int).tolist()
        raised = [
            detect_rise(steps[:count], values[:count], num_validations=LENGTH) is not None
            for count in range(1, LENGTH + 1)
        ]
        assert (raised.index(True) + 1 if any(raised) else 0) == first


def test_images_that_disagree_hold_the_alarm_back():
    """The same smooth rise of the mean, where half of the images rise steeply and half fall."""
    course = 0.01 * np.arange(10.0) + 1e-4 * np.random.default_rng(0).normal(size=10)
    steps = list(range(10))
    assert detect_rise(steps, course[:, None] * np.ones(12), num_validations=20) is not None
    assert detect_rise(steps, course[:, None] * np.tile([40.0, -38.0], 6), num_validations=20) is None


def test_a_test_is_that_of_a_regression_line(monkeypatch):
    """Without assumed correlation: slope, standard error and p-value are those of SciPy's linear regression."""
    monkeypatch.setattr(alarm, "CORRELATION", 0.0)
    steps = np.array([1.0, 2.0, 4.0, 5.0, 9.0, 10.0])
    losses = np.array([0.3, 0.1, 0.4, 0.5, 0.45, 0.9])
    rise, error, degrees = alarm._line(steps, losses[:, None] * np.ones(10))
    line = scipy_stats.linregress(steps, losses, alternative="greater")
    assert rise == pytest.approx(9.0 * line.slope)
    assert error == pytest.approx(9.0 * line.stderr)
    assert alarm._p_value(float(rise), float(error), degrees) == pytest.approx(line.pvalue)


def test_the_noise_of_the_images_is_that_of_their_slopes():
    steps = np.arange(6.0)
    rng = np.random.default_rng(0)
    slopes = rng.normal(0.1, 0.05, 30)
    _, error, _ = alarm._line(steps, steps[:, None] * slopes)
    assert error == pytest.approx(5.0 * slopes.std(ddof=1) / math.sqrt(30))


def test_the_scatter_of_correlated_validations_is_estimated_without_bias():
    rng = np.random.default_rng(0)
    centred = (np.arange(8) - 3.5) / 7.0
    lags = np.abs(np.arange(8)[:, None] - np.arange(8))
    draws = rng.multivariate_normal(np.zeros(8), alarm.CORRELATION**lags, size=20_000)
    slopes = draws @ centred / (centred @ centred)
    residuals = draws - draws.mean(1, keepdims=True) - slopes[:, None] * centred
    factor, degrees = alarm._scatter(tuple(centred), alarm.CORRELATION)
    estimates = factor * (residuals**2).sum(1)
    assert estimates.mean() == pytest.approx(slopes.var(), rel=0.03)
    # Satterthwaite: the estimates scatter like those from so many independent values, before rounding down.
    assert degrees <= 2.0 * estimates.mean() ** 2 / estimates.var() < degrees + 1.1


def test_counts_tests_of_a_whole_run():
    assert num_tests(4) == 0
    assert num_tests(5) == 1
    assert num_tests(8) == 4 + 3 + 1  # windows of 5, 6 and 8
    assert num_tests(1000) == sum(1001 - window for window in WINDOWS)


def test_no_alarm_from_too_little():
    rising = np.arange(6.0)[:, None] + np.zeros((6, 12))
    steps = list(range(6))
    assert detect_rise(steps, rising, num_validations=6) is not None
    assert detect_rise(steps[:4], rising[:4], num_validations=6) is None
    assert detect_rise(steps, rising[:, :9], num_validations=6) is None
    assert detect_rise(steps, np.zeros((6, 12)), num_validations=6) is None


def test_impossible_settings_are_refused():
    values = np.zeros((6, 12))
    with pytest.raises(ConfigError, match="false-alarm rate is 5"):
        detect_rise(list(range(6)), values, num_validations=6, rate=5)
    with pytest.raises(ConfigError, match="6 validations of 5"):
        detect_rise(list(range(6)), values, num_validations=5)


def test_an_alarm_is_written_and_read():
    found = detect_rise(list(range(6)), np.arange(6.0)[:, None] + np.zeros((6, 12)), num_validations=6)
    assert found is not None
    assert Alarm.from_json(found.to_json()) == found
    assert (found.step, found.since_step, found.num_validations) == (5, 0, 6)
    assert found.rise == pytest.approx(5.0)
    assert found.level == pytest.approx(0.05 / 3)
    assert "28 of the 28" in alarm.WHAT_A_RISE_MEANS
