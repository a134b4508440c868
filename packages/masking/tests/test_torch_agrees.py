"""torch gives the bits that NumPy gives; needs the extra `unveil-masking[torch]`."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from unveil_masking import (
    Grid,
    KeyArrayError,
    Partition,
    RandomMask,
    TokenShapeError,
    UnitMask,
    noise,
    restore,
    take,
    to_pixels,
)

torch = pytest.importorskip("torch")

IDS = np.array([11, -5, 2**45 + 3, 0, 2**63 - 1], dtype=np.int64)
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


def assert_same(part: Partition, reference: Partition) -> None:
    for name in ("keep", "hidden", "restore", "mask"):
        ours, theirs = getattr(part, name).cpu().numpy(), getattr(reference, name)
        assert ours.dtype == theirs.dtype, name
        np.testing.assert_array_equal(ours, theirs)


@pytest.fixture(params=DEVICES)
def device(request) -> str:
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    return request.param


def test_masks_are_bit_identical_on(device):
    grid, epochs = Grid(14, 14), np.arange(5)
    ids, epochs_there = torch.tensor(IDS, device=device), torch.tensor(epochs, device=device)
    for strategy in (RandomMask(0.75), UnitMask(2, 0.6), RandomMask(0)):
        for seed in (0, 1, 2**64 - 1):
            part = strategy.sample(grid, ids, seed=seed, epoch=epochs_there)
            assert part.keep.device.type == device
            assert_same(part, strategy.sample(grid, IDS, seed=seed, epoch=epochs))


@given(
    sample_ids=st.lists(st.integers(-(2**63), 2**63 - 1), max_size=6),
    seed=st.integers(0, 2**64 - 1),
    epoch=st.integers(0, 2**32 - 1),
    count=st.integers(1, 40),
)
def test_noise_is_bit_identical(sample_ids, seed, epoch, count):
    ids = np.array(sample_ids, dtype=np.int64)
    ours = noise(seed, epoch, torch.tensor(ids), torch.arange(count))
    assert ours.dtype == torch.int64
    np.testing.assert_array_equal(ours.numpy(), noise(seed, epoch, ids, np.arange(count)))


@given(rows=st.integers(1, 6), cols=st.integers(1, 6), unit=st.integers(1, 3), seed=st.integers(0, 99))
def test_partitions_are_bit_identical(rows, cols, unit, seed):
    grid, strategy = Grid(rows * unit, cols * unit), UnitMask(unit, 0.5, "floor_hidden")
    assert_same(strategy.sample(grid, torch.tensor(IDS), seed=seed), strategy.sample(grid, IDS, seed=seed))


def test_tokens_and_pixels_agree():
    grid, mask = Grid(4, 6), RandomMask(0.5)
    ours, theirs = mask.sample(grid, torch.tensor(IDS), seed=0), mask.sample(grid, IDS, seed=0)
    tokens = torch.arange(5 * 24 * 3, dtype=torch.float32).reshape(5, 24, 3)
    np.testing.assert_array_equal(take(tokens, ours).numpy(), take(tokens.numpy(), theirs))
    for fill in (0.5, 2, torch.tensor([1.0, 2.0, 3.0])):
        back = restore(take(tokens, ours), ours, fill)
        reference = restore(take(tokens.numpy(), theirs), theirs, fill.numpy() if hasattr(fill, "numpy") else fill)
        np.testing.assert_array_equal(back.numpy(), reference)
    np.testing.assert_array_equal(to_pixels(ours, 4).numpy(), to_pixels(theirs, 4))


def test_gradients_reach_exactly_the_kept_tokens_and_the_mask_token():
    grid = Grid(4, 4)
    part = RandomMask(0.75).sample(grid, torch.tensor([1, 2]), seed=0)
    tokens = torch.zeros(2, 16, 3, requires_grad=True)
    mask_token = torch.zeros(3, requires_grad=True)
    restore(take(tokens, part), part, mask_token).sum().backward()
    torch.testing.assert_close(tokens.grad, (~part.mask)[..., None].expand(2, 16, 3).float())
    torch.testing.assert_close(mask_token.grad, torch.full((3,), 24.0))  # 2 samples × 12 hidden tokens


def test_restore_keeps_the_dtype_of_the_tokens():
    part = RandomMask(0.5).sample(Grid(2, 2), torch.tensor([1]), seed=0)
    kept = torch.ones(1, 2, 3, dtype=torch.bfloat16)
    assert restore(kept, part, torch.zeros(3)).dtype == torch.bfloat16


def test_libraries_are_not_mixed():
    grid, mask = Grid(2, 2), RandomMask(0.5)
    with pytest.raises(KeyArrayError, match="epoch is numpy but sample_ids is torch on cpu"):
        mask.sample(grid, torch.tensor([1]), seed=0, epoch=np.array([1]))
    with pytest.raises(KeyArrayError, match="index is torch on cpu but sample_ids is numpy"):
        noise(0, 0, IDS, torch.arange(3))
    with pytest.raises(TokenShapeError, match="tokens is torch on cpu but the partition is numpy"):
        take(torch.zeros(5, 4, 3), mask.sample(grid, IDS, seed=0))
    with pytest.raises(TokenShapeError, match="fill is numpy but kept_tokens is torch"):
        restore(torch.zeros(1, 2, 3), mask.sample(grid, torch.tensor([1]), seed=0), np.zeros(3))


@pytest.mark.parametrize("bad", [torch.tensor([0.5]), torch.tensor([True]), torch.tensor(3), torch.tensor([1j])])
def test_bad_tensors_are_named(bad):
    with pytest.raises(KeyArrayError, match="Give one integer per sample"):
        RandomMask(0.5).sample(Grid(2, 2), bad, seed=0)
