"""Masks as COCO stores them: outlines against hand-drawn shapes, encodings against pycocotools' decoder."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from unveil_pretrain.scenes.polygons import crowd_segmentation, instance_segmentation, outlines

coco_mask = pytest.importorskip("pycocotools.mask")

# pycocotools 2.0.11 predates the copy keyword of NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

MASKS = hnp.arrays(np.bool_, st.tuples(st.integers(1, 9), st.integers(1, 9)))


def area(loop):
    """Shoelace formula; positive for an outline, negative for a hole, in coordinates with rows growing downwards."""
    following = loop[1:] + loop[:1]
    return sum(x * v - u * y for (x, y), (u, v) in zip(loop, following, strict=True)) / 2


def decoded(segmentation, shape):
    if isinstance(segmentation, list):
        return coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(segmentation, *shape))).astype(bool)
    if isinstance(segmentation["counts"], list):
        segmentation = coco_mask.frPyObjects(segmentation, *shape)
    return coco_mask.decode(segmentation).astype(bool)


def test_outline_of_a_rectangle():
    mask = np.zeros((4, 5), dtype=bool)
    mask[1:3, 1:4] = True
    (loop,) = outlines(mask)
    assert set(loop) == {(1, 1), (4, 1), (4, 3), (1, 3)}
    assert area(loop) == 6


def test_a_hole_has_an_outline_of_its_own():
    mask = np.ones((3, 3), dtype=bool)
    mask[1, 1] = False
    assert sorted(area(loop) for loop in outlines(mask)) == [-1, 9]


def test_parts_that_touch_at_a_corner_stay_apart():
    assert sorted(area(loop) for loop in outlines(np.eye(3, dtype=bool))) == [1, 1, 1]
    assert outlines(np.zeros((3, 3), dtype=bool)) == []


@settings(deadline=None, max_examples=60)
@given(mask=MASKS)
def test_outlines_enclose_exactly_the_mask(mask):
    loops = outlines(mask)
    assert sum(area(loop) for loop in loops) == mask.sum()
    for loop in loops:
        assert area(loop) != 0
        turns = zip(loop, loop[1:] + loop[:1], strict=True)
        assert all((first[0] == second[0]) != (first[1] == second[1]) for first, second in turns)


@settings(deadline=None, max_examples=60)
@given(mask=MASKS)
def test_every_encoding_gives_the_mask_back(mask):
    if mask.any():
        assert np.array_equal(decoded(instance_segmentation(mask), mask.shape), mask)
    assert np.array_equal(decoded(crowd_segmentation(mask), mask.shape), mask)


def test_which_encoding_is_used():
    ring = np.ones((3, 3), dtype=bool)
    ring[1, 1] = False
    assert isinstance(instance_segmentation(np.ones((2, 2), dtype=bool)), list)
    assert isinstance(instance_segmentation(ring)["counts"], str)
    assert crowd_segmentation(ring) == {"size": [3, 3], "counts": [0, 4, 1, 4]}
