"""torch gives the bits that NumPy gives; needs the extra `unveil-masking[torch]`."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import unveil_masking
from hypothesis import given
from hypothesis import strategies as st
from unveil_masking import (
    Grid,
    KeyArrayError,
    Partition,
    RandomMask,
    Strategy,
    TokenShapeError,
    UnitMask,
    noise,
    restore,
    take,
    to_pixels,
)

torch = pytest.importorskip("torch")

IDS = np.array([11, -5, 2**45 + 3, 0, 2**63 - 1], dtype=np.int64)
MODULES_THAT_GO_TO_THE_HOST = ("_base", "_scores", "packing", "partition")
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


def assert_same(part: Partition, reference: Partition) -> None:
    sides = ("keep", "hidden") if reference.equal_count is not None else ()
    for name in (*sides, "order", "restore", "mask", "counts"):
        ours, theirs = getattr(part, name).cpu().numpy(), getattr(reference, name)
        assert ours.dtype == theirs.dtype, name
        np.testing.assert_array_equal(ours, theirs)


def only_numpy(array: object) -> np.ndarray | None:
    return array if isinstance(array, np.ndarray) else None


@pytest.fixture(params=DEVICES)
def device(request, monkeypatch) -> str:
    """Where torch computes by itself: on the CPU, this keeps eager tensors from being handed to NumPy."""
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    for module in MODULES_THAT_GO_TO_THE_HOST:
        monkeypatch.setattr(f"unveil_masking.{module}.on_host", only_numpy)
    return request.param


def test_no_module_goes_to_the_host_unnoticed():
    sources = Path(unveil_masking.__file__).parent.rglob("*.py")
    found = {path.stem for path in sources if "on_host(" in path.read_text()} - {"_arrays"}
    assert found == set(MODULES_THAT_GO_TO_THE_HOST)


def check_same_bits(strategy: Strategy, grid: Grid, device: str, seed: int) -> None:
    """A strategy on torch against NumPy: with one epoch, and with one for each sample."""
    ids, epochs = torch.tensor(IDS, device=device), np.arange(5) * 2**29
    for here, there in ((2, 2), (epochs, torch.tensor(epochs, device=device))):
        ours = strategy.sample(grid, ids, seed=seed, epoch=there)
        theirs = strategy.sample(grid, IDS, seed=seed, epoch=here)
        assert ours.mask.device.type == device
        assert ours.equal_count == theirs.equal_count
        assert ours.most_kept == theirs.most_kept
        assert_same(ours, theirs)


@pytest.mark.parametrize("seed", [0, 2**64 - 1])
def test_masks_are_bit_identical_on(case, device, seed):
    check_same_bits(case.strategy, case.grid, device, seed)


def test_eager_tensors_on_the_cpu_are_handed_to_numpy(case):
    check_same_bits(case.strategy, case.grid, "cpu", 1)


@dataclass(frozen=True)
class Broken(RandomMask):
    """A mask that differs between libraries by one token of one sample."""

    def _draw(self, grid, sample_ids, seed, epoch):
        mask = RandomMask(self.ratio)._draw(grid, sample_ids, seed, epoch)
        if not isinstance(mask, np.ndarray):
            mask[0, 0] ^= True
        return mask


def test_the_check_of_bits_can_fail(device):
    with pytest.raises(AssertionError):
        check_same_bits(Broken(0.5), Grid(2, 2), device, 0)


INTEGERS = ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]


@pytest.mark.parametrize("dtype", INTEGERS)
def test_keys_of_every_integer_dtype_give_the_same_masks(case, dtype):
    small = np.array([0, 1, 7, 99, 127])
    expected = case.strategy.sample(case.grid, small, seed=4, epoch=small)
    for keys in (small.astype(dtype), torch.tensor(small).to(getattr(torch, dtype))):
        part = case.strategy.sample(case.grid, keys, seed=4, epoch=keys)
        np.testing.assert_array_equal(np.asarray(part.mask), expected.mask)


def test_unsigned_keys_above_two_to_the_63_wrap_around_alike():
    large = np.array([2**64 - 1, 2**63], dtype=np.uint64)
    expected = noise(0, 0, np.array([-1, -(2**63)]), np.arange(3))
    np.testing.assert_array_equal(noise(0, 0, large, np.arange(3)), expected)
    np.testing.assert_array_equal(noise(0, 0, torch.from_numpy(large), torch.arange(3)).numpy(), expected)


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
