"""Indices of shards in stores, kept between runs: finding the samples of a shard means reading through it once.

The variable UNVEIL_INDEX_CACHE names a folder for them; without it nothing is kept. An index is of a URL with its size
and ETag, so that one of another object is never taken.
"""

import hashlib
import json
import os
import tempfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from unveil_backbones.limits import parse_json

from unveil_pretrain.data.shard_source import ShardSource
from unveil_pretrain.data.tar_index import Member, Sample
from unveil_pretrain.errors import OutputError

__all__ = ["CACHE_VARIABLE", "cached_index", "keep_index"]

CACHE_VARIABLE: Final = "UNVEIL_INDEX_CACHE"
_FORMAT: Final = 1


def cached_index(number: int, source: ShardSource) -> list[Sample] | None:
    """The samples of a shard, `number` being its place in the list; None where they are not known, or damaged."""
    file = _file_of(source)
    if file is None or not file.is_file():
        return None
    try:
        value = parse_json(zlib.decompress(file.read_bytes()), keep_halves=True)
        if value["format_version"] != _FORMAT:
            return None
        return [
            Sample(str(key), number, tuple(Member(str(name), int(offset), int(size)) for name, offset, size in members))
            for key, members in value["samples"]
        ]
    # The shard says it again, and it is written anew.
    except (OSError, zlib.error, ArithmeticError, ValueError, KeyError, TypeError):
        return None


def keep_index(source: ShardSource, samples: Sequence[Sample]) -> None:
    """Write the index of a shard down, if there is a place for it and the store tells versions apart.

    Raises:
        OutputError: the folder cannot be written.
    """
    file = _file_of(source)
    if file is None:
        return
    listed = [[one.key, [[part.extension, part.offset, part.size] for part in one.members]] for one in samples]
    data = zlib.compress(json.dumps({"format_version": _FORMAT, "samples": listed}).encode(), 1)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=file.parent, prefix=".", suffix=".tmp", delete=False) as stream:
            stream.write(data)
        Path(stream.name).replace(file)
    except OSError as error:
        raise OutputError(
            f"cannot write {file.parent} ({error.strerror}); free some space, or give {CACHE_VARIABLE} another folder "
            "or none"
        ) from error


def _file_of(source: ShardSource) -> Path | None:
    folder = os.environ.get(CACHE_VARIABLE, "")
    if not folder or source.store.is_local or not source.stamp.version:
        return None
    name = f"{source.url}\n{source.stamp.size}\n{source.stamp.version}"
    return Path(folder) / f"{hashlib.sha256(name.encode()).hexdigest()[:40]}.index"
