"""Every defect of an annotation file is one clear line before anything is trained."""

import json

import pytest
from unveil_evalharness.errors import DataError
from unveil_evalharness.tasks.coco_det import annotations


@pytest.fixture
def edit(coco_root):
    """Changes an annotation file in place."""

    def change(function, split="train"):
        path = coco_root / "coco" / "annotations" / f"instances_{split}2017.json"
        content = json.loads(path.read_text())
        function(content)
        path.write_text(json.dumps(content))
        return coco_root

    return change


def read_error(root):
    with pytest.raises(DataError) as caught:
        annotations.data_hash(root)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_a_good_folder_is_read(coco_root):
    train = annotations.read_split(coco_root, "train")
    assert len(train.images) == 6
    assert len(train.annotations) == 5
    assert len(annotations.data_hash(coco_root)) == 16


def test_the_hash_follows_the_data(coco_root, edit):
    before = annotations.data_hash(coco_root)
    assert annotations.data_hash(coco_root) == before
    image = next((coco_root / "coco" / "val2017").glob("*.jpg"))
    image.write_bytes(image.read_bytes() + b"\0")
    after_image = annotations.data_hash(coco_root)
    edit(lambda content: content["annotations"].pop())
    assert len({before, after_image, annotations.data_hash(coco_root)}) == 3


def test_missing_folder_and_files_are_named(coco_root, tmp_path):
    assert "coco_det reads coco/annotations/instances_{train,val}2017.json" in read_error(tmp_path / "nowhere")
    images = coco_root / "coco" / "val2017"
    images.rename(images.with_name("elsewhere"))
    assert f"no image folder {images}" in read_error(coco_root)


@pytest.mark.parametrize(
    ("content", "words"), [("", "(0 bytes) is not JSON"), ('{"images": [', "is not JSON"), ("[]", "has no images")]
)
def test_empty_and_truncated_files(coco_root, content, words):
    path = coco_root / "coco" / "annotations" / "instances_train2017.json"
    path.write_text(content)
    message = read_error(coco_root)
    assert words in message
    assert str(path) in message


@pytest.mark.parametrize("key", ["images", "annotations", "categories"])
def test_empty_lists(edit, key):
    assert f"has no {key}" in read_error(edit(lambda content: content[key].clear()))


def test_images_that_are_not_there_are_counted(coco_root):
    for path in sorted((coco_root / "coco" / "train2017").glob("*.jpg"))[:2]:
        path.unlink()
    message = read_error(coco_root)
    assert "names 2 of 6 images that are not in" in message
    assert "first 'train_1.jpg'" in message


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c["annotations"][2].update(image_id=999), "1 of 5 annotations have a image_id"),
        (lambda c: c["annotations"][2].update(category_id=4), "category_id that is not among its categories, first 4"),
        (lambda c: c["annotations"][1].update(bbox=[1, 2, 3]), "annotations[1] has the bbox [1, 2, 3]"),
        (lambda c: c["annotations"][1].update(bbox=[1, 2, 3, float("nan")]), "must be four numbers"),
        (lambda c: c["annotations"][0].pop("bbox"), "annotations[0] has no bbox"),
        (lambda c: c["images"][3].pop("width"), "images[3] has no width"),
        (lambda c: c["images"][3].update(id=5), "1 ids of images occur more than once, first 5"),
        (lambda c: c["images"][3].update(id="x"), "COCO ids are whole numbers"),
        (lambda c: c["categories"].append({"id": 3, "name": "twin"}), "ids of categories occur more than once"),
        (lambda c: c["categories"][0].update(name="crimson"), "category 3 is 'crimson'"),
    ],
)
def test_inconsistent_records(edit, change, words):
    assert words in read_error(edit(change))


def written(root, tmp_path, *, split="train", sizes=(), with_objects=True):
    lines = []
    files = annotations.write_split(
        annotations.read_split(root, split),
        tmp_path / "out.json",
        sizes=sizes,
        with_objects=with_objects,
        log=lines.append,
    )
    return files, json.loads((tmp_path / "out.json").read_text()), lines


def test_the_written_part_is_strict(coco_root, tmp_path):
    files, content, lines = written(coco_root, tmp_path)
    assert files.classes == ("red", "blue")
    assert files.num_images == len(content["images"]) == 5  # the empty image is left out of training
    assert [annotation["id"] for annotation in content["annotations"]] == [1, 2, 3, 4, 5]
    assert lines == []
    _, whole, _ = written(coco_root, tmp_path, with_objects=False)
    assert len(whole["images"]) == 6


def test_the_smallest_bound_counts_and_annotations_follow(coco_root, tmp_path):
    files, content, _ = written(coco_root, tmp_path, sizes=(4, None, 2))
    kept = {image["id"] for image in content["images"]}
    assert files.num_images == len(kept) == 2
    assert {annotation["image_id"] for annotation in content["annotations"]} == kept


def test_optional_fields_are_filled_in(edit, tmp_path):
    def strip(content):
        for annotation in content["annotations"]:
            del annotation["area"], annotation["iscrowd"], annotation["id"]

    _, content, _ = written(edit(strip), tmp_path)
    assert all(one["area"] == one["bbox"][2] * one["bbox"][3] and one["iscrowd"] == 0 for one in content["annotations"])


def test_annotations_without_outline_are_left_out_and_counted(edit, tmp_path):
    def spoil(content):
        content["annotations"][0]["segmentation"] = []
        content["annotations"][1]["segmentation"] = [[1, 2, 3, 4]]  # two corners; pycocotools would read a box
        content["annotations"][2]["bbox"][2] = 0

    _, content, lines = written(edit(spoil), tmp_path)
    assert len(content["annotations"]) == 2
    assert len(lines) == 1
    assert "3 annotations" in lines[0]


def test_boxes_alone_are_not_enough(edit, tmp_path):
    root = edit(lambda content: [one.pop("segmentation") for one in content["annotations"]])
    with pytest.raises(DataError, match="none of 5 annotations has a segmentation"):
        written(root, tmp_path)


def test_equal_category_names_are_told_apart(edit, tmp_path):
    files, content, _ = written(edit(lambda c: c["categories"][1].update(name="red")), tmp_path)
    assert files.classes == ("red (3)", "red (7)")
    assert [category["name"] for category in content["categories"]] == list(files.classes)


def test_validation_images_without_any_object_are_refused(edit, tmp_path):
    # val_0.png comes first in the fixed order of these names.
    root = edit(lambda content: content["annotations"].pop(0), split="val")
    with pytest.raises(DataError, match="the 1 images in use carry no object"):
        written(root, tmp_path, split="val", sizes=(1,), with_objects=False)


def test_an_image_that_is_listed_twice_is_named(edit):
    """Outcomes are paired by file name."""
    root = edit(lambda content: content["images"].append({**content["images"][0], "id": 9999}))
    assert "1 images occur more than once, first" in read_error(root)
