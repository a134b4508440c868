"""Curves as text: a chart of a few lines for a terminal."""

import math
from collections.abc import Mapping, Sequence

__all__ = ["chart"]

Points = Sequence[tuple[float, float]]


def chart(curves: Mapping[str, Points], *, width: int = 72, height: int = 12) -> list[str]:
    """Draw curves (x, y) by the character that names each; a later curve lies over an earlier one.

    Args:
        curves: Points by name; the first letter of a name is its mark. Points that are not finite are left out.
        width: Columns of the plot itself.
        height: Rows of the plot itself.

    Returns:
        Lines with the y axis at the left and the range of x below; none where there are no points.
    """
    points = {name: [(x, y) for x, y in curve if math.isfinite(y)] for name, curve in curves.items()}
    every = [point for curve in points.values() for point in curve]
    if not every:
        return []
    left, right = min(x for x, _ in every), max(x for x, _ in every)
    low, high = min(y for _, y in every), max(y for _, y in every)
    rows = [[" "] * width for _ in range(height)]
    for name, curve in points.items():
        for x, y in curve:
            column = round((x - left) / (right - left) * (width - 1)) if right > left else 0
            row = round((high - y) / (high - low) * (height - 1)) if high > low else height // 2
            rows[row][column] = name[0]
    labels = [f"{high:.4g}", *[""] * (height - 2), f"{low:.4g}"]
    margin = max(len(label) for label in labels)
    lines = [f"{label:>{margin}} │{''.join(row).rstrip()}" for label, row in zip(labels, rows, strict=True)]
    ends = f"{left:,.0f}", f"{right:,.0f}"
    axis = f"{'':{margin}} └{'─' * width}"
    below = f"{'':{margin}}  {ends[0]}{ends[1]:>{max(1, width - len(ends[0]))}}"
    return [*lines, axis, below]
