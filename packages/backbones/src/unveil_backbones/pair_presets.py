"""The named pairs of an image encoder and a text tower."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal

from unveil_backbones.errors import UnknownModelError
from unveil_backbones.pair import ImageTextPair

__all__ = ["PAIR_PRESETS", "PairName", "create_pair"]

PairName = Literal["flip_b16", "flip_l16", "flip_h14"]

PAIR_PRESETS: Mapping[str, Any] = MappingProxyType({})


def create_pair(
    name: str, *, image_size: tuple[int, int] | int | None = None, drop_path: float | None = None
) -> ImageTextPair:
    """Make a pair with fresh weights.

    Raises:
        UnknownModelError: The name is none of ``PAIR_PRESETS``.
    """
    known = ", ".join(PAIR_PRESETS) or "none"
    raise UnknownModelError(f"pair {name!r} is unknown; there are {known}; choose one of them")
