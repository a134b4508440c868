"""The built folder: each layout read back by the tool its users have, and the rules of building once."""

import dataclasses
import io
import json
import shutil

import numpy as np
import pytest
from PIL import Image
from unveil_pretrain.data import PairDataset, ShardDataset, val_batches
from unveil_pretrain.errors import ConfigError, OutputError
from unveil_pretrain.scenes import ScenesConfig, build_scenes
from unveil_pretrain.scenes.digits import DIGIT_NAMES, load_digit_bank
from unveil_pretrain.scenes.pictures import pictures
from unveil_pretrain.scenes.write_ade20k import CLASSES

pytest.importorskip("sklearn")
pytest.importorskip("pycocotools")

# pycocotools 2.0.11 predates the copy keyword of NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def small(out, **changed):
    counts = {
        "num_train": 24,
        "num_val": 9,
        "num_classification_train": 20,
        "num_classification_val": 10,
        "num_detection_train": 30,
        "num_detection_val": 10,
        "num_segmentation_train": 20,
        "num_segmentation_val": 8,
        "image_size": (48, 64),
        "dense_image_size": 96,
        "samples_per_shard": 10,
    }
    return ScenesConfig(out=out, **(counts | changed))


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return build_scenes(small(tmp_path_factory.mktemp("built") / "scenes"), progress=False)


def test_shards_hold_images_and_pairs(root):
    shards = sorted(path.relative_to(root).as_posix() for path in (root / "shards").rglob("*.tar"))
    expected = ["train-00000.tar", "train-00001.tar", "train-00002.tar", "val-00000.tar"]
    assert shards == [f"shards/{kind}/{name}" for kind in ("images", "pairs") for name in expected]
    images = ShardDataset(f"{root}/shards/images/train-{{00000..00002}}.tar")
    assert len(images) == 24
    assert set(images.extensions(0)) == {"jpg", "json"}
    pairs = ShardDataset(f"{root}/shards/pairs/val-00000.tar")
    assert len(pairs) == 9
    assert set(pairs.extensions(0)) == {"jpg", "txt", "json"}
    record = json.loads(pairs.read(0)["json"])
    assert len(set(record["captions"])) == 5
    assert pairs.read(0)["txt"].decode() == record["captions"][0]
    (batch,) = val_batches(PairDataset(pairs, image_size=(48, 64)), batch_size=9)
    assert batch.images.shape == (9, 3, 48, 64)


def test_pictures_are_whole_jpegs_that_keep_the_drawing(root):
    config = small(root)
    shards = ShardDataset(f"{root}/shards/images/val-00000.tar")
    stream = pictures(config.roles()["shards/images"], "val", load_digit_bank("val"), seed=0, advance=lambda: None)
    for index, picture in enumerate(stream):
        stored = np.asarray(Image.open(io.BytesIO(shards.read(index)["jpg"]))).astype(int)
        assert np.abs(stored - picture.drawn.image).mean() < 6


def test_keys_differ_between_roles_and_splits(root):
    keys = ShardDataset(f"{root}/shards/*/*.tar").keys
    assert len(keys) == 66
    assert len(set(keys)) == 66


def test_imagenet_is_an_image_folder(root):
    for split, count in (("train", 2), ("val", 1)):
        folders = sorted(path.name for path in (root / "imagenet" / split).iterdir())
        assert folders == sorted(DIGIT_NAMES)
        assert all(len(list((root / "imagenet" / split / name).glob("*.jpg"))) == count for name in folders)


@pytest.mark.parametrize("split", ["train", "val"])
def test_coco_is_read_by_its_own_api(root, split, capsys):
    from pycocotools.coco import COCO

    coco = COCO(str(root / f"coco/annotations/instances_{split}2017.json"))
    captions = COCO(str(root / f"coco/annotations/captions_{split}2017.json"))
    capsys.readouterr()
    assert [category["name"] for category in coco.loadCats(coco.getCatIds())] == list(DIGIT_NAMES)
    assert set(coco.imgs) == set(captions.imgs)
    assert all(len(captions.imgToAnns[image_id]) == 5 for image_id in coco.imgs)
    for image in coco.imgs.values():
        with Image.open(root / f"coco/{split}2017" / image["file_name"]) as opened:
            assert opened.size == (image["width"], image["height"])
    for annotation in coco.anns.values():
        mask = coco.annToMask(annotation).astype(bool)
        rows, columns = np.nonzero(mask)
        assert annotation["area"] == mask.sum() > 0
        assert annotation["bbox"] == [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]
    kinds = {(annotation["iscrowd"], type(annotation["segmentation"]).__name__) for annotation in coco.anns.values()}
    assert {(0, "list"), (0, "dict")} <= kinds
    if split == "train":
        assert (1, "dict") in kinds


