"""`python -m benchmarks.data` runs end to end on a few pictures, and refuses views that differ."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from benchmarks import _data_peers, data

# webdataset leaves the files of its shards to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def folder_of_images(root):
    for number in range(5):
        rows, columns = np.mgrid[0:60, 0:80]
        pixels = np.stack([rows * 4, columns * 3, (rows + columns * number) % 256], -1).astype(np.uint8)
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, "JPEG")
        (root / f"{number}.jpg").write_bytes(stream.getvalue())
    return root


def quick(folder, *more):
    return data.main(
        ["--images", str(folder), "--samples", "8", "--batch", "4", "--size", "32", "--rounds", "1", *more]
    )


def test_all_rows_run(tmp_path, capsys):
    folder = folder_of_images(tmp_path)
    assert quick(folder, "--num-workers", "1", "--json", str(tmp_path / "figures.json")) == 0
    printed = capsys.readouterr().out
    assert printed.count("webdataset default") == 3
    assert "only 1 rounds: a trial, not a result" in printed
    assert "views differ by" in printed
    written = json.loads((tmp_path / "figures.json").read_text())
    assert len(written["outcomes"]) == 4
    assert all(ratio["difference"] <= 0.5 for outcome in written["outcomes"] for ratio in outcome["ratios"])


def test_other_crops_end_the_run(tmp_path, capsys, monkeypatch):
    def elsewhere(key, size, task):
        del key, task
        return _data_peers.CropBox(0, 0, size[1] // 2, size[0] // 2, False)

    monkeypatch.setattr(_data_peers, "crop_of", elsewhere)
    assert quick(folder_of_images(tmp_path), "--only", "loader") == 1
    said = capsys.readouterr()
    assert "differ by" in said.err
    assert "ms cpu" not in said.out


def test_a_folder_without_photographs_is_named(tmp_path, capsys):
    assert quick(tmp_path) == 2
    assert "holds no .jpg" in capsys.readouterr().err
