"""Fixed subsets of a data set."""

import hashlib
from collections.abc import Sequence

__all__ = ["keyed_subset"]


def keyed_subset(names: Sequence[str], *sizes: int | None) -> list[int]:
    """Positions of a subset that depends on the names alone, whatever order they come in.

    Smaller subsets are part of larger ones, and none follows the order of the files, which may be sorted by class.

    Args:
        names: unique names, such as file names.
        sizes: upper bounds, of which the smallest counts; None for no bound.
    """
    order = sorted(range(len(names)), key=lambda index: hashlib.sha256(names[index].encode()).digest())
    return order[: min((size for size in sizes if size is not None), default=len(order))]
