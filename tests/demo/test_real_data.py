"""`make demo DATA=<dir>` recognises data sets by their files and lays them out as a data root."""

import tarfile
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from demo.real_data import RealDataError, find_sources, lay_out


def picture(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), (10, 200, 30)).save(path)
    return path


def coco(folder: Path, num_train: int) -> None:
    for number in range(num_train):
        picture(folder / "train2017" / f"{number}.jpg")
    for split in ("train", "val"):
        annotations = folder / "annotations" / f"instances_{split}2017.json"
        annotations.parent.mkdir(exist_ok=True)
        annotations.write_text("{}")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "given"
    for split in ("train", "val"):
        for label in ("cat", "dog"):
            picture(root / "animals" / split / label / "a.b.png")
        inner = picture(tmp_path / "loose" / "n01" / "x.JPEG")
        (root / "imagenet_tiny").mkdir(exist_ok=True)
        with zipfile.ZipFile(root / "imagenet_tiny" / f"{split}.zip", "w") as archive:
            archive.write(inner, "n01/x.JPEG")
        (root / "imagenet_tiny" / f"{split}_map.txt").write_text("n01/x.JPEG\t0\n")
    coco(root / "coco", num_train=1)
    coco(root / "larger_coco", num_train=3)
    for name, num_train in (("small", 1), ("large", 2)):
        for kind in ("images", "annotations"):
            (root / name / kind / "validation").mkdir(parents=True)
            for number in range(num_train):
                picture(root / name / kind / "training" / f"{number}.png")
    for split in ("train", "val"):
        (root / "pairs").mkdir(exist_ok=True)
        (root / "pairs" / f"{split}-00000.tar").write_bytes(b"")
    return root


def test_the_benchmarks_name_comes_before_size(folder: Path) -> None:
    chosen = {role: source.path.name for role, source in find_sources(folder).items()}
    assert chosen == {"imagenet": "imagenet_tiny", "coco": "coco", "ade20k": "large", "captions": "pairs"}


def test_a_missing_layout_is_named(folder: Path) -> None:
    for tar in (folder / "pairs").iterdir():
        tar.unlink()
    with pytest.raises(RealDataError, match="holds no captions layout"):
        find_sources(folder)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(RealDataError, match="is not a folder"):
        find_sources(tmp_path / "nothing")


def test_zips_are_unpacked_and_sharded_and_the_rest_is_linked(folder: Path, tmp_path: Path) -> None:
    root = tmp_path / "data"
    lay_out(folder, root)
    assert (root / "imagenet" / "train" / "n01" / "x.JPEG").is_file()
    assert (root / "coco").resolve() == (folder / "coco").resolve()
    assert (root / "shards" / "pairs").resolve() == (folder / "pairs").resolve()
    with tarfile.open(root / "shards" / "images" / "train-00000.tar") as shard:
        assert sorted(shard.getnames()) == ["n01-x.jpg", "n01-x.json"]


def test_an_existing_data_root_is_kept(folder: Path, tmp_path: Path) -> None:
    root = tmp_path / "data"
    root.mkdir()
    lay_out(folder, root)
    assert list(root.iterdir()) == []
