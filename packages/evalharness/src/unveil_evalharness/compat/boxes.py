"""Box operators of ``mmcv._ext``: overlaps and the suppression family.

Boxes are ``(x1, y1, x2, y2)``. `offset` is 0 or 1: the width of a box is ``x2 - x1 + offset`` (1 is the integer
pixel convention of early detection code). Names and arguments follow mmcv 2.1's operators.

Shape legend: n boxes, m other boxes.
"""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from unveil_evalharness.compat.kernels import torchvision_kernels

__all__ = ["bbox_overlaps", "nms", "nms_match", "softnms"]

_LINEAR, _GAUSSIAN = 1, 2
_ROWS_AT_ONCE = 512  # bounds the matrix of overlaps


def nms(
    boxes: Float[Tensor, "n 4"], scores: Float[Tensor, " n"], iou_threshold: float, offset: int
) -> Int[Tensor, " kept"]:
    """Greedy non-maximum suppression.

    Returns:
        Indices of the kept boxes, best score first; a box falls when its overlap with a kept one is
        *above* `iou_threshold`.
    """
    if boxes.shape[0] == 0:
        return torch.empty(0, dtype=torch.int64, device=boxes.device)
    plain, scores = boxes.detach().float(), scores.detach().float()
    kernels = torchvision_kernels()
    if kernels is not None:
        # Growing the far corner by the offset grows widths, heights and intersections alike.
        grown = torch.cat([plain[:, :2], plain[:, 2:] + offset], dim=1)
        return kernels.nms(grown, scores, float(iou_threshold))
    order = scores.sort(descending=True, stable=True).indices
    alive = _greedy(_Boxes(plain[order], offset), float(iou_threshold))
    return order[torch.from_numpy(alive).to(order.device)]


def nms_match(dets: Float[Tensor, "n 5"], iou_threshold: float) -> list[list[int]]:
    """Groups every box with the better one that suppresses it.

    Args:
        dets: boxes with their scores in the last column.
        iou_threshold: overlap from which on (inclusive, unlike `nms`) a box joins the group of a better one.

    Returns:
        One list of indices per kept box, best group first; the kept box leads its group.
    """
    boxes = _Boxes(dets.detach()[:, :4], 0)
    waiting = np.argsort(-dets.detach()[:, 4].cpu().numpy(), kind="stable")
    groups = []
    while len(waiting):
        leader, rest = waiting[0], waiting[1:]
        joins = boxes.overlap(waiting[:1], rest)[0] >= iou_threshold
        groups.append([int(leader), *rest[joins].tolist()])
        waiting = rest[~joins]
    return groups


def softnms(
    boxes: Float[Tensor, "n 4"],
    scores: Float[Tensor, " n"],
    dets: Float[Tensor, "n 5"],
    iou_threshold: float,
    sigma: float,
    min_score: float,
    method: int,
    offset: int,
) -> Int[Tensor, " kept"]:
    """Soft suppression (Bodla et al. 2017): overlapping boxes lose score instead of falling at once.

    Args:
        boxes: boxes.
        scores: their scores.
        dets: output; the kept boxes with their final scores are written to its first rows.
        iou_threshold: overlap from which on methods 0 and 1 act.
        sigma: width of the Gaussian of method 2.
        min_score: a box whose score sinks below falls.
        method: 0 sets an overlapping score to 0, 1 multiplies by ``1 - overlap``, 2 by ``exp(-overlap² / sigma)``.
        offset: see the module docstring.

    Returns:
        Indices of the kept boxes in the order of their final scores.
    """
    geometry = _Boxes(boxes.detach(), offset)
    current = scores.detach().float().cpu().numpy().copy()
    waiting = np.arange(len(current))
    kept: list[int] = []
    while len(waiting):
        position = int(np.argmax(current[waiting]))
        best = int(waiting[position])
        kept.append(best)
        waiting = np.delete(waiting, position)
        overlap = geometry.overlap(np.array([best]), waiting)[0]
        current[waiting] *= _decay(overlap, method, iou_threshold, sigma).astype(current.dtype)
        waiting = waiting[current[waiting] >= min_score]
    indices = torch.tensor(kept, dtype=torch.int64)
    dets[: len(kept), :4] = boxes.detach().cpu()[indices].to(dets)
    dets[: len(kept), 4] = torch.from_numpy(current[kept]).to(dets)
    return indices


