"""From a checkpoint of ours to a folder that another program loads."""

import json
from pathlib import Path

from unveil_backbones._files import write_directory
from unveil_backbones.base import Encoder
from unveil_backbones.checkpoint import write_tensors
from unveil_backbones.conversion.layouts import LAYOUTS
from unveil_backbones.errors import ConvertError
from unveil_backbones.pair import ImageTextPair
from unveil_backbones.specs import Preprocessing

__all__ = ["WRITABLE", "write_foreign"]

WRITABLE = tuple(name for name, layout in LAYOUTS.items() if layout.write is not None)
"""Names of the formats that can be written."""


def write_foreign(model: Encoder | ImageTextPair, preprocessing: Preprocessing, out: Path, layout: str) -> Path:
    """Write a folder of one file of weights and its configurations, whole or not at all.

    Args:
        model: What to write.
        preprocessing: What its input looks like.
        out: The folder to make.
        layout: One of ``WRITABLE``.

    Raises:
        ConvertError: The format cannot be written.
        NotExpressibleError: It has no place for a part of the model.
        CheckpointExistsError: ``out`` exists.
        CheckpointWriteError: The file system refused; nothing is left behind.
    """
    write = LAYOUTS[layout].write if layout in LAYOUTS else None
    if write is None:
        raise ConvertError(f"format {layout!r} cannot be written; there are unveil, {', '.join(WRITABLE)}; choose one")
    written = write(model, preprocessing)

    def fill(folder: Path) -> None:
        # "pt" is what peers ask for before they take a file for PyTorch's.
        write_tensors(folder / written.weights_name, written.tensors, metadata={"format": "pt"})
        for name, content in written.configs.items():
            text = json.dumps(content, indent=2, sort_keys=True, allow_nan=False) + "\n"
            (folder / name).write_text(text, encoding="utf-8")

    write_directory(out, fill)
    return out
