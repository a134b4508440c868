"""`pretrain shards`: deterministic, continued after a kill, verified; broken sources and foreign folders are named."""

import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import time

import numpy as np
import pytest
from PIL import Image
from unveil_pretrain.cli import main
from unveil_pretrain.data import FolderDataset, PairDataset, ShardDataset
from unveil_pretrain.data.build_shards import ShardsConfig, build_shards
from unveil_pretrain.data.caption_files import read_caption_file
from unveil_pretrain.data.shard_index import index_from_json, index_to_json
from unveil_pretrain.data.shard_writer import sha256_of
from unveil_pretrain.errors import ConfigError, DataError, OutputError
from webdataset import WebDataset


def write_image(path, number, side=24, kind="JPEG"):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(number).integers(0, 255, (side, side + 4, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, kind)


@pytest.fixture
def folder(tmp_path):
    for number in range(11):
        write_image(tmp_path / "images" / ("cat" if number % 3 else "dog") / f"{number:02d}.jpg", number)
    return tmp_path / "images"


def config(folder, out, **changed):
    return ShardsConfig(**({"source": str(folder), "out": out, "samples_per_shard": 4} | changed))


def bytes_of(out):
    return {path.name: path.read_bytes() for path in sorted(out.iterdir())}


def test_shards_hold_the_folder(folder, tmp_path):
    index = build_shards(config(folder, tmp_path / "out"))
    source, shards = FolderDataset(str(folder)), ShardDataset(f"{tmp_path}/out/*.tar")
    assert [record.num_samples for record in index.shards] == [4, 4, 3]
    assert sorted(shards.keys) == sorted(source.keys)
    assert index.classes == ("cat", "dog")
    assert index.content_hash == shards.content_hash
    for place, key in enumerate(shards.keys):
        number = source.keys.index(key)
        assert shards.read(place)["jpg"] == source.read(number)["jpg"]
        assert index.classes[int(shards.label(place))] == source.label(number)
    assert [record.sha256 for record in index.shards] == [
        sha256_of(tmp_path / "out" / record.name) for record in index.shards
    ]
    assert index_from_json(index_to_json(index), "w") == index
    assert json.loads((tmp_path / "out" / "index.json").read_text()) == json.loads(index_to_json(index))
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "index.json", "train-00000.tar", "train-00001.tar", "train-00002.tar",
    ]  # fmt: skip


@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)  # webdataset leaves files to the collector
def test_webdataset_reads_them(folder, tmp_path):
    build_shards(config(folder, tmp_path / "out"))
    read = list(WebDataset(f"{tmp_path}/out/train-{{00000..00002}}.tar", shardshuffle=False).decode("pil"))
    assert {sample["__key__"] for sample in read} == set(FolderDataset(str(folder)).keys)
    assert {sample["cls"] for sample in read} == {0, 1}
    assert all(sample["jpg"].size == (28, 24) for sample in read)


def test_bytes_depend_on_source_and_settings_alone(folder, tmp_path):
    build_shards(config(folder, tmp_path / "one"))
    build_shards(config(folder, tmp_path / "two", num_workers=3))
    assert bytes_of(tmp_path / "one") == bytes_of(tmp_path / "two")
    with tarfile.open(tmp_path / "one" / "train-00000.tar") as archive:
        assert {(info.mtime, info.uid, info.uname, info.mode) for info in archive} == {(0, 0, "", 0o644)}
    build_shards(config(folder, tmp_path / "three", seed=1))
    assert ShardDataset(f"{tmp_path}/three/*.tar").keys != ShardDataset(f"{tmp_path}/one/*.tar").keys


def test_finished_shards_are_kept_and_damaged_ones_written_again(folder, tmp_path):
    out, lines = tmp_path / "out", []
    build_shards(config(folder, out))
    before, times = bytes_of(out), {path.name: path.stat().st_mtime_ns for path in out.glob("*.tar")}
    damaged = bytearray(before["train-00001.tar"])
    damaged[600] ^= 1
    (out / "train-00001.tar").write_bytes(damaged)
    (out / "train-00002.tar").unlink()
    build_shards(config(folder, out), log=lines.append)
    assert bytes_of(out) == before
    assert (out / "train-00000.tar").stat().st_mtime_ns == times["train-00000.tar"]
    assert [line.split(":")[0] for line in lines if "finished before" in line] == ["train-00000.tar"]


def test_a_killed_build_is_continued(tmp_path):
    for number in range(60):
        write_image(tmp_path / "images" / f"{number:03d}.png", number, side=200, kind="PNG")
    command = [
        sys.executable, "-m", "unveil_pretrain", "shards", "--source", str(tmp_path / "images"),
        "--out", str(tmp_path / "out"), "--samples-per-shard", "3", "--max-side", "190",
    ]  # fmt: skip
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"})
    deadline = time.monotonic() + 60
    while len(list((tmp_path / "out").glob("*.tar"))) < 3 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (tmp_path / "out" / "index.json").exists()
    lines = []
    settings = {"samples_per_shard": 3, "max_side": 190}
    build_shards(config(tmp_path / "images", tmp_path / "out", **settings), log=lines.append)
    assert sum("finished before" in line for line in lines) >= 2
    build_shards(config(tmp_path / "images", tmp_path / "whole", **settings))
    assert bytes_of(tmp_path / "whole") == bytes_of(tmp_path / "out")


