"""Whether a parquet file announces what it can hold; looked at before a library reserves memory for it.

One flipped bit in the header of a page makes a count of values negative or enormous. What a library written in Rust
then reserves is refused by the system, and that ends the whole process, not with an error that could be caught. The
standard library only. The layout is that of https://parquet.apache.org/docs/file-format/, in Thrift's compact protocol.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final

__all__ = ["check_parquet"]

_MAGIC: Final = b"PAR1"
_LARGEST_FOOTER: Final = 64 * 2**20
_LARGEST_HEADER: Final = 64 * 2**10
"""Bytes of a page's header, whose statistics may hold the first and the last text of the page."""
_SMALL_PAGE: Final = 64 * 2**20
"""Writers end a page at about one mebibyte."""
_LARGEST_RATIO: Final = 1024
_SMALL_TABLE: Final = 2**24
_DATA, _DICTIONARY, _DATA_V2 = 0, 2, 3
_COUNTED: Final = {_DATA: 5, _DICTIONARY: 7, _DATA_V2: 8}
"""In which field of a page's header the part with its number of values is, by the kind of page."""


def check_parquet(file: Path) -> None:
    """Refuse a file whose footer or pages announce what cannot be in it.

    What is inside a page is not looked at, and a file that holds less than it announces passes: a library says so.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no parquet file, cut short, or announces too much.
    """
    with file.open("rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        footer = _footer(stream, size)
        groups = _part(footer, 4, list)
        rows = [_count(_member(group), 3) for group in groups]
        if sum(rows) != _count(footer, 3) or sum(rows) > max(_SMALL_TABLE, _LARGEST_RATIO * size):
            raise ValueError(f"it announces {_count(footer, 3)} rows, and {sum(rows)} in its parts")
        is_flat = not any(5 in _member(column) for column in _part(footer, 2, list)[1:])
        for group, num in zip(groups, rows, strict=True):
            for chunk in _part(_member(group), 1, list):
                about = _part(_member(chunk), 3, dict)
                if is_flat and _count(about, 5) != num:
                    raise ValueError(f"a column has {_count(about, 5)} values in {num} rows")
                _check_pages(stream, size, about)


def _footer(stream: BinaryIO, size: int) -> dict[int, Any]:
    stream.seek(max(0, size - 8))
    tail = stream.read(8)
    length = int.from_bytes(tail[:4], "little")
    if size < 12 or tail[4:] != _MAGIC or length > min(size - 8, _LARGEST_FOOTER):
        raise ValueError("it does not end as a parquet file does")
    stream.seek(size - 8 - length)
    return _Compact(stream.read(length)).struct()


def _check_pages(stream: BinaryIO, size: int, about: dict[int, Any]) -> None:
    """Walk over the pages of one column in one group of rows."""
    num, left, place = _count(about, 5), _count(about, 7), _count(about, 9)
    if 11 in about:  # a dictionary comes before the pages that use it
        place = min(place, _count(about, 11) or place)
    if place + left > size:
        raise ValueError(f"a column ends at byte {place + left} of {size}")
    found = 0
    while left > 0:
        stream.seek(place)
        header = _Compact(stream.read(min(left, _LARGEST_HEADER)))
        page = header.struct()
        packed, whole = _count(page, 3), _count(page, 2)
        if packed > left - header.place or whole > max(_SMALL_PAGE, _LARGEST_RATIO * packed):
            raise ValueError(f"a page of {packed} bytes, {whole} when unpacked, in {left - header.place}")
        kind = _count(page, 1)
        values = _count(_part(page, _COUNTED[kind], dict), 1) if kind in _COUNTED else 0
        if values > num:
            raise ValueError(f"a page of {values} values in a column of {num}")
        found += values if kind in (_DATA, _DATA_V2) else 0
        place, left = place + header.place + packed, left - header.place - packed
    if found > num:
        raise ValueError(f"{found} values in the pages of a column of {num}")


def _count(fields: dict[int, Any], number: int) -> int:
    value = fields.get(number)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"a count in it is {value}")
    return value


def _part(fields: dict[int, Any], number: int, kind: type) -> Any:
    value = fields.get(number)
    if not isinstance(value, kind):
        raise ValueError(f"it lacks field {number} of {len(fields)}")
    return value


def _member(value: object) -> dict[int, Any]:
    if not isinstance(value, dict):
        raise ValueError("a list in it holds no parts")
    return value


class _Compact:
    """Structures of Thrift's compact protocol, as numbers of fields and their values."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.place = 0
        """Bytes taken so far."""

    def struct(self, depth: int = 0) -> dict[int, Any]:
        """The structure that begins here.

        Raises:
            ValueError: it is cut short, or is none.
        """
        fields: dict[int, Any] = {}
        number = 0
        while (head := self._take(1)[0]) != 0:
            number = number + (head >> 4) if head >> 4 else self._signed()
            fields[number] = self._value(head & 15, depth, in_list=False)
        return fields

    def _value(self, kind: int, depth: int, *, in_list: bool) -> Any:
        if depth > 16:
            raise ValueError("it nests too deeply")
        if kind in (1, 2):  # a truth value is in the head of its field, and a byte within a list
            return (self._take(1)[0] if in_list else kind) == 1
        if kind in (3, 7):
            return self._take(1 if kind == 3 else 8)
        if kind in (4, 5, 6):
            return self._signed()
        if kind == 8:
            return self._take(self._unsigned())
        if kind in (9, 10):
            return list(self._items(depth))
        if kind == 12:
            return self.struct(depth + 1)
        raise ValueError(f"a field of kind {kind}")

    def _items(self, depth: int) -> Iterator[Any]:
        head = self._take(1)[0]
        num = head >> 4 if head >> 4 < 15 else self._unsigned()
        if num > len(self._data) - self.place:  # each takes a byte at least
            raise ValueError(f"a list of {num}")
        return (self._value(head & 15, depth + 1, in_list=True) for _ in range(num))

    def _signed(self) -> int:
        value = self._unsigned()
        return (value >> 1) ^ -(value & 1)

    def _unsigned(self) -> int:
        value = 0
        for shift in range(0, 70, 7):
            byte = self._take(1)[0]
            value |= (byte & 127) << shift
            if byte < 128:
                return value
        raise ValueError("a number without end")

    def _take(self, num: int) -> bytes:
        taken = self._data[self.place : self.place + num]
        if len(taken) < num:
            raise ValueError("it is cut short")
        self.place += num
        return taken
