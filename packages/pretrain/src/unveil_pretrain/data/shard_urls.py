"""From what a user types to the list of shards: braces and `::` unions as open_clip reads them, and globs."""

import glob
import math
import re
from collections.abc import Mapping
from typing import Any, Final

from fsspec.core import split_protocol
from webdataset.shardlists import expand_urls

from unveil_pretrain.data.retrying import ReadPolicy, with_retries
from unveil_pretrain.data.samples import sample_id_of
from unveil_pretrain.data.shard_source import ShardSource
from unveil_pretrain.data.stores import Store
from unveil_pretrain.errors import DataError

__all__ = ["expand_shards"]

_NO_POLICY: Final = ReadPolicy()
_MOST = 1_000_000
_LONGEST = 100  # digits of a number
_RANGE = re.compile(r"\{(-?\d+)\.\.(-?\d+)(?:\.\.-?(\d+))?\}")


def expand_shards(urls: str, policy: ReadPolicy = _NO_POLICY) -> list[ShardSource]:
    """The shards that `urls` names, in order.

    Args:
        urls: For example ``data/train-{00000..00003}.tar``, ``a.tar::b.tar``, ``data/*.tar`` or ``s3://bucket/{0..9}.tar``.
        policy: How long and how often to try.

    Raises:
        DataError: bad syntax, ranges of over a million shards, nothing matches, a shard is missing, or its store does
            not answer (SourceError).
        MissingExtraError: the package of its store is not installed.
    """
    if not urls.strip():
        raise DataError("no shards were named; give for example 'data/train-{00000..00003}.tar'")
    for url in urls.split("::"):
        _refuse_endless(url)
    try:
        expanded = expand_urls(urls)
    except (AssertionError, ValueError) as error:  # unset ${variable}, unbalanced braces
        raise DataError(
            f"{urls!r} cannot be expanded: {error}; write for example 'data/train-{{00000..00003}}.tar'"
        ) from error
    stores: dict[str, Store] = {}
    return [source for url in expanded for source in _sources(url, stores, policy)]


def _refuse_endless(url: str) -> None:
    """Every name of a range is made before the first is looked for."""
    ranges = [match.groups(default="1") for match in _RANGE.finditer(url)]
    if any(len(digits) > _LONGEST for numbers in ranges for digits in numbers) or (
        math.prod(abs(int(first) - int(last)) // max(1, int(step)) + 1 for first, last, step in ranges) > _MOST
    ):
        raise DataError(
            f"{url!r} names more than {_MOST:,} shards; give a range that is there, as in 'train-{{00000..00003}}.tar'"
        )


def _sources(url: str, stores: dict[str, Store], policy: ReadPolicy) -> list[ShardSource]:
    if url.startswith("pipe:"):
        raise DataError(
            f"{url!r} is a pipe, which has no random access; name tar files by path or fsspec URL (s3://, https://)"
        )
    store = stores.setdefault(split_protocol(url)[0] or "file", Store(url, policy.timeout))
    path = store.path_of(url)
    info = _info(store, url, path, policy)
    if info is None and glob.has_magic(url):
        return _matches(url, store, path, policy)
    if info is None:
        raise DataError(_absent(url))
    if info["type"] == "directory":
        raise DataError(
            f"{url!r} is a folder; name the tar files in it, as in '{url.rstrip('/')}/{{00000..00003}}.tar' or '*.tar'"
        )
    if info["type"] != "file":
        raise DataError(f"shard {url!r} is no regular file ({info['type']}), which has no random access; name a file")
    return [ShardSource(url, path, store.stamp_of(info), store, policy)]


def _absent(url: str) -> str:
    if url.endswith(".tar"):
        return f"shard {url!r} does not exist; check the path and the range in braces"
    return (
        f"there is no file or folder {url!r}; name shards, as in 'data/train-{{00000..00003}}.tar', a folder of shards "
        "or of images, or a .zip of one"
    )


def _info(store: Store, url: str, path: str, policy: ReadPolicy) -> Mapping[str, Any] | None:
    """What the store says of a file; None where it says that there is none."""

    def read() -> Mapping[str, Any] | None:
        try:
            return store.call("info", path)
        except (FileNotFoundError, NotADirectoryError):
            return None

    return with_retries(read, policy, what=f"shard {url!r}", key=sample_id_of(url))


def _matches(url: str, store: Store, path: str, policy: ReadPolicy) -> list[ShardSource]:
    found = with_retries(
        lambda: store.call("glob", path), policy, what=f"the listing of {url!r}", key=sample_id_of(url)
    )
    matches = sorted(str(match) for match in found)
    if not matches:
        raise DataError(
            f"{url!r} matches no file; check the folder, or name shards, as in 'data/train-{{00000..00003}}.tar'"
        )
    return [_matched(match, store, policy) for match in matches]


def _matched(path: str, store: Store, policy: ReadPolicy) -> ShardSource:
    url = store.url_of(path)
    info = _info(store, url, path, policy)
    if info is None:
        raise DataError(f"shard {url!r} is gone since it was listed; start again")
    return ShardSource(url, path, store.stamp_of(info), store, policy)
