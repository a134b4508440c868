"""File systems as readers use them: opened anew in each process, every call within a time limit, one try at a time.

An fsspec file system of a store has connections and an event loop in a thread. None of that survives a fork, and it
cannot be sent to another process; so a `Store` remembers what to open, and opens it where it is used.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from fsspec.asyn import AsyncFileSystem, sync
from fsspec.config import conf
from fsspec.core import split_protocol, url_to_fs
from fsspec.implementations.local import LocalFileSystem

from unveil_pretrain.data.deadline import Deadline
from unveil_pretrain.data.faults import ChangedError, ShortReadError
from unveil_pretrain.errors import DataError, MissingExtraError

__all__ = ["Stamp", "Store"]

_S3: Final = ("s3", "s3a")
# Every thread that reads has a connection of its own; botocore's limit would be ten for all.
_MOST_CONNECTIONS: Final = 256
# Seconds in which botocore has to have read its own files, which takes a second where a machine has nothing else to do.
_PREPARING: Final = 60.0


@dataclass(frozen=True, slots=True)
class Stamp:
    """What tells that an object is still the one it was."""

    size: int
    version: str
    """ETag, or time of the last change; empty where the store tells neither."""


class Store:
    """One file system, by a URL in it."""

    def __init__(self, url: str, timeout: float) -> None:
        """Remember what to open.

        Args:
            url: Any URL of the file system, or a local path.
            timeout: Seconds that a call may take.
        """
        self.protocol: str = split_protocol(url)[0] or "file"
        self.timeout = timeout
        self._url = url
        self._here: _Here | None = None
        self._deadline = Deadline()

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_here": None}

    @property
    def is_local(self) -> bool:
        """Whether its files are those of this machine's file systems."""
        return isinstance(self._opened().filesystem, LocalFileSystem)

    def path_of(self, url: str) -> str:
        """The path of a URL within the file system."""
        return str(self._opened().filesystem._strip_protocol(url))

    def url_of(self, path: str) -> str:
        """The name a user knows a path by."""
        return path if self.is_local else str(self._opened().filesystem.unstrip_protocol(path))

    def call(self, method: str, *arguments: object) -> Any:
        """One method of the file system, by its name in fsspec.

        Raises:
            TimeoutError: it took too long.
            Exception: what the file system raises.
        """
        here = self._connected()
        if isinstance(here.filesystem, AsyncFileSystem) and here.filesystem.async_impl:
            # Cancelled in the event loop when the time is up, so that nothing stays behind.
            coroutine = getattr(here.filesystem, f"_{method}")
            return sync(here.filesystem.loop, coroutine, *arguments, timeout=self.timeout)
        return self._deadline.call(partial(getattr(here.filesystem, method), *arguments), self.timeout)

    def stamp_of(self, info: Mapping[str, Any]) -> Stamp:
        """The stamp in what fsspec's `info` says of a file."""
        version = info.get("ETag") or info.get("etag") or info.get("mtime") or ""
        return Stamp(int(info["size"] or 0), str(version))

    def read_range(self, path: str, start: int, end: int, stamp: Stamp) -> bytes:
        """Bytes [start, end) of a file by one request.

        Raises:
            ChangedError: the file is not that of the stamp.
            ShortReadError: there were fewer bytes.
            TimeoutError: it took too long.
            Exception: what the file system raises.
        """
        here = self._connected()
        data: Any
        if self.is_local:
            data = self._deadline.call(partial(_read_local, path, start, end, stamp), self.timeout)
        elif self.protocol in _S3:
            data = sync(
                here.filesystem.loop, _read_s3, here.filesystem, path, start, end, stamp.version, timeout=self.timeout
            )
        else:
            data = self.call("cat_file", path, start, end)
        if len(data) > end - start:
            raise OSError("the store gave more than it was asked for: it knows no ranges")
        if len(data) < end - start:
            raise ShortReadError(f"{len(data)} of {end - start} bytes")
        return data

    def _opened(self) -> "_Here":
        here = self._here
        if here is None or here.pid != os.getpid():
            here = self._here = _Here(os.getpid(), self._open())
        return here

    def _connected(self) -> "_Here":
        """What is opened, after the preparations that no time limit for a request is about."""
        here = self._opened()
        if self.protocol in _S3 and here.filesystem._s3 is None:
            sync(here.filesystem.loop, here.filesystem.set_session, timeout=max(self.timeout, _PREPARING))
        return here

    def _open(self) -> Any:
        options = {self.protocol: _s3_options(self.protocol, self.timeout)} if self.protocol in _S3 else {}
        try:
            filesystem, _ = url_to_fs(self._url, **options)
        except ImportError as error:
            install = "pip install 'unveil-pretrain[s3]'" if self.protocol in _S3 else str(error)
            raise MissingExtraError(f"{self._url!r} needs a package that is not installed: {install}") from error
        except ValueError as error:
            raise DataError(f"{self._url!r} cannot be opened: {error}") from error
        if self.protocol in _S3:
            filesystem.retries = 1  # tried again, and counted, by `retrying.py`
        return filesystem


@dataclass(frozen=True, slots=True)
class _Here:
    """A file system as it is opened in one process."""

    pid: int
    filesystem: Any


def _s3_options(protocol: str, timeout: float) -> dict[str, object]:
    """Settings of botocore: those of fsspec's own configuration files first."""
    given: Mapping[str, Any] = conf.get(protocol, {}).get("config_kwargs", {})
    ours = {
        "connect_timeout": timeout,
        "read_timeout": timeout,
        "max_pool_connections": _MOST_CONNECTIONS,
        "retries": {"max_attempts": 0},
    }
    return {"config_kwargs": {**ours, **given}}


def _read_local(path: str, start: int, end: int, stamp: Stamp) -> bytes:
    with open(path, "rb", buffering=0) as stream:  # noqa: PTH123  (a millionfold call)
        status = os.fstat(stream.fileno())
        if status.st_size != stamp.size or str(status.st_mtime) != stamp.version:
            raise ChangedError(f"{stamp.size} bytes then, {status.st_size} bytes now, last changed later")
        return os.pread(stream.fileno(), end - start, start)


async def _read_s3(filesystem: Any, path: str, start: int, end: int, etag: str) -> bytes:
    bucket, key, version = filesystem.split_path(path)
    wanted = {"VersionId": version} if version else {}
    if etag:
        wanted["IfMatch"] = etag
    try:
        response = await filesystem._call_s3(
            "get_object", Bucket=bucket, Key=key, Range=f"bytes={start}-{end - 1}", **wanted
        )
    except OSError as error:
        if _is_another(error):
            raise ChangedError(f"its ETag is no longer {etag}") from error
        raise
    async with response["Body"] as body:
        return await body.read()


def _is_another(error: OSError) -> bool:
    """Whether S3 said that the object is not the one asked for, or does not reach so far."""
    answer: object = getattr(error.__cause__, "response", None)
    return isinstance(answer, dict) and answer.get("ResponseMetadata", {}).get("HTTPStatusCode") in (412, 416)
