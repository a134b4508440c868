"""Reading ImageFolders: layouts, formats, subsets, hashes and what is refused."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from unveil_evalharness.errors import DataError
from unveil_evalharness.tasks.imagenet_ft.data import (
    FolderImages,
    ImageFolder,
    balanced,
    folder_hash,
    open_image,
    read_folders,
    reduced,
)


def write(path, *, size=(8, 6), mode="RGB", colour=128, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, colour).save(path, **options)


@pytest.fixture
def root(tmp_path):
    """Two classes; three training and two validation images each."""
    for split, count in (("train", 3), ("val", 2)):
        for name in ("cat", "ant"):
            for number in range(count):
                write(tmp_path / "imagenet" / split / name / f"{number}.jpg")
    return tmp_path


def test_labels_follow_the_sorted_folder_names(root):
    train, val = read_folders(root)
    assert train.classes == val.classes == ("ant", "cat")
    assert train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert [path.name for path, _ in val.images] == ["0.jpg", "1.jpg"] * 2


def test_other_files_and_hidden_entries_are_not_images(root):
    (root / "imagenet" / "train" / "cat" / "notes.txt").write_text("x")
    (root / "imagenet" / "train" / "cat" / "._0.jpg").write_text("x")
    (root / "imagenet" / "train" / ".cache").mkdir()
    (root / "imagenet" / "classes.txt").write_text("x")
    assert len(read_folders(root)[0].images) == 6


def test_upper_case_and_other_formats_are_images(root):
    write(root / "imagenet" / "train" / "cat" / "a.JPEG", format="JPEG")
    write(root / "imagenet" / "train" / "cat" / "b.png")
    assert len(read_folders(root)[0].images) == 8


def test_a_missing_split_names_the_folder_and_the_layout(tmp_path):
    with pytest.raises(DataError, match=r"imagenet.train is not a folder; expected imagenet/\{train,val\}/<class>"):
        read_folders(tmp_path)


def test_a_split_without_classes_is_refused(root):
    empty = root / "other"
    (empty / "imagenet" / "train").mkdir(parents=True)
    with pytest.raises(DataError, match="holds no class folders"):
        read_folders(empty)


def test_an_empty_class_is_named(root):
    for split in ("train", "val"):
        (root / "imagenet" / split / "bee").mkdir()
    with pytest.raises(DataError, match=r"bee holds no image"):
        read_folders(root)


def test_classes_that_differ_between_train_and_val_are_named(root):
    write(root / "imagenet" / "train" / "bee" / "0.jpg")
    write(root / "imagenet" / "val" / "dog" / "0.jpg")
    with pytest.raises(DataError, match=r"only in train: \['bee'\], only in val: \['dog'\]"):
        read_folders(root)


@pytest.mark.parametrize(
    ("mode", "colour", "expected"),
    [("L", 10, (10, 10, 10)), ("RGBA", (1, 2, 3, 0), (1, 2, 3)), ("CMYK", (0, 0, 0, 0), (255, 255, 255))],
)
def test_grey_transparent_and_print_images_become_rgb(tmp_path, mode, colour, expected):
    path = tmp_path / ("image.jpg" if mode == "CMYK" else "image.png")
    write(path, mode=mode, colour=colour)
    image = open_image(path)
    assert image.mode == "RGB"
    assert image.getpixel((0, 0)) == expected


def test_a_palette_with_transparency_is_read_without_a_warning(tmp_path):
    path = tmp_path / "palette.png"
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, 50, 60, 70])
    image.save(path, transparency=b"\x00\xff")
    assert open_image(path).getpixel((0, 0)) == (50, 60, 70)


def test_a_truncated_jpeg_is_named(tmp_path):
    path = tmp_path / "cut.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:800])
    with pytest.raises(DataError, match=r"cannot decode .*cut\.jpg .*truncated"):
        open_image(path)


def test_a_file_that_is_no_image_is_named(tmp_path):
    path = tmp_path / "text.jpg"
    path.write_text("not a picture")
    with pytest.raises(DataError, match=r"cannot decode .*text\.jpg .*cannot identify"):
        open_image(path)


def folder_of(counts):
    images = [(Path(f"{label}-{number}"), label) for label, count in enumerate(counts) for number in range(count)]
    return ImageFolder(classes=tuple(f"c{label}" for label in range(len(counts))), images=tuple(images))


@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.integers(1, 40))
def test_a_limit_takes_from_all_classes_in_turn(counts, limit):
    folder = folder_of(counts)
    kept = np.bincount(balanced(folder, limit).labels, minlength=len(counts))
    assert kept.sum() == min(limit, sum(counts))
    # A class has fewer than another only if it has no more to give, but for one unfinished turn.
    for label, count in enumerate(counts):
        assert kept[label] == count or kept[label] >= kept.max() - 1


@given(st.integers(1, 30))
def test_a_larger_limit_contains_a_smaller_one(limit):
    folder = folder_of([8, 12, 10])
    smaller, larger = (set(balanced(folder, size).images) for size in (limit, limit + 1))
    assert smaller < larger or len(larger) == len(smaller) == 30


def test_no_limit_keeps_everything():
    folder = folder_of([3, 4])
    assert balanced(folder, None) is folder
    assert balanced(folder, 7) is folder


def test_the_subset_is_always_the_same_and_not_just_the_first_names():
    folder = folder_of([100, 100])
    chosen = balanced(folder, 20)
    assert chosen == balanced(folder, 20)
    assert chosen.images[:10] != folder.images[:10]


def test_the_hash_follows_names_and_sizes(root):
    before = folder_hash(root)
    assert len(before) == 16
    assert folder_hash(root) == before
    path = root / "imagenet" / "val" / "cat" / "0.jpg"
    path.rename(path.with_name("9.jpg"))
    renamed = folder_hash(root)
    assert renamed != before
    write(path.with_name("9.jpg"), size=(80, 60))
    assert folder_hash(root) not in {before, renamed}


def test_the_hash_does_not_depend_on_where_the_data_lies(root, tmp_path_factory):
    before = folder_hash(root)
    assert folder_hash(root.rename(tmp_path_factory.mktemp("elsewhere") / "data")) == before


def test_images_are_read_once_when_kept_in_memory(root):
    train, _ = read_folders(root)
    images = FolderImages(train, np.asarray, kept_side=4)
    first = images[0]["inputs"]
    train.images[0][0].unlink()
    assert np.array_equal(images[0]["inputs"], first)
    assert first.shape == (4, 5, 3)
    assert images[4] | {"inputs": None} == {"inputs": None, "targets": 1, "indices": 4}


def test_a_small_image_is_not_enlarged():
    assert reduced(Image.new("RGB", (5, 9)), 6).size == (5, 9)
    assert reduced(Image.new("RGB", (50, 90)), 10).size == (10, 18)
