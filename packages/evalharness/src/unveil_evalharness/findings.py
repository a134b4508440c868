"""What a check found."""

from dataclasses import dataclass
from typing import Literal

__all__ = ["Finding"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One line of ``evalharness doctor``."""

    subject: str
    """What was looked at."""
    state: Literal["ok", "warning", "problem"]
    """A problem stands in the way of a task; a warning does not."""
    detail: str
