"""Which rows become points, what may share axes, and what is refused by name."""

import dataclasses
import json

import pytest
from unveil_evalharness.correlate import correlate, read_evidence
from unveil_evalharness.correlate.join import combine_seeds, join
from unveil_evalharness.correlate.words import beats_baseline
from unveil_evalharness.errors import NotComparableError, ResultsError
from unveil_evalharness.results import read_rows

ACC = "imagenet_ft.acc1"


def add_line(study, manifest, *, losses=(0.5, 0.48, 0.46, 0.44, 0.42, 0.41), values=None, offset=0, **options):
    """One checkpoint per loss; by default a lower loss scores higher, not quite in a straight line."""
    passport = options.pop("passport", None)
    for number, loss in enumerate(losses):
        extra = {} if passport is None else {"passport": passport}
        value = 0.9 - loss + 0.01 * (number % 2) if values is None else values[number]
        study.add(manifest(loss, step=100 + number + offset, **extra), {ACC: value}, **options)


def test_final_loss_meets_the_mean_over_seeds(study, manifest) -> None:
    made = manifest(0.5)
    study.add(made, {ACC: 0.6}, seeds=(0,))
    study.add(made, {ACC: 0.7}, seeds=(1,))
    ((_, points),) = join(read_evidence([study.folder])).strata.items()
    (point,) = points
    assert (point.loss, point.loss_standard_error) == (0.5, 0.004)
    assert point.value == pytest.approx(0.65)
    assert point.num_seeds == 2
    assert point.value_standard_error == pytest.approx(
        0.05
    )  # sd 0.0707 over the root of 2, more than the 0.01 of a row


def test_seeds_share_their_sampling_error(study, manifest) -> None:
    study.add(manifest(0.5), {ACC: 0.6}, seeds=(0, 1, 2), standard_error=0.02)
    rows = read_rows(study.folder / "results.jsonl")
    assert combine_seeds(rows) == (0.6, 0.02)
    assert combine_seeds([dataclasses.replace(rows[0], standard_error=None)]) == (0.6, None)


def test_good_news_is_told_with_interval_and_n(study, manifest) -> None:
    add_line(study, manifest)
    (stratum,) = correlate([study.folder]).strata
    assert stratum.status == "ok"
    assert stratum.statistics.n == 6
    assert stratum.statistics.spearman.value < -0.9
    assert "A lower validation loss goes with a better imagenet_ft.acc1 (Spearman −" in stratum.answer
    assert "n = 6" in stratum.answer
    assert "95 % interval [−1.00" in stratum.answer
    assert "0.01 less loss goes with +0.0" in stratum.answer
    assert any("too narrow" in caution for caution in stratum.cautions)


def test_unsettled_and_wrong_way_are_told(study, manifest) -> None:
    add_line(study, manifest, values=(0.5, 0.7, 0.55, 0.6, 0.65, 0.52))
    assert correlate([study.folder]).strata[0].answer.startswith("It is not settled")
    wrong = type(study)(study.folder / "wrong")
    add_line(wrong, manifest, values=(0.7, 0.65, 0.6, 0.55, 0.5, 0.45))
    stratum = correlate([wrong.folder]).strata[0]
    assert "goes with a worse imagenet_ft.acc1" in stratum.answer
    assert any("order is perfect" in caution for caution in stratum.cautions)


def test_lower_is_better_turns_the_sentence(study, manifest) -> None:
    add_line(study, manifest, values=(0.7, 0.65, 0.6, 0.55, 0.5, 0.45), higher_is_better=False, baseline=0.9)
    assert "goes with a better" in correlate([study.folder]).strata[0].answer


def test_cautions_name_chance_noise_runs_and_limit(study, manifest) -> None:
    values = (0.1, 0.102, 0.101, 0.103, 0.104, 0.105)
    add_line(study, manifest, values=values, limit=32, limited=True, checkpoint="/runs/one/checkpoints/step_1")
    (stratum,) = correlate([study.folder]).strata
    cautions = " ".join(stratum.cautions)
    assert "Limited to 32 images" in cautions
    assert "6 of 6 values do not beat the trivial baseline" in stratum.answer
    assert "no more than their own standard error" in cautions
    assert "6 checkpoints come from 1 runs" in cautions


def test_two_passports_are_two_groups_and_never_one(study, manifest, simmim) -> None:
    other = dataclasses.replace(simmim, mask={**simmim.mask, "unit": 4})
    add_line(study, manifest)
    add_line(study, manifest, passport=other, losses=(0.9, 0.8, 0.7), offset=50)
    first, second = correlate([study.folder]).strata
    assert (first.passport, len(first.points), first.status) == (simmim.hash, 6, "ok")
    assert (second.passport, len(second.points), second.status) == (other.hash, 3, "refused")
    assert second.refusal.reason == "too_few_points"
    with pytest.raises(NotComparableError, match=r"differ in mask\.unit"):
        correlate([study.folder], joint=True)


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"protocol": "0" * 16}, "protocol"),
        ({"data_hash": "other"}, "data_hash"),
        ({"limit": 8, "limited": True}, "limit"),
    ],
)
def test_values_measured_otherwise_are_another_group(study, manifest, fields, name) -> None:
    add_line(study, manifest)
    add_line(study, manifest, offset=50, **fields)
    assert [len(stratum.points) for stratum in correlate([study.folder]).strata] == [6, 6]
    with pytest.raises(NotComparableError, match=f"differ in {name} "):
        correlate([study.folder], joint=True)


