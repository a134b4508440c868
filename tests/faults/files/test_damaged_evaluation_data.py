"""What `evalharness` reads of data sets, damaged in every way."""

import shutil
from pathlib import Path
from unittest.mock import patch

import pytest
from damage import Case, command, problems_of
from good_files import captioned_shard
from unveil_evalharness.cli import main
from unveil_evalharness.tasks.ade20k_seg import layout
from unveil_evalharness.tasks.coco_det import annotations
from unveil_evalharness.tasks.imagenet_ft import data as labelled
from unveil_evalharness.tasks.val_loss import data as val_loss
from unveil_evalharness.tasks.zs_classification import data as zero_shot
from unveil_evalharness.tasks.zs_retrieval import data as retrieval
from unveil_evalharness.tasks.zs_retrieval.splits import KnownSplit, identifiers_digest

TEXT = "plain text that people edit: a changed letter is another word; the data's hash in each result row tells"
PIXELS = "pixels have no checksum in this format: a changed bit is another picture, or none, and then it is found"
SHORTER = "a list that ends early is a shorter list; the data's hash in each result row tells"
HASHED = "the bytes of shards are part of the data's hash, which every result row has"
FIXED = "the data set is read without it, which the title of the set and the data's hash tell"


def data_with(name: str, file: str):
    def make(specimens, folder: Path) -> Path:
        shutil.copytree(specimens / name, folder, dirs_exist_ok=True)
        return folder / file

    return make


def objects(folder: Path):
    split = annotations.read_split(folder, "val")
    return str((split.images, split.annotations, split.categories)), annotations.data_hash(folder)


def doctor_of_coco(folder: Path):
    shown = command(main, "doctor", "--data-root", folder, "--tasks", "coco_det")
    return [line for line in shown.splitlines() if "coco" in line]


def captions(folder: Path):
    found = retrieval.captioned_images(folder, limit=None)
    count = retrieval.count_images(folder, limit=None)
    return [(image.key, image.captions, image.decode().tobytes()) for image in found], count


def published_captions(folder: Path):
    """As the task that is named after the set: its two test images are the published ones here."""
    digest = identifiers_digest({"1007129816": 5, "36979": 5})
    known = KnownSplit(title="Flickr30k", num_images=2, digest=digest)
    with patch.object(retrieval, "FLICKR30K_1K", known), patch.object(retrieval, "recognise", lambda counts: (
        known if identifiers_digest(counts) == digest and min(counts.values()) >= 5 else None
    )):  # fmt: skip
        found = list(retrieval.captioned_images(folder, limit=None, source="flickr30k"))
    return [(image.key, image.captions, image.decode().tobytes()) for image in found]


def objectnet_with(name: str):
    """The two mappings, beside a link to images that nothing here opens."""

    def make(specimens, folder: Path) -> Path:
        whole = specimens / "objectnet" / "objectnet"
        shutil.copytree(whole / "mappings", folder / "objectnet" / "mappings")
        (folder / "objectnet" / "images").symlink_to(whole / "images")
        return folder / "objectnet" / "mappings" / name

    return make


def objectnet(folder: Path):
    """Without the hash of the data, so that a change of names has to be noticed by itself."""
    found = zero_shot.read_set(folder, "objectnet")
    return found.title, found.images


def caption_shard(specimens, folder: Path) -> Path:
    return captioned_shard(folder / "captions" / "val-00000.tar", range(3))


def label_maps(folder: Path):
    pairs = layout.read_pairs(folder, "val")
    return layout.class_names(folder, pairs), layout.count_pixels(pairs, 3).tolist()


def labelled_shards(specimens, folder: Path) -> Path:
    captioned_shard(folder / "imagenet" / "train-00000.tar", range(4))
    return captioned_shard(folder / "imagenet" / "val-00000.tar", range(4))


def names_of_shards(specimens, folder: Path) -> Path:
    labelled_shards(specimens, folder)
    (folder / "imagenet" / "classes.txt").write_text("red\ngreen\nblue\nwhite\n")
    return folder / "imagenet" / "classes.txt"


def images(folder: Path):
    found = labelled.read_folders(folder)
    pixels = [labelled.open_image(source).tobytes() for source, _ in found[1].images]
    return found[1].classes, pixels, labelled.folder_hash(folder)


def zero_shot_with(name: str, text: str):
    def make(specimens, folder: Path) -> Path:
        shutil.copytree(specimens / "labelled", folder, dirs_exist_ok=True)
        (folder / "imagenet" / name).write_text(text)
        return folder / "imagenet" / name

    return make


def prompts(folder: Path):
    found = zero_shot.read_set(folder, "folder")
    words = [template(name) for template in found.templates or (str,) for name in found.images.classes]
    return found.title, words, zero_shot.data_hash(folder, "folder")


