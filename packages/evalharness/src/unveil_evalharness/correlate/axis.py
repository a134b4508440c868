"""What stands on the horizontal axis, and what two of its values must share to stand there together."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Axis", "first_difference"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Axis:
    """An axis: the passport of a loss, or the protocol and data of a metric used in its place."""

    key: str
    """Equal for values that may share the axis."""
    name: str
    """What is measured, for people."""
    fields: Mapping[str, Any]
    """What the key was made of; ``objective`` says in a word what is measured."""
    lower_is_better: bool = True


def first_difference(one: Mapping[str, Any], other: Mapping[str, Any], prefix: str = "") -> str | None:
    """Name of the first field that differs, with dots for fields within fields; None when none does."""
    for name in [*one, *(name for name in other if name not in one)]:
        mine, theirs = one.get(name), other.get(name)
        if mine == theirs:
            continue
        if isinstance(mine, Mapping) and isinstance(theirs, Mapping):
            return first_difference(mine, theirs, f"{prefix}{name}.")
        return prefix + name
    return None
