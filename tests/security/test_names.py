"""Names that files bring along lead nowhere but into their own folder: annotations, archives, results, cells."""

import io
import json
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

ESCAPES = ("../secret.jpg", "a/../../secret.jpg", "/etc/passwd", "..\\secret.jpg", "C:\\secret.jpg", "C:secret.jpg",
           "\\\\host\\share\\x.jpg", "a\0.jpg", "", None, 7, ["a"])  # fmt: skip


def picture() -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (16, 16), (10, 200, 30)).save(stream, "JPEG")
    return stream.getvalue()


@pytest.mark.parametrize("name", ESCAPES, ids=repr)
def test_names_of_annotations_stay_inside(name, tmp_path):
    from unveil_evalharness.errors import DataError
    from unveil_evalharness.opening import inside

    with pytest.raises(DataError, match="file name"):
        inside(tmp_path, name, "annotations.json")


def test_honest_names_pass(tmp_path):
    from unveil_evalharness.opening import inside

    for name in ("a.jpg", "b/c.jpg", "..a.jpg", "a..b/c.jpg", "é ü.jpg", "a b.jpg"):
        assert inside(tmp_path, name, "x") == tmp_path / name


@pytest.mark.parametrize("name", ["../../secret.jpg", "/etc/passwd"])
def test_coco_and_karpathy_files_read_nothing_from_elsewhere(name, tmp_path):
    from unveil_evalharness.errors import DataError
    from unveil_evalharness.tasks.coco_det.annotations import read_split
    from unveil_evalharness.tasks.val_loss.data import data_hash
    from unveil_evalharness.tasks.zs_retrieval.data import captioned_images

    (tmp_path / "secret.jpg").write_bytes(picture())
    root = tmp_path / "data"
    (root / "coco" / "annotations").mkdir(parents=True)
    (root / "coco" / "val2017").mkdir()
    coco = {
        "images": [{"id": 1, "file_name": name, "width": 16, "height": 16}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 2, 2], "caption": "x"}],
        "categories": [{"id": 1, "name": "x"}],
    }
    for kind in ("instances", "captions"):
        (root / "coco" / "annotations" / f"{kind}_val2017.json").write_text(json.dumps(coco))
    with pytest.raises(DataError, match="leads out of"):
        read_split(root, "val")
    with pytest.raises(DataError, match="leads out of"):
        list(captioned_images(root, limit=None))
    record = {"split": "test", "filename": name, "cocoid": 1, "sentences": [{"sentid": 1, "raw": "x"}]}
    (root / "coco" / "dataset_coco.json").write_text(json.dumps({"images": [record]}))
    with pytest.raises(DataError, match="leads out of"):
        list(captioned_images(root, limit=None))
    honest = {**record, "filename": "a.jpg", "filepath": name}
    (root / "coco" / "dataset_coco.json").write_text(json.dumps({"images": [honest]}))
    with pytest.raises(DataError, match="leads out of"):
        list(captioned_images(root, limit=None))
    (root / "val_loss.txt").write_text(f"{name}\n")
    (root / "coco" / "dataset_coco.json").unlink()
    with pytest.raises(DataError, match="leads out of"):
        data_hash(root)


def hostile_tar(path: Path, outside: Path) -> None:
    """A sample under hostile names, and links and devices that a tar can hold."""
    with tarfile.open(path, "w") as archive:
        for name in ("../../escaped.jpg", "/tmp/absolute.jpg", "good.jpg"):
            member = tarfile.TarInfo(name)
            member.size = len(picture())
            archive.addfile(member, io.BytesIO(picture()))
        for name, kind, target in (
            ("link.jpg", tarfile.SYMTYPE, str(outside)), ("hard.jpg", tarfile.LNKTYPE, str(outside)),
            ("device.jpg", tarfile.CHRTYPE, ""), ("block.jpg", tarfile.BLKTYPE, ""), ("pipe.jpg", tarfile.FIFOTYPE, ""),
        ):  # fmt: skip
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, target
            archive.addfile(member)


def test_members_of_a_tar_are_read_in_place_and_links_are_not_followed(tmp_path):
    from unveil_pretrain.data import ShardDataset

    (tmp_path / "secret").write_bytes(b"secret" * 100)
    shard = tmp_path / "data" / "x.tar"
    shard.parent.mkdir()
    hostile_tar(shard, tmp_path / "secret")
    before = sorted(tmp_path.rglob("*"))
    samples = ShardDataset(str(shard))
    assert len(samples) == 3
    assert all(content == picture() for sample in samples for content in sample.values())
    assert sorted(tmp_path.rglob("*")) == before
    assert not Path("/tmp/absolute.jpg").exists()


