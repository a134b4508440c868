"""Known runs out of output folders: what a manifest says of a run, and what may not be mixed."""

import dataclasses
import hashlib
import json
import math
from pathlib import Path

import numpy as np
import pytest
from unveil_backbones.manifest import EncoderSpec, Manifest, Passport, Preprocessing, ValPoint
from unveil_evalharness.cli import main
from unveil_evalharness.correlate.evidence import read_evidence
from unveil_evalharness.errors import NotComparableError, ResultsError
from unveil_evalharness.predict.known import known_from_evidence, query_from_manifest
from unveil_evalharness.results import ResultRow, append_rows

PASSPORT = Passport(
    objective="simmim",
    target_normalisation="none",
    reduction="hidden_pixels",
    mask={"strategy": "unit"},
    realised_ratio=0.6,
    mask_seed=0,
    mask_epoch=0,
    image_size=(64, 64),
    crop="resize",
    images_hash="0123456789abcdef",
    negative_pool=0,
    dtype="float32",
)


def _manifest(model: int, data: int, loss: float | None, *, passport: Passport = PASSPORT) -> Manifest:
    points = [] if loss is None else [(50, loss + 0.1), (100, loss)]
    return Manifest(
        encoder=EncoderSpec(f"vit_{model}", {"width": 32 * (model + 1)}),
        preprocessing=Preprocessing(image_size=(64, 64)),
        objective="simmim",
        mask={},
        realised_ratio=0.6,
        seed=0,
        step=100,
        samples_seen=6400,
        unique_samples=100 * (data + 1),
        tokens_seen=1,
        device_seconds=1.0,
        data_hash=f"data{data}",
        num_parameters=10 ** (model + 4),
        versions={},
        created="2026-01-01T00:00:00+00:00",
        val=tuple(ValPoint(step=s, loss=x, standard_error=0.01, num_images=10) for s, x in points),
        passport=passport,
    )


def _add(folder: Path, manifest: Manifest, value: float, **fields: object) -> None:
    text = manifest.to_json()
    sha256 = hashlib.sha256(text.encode()).hexdigest()
    (folder / "manifests").mkdir(parents=True, exist_ok=True)
    (folder / "manifests" / f"{sha256[:12]}.json").write_text(text, encoding="utf-8")
    row = ResultRow(
        checkpoint=f"/runs/{sha256[:6]}",
        checkpoint_sha256=sha256,
        label=manifest.label,
        task="imagenet_ft",
        task_version=1,
        suite="quick",
        protocol="0" * 16,
        status="ok",
        metric="imagenet_ft.acc1",
        main=True,
        value=value,
        n=100,
        seed=0,
        data_hash="feed",
    )
    append_rows(folder / "results.jsonl", [dataclasses.replace(row, **fields)])


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """Five models on four data sets; accuracy is 1 - loss + 0.01 log parameters."""
    generator = np.random.default_rng(1)
    for model in range(5):
        for data in range(4):
            loss = float(generator.uniform(0.4, 0.8))
            _add(tmp_path, _manifest(model, data, loss), 1 - loss + 0.01 * math.log(10 ** (model + 4)))
    return tmp_path


def test_runs_are_read_with_their_histories(output):
    known = known_from_evidence(read_evidence([output]), metric="imagenet_ft")
    assert (len(known), known.metric, known.unit) == (20, "imagenet_ft.acc1", "fraction")
    first = known.runs[0]
    assert (first.model, first.pair, first.params, first.steps) == ("vit_0", "vit_0 × data0", 1e4, 100)
    assert [steps for steps, _ in first.history] == [50, 100]
    assert not first.rises


def test_a_checkpoint_of_ones_own_is_forecast_from_the_others(output, tmp_path, capsys):
    asked = _manifest(2, 9, 0.55)
    folder = tmp_path / "asked"
    folder.mkdir()
    (folder / "manifest.json").write_text(asked.to_json(), encoding="utf-8")
    assert main(["predict", "--known", str(output), "--run", str(folder), "--margin", "0.01", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["forecast"]["value"] == pytest.approx(1 - 0.55 + 0.01 * math.log(1e6))
    assert record["decision"]["action"] == "skip"
    assert record["measured"] is None


def test_a_known_checkpoint_is_left_out_of_its_own_forecast(output, tmp_path, capsys):
    known = known_from_evidence(read_evidence([output]), metric="imagenet_ft.acc1")
    assert main(["predict", "--known", str(output), "--run", known.runs[3].label, "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["forecast"]["num_runs"] == 19
    assert record["measured"] == pytest.approx(known.values[3])


def test_an_early_loss_is_looked_up_in_the_curves(output, tmp_path, capsys):
    asked = dataclasses.replace(_manifest(2, 9, 0.55), step=50)
    folder = tmp_path / "asked"
    folder.mkdir()
    (folder / "manifest.json").write_text(asked.to_json(), encoding="utf-8")
    arguments = ["predict", "--known", str(output), "--run", str(folder), "--at-steps", "100", "--json"]
    assert main(arguments) == 0
    forecast = json.loads(capsys.readouterr().out)["forecast"]
    assert (forecast["loss"], forecast["steps"], forecast["at_steps"]) == (pytest.approx(0.65), 50, 100)
    # Every run loses 0.1 over its second half, so the loss at its half tells as much as the last one.
    assert forecast["value"] == pytest.approx(1 - 0.55 + 0.01 * math.log(1e6))


def test_another_passport_ends_with_three(output, tmp_path, capsys):
    asked = _manifest(2, 9, 0.55, passport=dataclasses.replace(PASSPORT, dtype="bfloat16"))
    folder = tmp_path / "asked"
    folder.mkdir()
    (folder / "manifest.json").write_text(asked.to_json(), encoding="utf-8")
    assert main(["predict", "--known", str(output), "--run", str(folder)]) == 3
    assert "losses are comparable under one passport only" in capsys.readouterr().err


def test_known_runs_of_several_passports_or_protocols_are_refused(output):
    _add(output, _manifest(1, 7, 0.5), 0.5, protocol="1" * 16)
    with pytest.raises(NotComparableError, match="differ in protocol"):
        known_from_evidence(read_evidence([output]), metric="imagenet_ft")
    rows = (output / "results.jsonl").read_text().splitlines()[:-1]
    (output / "results.jsonl").write_text("\n".join(rows) + "\n")
    _add(output, _manifest(1, 8, 0.5, passport=dataclasses.replace(PASSPORT, crop="center0.875")), 0.5)
    with pytest.raises(NotComparableError, match="several passports"):
        known_from_evidence(read_evidence([output]), metric="imagenet_ft")


def test_what_has_no_loss_or_no_metric_is_refused(output):
    with pytest.raises(ResultsError, match=r"metrics here: imagenet_ft\.acc1"):
        known_from_evidence(read_evidence([output]), metric="coco_det")
    with pytest.raises(ResultsError, match="records no validation loss"):
        query_from_manifest(_manifest(0, 0, None))


def test_a_folder_that_is_no_checkpoint_is_one_line(output, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert main(["predict", "--known", str(output), "--run", str(tmp_path / "empty")]) == 2
    assert "holds neither manifest.json nor checkpoints/step_*" in capsys.readouterr().err
