"""Tokens through a partition: take, restore, pixels."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from unveil_masking import Grid, RandomMask, TokenShapeError, UnitMask, restore, take, to_pixels

GRID = Grid(3, 4)
IDS = np.array([4, 5], dtype=np.int64)
PART = RandomMask(0.5).sample(GRID, IDS, seed=0)


def numbered(width: int = 2) -> np.ndarray:
    """Tokens whose value is their index, plus 100 per sample."""
    tokens = np.arange(GRID.num)[None, :, None] + 100 * np.arange(2)[:, None, None] + np.zeros(width)
    return tokens.astype(np.float32)


def test_take_gathers_the_kept_tokens_in_order():
    taken = take(numbered(), PART)
    np.testing.assert_array_equal(taken[0, :, 0], PART.keep[0])
    np.testing.assert_array_equal(taken[1, :, 1], PART.keep[1] + 100)


@given(hidden=st.integers(0, GRID.num - 1), width=st.integers(1, 5), seed=st.integers(0, 1000))
def test_restore_undoes_take_and_fills_the_rest(hidden, width, seed):
    part = RandomMask(int(hidden / GRID.num * 1e6) / 1e6).sample(GRID, IDS, seed=seed)
    tokens, mask_token = numbered(width), -np.arange(1.0, width + 1)
    back = restore(take(tokens, part), part, mask_token)
    np.testing.assert_array_equal(back, np.where(part.mask[..., None], mask_token.astype(np.float32), tokens))
    assert back.dtype == np.float32


@pytest.mark.parametrize(
    "fill", [-1, -1.0, np.array(-1.0), np.full(2, -1.0), np.full((1, 1, 2), -1), np.full((6, 1), -1)]
)
def test_a_fill_may_be_a_number_or_anything_that_broadcasts(fill):
    np.testing.assert_array_equal(
        restore(take(numbered(), PART), PART, fill), np.where(PART.mask[..., None], np.float32(-1), numbered())
    )


def test_pixels_repeat_every_token():
    part = UnitMask(2, 0.5).sample(Grid(2, 4), IDS, seed=1)
    pixels = to_pixels(part, 3)
    assert pixels.shape == (2, 6, 12)
    assert pixels.dtype == bool
    np.testing.assert_array_equal(pixels, np.kron(part.mask.reshape(2, 2, 4), np.ones((1, 3, 3))).astype(bool))
    np.testing.assert_array_equal(to_pixels(part.mask.reshape(2, 2, 4), 3), pixels)
    assert pixels.mean() == part.ratio


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: take(numbered()[:, :5], PART), r"tokens is numpy of shape \(2, 5, 2\).*needs \[2, 12, width\]"),
        (lambda: take(numbered()[:1], PART), r"needs \[2, 12, width\]"),
        (lambda: take(numbered()[..., 0], PART), r"of shape \(2, 12\)"),
        (lambda: take([[1.0]], PART), "tokens is list"),
        (lambda: restore(numbered(), PART, 0.0), r"kept_tokens .* needs \[2, 6, width\]"),
        (lambda: restore(take(numbered(), PART), PART, np.zeros(3)), r"fill of shape \(3,\) does not broadcast"),
        (lambda: restore(take(numbered(), PART), PART, np.zeros((1, 1, 1, 2))), "Give a number or a mask token"),
        (lambda: restore(take(numbered(), PART), PART, [0.0, 0.0]), "fill is list but kept_tokens is numpy"),
        (lambda: to_pixels(PART.mask, 4), r"shape \(2, 12\). Give the partition itself"),
        (lambda: to_pixels(PART, 0), "patch=0 is not a positive int"),
    ],
)
def test_what_does_not_fit_is_named(call, message):
    with pytest.raises(TokenShapeError, match=message):
        call()
