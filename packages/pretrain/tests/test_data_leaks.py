"""Near-duplicates: planted ones are found, distinct images are not, pairs are those of a plain comparison."""

import io
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from unveil_pretrain.cli import main
from unveil_pretrain.data import open_samples
from unveil_pretrain.data.leaks import find_leaks
from unveil_pretrain.data.near_duplicates import DEFAULT_DISTANCE, MAX_DISTANCE, near_pairs, perceptual_hashes
from unveil_pretrain.errors import ConfigError

PACK = Path(os.environ.get("UNVEIL_DATA") or Path(__file__).resolve().parents[4] / "shared" / "data" / "pack")


def plain_pairs(left, right, most):
    """Every pair, compared bit by bit."""
    found = []
    for j in range(len(right)):
        for i in range(len(left)):
            distance = max(int(a ^ b).bit_count() for a, b in zip(left[i].tolist(), right[j].tolist(), strict=True))
            if distance <= most:
                found.append((j, distance, i))
    return [(i, j, distance) for j, distance, i in sorted(found)]


@settings(max_examples=60)
@given(seed=st.integers(0, 2**32), most=st.integers(0, MAX_DISTANCE))
def test_pairs_are_those_of_a_plain_comparison(seed, most):
    rng = np.random.default_rng(seed)
    left = rng.integers(0, 2**64, (12, 2), dtype=np.uint64)
    right = left[rng.integers(0, 12, 9)].copy()
    for row in right:  # some bits changed, about as many as are allowed
        for column in range(2):
            for bit in rng.choice(64, rng.integers(0, 14), replace=False):
                row[column] ^= np.uint64(1) << np.uint64(bit)
    assert [tuple(pair) for pair in near_pairs(left, right, max_distance=most).tolist()] == plain_pairs(
        left, right, most
    )


def test_equal_hashes_and_empty_sides():
    same = np.zeros((3, 2), dtype=np.uint64)
    assert len(near_pairs(same, same, max_distance=0)) == 9
    assert len(near_pairs(same, same[:0], max_distance=8)) == len(near_pairs(same[:0], same, max_distance=8)) == 0
    for wrong in (-1, MAX_DISTANCE + 1):
        with pytest.raises(ConfigError, match=f"give 0 to {MAX_DISTANCE}"):
            near_pairs(same, same, max_distance=wrong)


def scene(number):
    """A picture of a few soft blobs, unlike the next one."""
    rng = np.random.default_rng(number)
    rows, columns = np.mgrid[0:120, 0:160]
    planes = np.zeros((120, 160, 3))
    for _ in range(12):
        row, column, size = rng.uniform(0, 120), rng.uniform(0, 160), rng.uniform(6, 40)
        blob = np.exp(-((rows - row) ** 2 + (columns - column) ** 2) / (2 * size**2))
        planes += blob[..., None] * rng.uniform(-160, 160, 3)
    return Image.fromarray((planes + 128).clip(0, 255).astype(np.uint8))


def copies(image):
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=50)
    width, height = image.size
    return {
        "encoded": Image.open(stream),
        "resized": image.resize((width * 2 // 3, height * 2 // 3), Image.Resampling.BICUBIC),
        "cropped": image.crop((width // 60, height // 60, width - width // 60, height - height // 60)),
    }


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    root = tmp_path_factory.mktemp("leaks")
    for number in range(30):
        path = root / "train" / f"c{number % 2}" / f"{number:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        scene(number).save(path)
    (root / "val").mkdir()
    for number in range(100, 120):
        scene(number).save(root / "val" / f"{number}.png")
    for number in (3, 8, 20):
        for name, image in copies(scene(number)).items():
            image.convert("RGB").save(root / "val" / f"{number:02d}-{name}.png")
    return root


def test_planted_copies_are_found_and_nothing_else(sets):
    leaks, unreadable = find_leaks(
        open_samples(str(sets / "train")), open_samples(str(sets / "val")), max_distance=DEFAULT_DISTANCE, num_workers=2
    )
    assert not unreadable
    expected = {f"{number:02d}-{name}" for number in (3, 8, 20) for name in ("encoded", "resized", "cropped")}
    assert {leak.val for leak in leaks} == expected
    assert all(leak.train.split("/")[1] == leak.val.split("-")[0] for leak in leaks)


def test_leaks_are_listed_counted_and_left_out(sets, tmp_path, capsys):
    (tmp_path / "val").mkdir()
    for path in (sets / "val").iterdir():
        (tmp_path / "val" / path.name).write_bytes(path.read_bytes())
    (tmp_path / "val" / "broken.png").write_bytes(b"no image")
    command = ["subset", str(sets / "train"), "--fractions", ".5", "1", "--check-leak", str(tmp_path / "val")]
    main([*command, "--out", str(tmp_path / "kept")])
    said = capsys.readouterr().out
    assert "3 training images are within 8 bits of 9 validation images, kept; 1 images could not be compared" in said
    assert "not compared: " in said
    rows = (tmp_path / "kept" / "leaks.tsv").read_text().splitlines()
    assert rows[0] == "distance\ttrain\tval"
    assert len(rows) == 10
    assert [int(row.split("\t")[0]) for row in rows[1:]] == sorted(int(row.split("\t")[0]) for row in rows[1:])
    assert "# leaks: 3 kept" in (tmp_path / "kept" / "S100.txt").read_text()
    main([*command, "--out", str(tmp_path / "left"), "--exclude-leaks"])
    text = (tmp_path / "left" / "S100.txt").read_text()
    assert "# leaks: 3 left out" in text
    assert "27 of 27 samples" in text
    assert "c1/03" not in text.splitlines()


def test_a_missing_library_is_named(sets, monkeypatch):
    monkeypatch.setitem(sys.modules, "imagehash", None)
    with pytest.raises(ConfigError, match=r"pip install 'unveil-pretrain\[audit\]'"):
        perceptual_hashes(open_samples(str(sets / "val")), num_workers=0)


@pytest.mark.data
@pytest.mark.skipif(not PACK.is_dir(), reason=f"no real-image pack at {PACK}; set UNVEIL_DATA")
def test_distinct_photographs_are_no_leaks():
    train, val = (open_samples(str(PACK / "caltech101" / split)) for split in ("train", "val"))
    leaks, unreadable = find_leaks(train, val, max_distance=DEFAULT_DISTANCE)
    assert (leaks, unreadable) == ([], [])