def test_shards_made_of_hostile_names_lie_in_their_folder(tmp_path):
    from unveil_pretrain.data.build_shards import ShardsConfig, build_shards
    from unveil_pretrain.errors import ConfigError

    (tmp_path / "secret").write_bytes(b"secret")
    shard = tmp_path / "a" / "b" / "x.tar"
    shard.parent.mkdir(parents=True)
    hostile_tar(shard, tmp_path / "secret")
    build_shards(ShardsConfig(source=str(shard), out=tmp_path / "a" / "out"))
    made = [path for path in tmp_path.rglob("*") if path.is_file() and not path.is_relative_to(tmp_path / "a" / "out")]
    assert sorted(path.name for path in made) == ["secret", "x.tar"]
    for name in ("../x", "/x", "a/b", ".x", ""):
        with pytest.raises(ConfigError):
            ShardsConfig(source=str(shard), out=tmp_path / "out", name=name)


def test_members_of_a_zip_are_read_in_place(tmp_path):
    from unveil_pretrain.data.folder import FolderDataset

    place = tmp_path / "a" / "x.zip"
    place.parent.mkdir()
    with zipfile.ZipFile(place, "w") as archive:
        for name in ("../../escaped.jpg", "/tmp/absolute.jpg", "good.jpg"):
            archive.writestr(name, picture())
    before = sorted(tmp_path.rglob("*"))
    samples = FolderDataset(str(place))
    assert all(samples.read(index)["jpg"] == picture() for index in range(len(samples)))
    assert sorted(tmp_path.rglob("*")) == before


def test_files_that_result_rows_name_are_looked_for_in_their_folder_only(tmp_path):
    from unveil_evalharness.report.write import make_report
    from unveil_evalharness.results import ResultRow, append_rows

    folder = tmp_path / "eval"
    folder.mkdir()
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "index.json").write_text(json.dumps([{"file": "00.jpg", "caption": "a secret", "outcome": "good"}]))
    (outside / "00.jpg").write_bytes(picture())
    (folder / "link").symlink_to(outside)
    (folder / "gallery").mkdir()
    entries = [{"file": name, "caption": "a secret"} for name in ("../../outside/00.jpg", str(outside / "00.jpg"))]
    (folder / "gallery" / "index.json").write_text(json.dumps(entries))
    row = ResultRow(
        checkpoint="x", checkpoint_sha256="a" * 64, label="x", task="imagenet_ft", task_version=1, suite="quick",
        protocol="0" * 16, status="ok", metric="imagenet_ft.acc1", main=True, value=0.5, seed=0, data_hash="0" * 16,
    )  # fmt: skip
    places = ("../outside", str(outside), "link", "gallery")
    append_rows(
        folder / "results.jsonl",
        [replace(row, checkpoint_sha256=f"{number:064x}", gallery=place) for number, place in enumerate(places)],
    )
    page = make_report([folder], tmp_path / "report", formats=("html",), figures=False).page
    assert "a secret" not in page.read_text(encoding="utf-8")


def test_cells_of_a_plan_cannot_leave_their_sweep(tmp_path):
    from unveil_pretrain.errors import PretrainError
    from unveil_pretrain.planning.plans import read_plan

    cell = {"name": "../../escaped", "command": "mim", "recipe": "tiny_simmim", "seed": 0, "steps": 4}
    for content in ({"format_version": 1, "cells": [cell]}, {"cells": [cell]}, [cell]):
        (tmp_path / "plan.json").write_text(json.dumps(content))
        with pytest.raises(PretrainError):
            read_plan(tmp_path / "plan.json")


def test_a_checkpoint_whose_manifest_or_links_lead_out_is_refused(tmp_path):
    from unveil_backbones._files import check_inside
    from unveil_backbones.errors import UnsafePathError

    (tmp_path / "secret").write_bytes(b"x")
    folder = tmp_path / "step_1"
    folder.mkdir()
    (folder / "encoder.safetensors").symlink_to(tmp_path / "secret")
    for name in ("encoder.safetensors", "../secret"):
        with pytest.raises(UnsafePathError):
            check_inside(folder, name)
