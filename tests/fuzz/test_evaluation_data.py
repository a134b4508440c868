"""Data sets as `evalharness` reads them: annotations, shards, label maps, names of classes."""

import shutil

import pytest
from fuzzing import NUM_SLOW, Parser, Place, file_parser, fuzz, in_parts, tree_of
from good_files import captioned_shard, image_bytes
from mutations import mutated_bytes, mutated_json, mutated_lines


def annotations(place: Place) -> Parser:
    from unveil_evalharness.tasks.coco_det.annotations import read_split, write_split

    root = place.scratch / "data"
    shutil.copytree(place.good / "coco", root)
    file = root / "coco" / "annotations" / "instances_val2017.json"
    tree = tree_of(file)

    def read():
        split = read_split(root, "val")
        return write_split(split, place.scratch / "out.json", sizes=(None,), with_objects=True, log=lambda line: None)

    return file_parser(file, lambda random: mutated_json(random, tree), read, num_fast=50)


def caption_annotations(place: Place) -> Parser:
    from unveil_evalharness.tasks.zs_retrieval.data import captioned_images, data_hash

    root = place.scratch / "data"
    shutil.copytree(place.good / "coco", root)
    file = root / "coco" / "annotations" / "captions_val2017.json"
    tree = tree_of(file)
    return file_parser(
        file, lambda random: mutated_json(random, tree),
        lambda: (list(captioned_images(root, limit=None)), data_hash(root)), num_fast=50,
    )  # fmt: skip


def karpathy_splits(place: Place) -> Parser:
    from unveil_evalharness.tasks.zs_retrieval.data import captioned_images

    root = place.scratch / "data"
    shutil.copytree((place.good / "karpathy"), root)
    file = root / "coco" / "dataset_coco.json"
    tree = tree_of(file)
    return file_parser(
        file, lambda random: mutated_json(random, tree), lambda: list(captioned_images(root, limit=None)),
        num_fast=50,
    )  # fmt: skip


def captioned_shards(place: Place) -> Parser:
    from unveil_evalharness.tasks.zs_retrieval.data import captioned_images, count_images

    file = captioned_shard(place.scratch / "captions" / "val-00000.tar", range(2))
    whole = file.read_bytes()

    def read():
        count_images(place.scratch, limit=None)
        return [image.decode() for image in captioned_images(place.scratch, limit=None)]

    return file_parser(file, lambda random: mutated_bytes(random, whole), read, num_fast=50)


def labelled_shards(place: Place) -> Parser:
    from unveil_evalharness.tasks.imagenet_ft.data import open_image, read_folders

    for split in ("train", "val"):
        file = captioned_shard(place.scratch / "imagenet" / f"{split}-00000.tar", range(4))
    whole = file.read_bytes()

    def read():
        return [open_image(source) for source, _ in read_folders(place.scratch)[1].images]

    return file_parser(file, lambda random: mutated_bytes(random, whole), read, num_fast=40)


def label_maps(place: Place) -> Parser:
    from unveil_evalharness.tasks.ade20k_seg.layout import count_pixels, read_pairs

    root = place.scratch / "data"
    shutil.copytree(place.good / "ade20k", root)
    file = root / "ade20k" / "annotations" / "validation" / "0.png"
    whole = file.read_bytes()
    return file_parser(
        file, lambda random: mutated_bytes(random, whole), lambda: count_pixels(read_pairs(root, "val"), 3),
        num_fast=50,
    )  # fmt: skip


def names_of_label_classes(place: Place) -> Parser:
    from unveil_evalharness.tasks.ade20k_seg.layout import class_names, read_pairs

    root = place.scratch / "data"
    shutil.copytree(place.good / "ade20k", root)
    file, pairs = root / "ade20k" / "objectInfo3.txt", read_pairs(root, "val")
    text = file.read_text()

    def make(random):
        encoded = mutated_lines(random, text).encode("utf-8", "surrogatepass")
        return encoded if random.randint(0, 3) else mutated_bytes(random, encoded)

    return file_parser(file, make, lambda: class_names(root, pairs))


def class_names_and_templates(place: Place) -> Parser:
    from unveil_evalharness.tasks.zs_classification.data import read_set

    root = place.scratch / "data"
    shutil.copytree(place.good / "labelled", root)
    files = {"classnames.txt": "blue thing\ngreen thing\nred thing\nwhite thing\n", "templates.txt": "a {c}.\n"}

    def read(given):
        for name, content in given.items():
            (root / "imagenet" / name).write_bytes(content)
        found = read_set(root, "folder")
        return [template(name) for template in found.templates or () for name in found.images.classes]

    def make(random):
        return {
            name: mutated_lines(random, text).encode("utf-8", "surrogatepass")
            if random.randint(0, 1)
            else text.encode()
            for name, text in files.items()
        }

    return Parser(make=make, read=read, num_fast=10)  # 85 ms each: templates and names of ImageNet


def images(place: Place) -> Parser:
    from unveil_evalharness.tasks.imagenet_ft.data import open_image

    kinds = {"JPEG": "CMYK", "PNG": "P", "WEBP": "RGB", "GIF": "animated", "BMP": "RGB"}
    whole = [image_bytes(1, kind=kind, mode=mode, side=12) for kind, mode in kinds.items()]
    file = place.scratch / "a.jpg"
    return file_parser(file, lambda random: mutated_bytes(random, random.choice(whole)), lambda: open_image(file))


def image_lists(place: Place) -> Parser:
    from unveil_evalharness.tasks.val_loss.data import count_images, data_hash

    (place.scratch / "a.jpg").write_bytes(image_bytes(1, side=8))
    file = place.scratch / "val_loss.txt"
    return file_parser(
        file,
        lambda random: mutated_lines(random, "# images\na.jpg\na.jpg\n").encode("utf-8", "surrogatepass"),
        lambda: (count_images(place.scratch), data_hash(place.scratch)),
    )


PARSERS = {
    function.__name__: function
    for function in (
        annotations, caption_annotations, karpathy_splits, captioned_shards, labelled_shards, label_maps,
        names_of_label_classes, class_names_and_templates, images, image_lists,
    )
}  # fmt: skip

PARTS = {"labelled_shards": 2, "captioned_shards": 2, "class_names_and_templates": 4}
"""Tests that share the ten thousand of a slow parser, so that several cores can take them."""


@pytest.mark.parametrize("name", PARSERS)
def test_some_inputs(name, place):
    parser = PARSERS[name](place)
    fuzz(parser, parser.num_fast)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "part", "num_parts"), in_parts(PARSERS, PARTS))
def test_ten_thousand_inputs(name, part, num_parts, place):
    fuzz(PARSERS[name](place), NUM_SLOW // num_parts, part=part)
