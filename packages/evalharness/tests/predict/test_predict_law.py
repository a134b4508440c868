"""The scaling law: its derivatives, a truth it finds again, and what it says of the published runs."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import approx_fprime
from unveil_evalharness.errors import ResultsError
from unveil_evalharness.predict import law as laws
from unveil_evalharness.predict.boundary import boundary, images_needed


@pytest.fixture(scope="module")
def fitted(published):
    data = laws.law_data(published)
    return data, laws.fit_law(data)


@pytest.mark.parametrize("plain", [True, False])
def test_slopes_are_those_of_differences(fitted, plain):
    data, law = fitted
    parameters = law.parameters[:6] if plain else law.parameters
    numeric = approx_fprime(parameters, lambda p: laws._loss(p, data.n, data.t, data.d, data.other), 1e-7)
    np.testing.assert_allclose(laws._slopes(parameters, data), numeric, atol=2e-6)


def test_published_losses_are_met_to_their_third_decimal(fitted):
    _, law = fitted
    assert law.residual_deviation < 0.002
    assert law.named()["O"] == pytest.approx(0.0029, abs=0.0005)  # the offset of IN22K, found independently before


def test_direction_of_published_steps(published, fitted):
    _, law = fitted
    right = total = 0
    for run in published.runs:
        for before, after in zip(run.history[-2:-1], run.history[-1:], strict=False):
            steps = np.array([before[0], after[0]], dtype=float)
            said = law(np.full(2, run.params), steps, np.full(2, run.images))
            right += bool(said[1] > said[0]) == (after[1] > before[1])
            total += 1
    assert (right, total) == (41, 42)


def test_boundary_lies_between_the_fractions_that_rose_and_those_that_did_not(published, fitted):
    _, law = fitted
    bounds = {"S": (1, 2), "B": (1, 2), "L": (1, 2), "H": (2, 3), "g": (2, 3)}
    sizes = [128_117, 256_233, 640_584, 1_281_167]
    for model, (low, high) in bounds.items():
        params = published.find(f"SwinV2-{model} IN1K 500k").params
        needed = images_needed(law, params=params, steps=5e5, lowest=1e4, highest=1e8)
        assert sizes[low] < needed < sizes[high]


def test_needs_grow_with_length_and_model(published, fitted):
    data, law = fitted
    resampled = laws.bootstrap_laws(data, law, num_resamples=8)
    steps = np.array([125e3, 500e3])
    small, large = (
        boundary(law, resampled, params=params, steps=steps, lowest=1e4, highest=1e8, level=0.9)
        for params in (49e6, 655e6)
    )
    assert small.images[0] < small.images[1] < large.images[1]
    assert np.all(small.low <= small.images)
    assert np.all(small.images <= small.high)


def test_no_boundary_where_nothing_rises():
    law = laws.Law(
        parameters=np.array([0.4, -3.0, -1.0, -3.0, -1.0, 0.0]), centre=(1e8, 1e5, 1e6), residual_deviation=0.0
    )
    assert np.isnan(images_needed(law, params=1e8, steps=1e5, lowest=1e4, highest=1e8))


def test_a_known_truth_is_found_again(published):
    data = laws.law_data(published)
    truth = np.array([0.4, -3.2, -1.2, -3.1, -1.3, 0.003, -2.7, -6.0, 1.5, 0.8, 1.4])
    noise = np.random.default_rng(0).normal(0, 5e-4, len(data.loss))
    made = replace(data, loss=laws._loss(truth, data.n, data.t, data.d, data.other) + noise)
    found = laws.fit_law(made)
    assert found.residual_deviation < 7e-4
    assert found.named()["O"] == pytest.approx(0.003, abs=5e-4)


def test_without_rising_losses_the_term_is_left_out(published):
    falling = published.keep([not run.rises for run in published.runs])
    data = laws.law_data(falling)
    assert not data.over_fits
    assert len(laws.fit_law(data).parameters) == 6


def test_too_few_runs_are_refused(published):
    with pytest.raises(ResultsError, match="10 runs in xie2023 do not carry a scaling law; 22 runs"):
        laws.law_data(published.keep([index < 10 for index in range(63)]))
