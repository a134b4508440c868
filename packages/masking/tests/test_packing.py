"""Packing: the layout by hand, the round trip, gradients, capacities, and what is refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from unveil_masking import (
    BlockMask,
    CountError,
    Grid,
    MultiBlockMask,
    Partition,
    RandomMask,
    TextRandom,
    TokenShapeError,
    pack,
    unpack,
)

UNEQUAL = BlockMask(0.5, min_block=2)
GRID = Grid(4, 5)
IDS = np.arange(6)


def by_hand() -> tuple[np.ndarray, Partition]:
    """Two samples of three tokens, of which the first keeps tokens 0 and 2 and the second token 1."""
    mask = np.array([[False, True, False], [True, False, True]])
    return np.array([[[0.0], [1], [2]], [[10], [11], [12]]]), Partition(mask, Grid(1, 3), None, 2)


def test_the_layout_by_hand():
    tokens, part = by_hand()
    packed = pack(tokens, part)
    assert packed.tokens.tolist() == [[0], [2], [11]]
    assert packed.cu_seqlens.tolist() == [0, 2, 3]
    assert packed.cu_seqlens.dtype == np.int32
    assert packed.max_seqlen == 2
    assert unpack(packed.tokens, part, -1).tolist() == [[[0], [-1], [2]], [[-1], [11], [-1]]]
    assert pack(tokens, part, capacity=5).tokens.tolist() == [[0], [2], [11], [0], [0]]
    assert pack(tokens, part, capacity=5).cu_seqlens.tolist() == [0, 2, 3]


def plain_pack(tokens: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, list[int]]:
    """The definition, sample by sample and token by token."""
    rows, offsets = [], [0]
    for sample, hidden in zip(tokens, mask, strict=True):
        rows += [token for token, is_hidden in zip(sample, hidden, strict=True) if not is_hidden]
        offsets.append(len(rows))
    return np.array(rows).reshape(len(rows), tokens.shape[2]), offsets


@given(
    seed=st.integers(0, 2**64 - 1),
    batch=st.integers(0, 5),
    width=st.integers(1, 3),
    spare=st.none() | st.integers(0, 9),
    strategy=st.sampled_from(
        [UNEQUAL, RandomMask(0.6), RandomMask(0), MultiBlockMask(), RandomMask(0.5, share="batch")]
    ),
)
def test_pack_is_its_definition_and_unpack_its_inverse(seed, batch, width, spare, strategy):
    part = strategy.sample(GRID, IDS[:batch], seed=seed)
    tokens = np.random.default_rng(0).normal(size=(batch, GRID.num, width)).astype(np.float32)
    rows, offsets = plain_pack(tokens, part.mask)
    packed = pack(tokens, part, capacity=None if spare is None else len(rows) + spare)
    np.testing.assert_array_equal(packed.tokens[: len(rows)], rows)
    np.testing.assert_array_equal(packed.tokens[len(rows) :], np.zeros((spare or 0, width)))
    assert packed.cu_seqlens.tolist() == offsets
    assert packed.max_seqlen >= max(np.diff(offsets), default=0)
    fill = np.arange(1.0, width + 1)
    back = unpack(packed.tokens, part, fill)
    np.testing.assert_array_equal(back, np.where(part.mask[..., None], fill.astype(np.float32), tokens))
    assert back.dtype == packed.tokens.dtype == np.float32


def test_captions_are_packed_too():
    token_ids = np.arange(24).reshape(3, 8)
    part = TextRandom(5).sample(token_ids, np.arange(3), seed=0)
    packed = pack(token_ids[..., None], part)
    np.testing.assert_array_equal(packed.tokens[:, 0], token_ids[~part.mask])
    assert packed.max_seqlen == 5


def test_the_bound_of_a_sequence_is_known_from_the_strategy():
    part = MultiBlockMask().sample(Grid(14, 14), IDS, seed=0)
    assert part.most_kept == 196 - MultiBlockMask().hidden_range(Grid(14, 14))[0]
    assert RandomMask(0.75).sample(Grid(14, 14), IDS, seed=0).most_kept == 49
    assert part.complement().most_kept is None


TOKENS = np.zeros((6, GRID.num, 2))
PART = UNEQUAL.sample(GRID, IDS, seed=0)
KEPT = int(PART.counts.sum())


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: pack(TOKENS[:, 1:], PART), TokenShapeError, r"tokens is numpy of shape \(6, 19, 2\)"),
        (lambda: pack(TOKENS, PART, capacity=KEPT - 1), CountError, f"at least {KEPT}, the number of kept tokens"),
        (lambda: pack(TOKENS, PART, capacity=-1), CountError, "capacity=-1 is not an int"),
        (lambda: pack(TOKENS, PART, capacity=1e3), CountError, "capacity=1000.0 is not an int"),
        (lambda: unpack(TOKENS, PART, 0.0), TokenShapeError, r"packed is numpy of shape \(6, 20, 2\)"),
        (lambda: unpack(np.zeros((KEPT - 1, 2)), PART, 0.0), TokenShapeError, f"has {KEPT - 1} rows but .* {KEPT}"),
        (lambda: unpack(np.zeros((KEPT, 2)), PART, np.zeros(3)), TokenShapeError, "does not broadcast"),
        (lambda: unpack([[0.0]], PART, 0.0), TokenShapeError, "packed is list"),
        (lambda: PART.keep, CountError, "Use `pack"),
    ],
)
def test_what_does_not_fit_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


class TestTorch:
    """The same on torch: NumPy's values, gradients, and no more than is needed."""

    @pytest.fixture(params=["eager", "by itself"])
    @staticmethod
    def torch(request, monkeypatch):
        torch = pytest.importorskip("torch")
        if request.param == "by itself":
            for module in ("_base", "packing", "partition"):
                monkeypatch.setattr(
                    f"unveil_masking.{module}.on_host", lambda array: array if isinstance(array, np.ndarray) else None
                )
        return torch

    @pytest.mark.parametrize("strategy", [UNEQUAL, RandomMask(0.6)])
    @pytest.mark.parametrize("spare", [None, 0, 7])
    def test_values_and_gradients(self, torch, strategy, spare):
        part = strategy.sample(GRID, torch.tensor(IDS), seed=3)
        reference = strategy.sample(GRID, IDS, seed=3)
        kept = int(reference.counts.sum())
        capacity = None if spare is None else kept + spare
        tokens = torch.rand(6, GRID.num, 2, dtype=torch.float64, requires_grad=True)
        mask_token = torch.rand(2, dtype=torch.float64, requires_grad=True)
        packed = pack(tokens, part, capacity=capacity)
        expected = pack(tokens.detach().numpy(), reference, capacity=capacity)
        np.testing.assert_array_equal(packed.tokens.detach().numpy(), expected.tokens)
        np.testing.assert_array_equal(packed.cu_seqlens.numpy(), expected.cu_seqlens)
        assert packed.cu_seqlens.dtype == torch.int32
        assert packed.max_seqlen == expected.max_seqlen
        (unpack(packed.tokens * 3, part, mask_token) * torch.arange(1.0, 3)).sum().backward()
        visible = torch.tensor(~reference.mask)[..., None].double()
        torch.testing.assert_close(tokens.grad, 3 * visible * torch.tensor([1.0, 2.0]))
        torch.testing.assert_close(mask_token.grad, (120 - kept) * torch.tensor([1.0, 2.0]).double())
        assert torch.autograd.gradcheck(lambda rows: pack(rows, part, capacity=capacity).tokens, (tokens,))

    def test_a_capacity_too_small_is_an_error(self, torch):
        part = UNEQUAL.sample(GRID, torch.tensor(IDS), seed=0)
        with pytest.raises((CountError, RuntimeError), match=r"at least|out of bounds"):
            pack(torch.zeros(6, GRID.num, 2), part, capacity=KEPT - 1)

    def test_rows_too_few_are_an_error(self, torch):
        part = UNEQUAL.sample(GRID, torch.tensor(IDS), seed=0)
        with pytest.raises((TokenShapeError, IndexError), match=r"rows but|out of range"):
            unpack(torch.zeros(KEPT - 1, 2), part, 0.0)

    def test_an_empty_batch(self, torch):
        part = UNEQUAL.sample(GRID, torch.arange(0), seed=0)
        for capacity in (None, 4):
            packed = pack(torch.zeros(0, GRID.num, 2), part, capacity=capacity)
            assert packed.tokens.shape == (capacity or 0, 2)
            assert packed.cu_seqlens.tolist() == [0]
            assert unpack(packed.tokens, part, 0.0).shape == (0, GRID.num, 2)

    def test_libraries_are_not_mixed(self, torch):
        with pytest.raises(TokenShapeError, match="tokens is torch on cpu but the partition is numpy"):
            pack(torch.zeros(6, GRID.num, 2), PART)
        with pytest.raises(TokenShapeError, match=r"packed is torch on cpu .* the partition numpy"):
            unpack(torch.zeros(KEPT, 2), PART, 0.0)
