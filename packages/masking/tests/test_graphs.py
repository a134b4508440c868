"""Masks inside graphs: `torch.compile(fullgraph=True)`, CUDA graphs, and no wait of the host for the device."""

import warnings

import numpy as np
import pytest
from unveil_masking import Grid, InverseBlockMask, MultiBlockMask, RandomMask, pack, restore, take, unpack

torch = pytest.importorskip("torch")

from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402  only where torch is

IDS = torch.arange(6) * 3**30 - 7


def whole_way(strategy, grid, tokens, sample_ids, epochs):
    """Everything a training step does with a mask, and the mask."""
    part = strategy.sample(grid, sample_ids, seed=2**63 + 5, epoch=epochs)
    packed = pack(tokens, part, capacity=part.mask.shape[0] * part.most_kept)
    unpacked = unpack(packed.tokens * 2, part, tokens[0, 0])
    if part.equal_count is None:
        return part.mask, part.order, packed.cu_seqlens, unpacked
    return part.mask, part.keep, part.hidden, restore(take(tokens, part), part, tokens[0, 0]), unpacked


def inputs(grid, device="cpu"):
    tokens = torch.rand(len(IDS), grid.num, 3, generator=torch.Generator().manual_seed(0))
    return tokens.to(device), IDS.to(device), (torch.arange(len(IDS)) * 5).to(device)


def check_compiled(strategy, grid, backend) -> None:
    torch.compiler.reset()

    def step(tokens, sample_ids, epochs):
        return whole_way(strategy, grid, tokens, sample_ids, epochs)

    compiled = torch.compile(step, fullgraph=True, backend=backend)
    for ours, theirs in zip(compiled(*inputs(grid)), step(*inputs(grid)), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def test_a_mask_compiles_into_one_graph():
    check_compiled(RandomMask(0.75), Grid(5, 4), "eager")


@pytest.mark.slow
def test_every_strategy_compiles_into_one_graph(case_of_a_kind):
    check_compiled(case_of_a_kind.strategy, case_of_a_kind.grid, "aot_eager")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")  # of inductor's own imports
@pytest.mark.parametrize("strategy", [RandomMask(0.5), InverseBlockMask(), MultiBlockMask()], ids=str)
def test_masks_compiled_with_inductor_have_the_same_bits(strategy):
    """Those that take roots of floating-point numbers above all, which a compiler might take differently."""
    check_compiled(strategy, Grid(6, 7), "inductor")


class Waiting(RandomMask):
    """A mask that looks at its own noise, as one that waits for the device does."""

    def _draw(self, grid, sample_ids, seed, epoch):
        mask = RandomMask._draw(self, grid, sample_ids, seed, epoch)
        return mask if bool(mask[0, 0]) else mask[:, :].clone()


def test_the_check_of_graphs_can_fail():
    with pytest.raises(torch._dynamo.exc.TorchDynamoException):
        check_compiled(Waiting(0.5), Grid(3, 3), "eager")


class NoWaiting(TorchDispatchMode):
    """Refuses, on any device, the operations for which a GPU makes the host wait: results of a size or on the host."""

    WAITS = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "_to_copy", "equal", "is_nonzero")

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        by_mask = name == "index" and any(index is not None and index.dtype == torch.bool for index in args[1])
        to_other_device = name == "_to_copy" and (kwargs or {}).get("device") is not None
        if by_mask or (name in self.WAITS and (name != "_to_copy" or to_other_device)):
            raise RuntimeError(f"{name} makes the host wait for the device")
        return func(*args, **(kwargs or {}))


@pytest.fixture
def torch_by_itself(monkeypatch):
    """Keeps eager tensors on the CPU from being handed to NumPy."""
    for module in ("_base", "_scores", "packing", "partition"):
        monkeypatch.setattr(f"unveil_masking.{module}.on_host", lambda array: None)


@pytest.mark.usefixtures("torch_by_itself")
def test_no_operation_makes_the_host_wait(case):
    there = inputs(case.grid)
    with NoWaiting():
        whole_way(case.strategy, case.grid, *there)


@pytest.mark.usefixtures("torch_by_itself")
def test_the_check_of_operations_can_fail():
    grid = Grid(6, 7)
    there, part = inputs(grid), MultiBlockMask().sample(grid, IDS, seed=0)
    with NoWaiting(), pytest.raises(RuntimeError, match="_local_scalar_dense makes the host wait"):
        whole_way(Waiting(0.5), grid, *there)
    with NoWaiting(), pytest.raises(RuntimeError, match="nonzero makes the host wait"):
        pack(there[0], part)
    with NoWaiting(), pytest.raises(RuntimeError, match="index makes the host wait"):
        there[0][part.mask]


@pytest.fixture
def no_waiting():
    """Turns every wait of the host for the device into an error."""
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    torch.cuda.synchronize()
    with warnings.catch_warnings():  # that the mode is a prototype
        warnings.simplefilter("ignore")
        torch.cuda.set_sync_debug_mode("error")
    yield
    torch.cuda.set_sync_debug_mode("default")


@pytest.mark.gpu
def test_the_host_never_waits(case, request):
    there = inputs(case.grid, "cuda")
    request.getfixturevalue("no_waiting")
    whole_way(case.strategy, case.grid, *there)


@pytest.mark.gpu
def test_the_check_of_waiting_can_fail(request):
    there = inputs(Grid(3, 3), "cuda")
    request.getfixturevalue("no_waiting")
    with pytest.raises(RuntimeError, match="synchroniz"):
        whole_way(Waiting(0.5), Grid(3, 3), *there)


@pytest.mark.gpu
def test_masks_are_captured_in_a_cuda_graph(case):
    """A captured step, replayed on other ids and epochs, gives NumPy's masks of those."""
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    tokens, ids, epochs = inputs(case.grid, "cuda")
    for _ in range(2):  # allocate and load what the first calls need
        whole_way(case.strategy, case.grid, tokens, ids, epochs)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        outputs = whole_way(case.strategy, case.grid, tokens, ids, epochs)
    ids.add_(17)
    epochs.add_(3)
    graph.replay()
    expected = whole_way(case.strategy, case.grid, *(array.cpu() for array in (tokens, ids, epochs)))
    for ours, theirs in zip(outputs, expected, strict=True):
        np.testing.assert_array_equal(ours.cpu().numpy(), theirs.numpy())
