"""Box operators against hand-computed values, with and without torchvision's compiled operators."""

import numpy as np
import pytest
import torch
import unveil_backbones
from hypothesis import given, settings
from hypothesis import strategies as st
from unveil_evalharness.compat import boxes
from unveil_evalharness.compat.kernels import torchvision_kernels


@pytest.fixture(params=["plain", "torchvision"])
def backend(request, monkeypatch):
    """Runs a test on plain PyTorch, and again on torchvision's operators where they load."""
    unveil_backbones.ensure_torchvision()
    if request.param == "plain":
        monkeypatch.setattr(boxes, "torchvision_kernels", lambda: None)
    elif torchvision_kernels() is None:
        pytest.skip("torchvision's compiled operators do not load beside this torch")
    return request.param


# b overlaps a by 50 / 150, c overlaps a by 90 / 110, d stands alone.
BOXES = torch.tensor([[0.0, 0, 10, 10], [5, 0, 15, 10], [0, 0, 10, 9], [50, 50, 60, 60]])
SCORES = torch.tensor([0.8, 0.7, 0.9, 0.1])


@pytest.mark.parametrize(
    ("threshold", "kept"),
    [
        (0.5, [2, 1, 3]),  # c (0.9) removes a: 90/100 = 0.9; b against c is 45/145 = 0.31
        (0.3, [2, 3]),  # now c removes b too
        (0.95, [2, 0, 1, 3]),  # nothing overlaps that much
    ],
)
def test_nms_keeps_the_boxes_computed_by_hand(backend, threshold, kept):
    assert boxes.nms(BOXES, SCORES, threshold, 0).tolist() == kept


def test_nms_threshold_is_exclusive(backend):
    pair = torch.tensor([[0.0, 0, 2, 1], [1, 0, 3, 1]])  # overlap exactly 1/3; 0.5 is exact in binary
    half = torch.tensor([[0.0, 0, 2, 1], [0, 0, 1, 1]])  # overlap exactly 1/2
    assert boxes.nms(half, torch.tensor([0.9, 0.8]), 0.5, 0).tolist() == [0, 1]
    assert boxes.nms(pair, torch.tensor([0.9, 0.8]), 0.33, 0).tolist() == [0]


def test_nms_offset_counts_pixels_inclusively(backend):
    # Width 1 apart: with offset 1 both boxes are 2 × 1 pixels, they share 1 of 3 pixels.
    pair = torch.tensor([[0.0, 0, 1, 0], [1, 0, 2, 0]])
    assert boxes.nms(pair, torch.tensor([0.9, 0.8]), 0.3, 1).tolist() == [0]
    assert boxes.nms(pair, torch.tensor([0.9, 0.8]), 0.34, 1).tolist() == [0, 1]


def test_nms_of_nothing_is_nothing(backend):
    kept = boxes.nms(torch.empty(0, 4), torch.empty(0), 0.5, 0)
    assert kept.dtype == torch.int64
    assert kept.shape == (0,)


@pytest.mark.parametrize("block", [7, 512])
def test_nms_equals_the_definition_on_many_boxes(backend, block, monkeypatch):
    monkeypatch.setattr(boxes, "_ROWS_AT_ONCE", block)
    generator = torch.Generator().manual_seed(0)
    low = torch.rand(300, 2, generator=generator) * 40
    many = torch.cat([low, low + torch.rand(300, 2, generator=generator) * 20 + 1], dim=1)
    scores = torch.rand(300, generator=generator)
    overlaps = torch.empty(300, 300)
    boxes.bbox_overlaps(many, many, overlaps)
    expected = []
    for index in scores.argsort(descending=True).tolist():
        if all(overlaps[index, better] <= 0.4 for better in expected):
            expected.append(index)
    assert boxes.nms(many, scores, 0.4, 0).tolist() == expected
    assert 20 < len(expected) < 280


def test_nms_match_groups_by_hand():
    dets = torch.cat([BOXES, SCORES[:, None]], dim=1)
    assert boxes.nms_match(dets, 0.5) == [[2, 0], [1], [3]]
    assert boxes.nms_match(dets, 0.3) == [[2, 0, 1], [3]]


