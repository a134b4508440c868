"""Interim checkpoints of a training run: whole or absent, and used only by a run that would have written the same.

mmengine's own hook writes the file in place, points to it from another file, and keeps its log buffers inside, which
``torch.load(weights_only=True)`` reads only with an allow-list. Here a checkpoint holds tensors and numbers only, is
written beside the old one and hashed; then ``interim.json`` is replaced in one step, and only then the old one goes.
A process may be killed between any two of these.
"""

import dataclasses
import hashlib
import json
import os
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from unveil_backbones.limits import parse_json

from unveil_evalharness.errors import OutputError

__all__ = ["Interim", "has_interim", "read_interim", "write_interim"]

_POINTER = "interim.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class Interim:
    """An interim checkpoint as found: its state, or why it cannot be used; neither where there is none."""

    state: Mapping[str, Any] | None = None
    refused: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Pointer:
    """What ``interim.json`` holds."""

    file: str
    sha256: str
    iteration: int
    plan: str


def has_interim(folder: Path) -> bool:
    """Whether a training run left an interim checkpoint in its work folder."""
    return (folder / _POINTER).is_file()


def write_interim(folder: Path, state: Mapping[str, Any], *, iteration: int, plan: str) -> Path:
    """Replaces the interim checkpoint of a work folder.

    Args:
        folder: the run's work folder.
        state: tensors, numbers and text, in dicts and lists.
        iteration: passes done.
        plan: what the run does, in words; another plan cannot go on from this checkpoint.

    Raises:
        OutputError: the folder cannot be written; the earlier checkpoint is intact.
    """
    file = folder / f"interim-{iteration:08d}.pth"
    temporary = file.with_suffix(".tmp")
    try:
        with temporary.open("wb") as stream:
            torch.save(dict(state), stream)
            stream.flush()
            os.fsync(stream.fileno())
        digest = _sha256(temporary)
        temporary.replace(file)
        pointer = _Pointer(file=file.name, sha256=digest, iteration=iteration, plan=plan)
        unfinished = folder / f".{_POINTER}.tmp"
        unfinished.write_text(json.dumps(dataclasses.asdict(pointer)), encoding="utf-8")
        unfinished.replace(folder / _POINTER)
        for other in folder.glob("interim-*"):
            if other != file:
                other.unlink()
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise OutputError(f"cannot write the interim checkpoint {file}: {error.strerror or error}") from error
    return file


def read_interim(folder: Path, *, plan: str) -> Interim:
    """The interim checkpoint of a work folder, if it is whole and of the same plan; never raises for a damaged one.

    Args:
        folder: the run's work folder.
        plan: as given to `write_interim`.
    """
    if not has_interim(folder):
        return Interim()
    try:
        pointer = _Pointer(**parse_json((folder / _POINTER).read_text(encoding="utf-8")))
        file = folder / pointer.file
    except (OSError, ValueError, TypeError) as error:
        return Interim(refused=f"{_POINTER} is damaged ({error})")
    if pointer.plan != plan:
        return Interim(refused=f"it was written by another plan ({pointer.plan}; now {plan})")
    try:
        if _sha256(file) != pointer.sha256:
            return Interim(refused=f"{file.name} is damaged: its SHA-256 is not the one that was written down")
        # On the CPU first: loading onto the GPU would hold the optimiser's state there twice.
        state = torch.load(file, map_location="cpu", weights_only=True)  # noqa: TID251 - a file of our own, hashed
    except (OSError, ValueError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        return Interim(refused=f"{file.name} cannot be read ({' '.join(str(error).split())[:200]})")
    return Interim(state=state)


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
