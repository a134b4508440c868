"""COCO's two ways to store a mask: polygons where one outline says it all, run lengths otherwise.

pycocotools fills the union of an instance's polygons, so a hole (as in a zero) cannot be written as a polygon; those
masks, and masks that another digit cuts in two, are stored as run lengths, which pycocotools reads in the same field.
"""

from typing import Any

import numpy as np

__all__ = ["crowd_segmentation", "instance_segmentation", "outlines"]


def outlines(mask: np.ndarray) -> list[list[tuple[int, int]]]:
    """Closed outlines of a mask along pixel edges: one for each 4-connected part and one for each hole.

    Args:
        mask: bool [h, w].

    Returns:
        Corner points (column, row) of each outline, at the corners between pixels; straight runs keep only their ends.
    """
    following = _edges(mask)
    loops = []
    while following:
        start = next(iter(following))
        loop, point, direction = [start], start, (0, 0)
        while True:
            options = following[point]
            step = options[0] if len(options) == 1 else _sharpest(direction, options)
            options.remove(step)
            if not options:
                del following[point]
            if step == direction:
                loop.pop()
            point, direction = (point[0] + step[0], point[1] + step[1]), step
            if point == start:
                break
            loop.append(point)
        loops.append(loop)
    return loops


def _edges(mask: np.ndarray) -> dict[tuple[int, int], list[tuple[int, int]]]:
    """Unit steps leaving each corner; the mask lies to the right of each step (columns grow right, rows down)."""
    padded = np.pad(mask, 1)
    inside = padded[1:-1, 1:-1]
    sides = (
        (inside & ~padded[:-2, 1:-1], (0, 0), (1, 0)),  # top edge, walked to the right
        (inside & ~padded[1:-1, 2:], (1, 0), (0, 1)),  # right edge, downwards
        (inside & ~padded[2:, 1:-1], (1, 1), (-1, 0)),  # bottom edge, to the left
        (inside & ~padded[1:-1, :-2], (0, 1), (0, -1)),  # left edge, upwards
    )
    following: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for border, (right, down), step in sides:
        for row, column in np.argwhere(border).tolist():
            following.setdefault((column + right, row + down), []).append(step)
    return following


def _sharpest(direction: tuple[int, int], options: list[tuple[int, int]]) -> tuple[int, int]:
    """Where two parts touch at a corner, turn right: the outline stays with its own part."""
    right_turn = (-direction[1], direction[0])
    return right_turn if right_turn in options else options[0]


def instance_segmentation(mask: np.ndarray) -> list[list[float]] | dict[str, Any]:
    """The `segmentation` field of one object: a polygon for one part without holes, else compressed run lengths."""
    loops = outlines(mask)
    if len(loops) == 1:
        return [[float(coordinate) for point in loops[0] for coordinate in point]]
    from pycocotools import mask as coco_mask

    encoded = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    counts: Any = encoded["counts"]  # bytes, whatever the stubs say
    return {"size": [int(side) for side in encoded["size"]], "counts": counts.decode("ascii")}


def crowd_segmentation(mask: np.ndarray) -> dict[str, Any]:
    """The `segmentation` field of a crowd: plain run lengths by columns, beginning with zeros, as COCO has them."""
    flat = mask.ravel(order="F")
    changes = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff(np.concatenate([[0], changes, [flat.size]])).tolist()
    return {"size": [int(side) for side in mask.shape], "counts": [0, *counts] if flat[0] else counts}