def test_nms_match_threshold_is_inclusive():
    dets = torch.tensor([[0.0, 0, 2, 1, 0.9], [0, 0, 1, 1, 0.8]])
    assert boxes.nms_match(dets, 0.5) == [[0, 1]]


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        (0, {2: 0.9, 1: 0.7, 3: 0.1}),  # a falls to 0 < min_score
        (1, {2: 0.9, 1: 0.7, 3: 0.1, 0: 0.8 * (1 - 0.9)}),
        (2, {2: 0.9, 1: None, 3: 0.1, 0: None}),
    ],
)
def test_softnms_scores_by_hand(method, expected):
    dets = torch.zeros(4, 5)
    kept = boxes.softnms(BOXES, SCORES, dets, 0.5, 0.5, 0.01, method, 0)
    if method == 2:
        # c first; then b: exp(-(45/145)²/0.5); a twice, by c (0.9) and by b (1/3).
        b_score = 0.7 * np.exp(-((45 / 145) ** 2) / 0.5)
        a_score = 0.8 * np.exp(-(0.9**2) / 0.5) * np.exp(-((1 / 3) ** 2) / 0.5)
        expected = {2: 0.9, 1: b_score, 0: a_score, 3: 0.1}
    scores = dict(zip(kept.tolist(), dets[: len(kept), 4].tolist(), strict=True))
    assert scores == pytest.approx(expected, abs=1e-6)
    assert sorted(scores.values(), reverse=True) == list(scores.values())
    assert torch.equal(dets[: len(kept), :4], BOXES[kept])


@pytest.mark.parametrize(
    ("mode", "offset", "expected"),
    [
        (0, 0, [[1.0, 50 / 150], [50 / 150, 1.0]]),
        (1, 0, [[1.0, 0.5], [0.5, 1.0]]),
        (0, 1, [[1.0, 66 / 176], [66 / 176, 1.0]]),  # 11 × 11 boxes sharing 6 × 11 pixels
    ],
)
def test_bbox_overlaps_by_hand(mode, offset, expected):
    result = torch.empty(2, 2)
    boxes.bbox_overlaps(BOXES[:2], BOXES[:2], result, mode=mode, offset=offset)
    torch.testing.assert_close(result, torch.tensor(expected))


def test_bbox_overlaps_pairwise_and_without_area():
    result = torch.empty(2)
    points = torch.tensor([[1.0, 1, 1, 1], [0, 0, 10, 10]])
    boxes.bbox_overlaps(points, torch.tensor([[1.0, 1, 1, 1], [0, 0, 5, 10]]), result, aligned=True)
    assert result.tolist() == [0.0, 0.5]


box_lists = st.lists(
    st.tuples(*[st.integers(0, 20)] * 2, *[st.integers(1, 20)] * 2, st.integers(0, 1000)), min_size=1, max_size=25
)


@settings(max_examples=40, deadline=None)
@given(box_lists, st.sampled_from([0.1, 0.3, 0.5, 0.7]))
def test_kept_boxes_do_not_overlap_and_fallen_ones_do(raw, threshold):
    table = torch.tensor(raw, dtype=torch.float32)
    corners, scores = torch.cat([table[:, :2], table[:, :2] + table[:, 2:4]], dim=1), table[:, 4]
    kept = boxes.nms(corners, scores, threshold, 0)
    overlaps = torch.empty(len(corners), len(corners))
    boxes.bbox_overlaps(corners, corners, overlaps)
    among = overlaps[kept][:, kept] - torch.eye(len(kept))
    assert (among <= threshold).all()
    fallen = [index for index in range(len(corners)) if index not in kept]
    assert all((overlaps[index, kept] > threshold).any() for index in fallen)


def test_agrees_with_torchvision_where_it_loads():
    unveil_backbones.ensure_torchvision()
    kernels = torchvision_kernels()
    if kernels is None:
        pytest.skip("torchvision's compiled operators do not load beside this torch")
    generator = torch.Generator().manual_seed(1)
    low = torch.rand(1000, 2, generator=generator) * 100
    many = torch.cat([low, low + torch.rand(1000, 2, generator=generator) * 30], dim=1)
    scores = torch.rand(1000, generator=generator)
    order = scores.sort(descending=True, stable=True).indices
    plain = order[torch.from_numpy(boxes._greedy(boxes._Boxes(many[order], 0), 0.6))]
    assert torch.equal(plain, kernels.nms(many, scores, 0.6))