def bbox_overlaps(
    bboxes1: Float[Tensor, "n 4"],
    bboxes2: Float[Tensor, "m 4"],
    ious: Float[Tensor, "..."],
    mode: int = 0,
    aligned: bool = False,
    offset: int = 0,
) -> None:
    """Writes the overlaps of two sets of boxes to `ious`: ``[n, m]``, or ``[n]`` pairwise where `aligned`.

    Args:
        bboxes1: first boxes.
        bboxes2: second boxes; as many as the first where `aligned`.
        ious: output.
        mode: 0 divides the intersection by the union, 1 by the area of the first box.
        aligned: box i of one set against box i of the other only.
        offset: see the module docstring.
    """
    first, second = (bboxes1, bboxes2) if aligned else (bboxes1[:, None], bboxes2[None])
    low = torch.maximum(first[..., :2], second[..., :2])
    high = torch.minimum(first[..., 2:], second[..., 2:])
    intersection = (high - low + offset).clamp(min=0).prod(dim=-1)
    area = (first[..., 2:] - first[..., :2] + offset).prod(dim=-1)
    if mode == 0:
        area = area + (second[..., 2:] - second[..., :2] + offset).prod(dim=-1) - intersection
    # Two boxes without area overlap by 0, as in mmcv's kernel, which divides by at least `offset`.
    ious.copy_(torch.where(area > 0, intersection / area, torch.zeros_like(intersection)))


class _Boxes:
    """Boxes on the host in float32, the precision of mmcv's kernels, with their areas computed once."""

    def __init__(self, boxes: Tensor, offset: int) -> None:
        corners = boxes.float().cpu().numpy()
        self.offset = np.float32(offset)
        self.left, self.top, self.right, self.bottom = np.ascontiguousarray(corners.T)
        self.area = (self.right - self.left + self.offset) * (self.bottom - self.top + self.offset)

    def __len__(self) -> int:
        return len(self.area)

    def overlap(self, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> NDArray[np.float32]:
        """Intersection over union ``[rows, columns]``; 0 where both boxes have no area."""
        one = rows[:, None]
        width = np.minimum(self.right[one], self.right[columns]) - np.maximum(self.left[one], self.left[columns])
        height = np.minimum(self.bottom[one], self.bottom[columns]) - np.maximum(self.top[one], self.top[columns])
        intersection = np.maximum(width + self.offset, 0) * np.maximum(height + self.offset, 0)
        union = self.area[one] + self.area[columns] - intersection
        return np.divide(intersection, union, out=np.zeros_like(union), where=union > 0)


def _greedy(boxes: _Boxes, threshold: float) -> NDArray[np.bool_]:
    """Which boxes, best first, are kept. Overlaps are computed in blocks of rows, for boxes that still stand."""
    alive = np.ones(len(boxes), dtype=bool)
    for start in range(0, len(boxes), _ROWS_AT_ONCE):
        standing = start + np.flatnonzero(alive[start:])
        rows = standing[standing < start + _ROWS_AT_ONCE]
        falls = boxes.overlap(rows, standing) > threshold
        stays = np.ones(len(standing), dtype=bool)
        for position in range(len(rows)):
            if stays[position]:
                # A box does not fall by itself nor by a worse one.
                stays[position + 1 :] &= ~falls[position, position + 1 :]
        alive[standing] = stays
    return alive


def _decay(overlap: NDArray[np.float32], method: int, threshold: float, sigma: float) -> NDArray[Any]:
    if method == _GAUSSIAN:
        return np.exp(-(overlap**2) / sigma)
    return np.where(overlap >= threshold, 1 - overlap if method == _LINEAR else 0.0, 1.0)
