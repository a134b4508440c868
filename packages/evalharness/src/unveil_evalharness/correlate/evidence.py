"""What `evalharness run` left in its output folders: result rows and the manifest of each evaluated checkpoint."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unveil_backbones.limits import parse_json
from unveil_backbones.manifest import Manifest
from unveil_backbones.places import is_file, is_folder

from unveil_evalharness.errors import ResultsError
from unveil_evalharness.frames import read_parquet
from unveil_evalharness.results import ResultRow, latest, read_rows

__all__ = ["Evidence", "output_folder", "read_evidence", "read_manifests", "split_paths"]

_SHORT = 12  # manifests are named by this many hex digits of the checkpoint's SHA-256


@dataclass(frozen=True, kw_only=True, slots=True)
class Evidence:
    """The latest row of each measurement and the manifests, from one or more output folders."""

    outputs: tuple[str, ...]
    """The folders as the user named them."""
    rows: tuple[ResultRow, ...]
    manifests: Mapping[str, Manifest]
    """By the checkpoint's SHA-256; a checkpoint whose manifest was not kept is absent."""
    passports: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Of losses that were measured again (task val_loss), by the checkpoint's SHA-256, where they were asked for."""


def split_paths(values: Iterable[str]) -> tuple[Path, ...]:
    """``("a,b", "c")`` as three paths; empty pieces are dropped.

    Raises:
        ResultsError: no path is left.
    """
    paths = tuple(Path(piece.strip()) for value in values for piece in value.split(",") if piece.strip())
    if not paths:
        raise ResultsError("no output folder given; name one or more folders that `evalharness run` has written")
    return paths


def read_evidence(output_paths: Sequence[Path], *, with_passports: bool = False) -> Evidence:
    """Rows and manifests of the given output folders (or their ``results.jsonl``), later folders winning over earlier.

    Raises:
        ResultsError: a folder is missing, holds no rows, or holds a row or manifest this version cannot read.
    """
    rows: list[ResultRow] = []
    folders = [output_folder(path) for path in output_paths]
    for folder in folders:
        found = read_rows(folder / "results.jsonl")
        if not found:
            raise ResultsError(
                f"{folder}/results.jsonl holds no rows; run `evalharness run --output-path {folder}` first"
            )
        rows.extend(found)
    kept = tuple(latest(rows))
    manifests = read_manifests(folders, [row.checkpoint_sha256 for row in kept])
    return Evidence(
        outputs=tuple(str(path) for path in output_paths),
        rows=kept,
        manifests=manifests,
        passports=_read_passports(folders, kept) if with_passports else {},
    )


def _read_passports(folders: Sequence[Path], rows: Sequence[ResultRow]) -> dict[str, dict[str, Any]]:
    """The table ``passport`` of each checkpoint's first finished row that has one."""
    found: dict[str, dict[str, Any]] = {}
    for row in rows:
        name = row.tables.get("passport")
        if row.status != "ok" or name is None or row.checkpoint_sha256 in found:
            continue
        path = next((folder / name for folder in folders if is_file(folder / name)), None)
        if path is not None:
            found[row.checkpoint_sha256] = _read_passport(path)
    return found


def _read_passport(path: Path) -> dict[str, Any]:
    import polars as pl

    try:
        table = read_parquet(path)
        return {
            name: value if name == "hash" else parse_json(value)
            for name, value in table.select("field", "value").iter_rows()
        }
    except (OSError, ValueError, pl.exceptions.PolarsError) as error:
        raise ResultsError(f"cannot read {path}: {error}; evaluate val_loss again") from error


def read_manifests(folders: Sequence[Path], checkpoints: Sequence[str]) -> dict[str, Manifest]:
    """The manifests of checkpoints named by SHA-256, from the folders that hold a copy.

    Raises:
        ResultsError: a copy is damaged.
    """
    found = {sha256: _find_manifest(folders, sha256) for sha256 in dict.fromkeys(checkpoints)}
    return {sha256: manifest for sha256, manifest in found.items() if manifest is not None}


def output_folder(path: Path) -> Path:
    """The folder of a path that may name its ``results.jsonl``.

    Raises:
        ResultsError: it is no output folder.
    """
    folder = path.parent if path.name == "results.jsonl" else path
    if not is_folder(folder):
        raise ResultsError(f"no output folder at {folder}; give the folder passed to `evalharness run --output-path`")
    if not (folder / "results.jsonl").is_file():
        raise ResultsError(
            f"{folder} holds no results.jsonl; give the folder passed to `evalharness run --output-path` "
            "(not a checkpoint or a data folder)"
        )
    return folder


def _find_manifest(folders: Sequence[Path], sha256: str) -> Manifest | None:
    if not sha256:  # a checkpoint that could not be read has failed rows without a hash
        return None
    for folder in folders:
        path = folder / "manifests" / f"{sha256[:_SHORT]}.json"
        if is_file(path):
            return _read_copy(path, sha256)
    return None


def _read_copy(path: Path, sha256: str) -> Manifest:
    """Reads the copy of a checkpoint's manifest; the checkpoint's hash is the hash of these very bytes."""
    try:
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() != sha256:
            raise ResultsError(f"its bytes do not have the SHA-256 {sha256[:_SHORT]}… that the results name")
        return Manifest.from_json(content.decode("utf-8"), str(path))
    except (ValueError, OSError) as error:
        raise ResultsError(
            f"cannot read {path}: {error}; run the same `evalharness run` again, which copies manifest.json anew"
        ) from error