def test_joint_is_granted_when_all_agree(study, manifest) -> None:
    add_line(study, manifest)
    assert correlate([study.folder], joint=True).any_ok


def test_constant_metric_is_a_named_refusal_not_nan(study, manifest) -> None:
    add_line(study, manifest, values=(0.0,) * 6)
    correlation = correlate([study.folder])
    assert correlation.strata[0].refusal.reason == "constant_metric"
    assert correlation.strata[0].statistics is None
    assert "NaN" not in correlation.to_json()


@pytest.mark.parametrize(
    ("options", "added", "reason"),
    [
        ({"loss": None}, {}, "records no validation loss"),
        ({"loss": 0.5, "passport": None}, {}, "no passport"),
        ({"loss": 0.5}, {"keep_manifest": False}, "manifest is not in the output folder"),
    ],
)
def test_points_without_a_comparable_loss_are_left_out_aloud(study, manifest, options, added, reason) -> None:
    study.add(manifest(options.pop("loss"), **options), {ACC: 0.5}, **added)
    correlation = correlate([study.folder])
    assert correlation.strata == ()
    assert reason in correlation.left_out[0].reason


def test_failed_rows_make_no_point(study, manifest) -> None:
    study.add(manifest(0.5), {ACC: None}, error="out of memory")
    correlation = correlate([study.folder])
    assert (correlation.strata, correlation.left_out) == ((), ())


def test_two_folders_are_taken_together_and_the_later_row_wins(study, manifest, tmp_path) -> None:
    other = type(study)(tmp_path / "second")
    study.add(manifest(0.5), {ACC: 0.1})
    other.add(manifest(0.5), {ACC: 0.2})
    other.add(manifest(0.4), {ACC: 0.3})
    (stratum,) = correlate([study.folder, other.folder / "results.jsonl"]).strata
    assert sorted(point.value for point in stratum.points) == [0.2, 0.3]


def test_metric_filter_takes_metrics_and_tasks(study, manifest) -> None:
    study.add(manifest(0.5), {ACC: 0.1, "imagenet_ft.acc5": 0.2, "coco_det.bbox_mAP": 0.0})
    names = lambda wanted: [s.column.metric for s in correlate([study.folder], metrics=wanted).strata]  # noqa: E731
    assert names([ACC]) == [ACC]
    assert names(["imagenet_ft"]) == [ACC, "imagenet_ft.acc5"]
    with pytest.raises(ResultsError, match=r"'imagenet_ft\.acc2'; metrics here: coco_det\.bbox_mAP, imagenet_ft\.acc1"):
        names(["imagenet_ft.acc2"])


def test_missing_empty_and_damaged_input_are_named(study, manifest, tmp_path) -> None:
    with pytest.raises(ResultsError, match="no output folder at"):
        correlate([tmp_path / "nowhere"])
    with pytest.raises(ResultsError, match=r"holds no results\.jsonl"):
        correlate([tmp_path])
    (tmp_path / "results.jsonl").touch()
    with pytest.raises(ResultsError, match="holds no rows"):
        correlate([tmp_path])
    sha256 = study.add(manifest(0.5), {ACC: 0.1})
    copy = study.folder / "manifests" / f"{sha256[:12]}.json"
    copy.write_text(copy.read_text()[:-20])
    with pytest.raises(ResultsError, match="do not have the SHA-256"):
        correlate([study.folder])


def test_json_holds_all_numbers(study, manifest) -> None:
    add_line(study, manifest)
    record = json.loads(correlate([study.folder], num_resamples=200).to_json())
    assert record["schema_version"] == 1
    assert record["strata"][0]["statistics"]["n"] == 6
    assert record["strata"][0]["passport_fields"]["objective"] == "simmim"
    assert len(record["strata"][0]["points"]) == 6


@pytest.mark.parametrize(
    ("value", "baseline", "error", "higher", "expected"),
    [
        (0.5, 0.1, 0.1, True, True),
        (0.3, 0.1, 0.1, True, False),  # exactly two standard errors are not beyond two
        (0.1, 0.1, None, True, False),
        (0.2, None, 0.1, True, True),
        (0.2, 0.9, 0.1, False, True),
        (0.9, 0.2, 0.1, False, False),
    ],
)
def test_beating_the_baseline(value, baseline, error, higher, expected) -> None:
    assert beats_baseline(value, baseline, error, higher_is_better=higher) is expected
