"""Inductor gives the noise of NumPy, for as many blocks as it takes to overflow what it computes in 32 bits."""

import numpy as np
import pytest
from unveil_masking import Grid, UnitMask
from unveil_masking._noise import noise_range, noise_words

torch = pytest.importorskip("torch")

# PyTorch's compiler loads modules of PyTorch that PyTorch has deprecated.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning:torch.*", "ignore:.*torch.jit.*:DeprecationWarning"),
]

IDS = np.array([0, 1, -7, 2**45 + 3, 2**63 - 1], dtype=np.int64)
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


@pytest.fixture(params=DEVICES)
def device(request):
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    torch.compiler.reset()
    return request.param


@pytest.mark.parametrize("first", [0, 256])
def test_noise_compiled_by_inductor_is_bit_identical(device, first):
    compiled = torch.compile(lambda ids: noise_range(5, 3, ids, 197, first=first), fullgraph=True)
    words = compiled(torch.tensor(IDS, device=device)).cpu().numpy()
    np.testing.assert_array_equal(words, noise_words(5, 3, IDS, 197, first=first))


def test_a_mask_compiled_by_inductor_is_bit_identical(device):
    strategy, grid = UnitMask(2, 0.6), Grid(14, 14)
    compiled = torch.compile(lambda ids: strategy.sample(grid, ids, seed=5, epoch=3).mask, fullgraph=True)
    mask = compiled(torch.tensor(IDS, device=device)).cpu().numpy()
    np.testing.assert_array_equal(mask, strategy.sample(grid, IDS, seed=5, epoch=3).mask)
