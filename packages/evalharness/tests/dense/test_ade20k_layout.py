"""Every defect of a scene-parsing folder is one clear line before anything is trained."""

import numpy as np
import pytest
from PIL import Image
from unveil_evalharness.errors import DataError
from unveil_evalharness.tasks.ade20k_seg import layout


def labels_path(root, split="training", number=1):
    return root / "ade20k" / "annotations" / split / f"scene_{number}.png"


def error_of(function, *arguments):
    with pytest.raises(DataError) as caught:
        function(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_good_folder_is_read(ade_root):
    pairs = layout.read_pairs(ade_root, "train")
    assert [pair.name for pair in pairs] == [f"scene_{n}.{'png' if n % 3 == 0 else 'jpg'}" for n in range(6)]
    assert layout.class_names(ade_root, pairs) == ("wall", "red, ruby", "blue")
    counts = layout.count_pixels(pairs, 3)
    assert counts.shape == (6, 3)
    assert counts[1].sum() == 64 * 60  # four of 64 rows are unlabelled
    assert counts[0].sum() == 2 * 64 * 60
    assert len(layout.data_hash(ade_root)) == 16


def test_the_hash_follows_the_data(ade_root):
    before = layout.data_hash(ade_root)
    assert layout.data_hash(ade_root) == before
    path = labels_path(ade_root, "validation")
    values = np.array(Image.open(path))
    values[10, 10] = 3
    Image.fromarray(values).save(path)
    assert layout.data_hash(ade_root) != before


def test_missing_folders_and_partners(ade_root, tmp_path):
    assert "ade20k_seg reads ade20k/images" in error_of(layout.data_hash, tmp_path / "nowhere")
    labels_path(ade_root).unlink()
    assert "1 of 6 files in" in error_of(layout.read_pairs, ade_root, "train")
    assert "first 'scene_1'" in error_of(layout.read_pairs, ade_root, "train")
    (ade_root / "ade20k" / "images" / "training" / "scene_1.jpg").unlink()
    assert len(layout.read_pairs(ade_root, "train")) == 5
    labels_path(ade_root, number=2).rename(labels_path(ade_root, number=77))
    assert "have no partner" in error_of(layout.read_pairs, ade_root, "train")


def test_empty_folder_and_doubled_names(ade_root):
    folder = ade_root / "ade20k" / "images" / "training"
    Image.new("RGB", (4, 4)).save(folder / "scene_1.png")
    assert "1 names occur with two suffixes, first 'scene_1'" in error_of(layout.read_pairs, ade_root, "train")
    for path in folder.iterdir():
        path.unlink()
    assert "holds no image" in error_of(layout.read_pairs, ade_root, "train")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Idx\tName\n1\twall\n3\tdoor\n", "must list classes 1, 2, …"),
        ("1\twall\n2\tdoor\n", "no header with a column 'Name'"),
        ("", "no header"),
        ("Idx\tName\n" + "".join(f"{n}\tx\n" for n in range(1, 256)), "255 classes; 8-bit label maps allow 254"),
    ],
)
def test_class_lists_that_are_none(ade_root, text, words):
    (ade_root / "ade20k" / "objectInfo3.txt").write_text(text)
    assert words in error_of(layout.class_names, ade_root, [])


def test_two_class_lists(ade_root):
    (ade_root / "ade20k" / "objectInfo150.txt").write_text("Idx\tName\n1\twall\n")
    assert "objectInfo150.txt, objectInfo3.txt; keep the one" in error_of(layout.class_names, ade_root, [])


def test_without_a_class_list_the_labels_decide(ade_root):
    (ade_root / "ade20k" / "objectInfo3.txt").unlink()
    pairs = layout.read_pairs(ade_root, "train")
    assert layout.class_names(ade_root, pairs) == ("class 1", "class 2", "class 3")
    for pair in pairs:
        Image.new("L", (64, 64)).save(pair.labels)
    assert "no pixel of the 6 label maps" in error_of(layout.class_names, ade_root, pairs)


def test_label_maps_that_do_not_fit(ade_root):
    pair = layout.read_pairs(ade_root, "train")[1]
    values = np.array(Image.open(pair.labels))

    def save(array):
        Image.fromarray(array).save(pair.labels)
        return error_of(layout.count_pixels, [pair], 3)

    outside = values.copy()
    outside[5, 5] = 4
    assert "scene_1.png holds label 4, but there are 3 classes" in save(outside)
    assert "is a RGB image; a label map has one channel" in save(np.zeros((64, 64, 3), np.uint8))
    assert "has 64 x 64 pixels, its label map" in save(values[:60])
    assert "holds the value 300" in save(np.full((64, 64), 300, np.uint16))
    pair.labels.write_bytes(b"\x89PNG")
    assert "cannot decode the label map" in error_of(layout.count_pixels, [pair], 3)


def test_255_counts_as_unlabelled(ade_root):
    pair = layout.read_pairs(ade_root, "train")[1]
    values = np.full((64, 64), 255, np.uint8)
    values[0, :10] = 2
    Image.fromarray(values).save(pair.labels)
    assert layout.count_pixels([pair], 3).tolist() == [[0, 10, 0]]
