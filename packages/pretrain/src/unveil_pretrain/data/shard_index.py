"""The file beside shards that says what they are: `pretrain shards` writes it, `pretrain audit` compares with it."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from unveil_backbones.limits import parse_json

from unveil_pretrain.errors import DataError
from unveil_pretrain.row_checks import is_number

__all__ = ["INDEX_NAME", "ShardIndex", "ShardRecord", "index_from_json", "index_to_json"]

INDEX_NAME: Final = "index.json"
_FORMAT: Final = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardRecord:
    """One finished shard."""

    name: str
    """File name within the folder."""
    sha256: str
    """Over the whole file."""
    num_bytes: int
    num_samples: int
    left_out: tuple[str, ...] = ()
    """What was wrong with every sample that was left out, one line each."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardIndex:
    """All shards of a folder and how they were made."""

    settings: Mapping[str, object]
    """What determines the bytes: the source's content hash and how it was cut, ordered and encoded."""
    num_samples: int
    content_hash: str
    """Of the samples in the shards; a run on all of them records it as its data hash."""
    classes: tuple[str, ...]
    """Name of the class that each .cls file numbers from 0; empty where the source has none."""
    shards: tuple[ShardRecord, ...]


def index_to_json(index: ShardIndex) -> str:
    """The text of index.json."""
    return json.dumps({"format_version": _FORMAT, **asdict(index)}, indent=1) + "\n"


def index_from_json(text: str, where: str) -> ShardIndex:
    """The index in a file.

    Raises:
        DataError: it is damaged, or of a later format; the message begins with `where`.
    """
    try:
        value: dict[str, Any] = parse_json(text)
        if value["format_version"] != _FORMAT:
            raise DataError(f"{where}: format {value['format_version']}, this package reads {_FORMAT}; update it")
        return ShardIndex(
            settings=value["settings"],
            num_samples=_count(value["num_samples"]),
            content_hash=str(value["content_hash"]),
            classes=tuple(value["classes"]),
            shards=tuple(record_from_json(record) for record in value["shards"]),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{where} cannot be read ({error!r}); restore it, or build the shards again") from error


def record_from_json(value: Mapping[str, Any]) -> ShardRecord:
    """One shard's entry; KeyError, TypeError or ValueError where it is none."""
    return ShardRecord(
        name=str(value["name"]),
        sha256=str(value["sha256"]),
        num_bytes=_count(value["num_bytes"]),
        num_samples=_count(value["num_samples"]),
        left_out=tuple(str(line) for line in value["left_out"]),
    )


def _count(value: object) -> int:
    if not isinstance(value, int) or not is_number(value, whole=True):
        raise ValueError(f"{str(value)[:40]} is no count")
    return value
