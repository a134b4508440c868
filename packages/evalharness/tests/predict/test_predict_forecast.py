"""Forecasts from the published table, their calibration, and what they refuse."""

from dataclasses import replace

import numpy as np
import pytest
from unveil_evalharness.errors import NotComparableError, ResultsError, UsageError
from unveil_evalharness.predict.decision import decide
from unveil_evalharness.predict.early import forecast_early
from unveil_evalharness.predict.forecast import forecast


def _new(known, **changes):
    return replace(known.runs[0], label="new", pair="new", **changes)


def test_published_coverage_for_a_new_model_and_for_other_data(published):
    new_model = forecast(published, _new(published, model="SwinV2-XXL")).calibration
    other_data = forecast(published, _new(published)).calibration
    assert (new_model.groups, new_model.num_groups, new_model.method) == ("model", 5, "t")
    assert (other_data.groups, other_data.num_groups, other_data.method) == ("model and data", 21, "conformal")
    for calibration in (new_model, other_data):
        assert 0.85 <= calibration.coverage <= 0.97
    assert other_data.half_width < new_model.half_width


def test_published_coverage_of_early_forecasts(published):
    asked = _new(published, history=((125_000, 0.47),))
    early = forecast_early(published, asked, at_steps=500_000)
    assert (early.num_runs, early.steps, early.at_steps) == (21, 125_000, 500_000)
    assert early.features == ("loss", "log parameters")
    assert 0.85 <= early.calibration.coverage <= 0.97


def test_an_exact_relation_is_found_exactly(made_up):
    asked = replace(made_up.runs[7], label="new", pair="new")
    one = forecast(made_up, asked)
    assert one.value == pytest.approx(90 - 20 * asked.loss + np.log(asked.params))
    assert one.half_width == pytest.approx(0, abs=1e-8)
    assert one.features == ("loss", "log parameters")  # all runs have one length
    assert one.neighbours[0].label == made_up.runs[7].label
    assert one.neighbours[0].distance == pytest.approx(0, abs=1e-9)
    assert one.extrapolates == ()


def test_what_lies_outside_is_named(published):
    one = forecast(published, _new(published, params=5e9))
    assert one.extrapolates == ("parameters 5e+09 outside of 4.9e+07 to 1.06e+09",)
    odd = forecast(published, _new(published, params=1.06e9, history=((500_000, 0.515),)))
    assert "this combination of" in odd.extrapolates[0]


def test_a_longer_run_than_known_is_extrapolation_of_steps(published):
    one = forecast(published, _new(published, history=((2_000_000, 0.46),)))
    assert one.extrapolates == ("steps 2e+06 outside of 1.25e+05 to 5e+05",)


def test_another_passport_is_refused(published):
    with pytest.raises(NotComparableError, match="has passport abcdef, the known losses none"):
        forecast(published, _new(published, passport="abcdef0123456789"))


def test_too_few_runs_and_groups_are_refused(published, made_up):
    with pytest.raises(ResultsError, match=r"7 known runs .* are too few"):
        forecast(published.keep([index < 7 for index in range(63)]), _new(published))
    with pytest.raises(ResultsError, match=r"0 known runs .* are too few"):
        forecast(published.keep([False] * 63), _new(published))
    three_models = made_up.keep([run.model in ("m0", "m1", "m2") for run in made_up.runs])
    with pytest.raises(ResultsError, match="make 3 groups by model, and 4 are needed"):
        forecast(three_models, _new(made_up, model="other"))


def test_early_forecasts_refuse_what_they_cannot_know(published):
    with pytest.raises(ResultsError, match="lies before the last loss"):
        forecast_early(published, _new(published, history=((500_000, 0.5),)), at_steps=250_000)
    with pytest.raises(ResultsError, match="none of the 63 known runs"):
        forecast_early(published, _new(published), at_steps=1_000_000)


def test_asking_for_the_present_length_is_the_plain_forecast(published):
    asked = _new(published)
    assert forecast_early(published, asked, at_steps=asked.steps) == forecast(published, asked)


def test_runs_are_found_by_words_that_only_they_have(published):
    assert published.find("swinv2-g in22k 500k").label == "SwinV2-g IN22K 500k"
    with pytest.raises(ResultsError, match="names 3 of the 63 known runs"):
        published.find("SwinV2-g IN22K")


def _forecast(made_up, **changes):
    return replace(forecast(made_up, _new(made_up)), **changes)


@pytest.mark.parametrize(
    ("changes", "margin", "threshold", "action", "words"),
    [
        ({}, 0.5, None, "skip", "within ± 0.5"),
        ({"low": 79.0, "high": 83.0}, None, 80.0, "run", "holds the threshold 80"),
        ({"low": 81.0, "high": 83.0}, None, 80.0, "skip", "above the threshold 80"),
        ({"low": 70.0, "high": 79.0}, 0.1, 80.0, "skip", "below the threshold 80"),
        ({"rises": True}, 0.5, None, "run", "has been lower before"),
        ({"extrapolates": ("loss 1 outside of 2 to 3",)}, 0.5, 80.0, "run", "unlike all known ones"),
    ],
)
def test_decisions(made_up, changes, margin, threshold, action, words):
    decision = decide(_forecast(made_up, **changes), margin=margin, threshold=threshold)
    assert decision is not None
    assert decision.action == action
    assert words in decision.reason


def test_a_wide_interval_asks_for_the_run(published):
    decision = decide(forecast(published, _new(published)), margin=0.2, threshold=None)
    assert decision is not None
    assert (decision.action, "wider than the margin" in decision.reason) == ("run", True)


def test_no_margin_no_decision_and_a_bad_margin_is_refused(made_up):
    assert decide(_forecast(made_up), margin=None, threshold=None) is None
    with pytest.raises(UsageError, match="--margin must be positive, got 0"):
        decide(_forecast(made_up), margin=0.0, threshold=None)
