"""I-JEPA's blocks: targets and context fit together, sizes are shared as asked, and small grids give in."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from unveil_masking import Grid, InverseBlockMask, MultiBlockMask

IDS = np.arange(64) * 3 - 9
KEYS = {"seed": 7, "epoch": 2}


def corners(mask: np.ndarray) -> tuple[np.ndarray, ...]:
    """Top, bottom, left, right of the tokens in each mask [..., rows, cols]."""
    rows, cols = mask.any(-1), mask.any(-2)
    return (
        rows.argmax(-1),
        mask.shape[-2] - 1 - rows[..., ::-1].argmax(-1),
        cols.argmax(-1),
        mask.shape[-1] - 1 - cols[..., ::-1].argmax(-1),
    )


@given(
    rows=st.integers(1, 30),
    cols=st.integers(1, 30),
    num_targets=st.integers(1, 6),
    seed=st.integers(0, 2**64 - 1),
    sizes=st.sampled_from(["sample", "batch"]),
)
def test_targets_are_rectangles_of_one_size_for_each_sample(rows, cols, num_targets, seed, sizes):
    grid, strategy = Grid(rows, cols), MultiBlockMask(num_targets, sizes=sizes)
    targets = strategy.targets(grid, IDS, seed=seed).reshape(len(IDS), num_targets, rows, cols)
    top, bottom, left, right = corners(targets)
    height, width = bottom - top + 1, right - left + 1
    np.testing.assert_array_equal(targets.sum((2, 3)), height * width)
    assert (height == height[:, :1]).all()
    assert (width == width[:, :1]).all()
    if sizes == "batch":
        assert len(np.unique(height)) == len(np.unique(width)) == 1


def test_nothing_kept_is_a_target_and_all_targets_are_hidden():
    grid = Grid(14, 14)
    part = MultiBlockMask().sample(grid, IDS, **KEYS)
    targets = MultiBlockMask().targets(grid, IDS, **KEYS)
    assert targets.dtype == bool
    assert not (targets.any(1) & ~part.mask).any()
    everywhere = MultiBlockMask(context_area=(1, 1)).sample(grid, IDS, **KEYS)
    np.testing.assert_array_equal(
        everywhere.mask, MultiBlockMask(context_area=(1, 1)).targets(grid, IDS, **KEYS).any(1)
    )


def test_a_context_gives_up_its_last_targets_when_too_little_remains():
    """Checked sample by sample: the largest number of targets, from the first on, that leaves at least min_context."""
    strategy = MultiBlockMask(4, (0.3, 0.4), context_area=(0.5, 0.6), min_context=12)
    grid, gave_up = Grid(6, 6), 0
    part, targets = strategy.sample(grid, IDS, **KEYS), strategy.targets(grid, IDS, **KEYS)
    alone = MultiBlockMask(4, (0.3, 0.4), context_area=(0.5, 0.6), min_context=36).sample(grid, IDS, **KEYS)
    for mask, blocks, context in zip(part.mask, targets, ~alone.mask, strict=True):
        options = [context & ~blocks[:number].any(0) for number in range(5)]
        number = max(number for number, option in enumerate(options) if number == 0 or option.sum() >= 12)
        np.testing.assert_array_equal(~mask, options[number])
        gave_up += number < 4
    assert 0 < gave_up < len(IDS)
    assert part.counts.min() >= 12


@pytest.mark.parametrize("share", ["clip", "batch"])
def test_targets_are_shared_as_masks_are(share):
    grid, strategy = Grid(7, 7, 2 if share == "clip" else 1), MultiBlockMask(share=share)
    targets, part = strategy.targets(grid, IDS, **KEYS), strategy.sample(grid, IDS, **KEYS)
    assert targets.shape == (len(IDS), 4, grid.num)
    assert not (targets.any(1) & ~part.mask).any()
    if share == "clip":
        np.testing.assert_array_equal(targets[..., :49], targets[..., 49:])
    else:
        assert (targets == targets[:1]).all()


def test_targets_are_the_same_on_torch(monkeypatch):
    torch = pytest.importorskip("torch")
    expected = MultiBlockMask(sizes="batch").targets(Grid(9, 11), IDS, **KEYS)
    given_to_numpy = MultiBlockMask(sizes="batch").targets(Grid(9, 11), torch.tensor(IDS), **KEYS)
    np.testing.assert_array_equal(given_to_numpy.numpy(), expected)
    monkeypatch.setattr("unveil_masking._base.on_host", lambda array: None)
    by_torch = MultiBlockMask(sizes="batch").targets(Grid(9, 11), torch.tensor(IDS), **KEYS)
    np.testing.assert_array_equal(by_torch.numpy(), expected)


def test_an_empty_batch_has_no_targets():
    for strategy in (MultiBlockMask(), MultiBlockMask(sizes="batch"), MultiBlockMask(share="batch")):
        assert strategy.targets(Grid(4, 4), IDS[:0], seed=0).shape == (0, 4, 16)


def test_capis_rectangle_by_hand():
    """16 of 64 tokens visible with aspect 1 are a square of 4 × 4, which wraps around the edges."""
    strategy, grid = InverseBlockMask(0.75, min_aspect=1), Grid(8, 8)
    visible = ~strategy.sample(grid, np.arange(200), seed=0).mask.reshape(200, 8, 8)
    for axis in (1, 2):
        lines = visible.any(3 - axis)
        assert (lines.sum(1) == 4).all()
        assert ((lines & ~np.roll(lines, 1, 1)).sum(1) == 1).all()  # one run on the circle
    wraps = (visible[:, 0] & visible[:, -1]).any(1)
    assert 0.25 < wraps.mean() < 0.5  # 3 of 8 places
    in_place = ~InverseBlockMask(0.75, min_aspect=1, roll=False).sample(grid, np.arange(200), seed=0).mask
    top, bottom, left, right = corners(in_place.reshape(200, 8, 8))
    assert (bottom - top == 3).all()
    assert (right - left == 3).all()
