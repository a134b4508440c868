"""Tiny COCO and ADE20K folders drawn by hand, checkpoints of both encoder families, and the real-image pack."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

SIDE = 64
COLOURS = ((230, 40, 40), (40, 80, 230))


def _square(rng):
    side = int(rng.integers(16, 30))
    x, y = (int(value) for value in rng.integers(2, SIDE - side - 2, size=2))
    return x, y, side


def _draw(rng, squares):
    pixels = rng.integers(90, 140, size=(SIDE, SIDE, 3)).astype(np.uint8)
    for (x, y, side), colour in squares:
        pixels[y : y + side, x : x + side] = colour
    return pixels


def _save(pixels, path, number):
    """PNG with alpha, JPEG, grey PNG in turn."""
    image = Image.fromarray(pixels)
    if number % 3 == 0:
        image.convert("RGBA").save(path.with_suffix(".png"))
        return path.with_suffix(".png").name
    image.save(path.with_suffix(".jpg"), quality=92)
    return path.with_suffix(".jpg").name


def write_coco(root, *, num_train=6, num_val=4, seed=0):
    """Red and blue squares; categories with ids 3 and 7; the last image of each split is empty."""
    folder = root / "coco"
    (folder / "annotations").mkdir(parents=True)
    rng = np.random.default_rng(seed)
    for split, count in (("train", num_train), ("val", num_val)):
        (folder / f"{split}2017").mkdir()
        images, annotations = [], []
        for number in range(count):
            squares = [] if number == count - 1 else [(_square(rng), number % 2)]
            pixels = _draw(rng, [(square, COLOURS[label]) for square, label in squares])
            name = _save(pixels, folder / f"{split}2017" / f"{split}_{number}", number)
            identity = 100 * number + 5
            images.append({"id": identity, "file_name": name, "height": SIDE, "width": SIDE})
            for (x, y, side), label in squares:
                annotations.append(
                    {
                        "id": len(annotations),  # from 0, which pycocotools would take for "not matched"
                        "image_id": identity,
                        "category_id": (3, 7)[label],
                        "bbox": [x, y, side, side],
                        "segmentation": [[x, y, x + side, y, x + side, y + side, x, y + side]],
                        "area": side * side,
                        "iscrowd": 0,
                    }
                )
        content = {
            "info": {"description": "squares"},
            "licenses": [],
            "images": images,
            "annotations": annotations,
            "categories": [{"id": 3, "name": "red"}, {"id": 7, "name": "blue"}],
        }
        (folder / "annotations" / f"instances_{split}2017.json").write_text(json.dumps(content))
    return root


def write_ade(root, *, num_train=6, num_val=4, seed=0):
    """Squares of class 2 and 3 on class 1; a border of 4 pixels is unlabelled; one image wider than high."""
    folder = root / "ade20k"
    rng = np.random.default_rng(seed)
    for split, count in (("training", num_train), ("validation", num_val)):
        for kind in ("images", "annotations"):
            (folder / kind / split).mkdir(parents=True)
        for number in range(count):
            x, y, side = _square(rng)
            pixels = _draw(rng, [((x, y, side), COLOURS[number % 2])])
            labels = np.ones((SIDE, SIDE), np.uint8)
            labels[y : y + side, x : x + side] = 2 + number % 2
            labels[:4] = 0
            if number == 0:
                pixels, labels = (np.concatenate([part, part], axis=1) for part in (pixels, labels))
            _save(pixels, folder / "images" / split / f"scene_{number}", number)
            Image.fromarray(labels).save(folder / "annotations" / split / f"scene_{number}.png")
    lines = [
        "Idx\tRatio\tTrain\tVal\tStuff\tName",
        "1\t0.8\t6\t4\t1\twall",
        "2\t0.1\t3\t2\t0\tred, ruby",
        "3\t0.1\t3\t2\t0\tblue",
    ]
    (folder / "objectInfo3.txt").write_text("\n".join(lines) + "\n")
    return root


@pytest.fixture
def coco_root(tmp_path):
    return write_coco(tmp_path / "data")


@pytest.fixture
def ade_root(tmp_path):
    return write_ade(tmp_path / "data")


@pytest.fixture(scope="session")
def load_checkpoint(tmp_path_factory):
    """A freshly loaded checkpoint of an encoder with random weights."""
    folder = tmp_path_factory.mktemp("checkpoints")

    def load(name):
        import torch
        import unveil_backbones
        from unveil_backbones.manifest import Manifest, Preprocessing

        path = folder / name
        if not path.exists():
            torch.manual_seed(0)
            encoder = unveil_backbones.create(name)
            manifest = Manifest(
                encoder=encoder.spec,
                preprocessing=Preprocessing(image_size=(64, 64), mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3)),
                objective="simmim",
                mask={"strategy": "random", "ratio": 0.5},
                realised_ratio=0.5,
                seed=0,
                step=1,
                samples_seen=8,
                unique_samples=8,
                tokens_seen=64,
                device_seconds=1.0,
                data_hash="0" * 16,
                num_parameters=encoder.num_parameters,
                versions={},
                created="2024-01-01T00:00:00+00:00",
            )
            unveil_backbones.save(path, encoder=encoder, manifest=manifest)
        return unveil_backbones.load(path)

    return load


@pytest.fixture
def make_context(load_checkpoint, tmp_path):
    """A `TaskContext` for a short run."""

    def make(data_root, protocol, *, encoder="swinv2_tiny", seed=0, limit=None, batch_size=None, name="work"):
        from unveil_evalharness.task import TaskContext

        work_dir = tmp_path / name
        work_dir.mkdir()
        lines = []
        context = TaskContext(
            checkpoint=load_checkpoint(encoder),
            data_root=data_root,
            protocol=protocol,
            seed=seed,
            limit=limit,
            batch_size=batch_size,
            device="cpu",
            work_dir=work_dir,
            log=lines.append,
            progress=False,
        )
        return context, lines

    return make


@pytest.fixture
def pack():
    """The real-image pack; its data sets have other sizes, formats and class counts than the drawn ones."""
    folder = Path(os.environ.get("UNVEIL_DATA", Path(__file__).parents[5] / "shared" / "data" / "pack"))
    if not folder.is_dir():
        pytest.skip(f"no real-image pack at {folder} (set UNVEIL_DATA)")
    return folder


@pytest.fixture
def data_root_of(tmp_path):
    """A data root in which a folder appears under a task's name."""

    def make(folder, name):
        root = tmp_path / "linked"
        root.mkdir(exist_ok=True)
        (root / name).symlink_to(folder, target_is_directory=True)
        return root

    return make
