"""val_loss: the loss of a checkpoint of any program, by `pretrain score` in a process of its own."""

import json
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars
import pytest
from foreign_files import WRITERS, state_of
from PIL import Image
from unveil_evalharness.errors import DataError, ProtocolError, UnknownSuiteError
from unveil_evalharness.foreign.convert import ForeignOptions
from unveil_evalharness.run import run
from unveil_evalharness.subjects import find_subjects
from unveil_evalharness.tasks import DEFAULT_TASKS
from unveil_evalharness.tasks.val_loss import data, metrics
from unveil_evalharness.tasks.val_loss.config import ValLossProtocol, protocol_for
from unveil_evalharness.tasks.val_loss.model import ScoreError, score
from unveil_evalharness.tasks.val_loss.task import ValidationLoss


@pytest.fixture
def images(tmp_path) -> Path:
    """A data root with twelve noisy pictures in imagenet/val."""
    root = tmp_path / "images"
    generator = np.random.default_rng(0)
    for number in range(12):
        folder = root / "imagenet" / "val" / f"class{number % 3}"
        folder.mkdir(parents=True, exist_ok=True)
        pixels = generator.integers(0, 255, (40, 48, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return root


def subject_of(format: str, tmp_path: Path):
    file = WRITERS[format](tmp_path / format, state_of(format))
    return find_subjects([file], ForeignOptions(folder=tmp_path / "foreign"))[0]


def test_a_foreign_mae_file_has_a_loss_with_a_passport(options, images, tmp_path):
    pytest.importorskip("unveil_pretrain")
    subject = subject_of("mae", tmp_path)
    wanted = replace(options, ckpt=(subject.path,), data_root=images, tasks=("val_loss",), seeds=(2,))
    (row,) = run(wanted).rows
    assert (row.status, row.metric, row.n, row.higher_is_better) == ("ok", "val_loss.loss", 12, False)
    # A fresh decoder predicts little; the variance of a normalised patch is about 1.
    assert row.value == pytest.approx(1.0, abs=0.5)
    samples = polars.read_parquet(options.output_path / row.samples)
    assert samples["image"].n_unique() == samples.height == 12
    assert metrics.metric_from_samples(samples) == row.value
    passport = dict(polars.read_parquet(options.output_path / row.tables["passport"]).iter_rows())
    assert json.loads(passport["objective"]) == "mae"
    assert json.loads(passport["target_normalisation"]) == "patch"
    assert json.loads(passport["mask_seed"]) == 1_000_005
    assert len(passport["hash"]) == 16


@pytest.mark.slow
def test_a_foreign_clip_pair_is_compared_over_captions_in_fixed_pools(caption_shards, tmp_path):
    pytest.importorskip("unveil_pretrain")
    subject = subject_of("open_clip", tmp_path)
    lines: list[str] = []
    scored = score(
        subject.path,
        data.pair_source(caption_shards, tmp_path),
        ValLossProtocol(negative_pool=4),
        contrastive=True,
        seed=0,
        batch_size=8,
        device="cpu",
        work=tmp_path,
        log=lines.append,
    )
    assert scored.summary["passport"]["negative_pool"] == 4
    assert scored.summary["chance"] == pytest.approx(np.log(4))
    assert metrics.per_image(scored.table).height == 8
    assert lines[0].startswith("pretrain score --ckpt")


def test_the_last_words_of_a_process_that_failed_are_the_reason(monkeypatch, tmp_path):
    said = subprocess.CompletedProcess([], 2, stdout="", stderr="warning\npretrain: error: there are no images\n")
    monkeypatch.setattr(subprocess, "run", lambda *words, **options: said)
    with pytest.raises(ScoreError, match=r"ended with code 2: .*error: there are no images"):
        score(
            tmp_path, "no", ValLossProtocol(), contrastive=False, seed=0, batch_size=8, device="cpu",
            work=tmp_path, log=lambda line: None,
        )  # fmt: skip


def test_what_has_no_decoder_is_not_applicable(mae_checkpoint, tmp_path):
    task = ValidationLoss()
    (own,) = find_subjects([mae_checkpoint])
    assert task.not_applicable(own.manifest) == "it has no decoder, without which mae has no loss"
    for format, reason in (("dinov2", "its objective is 'dino'"), ("timm", "its objective is 'unknown'")):
        assert reason in str(task.not_applicable(subject_of(format, tmp_path).manifest))
    for format in ("mae", "simmim"):
        assert task.not_applicable(subject_of(format, tmp_path).manifest) is None


def test_images_are_taken_from_a_list_then_a_folder_then_imagenet(images):
    assert data.image_source(images) == images / "imagenet" / "val"
    assert data.count_images(images) == 12
    before = data.data_hash(images)
    (images / "val_loss").mkdir()
    (images / "val_loss" / "a.png").write_bytes(b"x")
    assert data.image_source(images) == images / "val_loss"
    (images / "val_loss.txt").write_text("# chosen\nimagenet/val/class0/0.png\n")
    assert data.image_source(images) == images / "val_loss.txt"
    assert data.count_images(images) == 1
    assert len({before, data.data_hash(images)}) == 2
    (images / "val_loss.txt").write_text("no.png\n")
    with pytest.raises(DataError, match=r"names a missing image: .*no\.png"):
        data.data_hash(images)


def test_without_images_and_captions_the_first_place_is_named(tmp_path):
    with pytest.raises(DataError, match="no validation images under"):
        data.data_hash(tmp_path)


def test_captions_in_other_layouts_become_a_shard(coco_captions, tmp_path):
    import tarfile

    with tarfile.open(data.pair_source(coco_captions, tmp_path)) as shard:
        names = shard.getnames()
        captions = json.load(shard.extractfile(names[1]))  # type: ignore[arg-type]
    assert [Path(name).suffix for name in names] == [".jpg", ".json", ".png", ".json", ".png", ".json"]
    assert captions == {"captions": ["a red square", "a grey square "]} or len(captions["captions"]) == 2


def test_standard_errors_are_over_images_or_over_ten_pools():
    values = np.array([1.0, 2.0, 3.0, 4.0])
    mean, error = metrics.mean_and_error(values, np.arange(4))
    assert mean == 2.5
    assert error == pytest.approx(np.sqrt(5 / 3 / 4))
    assert metrics.mean_and_error(values[:1], np.arange(1)) == (1.0, None)
    pooled = np.repeat(np.arange(10.0), 2)
    _, error = metrics.mean_and_error(pooled, np.repeat(np.arange(10), 2))
    assert error == pytest.approx(np.arange(10.0).std(ddof=1) / np.sqrt(10))
    _, few = metrics.mean_and_error(pooled[:6], np.repeat(np.arange(3), 2))
    assert few == pytest.approx(pooled[:6].std(ddof=1) / np.sqrt(6))


def test_what_training_recorded_is_told_apart_by_its_passport():
    summary = {
        "loss": 0.5,
        "standard_error": 0.1,
        "views": {"unmasked": {"value": 0.4, "standard_error": 0.2}},
        "recorded": {"loss": 0.6, "standard_error": 0.3},
        "first_difference": "images_hash",
    }
    views = metrics.views_table(summary)["view"].to_list()
    assert views == ["loss", "unmasked", "recorded, another images_hash"]
    same = metrics.views_table({**summary, "first_difference": None})
    assert same["view"].to_list()[-1] == "recorded"


def test_it_runs_only_when_named_because_another_package_does_the_work():
    assert "val_loss" not in DEFAULT_TASKS
    assert ValidationLoss.requires == ("unveil_pretrain",)


def test_protocols_refuse_what_no_validation_has():
    assert protocol_for("quick").num_images == 64
    assert protocol_for("full").num_images == 0
    with pytest.raises(UnknownSuiteError, match="no suite 'long'"):
        protocol_for("long")
    with pytest.raises(ProtocolError, match="negative_pool is 1"):
        ValLossProtocol(negative_pool=1)
