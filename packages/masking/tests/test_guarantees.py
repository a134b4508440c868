"""What every strategy promises, on all CASES of conftest.py; and broken strategies, which each check must catch."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from unveil_masking import Grid, RandomMask, Strategy, pack, restore, take, unpack

IDS = np.array([11, -5, 2**45 + 3, 0, 77], dtype=np.int64)
SEEDS = st.integers(0, 2**64 - 1)
EPOCHS = st.integers(0, 2**32 - 1)


def check_partition(strategy: Strategy, grid: Grid, seed: int, epoch: int) -> None:
    """Kept and hidden tokens are disjoint, ascending, cover the grid, and agree with the mask and the counts."""
    part = strategy.sample(grid, IDS, seed=seed, epoch=epoch)
    assert part.mask.shape == (len(IDS), grid.num)
    assert part.mask.dtype == bool
    assert part.order.dtype == part.restore.dtype == part.counts.dtype == np.int64
    everything = np.broadcast_to(np.arange(grid.num), part.mask.shape)
    np.testing.assert_array_equal(np.sort(part.order, 1), everything)
    np.testing.assert_array_equal(np.take_along_axis(part.order, part.restore, 1), everything)
    for row, (mask, count) in enumerate(zip(part.mask, part.counts, strict=True)):
        kept, hidden = np.flatnonzero(~mask), np.flatnonzero(mask)
        np.testing.assert_array_equal(part.order[row], np.concatenate([kept, hidden]))
        assert count == len(kept)
        if part.equal_count is not None:
            np.testing.assert_array_equal(part.keep[row], kept)
            np.testing.assert_array_equal(part.hidden[row], hidden)
    # Some strategies of unequal counts hide a random number, but none may hide nothing but everything.
    assert part.counts.min() >= 1


def check_counts(strategy: Strategy, grid: Grid, hidden: tuple[int, int]) -> None:
    """Every sample hides what the documented rule says, and the partition reports the realised ratio."""
    assert strategy.hidden_range(grid) == hidden
    part = strategy.sample(grid, np.arange(64), seed=5)
    assert hidden[0] <= part.mask.sum(1).min()
    assert part.mask.sum(1).max() <= hidden[1]
    np.testing.assert_allclose(part.ratios, part.mask.mean(1), rtol=0, atol=1e-12)
    if hidden[0] == hidden[1]:
        assert part.num_hidden == strategy.num_hidden(grid) == hidden[0]
        assert part.ratio == strategy.realised_ratio(grid) == hidden[0] / grid.num


def check_independence(strategy: Strategy, grid: Grid, order: list[int], cut: int) -> None:
    """A mask does not depend on the batch it is drawn in, on the order of the samples, or on who draws it."""
    whole = strategy.sample(grid, IDS, seed=3, epoch=2).mask
    if strategy.share == "batch":
        np.testing.assert_array_equal(strategy.sample(grid, IDS[order], seed=3, epoch=2).mask, whole)
        assert (whole == whole[0]).all()
        return
    if depends_on_batch(strategy):
        np.testing.assert_array_equal(strategy.sample(grid, IDS[order], seed=3, epoch=2).mask, whole[order])
        return
    for rows in (order[:cut], order[cut:]):  # two workers or ranks with batches of their own
        np.testing.assert_array_equal(strategy.sample(grid, IDS[rows], seed=3, epoch=2).mask, whole[rows])


def depends_on_batch(strategy: Strategy) -> bool:
    """Whether a mask depends, by its documentation, on which samples meet in a batch, though not on their order."""
    return "batch" in {strategy.describe().get(name) for name in ("share", "spread", "sizes")}


def check_round_trip(strategy: Strategy, grid: Grid, seed: int) -> None:
    """`take` then `restore` is the identity on kept tokens, and the fill elsewhere."""
    part = strategy.sample(grid, IDS, seed=seed)
    tokens = np.arange(part.mask.size, dtype=np.float32).reshape(*part.mask.shape, 1)
    packed = pack(tokens, part)
    np.testing.assert_array_equal(packed.tokens, tokens[~part.mask])
    np.testing.assert_array_equal(np.diff(packed.cu_seqlens), part.counts)
    assert part.counts.max() <= packed.max_seqlen <= grid.num
    unpacked = unpack(packed.tokens, part, -1.0)
    np.testing.assert_array_equal(unpacked, np.where(part.mask[..., None], np.float32(-1), tokens))
    if part.equal_count is None:
        return
    back = restore(take(tokens, part), part, -1.0)
    np.testing.assert_array_equal(back, np.where(part.mask[..., None], np.float32(-1), tokens))
    other = part.complement()
    both = restore(take(tokens, other), other, 0.0) + restore(take(tokens, part), part, 0.0)
    np.testing.assert_array_equal(both, tokens)


@given(seed=SEEDS, epoch=EPOCHS)
def test_kept_and_hidden_partition_the_grid(case, seed, epoch):
    check_partition(case.strategy, case.grid, seed, epoch)


def test_counts_are_the_documented_rule(case):
    check_counts(case.strategy, case.grid, case.hidden)


@given(order=st.permutations(range(len(IDS))), cut=st.integers(0, len(IDS)))
def test_masks_do_not_depend_on_batch_order_worker_or_rank(case, order, cut):
    check_independence(case.strategy, case.grid, order, cut)


@given(seed=SEEDS)
def test_take_then_restore_is_the_identity(case, seed):
    check_round_trip(case.strategy, case.grid, seed)


def test_one_mask_for_all_slots_of_a_clip(clip_case):
    mask = clip_case.strategy.sample(clip_case.grid, IDS, seed=0).mask.reshape(len(IDS), clip_case.grid.frames, -1)
    assert (mask == mask[:, :1]).all()


def test_a_strategy_is_a_value_and_describes_itself(case):
    copy = replace(case.strategy)
    assert copy is not case.strategy
    assert copy == case.strategy
    assert hash(copy) == hash(case.strategy)
    assert case.strategy.describe()["share"] == case.strategy.share


@dataclass(frozen=True)
class Broken(RandomMask):
    """A random mask with one fault, spelled as a change to the mask that it should have drawn."""

    fault: Callable[..., np.ndarray] | None = None

    def _draw(self, grid, sample_ids, seed, epoch):
        mask = RandomMask(self.ratio, self.rounding)._draw(grid, sample_ids, seed, epoch)
        assert self.fault is not None
        return self.fault(mask, sample_ids)


def flip_one(mask: np.ndarray, _: np.ndarray) -> np.ndarray:
    mask = mask.copy()
    mask[-1:, 0] ^= True
    return mask


def by_place_in_the_batch(mask: np.ndarray, _: np.ndarray) -> np.ndarray:
    return np.stack([np.roll(row, place) for place, row in enumerate(mask)]) if len(mask) else mask


def by_batch_size(mask: np.ndarray, _: np.ndarray) -> np.ndarray:
    return np.roll(mask, len(mask), 1)


def test_the_checks_of_counts_and_partition_can_fail():
    broken = Broken(0.5, fault=flip_one)
    with pytest.raises((AssertionError, ValueError)):
        check_counts(broken, Grid(4, 4), (8, 8))
    with pytest.raises((AssertionError, ValueError)):
        check_partition(broken, Grid(4, 4), 0, 0)
    with pytest.raises(AssertionError):
        check_counts(RandomMask(0.9), Grid(10, 10), (91, 91))
    with pytest.raises(AssertionError):
        check_counts(RandomMask(0.9, "float_floor_keep"), Grid(10, 10), (90, 90))


@pytest.mark.parametrize("fault", [by_place_in_the_batch, by_batch_size])
def test_the_check_of_independence_can_fail(fault):
    with pytest.raises(AssertionError):
        check_independence(Broken(0.5, fault=fault), Grid(4, 4), [4, 3, 2, 1, 0], 2)


def test_the_check_of_the_round_trip_can_fail():
    with pytest.raises((AssertionError, ValueError)):
        check_round_trip(Broken(0.5, fault=flip_one), Grid(4, 4), 0)
