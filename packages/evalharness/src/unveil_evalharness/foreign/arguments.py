"""``--model-args``: details of a foreign model that its files do not tell."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from unveil_evalharness.errors import UsageError, one_line

if TYPE_CHECKING:
    from unveil_backbones.conversion.details import Details

__all__ = ["parse_details"]


def parse_details(text: str) -> "Details":
    """Reads ``num_heads=6,image_size=192x192,mean=0.5/0.5/0.5``; empty for nothing.

    Raises:
        UsageError: a name is unknown, or a value cannot be read or is none that a model has.
    """
    from unveil_backbones.conversion.details import Details

    values: dict[str, Any] = {}
    for part in filter(None, text.split(",")):
        name, _, value = part.partition("=")
        if name not in _READ:
            raise UsageError(f"--model-args: {name!r} is unknown; there are {', '.join(_READ)}")
        try:
            values[name] = _READ[name](value)
        except ValueError as error:
            raise UsageError(f"--model-args {name}={value}: {one_line(error)}; see --help") from error
    try:
        return Details(**values)
    except ValueError as error:
        raise UsageError(f"--model-args: {one_line(error)}") from error


def _size(value: str) -> tuple[int, int]:
    height, _, width = value.partition("x")
    return int(height), int(width or height)


def _colour(value: str) -> tuple[float, ...]:
    channels = tuple(float(channel) for channel in value.split("/"))
    if len(channels) != 3:
        raise ValueError("three numbers are wanted, as in 0.5/0.5/0.5")
    return channels


def _pooling(value: str) -> str:
    from unveil_backbones.base import POOLINGS

    return _one_of(value, POOLINGS)


def _activation(value: str) -> str:
    from unveil_backbones.vit_config import ACTIVATIONS

    return _one_of(value, ACTIVATIONS)


def _one_of(value: str, known: Sequence[str]) -> str:
    if value not in known:
        raise ValueError(f"one of {', '.join(known)} is wanted")
    return value


_READ: dict[str, Callable[[str], Any]] = {
    "arch": str,
    "image_size": _size,
    "num_heads": int,
    "decoder_heads": int,
    "window": int,
    "norm_epsilon": float,
    "activation": _activation,
    "pooling": _pooling,
    "mean": _colour,
    "std": _colour,
}