def test_coco_masks_are_the_drawn_masks(root, capsys):
    from pycocotools.coco import COCO

    coco = COCO(str(root / "coco/annotations/instances_train2017.json"))
    capsys.readouterr()
    role = small(root).roles()["coco"]
    for picture in pictures(role, "train", load_digit_bank("train"), seed=0, advance=lambda: None):
        stored = [a for a in coco.imgToAnns[picture.index + 1] if not a["iscrowd"]]
        drawn = [
            (item.digit + 1, mask)
            for item, mask in zip(picture.scene.items, picture.drawn.masks, strict=True)
            if not item.crowd and mask.sum() >= 12
        ]
        assert [annotation["category_id"] for annotation in stored] == [category for category, _ in drawn]
        for annotation, (_, mask) in zip(stored, drawn, strict=True):
            assert np.array_equal(coco.annToMask(annotation).astype(bool), mask)


def test_ade20k_has_labels_for_every_image(root):
    lines = (root / "ade20k/objectInfo18.txt").read_text().splitlines()
    assert lines[0].split("\t") == ["Idx", "Ratio", "Train", "Val", "Name"]
    assert [line.split("\t")[-1] for line in lines[1:]] == list(CLASSES)
    counted, unlabelled = np.zeros((2, len(CLASSES)), dtype=int), 0
    for number, split in enumerate(("training", "validation")):
        images = sorted(path.stem for path in (root / f"ade20k/images/{split}").glob("*.jpg"))
        assert images == sorted(path.stem for path in (root / f"ade20k/annotations/{split}").glob("*.png"))
        for stem in images:
            image = Image.open(root / f"ade20k/images/{split}/{stem}.jpg")
            labels = Image.open(root / f"ade20k/annotations/{split}/{stem}.png")
            with image, labels:
                assert labels.mode == "L"
                assert labels.size == image.size == (96, 96)
                present = np.unique(np.asarray(labels))
            assert present.max() <= len(CLASSES)
            unlabelled += 0 in present
            counted[number, present[present > 0] - 1] += 1
    table = np.array([line.split("\t")[2:4] for line in lines[1:]], dtype=int).T
    assert np.array_equal(table, counted)
    assert 0 < unlabelled < 28
    assert 0.9 < sum(float(line.split("\t")[1]) for line in lines[1:]) < 1.0


def test_building_again_changes_nothing_and_the_result_is_reproducible(root, tmp_path):
    before = (root / "scenes.json").stat().st_mtime_ns
    assert build_scenes(small(root), progress=False) == root
    assert (root / "scenes.json").stat().st_mtime_ns == before
    second = build_scenes(small(tmp_path / "again"), progress=False)
    assert (second / "scenes.json").read_text() == (root / "scenes.json").read_text()


def test_more_scenes_keep_the_earlier_ones(root, tmp_path):
    parts = {
        f"num_{part}_{split}": 0
        for part in ("classification", "detection", "segmentation")
        for split in ("train", "val")
    }
    larger = build_scenes(small(tmp_path / "larger", num_train=40, **parts), progress=False)
    assert sorted(path.name for path in larger.iterdir()) == ["scenes.json", "shards"]
    few = ShardDataset(f"{root}/shards/images/train-*.tar")
    many = ShardDataset(f"{larger}/shards/images/train-*.tar")
    assert len(many) == 40
    assert all(few.read(index) == many.read(index) for index in range(24))


def test_another_build_in_the_same_folder_is_refused(root):
    with pytest.raises(OutputError, match=r"was built with seed=0, now seed=1; remove it"):
        build_scenes(small(root, seed=1), progress=False)


def test_changed_files_and_strange_folders_are_refused(root, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(root, copy)
    next((copy / "imagenet/val/one").glob("*.jpg")).write_bytes(b"")
    with pytest.raises(OutputError, match="were changed"):
        build_scenes(small(copy), progress=False)
    record = json.loads((copy / "scenes.json").read_text())
    (copy / "scenes.json").write_text(json.dumps(record | {"generator": 99}))
    with pytest.raises(OutputError, match="written by generator 99"):
        build_scenes(small(copy), progress=False)
    strange = tmp_path / "strange"
    strange.mkdir()
    (strange / "thesis.txt").write_text("mine")
    with pytest.raises(OutputError, match="not empty and holds no readable"):
        build_scenes(small(strange), progress=False)
    assert [path.name for path in strange.iterdir()] == ["thesis.txt"]


def test_a_failed_build_leaves_nothing(tmp_path, monkeypatch):
    def full_disk(*_args, **_options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("unveil_pretrain.scenes.build.write_coco", full_disk)
    counts = {"num_train": 1, "num_val": 0, "num_classification_train": 0, "num_classification_val": 0}
    with pytest.raises(OutputError, match="No space left on device"):
        build_scenes(small(tmp_path / "scenes", **counts), progress=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"num_train": -1}, "num_train is -1"),
        ({"image_size": 16}, "image_size is 16"),
        ({"dense_image_size": (128, 8)}, r"dense_image_size is \(128, 8\)"),
        ({"samples_per_shard": 0}, "samples_per_shard is 0"),
    ],
)
def test_impossible_settings_are_refused(tmp_path, wrong, message):
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(ScenesConfig(out=tmp_path), **wrong)
