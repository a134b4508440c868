"""Guided masks: what scores choose, on every dtype and both libraries, and which scores are refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from unveil_masking import Grid, GuidedMask, RandomMask, ScoreError
from unveil_masking._scores import fixed_point, in_order

GRID = Grid(3, 4)
IDS = np.arange(5)
SCORES = np.random.default_rng(0).permutation(60).reshape(5, 12) / 8 - 4

floats32 = st.floats(allow_nan=False, width=32)


def test_the_largest_scores_are_hidden():
    part = GuidedMask(0.5).sample(GRID, IDS, seed=0, scores=SCORES)
    np.testing.assert_array_equal(part.hidden, np.sort(np.argsort(SCORES, 1)[:, 6:], 1))
    smallest = GuidedMask(0.5).sample(GRID, IDS, seed=0, scores=-SCORES)
    np.testing.assert_array_equal(smallest.mask, ~part.mask)


def test_distinct_scores_leave_nothing_to_chance():
    masks = [GuidedMask(0.75).sample(GRID, IDS, seed=seed, scores=SCORES).mask for seed in (0, 1)]
    np.testing.assert_array_equal(*masks)


def test_a_share_of_easy_tokens_by_hand():
    """8 of 12 hidden; ⌊8 · 0.3⌋ = 2 of them easy."""
    order = np.argsort(SCORES, 1)
    lowest = GuidedMask(0.66, easy=0.3, easy_from="lowest").sample(GRID, IDS, seed=0, scores=SCORES)
    np.testing.assert_array_equal(lowest.hidden, np.sort(np.concatenate([order[:, :2], order[:, 6:]], 1), 1))
    drawn = GuidedMask(0.66, easy=0.3).sample(GRID, IDS, seed=0, scores=SCORES)
    assert np.take_along_axis(drawn.mask, order, 1)[:, 6:].all()
    assert (drawn.mask != lowest.mask).any()
    everything = GuidedMask(0.66, easy=1).sample(GRID, IDS, seed=0, scores=SCORES)
    reversed_too = GuidedMask(0.66, easy=1).sample(GRID, IDS, seed=0, scores=-SCORES)
    np.testing.assert_array_equal(everything.mask, reversed_too.mask)


def test_temperatures_lie_between_top_and_random():
    ids, scores = np.arange(2000), np.broadcast_to(np.arange(12.0), (2000, 12))
    top = GuidedMask(0.5).sample(GRID, ids, seed=0, scores=scores).mask.mean(0)
    frequencies = [
        GuidedMask(0.5, "gumbel", temperature).sample(GRID, ids, seed=0, scores=scores).mask.mean(0)
        for temperature in (1e-3, 4.0, 1e6)
    ]
    np.testing.assert_array_equal(frequencies[0], top)
    assert (np.diff(frequencies[1]) > -0.03).all()
    assert 0.1 < frequencies[1][0] < frequencies[1][-1] < 0.95
    assert np.abs(frequencies[2] - 0.5).max() < 0.06


def test_the_shape_of_scores_follows_who_shares_a_mask():
    clip = Grid(3, 4, 2)
    per_slot = GuidedMask(0.5, share="clip").sample(clip, IDS, seed=0, scores=SCORES)
    per_image = GuidedMask(0.5).sample(GRID, IDS, seed=0, scores=SCORES)
    np.testing.assert_array_equal(per_slot.mask, np.tile(per_image.mask, (1, 2)))
    batch = GuidedMask(0.5, share="batch").sample(GRID, IDS, seed=0, scores=SCORES[:1])
    np.testing.assert_array_equal(batch.mask, np.repeat(per_image.mask[:1], 5, 0))


@given(scores=hnp.arrays(np.float32, 9, elements=floats32))
def test_the_order_of_floats_is_that_of_their_integers(scores):
    integers = in_order(scores)
    assert integers.min() >= 0
    assert integers.max() < 2**32
    np.testing.assert_array_equal(np.sign(np.subtract.outer(integers, integers)), compare(scores))


def compare(scores: np.ndarray) -> np.ndarray:
    return np.greater.outer(scores, scores).astype(int) - np.less.outer(scores, scores)


def test_special_floats_are_in_order():
    tiny = np.float32(1e-45)
    scores = np.array([-np.inf, -1, -tiny, -0.0, 0.0, tiny, 1, np.inf], dtype=np.float32)
    np.testing.assert_array_equal(np.sign(np.diff(in_order(scores))), [1, 1, 1, 0, 1, 1, 1])
    np.testing.assert_array_equal(fixed_point(scores, 0.5, 4, 9), [-512, -32, 0, 0, 0, 0, 32, 512])


def test_minus_infinity_is_hidden_last_and_infinity_first():
    scores = SCORES.copy()
    scores[:, 3], scores[:, 4] = -np.inf, np.inf
    for choice in ("top", "gumbel"):
        part = GuidedMask(0.9).sample(GRID, IDS, seed=0, scores=scores)
        np.testing.assert_array_equal(part.keep, np.full((5, 1), 3))
        assert GuidedMask(0.1, choice).sample(GRID, IDS, seed=0, scores=scores).mask[:, 4].all()


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_scores_of_every_float_dtype(dtype):
    expected = GuidedMask(0.5).sample(GRID, IDS, seed=0, scores=SCORES)
    part = GuidedMask(0.5).sample(GRID, IDS, seed=0, scores=SCORES.astype(dtype))
    np.testing.assert_array_equal(part.mask, expected.mask)


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        (None, r"scores are NoneType.*call `sample` with `scores=`"),
        (SCORES[:, :5], r"shape \(5, 5\). This strategy needs floats of shape \[5, 12\]"),
        (SCORES[:1], r"shape \(1, 12\)"),
        (np.arange(60).reshape(5, 12), "dtype int64"),
        (SCORES.astype(complex), "dtype complex128"),
        (SCORES.tolist(), "scores are list"),
        (np.where(SCORES > 3, np.nan, SCORES), "3 scores are NaN"),
    ],
)
def test_bad_scores_are_named(scores, message):
    with pytest.raises(ScoreError, match=message):
        GuidedMask(0.5).sample(GRID, IDS, seed=0, scores=scores)


def test_a_guided_mask_needs_its_own_sample():
    with pytest.raises(ScoreError, match="Call `sample` with `scores="):
        GuidedMask(0.5)._draw(GRID, IDS, 0, 0)


def test_easy_tokens_alone_need_no_order():
    """With everything easy and random, each sample is a random mask of its own noise: not that of `RandomMask`."""
    part = GuidedMask(0.5, easy=1).sample(GRID, IDS, seed=0, scores=SCORES)
    assert (part.mask != RandomMask(0.5).sample(GRID, IDS, seed=0).mask).any()


class TestTorch:
    """The same bits from torch's own kernels, whatever the floats."""

    @pytest.fixture
    @staticmethod
    def torch():
        return pytest.importorskip("torch")

    @given(
        scores=hnp.arrays(np.float32, (2, 12), elements=floats32),
        choice=st.sampled_from(["top", "gumbel"]),
        temperature=st.floats(1e-6, 1e6),
        seed=st.integers(0, 2**64 - 1),
    )
    def test_bit_identical_for_any_floats(self, scores, choice, temperature, seed):
        torch = pytest.importorskip("torch")
        strategy = GuidedMask(0.5, choice, temperature, easy=0.4, easy_from="lowest")
        expected = strategy.sample(GRID, IDS[:2], seed=seed, scores=scores)
        ours = strategy._hide(GRID, torch.tensor(IDS[:2]), seed, 0, torch.tensor(scores))
        np.testing.assert_array_equal(ours.numpy(), expected.mask)

    def test_half_precision_and_gradients(self, torch):
        scores = torch.tensor(SCORES, requires_grad=True)
        for dtype in (torch.bfloat16, torch.float16, torch.float32, torch.float64):
            part = GuidedMask(0.5).sample(GRID, torch.tensor(IDS), seed=0, scores=scores.to(dtype))
            expected = GuidedMask(0.5).sample(GRID, IDS, seed=0, scores=scores.detach().to(dtype).double().numpy())
            np.testing.assert_array_equal(part.mask.numpy(), expected.mask)

    def test_libraries_are_not_mixed(self, torch):
        with pytest.raises(ScoreError, match=r"scores are numpy .* on torch on cpu"):
            GuidedMask(0.5).sample(GRID, torch.tensor(IDS), seed=0, scores=SCORES)
        nan = torch.tensor(SCORES).index_fill(0, torch.tensor(2), float("nan"))
        with pytest.raises(ScoreError, match="12 scores are NaN"):
            GuidedMask(0.5).sample(GRID, torch.tensor(IDS), seed=0, scores=nan)
