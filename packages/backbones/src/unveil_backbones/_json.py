"""Turn parsed JSON into the typed fields of the manifest, or say which field is wrong (standard library only)."""

import sys
from collections.abc import Callable
from enum import Enum
from typing import Any, TypeVar

from unveil_backbones.errors import ManifestError

__all__ = [
    "JSON",
    "Fields",
    "choice_of",
    "optional",
    "read_bool",
    "read_float",
    "read_int",
    "read_object",
    "read_text",
    "sequence_of",
]

JSON = str | int | float | bool | None | list[Any] | dict[str, Any]
"""What ``json.loads`` returns. (A recursive alias would say more, but cannot be checked at run time.)"""

_LARGEST = sys.float_info.max

T = TypeVar("T")


class Missing(Enum):
    """The type of ``MISSING``: no default was given (``None`` may be one)."""

    MISSING = "missing"


MISSING = Missing.MISSING


class Fields:
    """The members of one JSON object, each read once by name; ``done`` refuses those nobody asked for.

    Attributes:
        where: Name of the object in messages, for example ``manifest.json: encoder``.
    """

    def __init__(self, value: JSON, where: str) -> None:
        if not isinstance(value, dict):
            raise ManifestError(f"{where} is {_shown(value)}; it has to be a JSON object; write it with `save`")
        self.where = where
        self._left = dict(value)

    def take(self, name: str, convert: Callable[[JSON, str], T], default: T | Missing = MISSING) -> T:
        """Return the converted member ``name``.

        Args:
            name: The member.
            convert: Checks and converts its value.
            default: What an absent member means. Only for a field that was added after checkpoints without it were
                written, so that they still load; its value has to be what those checkpoints did.

        Raises:
            ManifestError: The member is absent without a default, or its value is not what ``convert`` accepts.
        """
        if name not in self._left:
            if not isinstance(default, Missing):
                return default
            raise ManifestError(f"{self.where} has no field {name!r}; every field is required; write it with `save`")
        return convert(self._left.pop(name), f"{self.where}.{name}")

    def done(self) -> None:
        """Refuse members that were not taken: an unknown field means that an unknown promise would be ignored."""
        if self._left:
            raise ManifestError(
                f"{self.where} has unknown fields {sorted(self._left)}; "
                "upgrade unveil-backbones if a newer version wrote this, or remove them"
            )


def read_text(value: JSON, where: str) -> str:
    """Accept a string."""
    if not isinstance(value, str):
        raise _wrong(value, where, "a string")
    return value


def read_int(value: JSON, where: str) -> int:
    """Accept an integer (JSON ``true`` is not one)."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise _wrong(value, where, "an integer")
    return value


def read_float(value: JSON, where: str) -> float:
    """Accept an integer or a float and return a float; infinity (JSON ``1e999``) is no number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not -_LARGEST <= value <= _LARGEST:
        raise _wrong(value, where, "a finite number")
    return float(value)


def read_bool(value: JSON, where: str) -> bool:
    """Accept ``true`` or ``false``."""
    if not isinstance(value, bool):
        raise _wrong(value, where, "true or false")
    return value


def read_object(value: JSON, where: str) -> dict[str, JSON]:
    """Accept any JSON object."""
    if not isinstance(value, dict):
        raise _wrong(value, where, "a JSON object")
    return value


def optional(convert: Callable[[JSON, str], T]) -> Callable[[JSON, str], T | None]:
    """Accept ``null`` beside what ``convert`` accepts."""
    return lambda value, where: None if value is None else convert(value, where)


def choice_of(choices: tuple[T, ...]) -> Callable[[JSON, str], T]:
    """Accept one of the given values and return it."""

    def read(value: JSON, where: str) -> T:
        for choice in choices:
            if type(value) is type(choice) and value == choice:
                return choice
        raise _wrong(value, where, f"one of {', '.join(repr(choice) for choice in choices)}")

    return read


def sequence_of(convert: Callable[[JSON, str], T], length: int | None = None) -> Callable[[JSON, str], tuple[T, ...]]:
    """Accept a JSON list, of ``length`` items unless that is ``None``, and return a tuple."""

    def read(value: JSON, where: str) -> tuple[T, ...]:
        if not isinstance(value, list | tuple) or (length is not None and len(value) != length):
            raise _wrong(value, where, "a list" if length is None else f"a list of {length} items")
        return tuple(convert(item, f"{where}[{index}]") for index, item in enumerate(value))

    return read


def _wrong(value: JSON, where: str, wanted: str) -> ManifestError:
    return ManifestError(f"{where} is {_shown(value)}; it has to be {wanted}; write it with `save`")


def _shown(value: JSON) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