def image_list(specimens, folder: Path) -> Path:
    shutil.copytree(specimens / "labelled", folder, dirs_exist_ok=True)
    (folder / "val_loss.txt").write_text("imagenet/val/red/val_0_0.jpg\nimagenet/val/red/val_0_1.jpg\n")
    return folder / "val_loss.txt"


def listed(folder: Path):
    return val_loss.count_images(folder), val_loss.data_hash(folder), val_loss.image_source(folder).name


FLICKR = "flickr30k/dataset_flickr30k.json"
NAMES = "blue one\ngreen one\nred one\nwhite one\n"
JPEG = "imagenet/val/red/val_0_0.jpg"
INSTANCES = "coco/annotations/instances_val2017.json"
CASES = {
    "COCO instances": Case(make=data_with("coco", INSTANCES), read=objects, unchecked=TEXT, flips=24),
    "COCO instances, by `doctor`": Case(
        make=data_with("coco", INSTANCES), read=doctor_of_coco, unchecked=TEXT, flips=4,
        unnamed="`doctor` names the split",
    ),
    "COCO captions": Case(
        make=data_with("coco", "coco/annotations/captions_val2017.json"), read=captions, unchecked=TEXT, flips=24,
    ),
    "a captioned image": Case(make=data_with("coco", "coco/val2017/000000000001.jpg"), read=captions, unchecked=PIXELS),
    "Karpathy's file": Case(
        make=data_with("karpathy", "coco/dataset_coco.json"), read=captions, unchecked=TEXT, flips=24
    ),
    "Flickr30k's captions": Case(make=data_with("flickr30k", FLICKR), read=captions, unchecked=TEXT, flips=24),
    "Flickr30k's captions, under its name": Case(
        make=data_with("flickr30k", FLICKR), read=published_captions, unchecked=TEXT, flips=24
    ),
    "an image of Flickr30k": Case(
        make=data_with("flickr30k", "flickr30k/images/36979.jpg"), read=published_captions, unchecked=PIXELS
    ),
    "ObjectNet's names of folders": Case(
        make=objectnet_with("folder_to_objectnet_label.json"), read=objectnet, flips=24
    ),
    "ObjectNet's classes of ImageNet": Case(
        make=objectnet_with("objectnet_to_imagenet_1k.json"), read=objectnet, flips=24
    ),
    "captioned shard": Case(make=caption_shard, read=captions, flips=24, unchecked=HASHED),
    "label map": Case(make=data_with("ade20k", "ade20k/annotations/validation/1.png"), read=label_maps, flips=24),
    "image of a label map": Case(
        make=data_with("ade20k", "ade20k/images/validation/1.jpg"), read=label_maps, unchecked=PIXELS,
        tolerated=dict.fromkeys(("cut in half", "cut by a byte"), "only the size is read here, before training"),
    ),
    "names of label classes": Case(
        make=data_with("ade20k", "ade20k/objectInfo3.txt"), read=label_maps, unchecked=TEXT,
        tolerated={"cut in half": SHORTER, "cut by a byte": "the end of the last line", "missing": FIXED},
    ),
    "labelled image": Case(
        make=data_with("labelled", JPEG), read=images, unchecked=PIXELS,
        tolerated={"missing": "a folder with one image fewer is a smaller data set; the data's hash tells"},
    ),
    "labelled shard": Case(
        make=labelled_shards, read=images, flips=24, unchecked="tar has checksums of headers only",
    ),
    "names of shards' classes": Case(
        make=names_of_shards, read=images, unchecked=TEXT,
        tolerated={"cut by a byte": "the end of the last line", "missing": FIXED},
    ),
    "classnames.txt": Case(
        make=zero_shot_with("classnames.txt", NAMES), read=prompts, unchecked=TEXT,
        tolerated={"cut by a byte": "the end of the last line",
                   **dict.fromkeys(("missing", "a folder", "a link to itself"), FIXED)},
    ),
    "templates.txt": Case(
        make=zero_shot_with("templates.txt", "a photo of a {c}.\na {c}.\n"), read=prompts, unchecked=TEXT,
        tolerated={"cut in half": SHORTER, "cut by a byte": "the end of the last line",
                   **dict.fromkeys(("missing", "a folder", "a link to itself"), FIXED)},
    ),
    "list of images": Case(
        make=image_list, read=listed, unchecked=TEXT,
        tolerated={"cut by a byte": "the end of the last line", "emptied": SHORTER, "cut in half": SHORTER,
                   **dict.fromkeys(("missing", "a folder", "a link to itself"), FIXED)},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_damage_is_found_and_said(name, specimens, tmp_path):
    assert problems_of(CASES[name], specimens, tmp_path) == []
