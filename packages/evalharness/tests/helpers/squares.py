"""Coloured squares as labelled images, and what a run of a classification task on them is given."""

from pathlib import Path

import numpy as np
from PIL import Image
from unveil_evalharness.task import TaskContext

__all__ = ["COLOURS", "context_for", "write_squares"]

COLOURS = {"blue": (20, 20, 230), "cyan": (20, 220, 220), "green": (20, 200, 20), "red": (230, 20, 20),
           "violet": (180, 20, 200), "yellow": (230, 230, 20)}  # fmt: skip


def write_squares(root, colours, *, train=12, val=4):
    """Noisy squares of one colour per class, in sizes that are not the encoder's."""
    generator = np.random.default_rng(0)
    for split, count in (("train", train), ("val", val)):
        for name, colour in colours.items():
            folder = root / "imagenet" / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = generator.integers(0, 256, (40, 48, 3), dtype=np.uint8)
                pixels[8:32, 8:40] = colour
                Image.fromarray(pixels).save(folder / f"{number}.{'png' if number % 2 else 'jpg'}")


def context_for(checkpoint, data_root: Path, work_dir: Path, protocol, **changes) -> TaskContext:
    """A run on the CPU that says nothing."""
    work_dir.mkdir(parents=True, exist_ok=True)
    values = {
        "checkpoint": checkpoint,
        "data_root": data_root,
        "protocol": protocol,
        "seed": 0,
        "limit": None,
        "batch_size": None,
        "device": "cpu",
        "work_dir": work_dir,
        "log": lambda line: None,
        "progress": False,
    }
    return TaskContext(**(values | changes))
