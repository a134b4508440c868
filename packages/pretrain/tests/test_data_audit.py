"""`pretrain audit`: every kind of fault is found, named and counted; what is sound passes."""

import io
import json

import numpy as np
import pytest
from PIL import Image
from unveil_pretrain.cli import main
from unveil_pretrain.data.audit import audit
from unveil_pretrain.data.build_shards import ShardsConfig, build_shards


def jpeg(number):
    stream = io.BytesIO()
    pixels = np.random.default_rng(number).integers(0, 255, (20, 24, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(stream, "JPEG")
    return stream.getvalue()


@pytest.fixture
def built(tmp_path):
    for number in range(9):
        path = tmp_path / "images" / f"class{number % 3}" / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(jpeg(number))
    build_shards(ShardsConfig(source=str(tmp_path / "images"), out=tmp_path / "shards", samples_per_shard=3))
    return tmp_path / "shards"


def kinds(report):
    return [finding.kind for finding in report.findings]


def run_audit(*arguments):
    try:
        main(["audit", *map(str, arguments)])
    except SystemExit as stop:
        return stop.code
    return 0


def test_sound_shards_pass(built, capsys, tmp_path):
    code = run_audit(built, "--json", tmp_path / "audit.json", "--world-size", "2", "--workers-per-process", "2",
                     "--batch-size", "6")  # fmt: skip
    assert code == 0
    said = capsys.readouterr().out
    for part in (
        "9 in 3 shards", "readable  9,", "index     matches", "classes   3, of 3 to 3 samples", "1.50 updates of 6",
        "3 images of each update on each of 2", "1 of 4 readers would have none", "all of it can be used",
    ):  # fmt: skip
        assert part in said
    written = json.loads((tmp_path / "audit.json").read_text())
    assert written["num_readable"] == 9
    assert written["num_faults"] == 0
    assert len(written["feasibility"]) == 3


def test_a_folder_passes_and_says_what_it_ignored(built, tmp_path, capsys):
    (tmp_path / "images" / "notes.txt").write_text("no image")
    assert run_audit(tmp_path / "images") == 0
    said = capsys.readouterr().out
    assert "9 in a folder" in said
    assert "ignored: 1 (no fault)" in said
    assert "notes.txt is no image" in said


def test_workers_change_nothing(built):
    assert audit(str(built)) == audit(str(built), num_workers=3)


def test_a_truncated_shard_is_found(built, capsys):
    shard = built / "train-00001.tar"
    shard.write_bytes(shard.read_bytes()[:2000])
    report = audit(str(built))
    assert kinds(report) == ["shard", "hash"]
    assert report.num_samples == 6
    assert report.samples_per_shard == (3, 0, 3)
    assert report.content_hash is None
    assert run_audit(built) == 1
    said = capsys.readouterr().out
    assert "train-00001.tar: the shard is cut off" in said
    assert "2 faults" in said


def test_changed_missing_and_foreign_shards_are_found(built, shard_writer):
    path = built / "train-00000.tar"
    content = bytearray(path.read_bytes())
    content[512 + 3] ^= 1  # a byte of the first image
    path.write_bytes(content)
    (built / "train-00002.tar").unlink()
    shard_writer(built / "train-00007.tar", {"new": {"jpg": jpeg(77), "cls": b"0"}})
    report = audit(str(built))
    found = {finding.where.rsplit("/", 1)[-1]: finding.what for finding in report.findings if finding.kind == "hash"}
    assert found["train-00000.tar"].startswith("its bytes are not those")
    assert found["train-00002.tar"].startswith("index.json names this shard")
    assert found["train-00007.tar"] == "index.json does not name this shard"
    assert report.index == "differs"


def test_an_index_that_cannot_be_read_is_a_fault(built):
    (built / "index.json").write_text("{")
    report = audit(str(built))
    assert kinds(report) == ["index"]
    assert report.num_faults == 1


def test_samples_that_training_would_skip_are_found(tmp_path, shard_writer, capsys):
    samples = {
        "good": {"jpg": jpeg(0), "cls": b"1"},
        "copy": {"jpg": jpeg(0), "cls": b"1"},
        "cut": {"jpg": jpeg(1)[:300], "cls": b"1"},
        "none": {"txt": b"a", "cls": b"2"},
        "two": {"jpg": jpeg(2), "png": jpeg(2), "cls": b"2"},
        "classless": {"jpg": jpeg(3)},
    }
    path = shard_writer(tmp_path / "a.tar", samples)
    report = audit(path)
    assert [(finding.kind, finding.where.rsplit(": ", 1)[-1]) for finding in report.findings] == [
        ("image", "cut"), ("image", "none"), ("image", "two"), ("duplicate", "copy"), ("class", "classless"),
    ]  # fmt: skip
    assert (report.num_samples, report.num_readable, report.num_faults) == (6, 3, 4)
    assert report.class_counts == {"1": 3, "2": 2}
    assert report.index == "absent"
    assert run_audit(path, "--max-shown", "1") == 1
    said = capsys.readouterr().out
    assert "skipped   3 of them would be, each named below" in said
    assert "and 2 more; --json FILE has all" in said
    assert "duplicate: 1 (no fault)" in said


def test_equal_keys_are_found(tmp_path, shard_writer):
    first = shard_writer(tmp_path / "a.tar", {"same": {"jpg": jpeg(0)}})
    second = shard_writer(tmp_path / "b.tar", {"same": {"jpg": jpeg(1)}})
    assert kinds(audit(f"{first}::{second}")) == ["key"]


def test_a_batch_that_cannot_be_shared_is_said(built, capsys):
    run_audit(built, "--world-size", "3", "--batch-size", "8")
    assert "8 images cannot be dealt out equally to 3" in capsys.readouterr().out


def test_impossible_arguments_are_one_line(built, capsys):
    assert run_audit(built, "--world-size", "0") == 2
    assert "world_size=0" in capsys.readouterr().err
    assert run_audit(built / "nothing-*.tar") == 2
    assert "matches no file" in capsys.readouterr().err