def test_large_images_are_made_smaller(tmp_path):
    write_image(tmp_path / "images" / "large.png", 0, side=100, kind="PNG")
    write_image(tmp_path / "images" / "small.png", 1, side=30, kind="PNG")
    build_shards(config(tmp_path / "images", tmp_path / "out", max_side=52, quality=90))
    shards = ShardDataset(f"{tmp_path}/out/*.tar")
    files = dict(zip(shards.keys, shards, strict=True))
    assert Image.open(io.BytesIO(files["large"]["jpg"])).size == (52, 50)
    assert files["small"] == {"png": (tmp_path / "images" / "small.png").read_bytes()}


def test_broken_images_are_left_out_up_to_a_limit_and_named(folder, tmp_path, capsys):
    (folder / "cat" / "broken.jpg").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"1 broken images so far, 0 are allowed; .*cat/broken\.jpg.*--max-bad-samples"):
        build_shards(config(folder, tmp_path / "none"))
    main([
        "shards", "--source", str(folder), "--out", str(tmp_path / "out"), "--samples-per-shard", "4",
        "--max-bad-samples", "1",
    ])  # fmt: skip
    said = capsys.readouterr().out
    assert "left out: " in said
    assert "3 shards, 11 samples, 2 classes, 1 left out" in said
    index = json.loads((tmp_path / "out" / "index.json").read_text())
    assert ["cat/broken.jpg" in line for record in index["shards"] for line in record["left_out"]] == [True]
    copied = build_shards(config(folder, tmp_path / "copied", check_images=False))
    assert copied.num_samples == 12


def test_captions_come_along(tmp_path):
    for number in range(3):
        write_image(tmp_path / "images" / f"{number}.jpg", number)
    coco = {
        "images": [{"id": 7, "file_name": "0.jpg"}, {"id": 8, "file_name": "val/1.jpg"}],
        "annotations": [
            {"image_id": 7, "caption": "one"},
            {"image_id": 8, "caption": " two "},
            {"image_id": 7, "caption": "three"},
        ],
    }
    (tmp_path / "captions.json").write_text(json.dumps(coco))
    (tmp_path / "captions.txt").write_text('image,caption\n0.jpg,one\n1.jpg,two\n0.jpg,"three"\n')
    assert read_caption_file(tmp_path / "captions.json") == read_caption_file(tmp_path / "captions.txt")
    index = build_shards(config(tmp_path / "images", tmp_path / "out", captions=tmp_path / "captions.json"))
    assert index.num_samples == 2
    pairs = PairDataset(ShardDataset(f"{tmp_path}/out/*.tar"), image_size=(8, 8))
    assert {pairs.shards.keys[index]: pairs.captions(index) for index in range(2)} == {
        "0": ("one", "three"),
        "1": ("two",),
    }
    (tmp_path / "captions.txt").write_text("file;text\n")
    with pytest.raises(DataError, match="cannot be read"):
        read_caption_file(tmp_path / "captions.txt")
    (tmp_path / "captions.txt").write_text("image,caption\nelsewhere.jpg,a\n")
    with pytest.raises(DataError, match="give the captions of these images"):
        build_shards(config(tmp_path / "images", tmp_path / "b", captions=tmp_path / "captions.txt"))


def test_a_folder_of_other_shards_is_left_alone(folder, tmp_path):
    build_shards(config(folder, tmp_path / "out"))
    before = bytes_of(tmp_path / "out")
    with pytest.raises(OutputError, match="samples_per_shard is 5 now and was 4"):
        build_shards(config(folder, tmp_path / "out", samples_per_shard=5))
    write_image(folder / "cat" / "new.jpg", 99)
    with pytest.raises(OutputError, match="source_hash is"):
        build_shards(config(folder, tmp_path / "out"))
    assert {name: content for name, content in bytes_of(tmp_path / "out").items() if name in before} == before
    (tmp_path / "strange").mkdir()
    (tmp_path / "strange" / "x.tar").write_bytes(b"")
    with pytest.raises(OutputError, match=r"holds x\.tar, which this command did not write"):
        build_shards(config(folder, tmp_path / "strange"))


@pytest.mark.parametrize(
    "wrong", [{"samples_per_shard": 0}, {"max_side": -1}, {"quality": 0}, {"name": "a/b"}, {"num_workers": -1}]
)
def test_impossible_settings_are_refused(tmp_path, wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        config(tmp_path, tmp_path / "out", **wrong)


@pytest.mark.parametrize("text", ["{", "[]", '{"format_version": 1}', '{"format_version": 9}'])
def test_a_damaged_index_is_named(text):
    with pytest.raises(DataError, match=r"^i\.json"):
        index_from_json(text, "i.json")
