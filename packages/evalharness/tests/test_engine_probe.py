"""A pass tried before training: what fits, and that training goes as if nothing had been tried."""

import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from line_training import Line, build_model, collate
from unveil_evalharness.engine import probe
from unveil_evalharness.engine.batch import smaller_batches
from unveil_evalharness.engine.probe import check_fits, fitting_by_extrapolation
from unveil_evalharness.engine.session import session
from unveil_evalharness.engine.stream import keyed_loader, seed_globals
from unveil_evalharness.errors import BatchTooLargeError


@given(st.integers(1, 400), st.integers(1, 400))
def test_smaller_batches_divide_and_halve(total, size):
    sizes = smaller_batches(total, size)
    assert all(total % number == 0 for number in sizes)
    assert all(2 * after <= before for before, after in zip([size, *sizes], sizes, strict=False))
    assert sizes[-1:] == ([1] if min(total, size) > 1 else [])


def test_smaller_batches_by_example():
    assert smaller_batches(16, 16) == [8, 4, 2, 1]
    assert smaller_batches(12, 12) == [6, 2, 1]
    assert smaller_batches(16, 5) == [2, 1]
    assert smaller_batches(1, 1) == []


@pytest.mark.parametrize(
    ("available", "fitting"), [(10_000, 16), (1700 / 0.8, 16), (1699 / 0.8, 8), (500 / 0.8, 4), (1, None)]
)
def test_extrapolation(available, fitting):
    # 100 bytes an image from the second on: four images took 400, and 100 are there whatever the batch.
    assert fitting_by_extrapolation(16, small=200, larger=400, fixed=100, available=int(available) + 1) == fitting


@pytest.fixture
def opened(tmp_path):
    """mmengine's names, as inside a task."""
    with session(scope="mmengine", work_dir=tmp_path, seed=0) as opened:
        yield opened


@pytest.mark.mm
def test_a_probe_changes_nothing(monkeypatch, opened):
    model = build_model()
    model.register_buffer("statistics", torch.zeros(1))
    forward = model.forward

    def counting(inputs, targets, mode):
        model.statistics += 1
        return forward(inputs, targets, mode)

    monkeypatch.setattr(model, "forward", counting)
    loader = keyed_loader(Line(), batch_size=8, seed=0, num_workers=0, collate=collate)
    seed_globals(3)
    expected = random.random(), torch.rand(1)
    seed_globals(3)
    lines = []
    check_fits(model, loader, precision="float32", device="cpu", log=lines.append)
    assert (random.random(), torch.rand(1)) == expected
    assert model.statistics.item() == 0
    assert all(parameter.grad is None for parameter in model.parameters())
    assert lines[-1] == "a pass of 8 images fits"


@pytest.mark.mm
def test_too_little_memory_names_the_batch_that_fits(monkeypatch, opened):
    loader = keyed_loader(Line(), batch_size=8, seed=0, num_workers=0, collate=collate)
    monkeypatch.setattr(probe, "available_memory", lambda device: 0)
    with pytest.raises(BatchTooLargeError, match="a training pass of 8 images does not fit") as caught:
        check_fits(build_model(), loader, precision="float32", device="cpu", log=lambda line: None)
    assert caught.value.fitting is None


@pytest.mark.mm
@pytest.mark.parametrize(("most", "fitting", "tried"), [(8, 8, [8]), (2, 2, [8, 4, 2]), (0, None, [8, 4, 2, 1])])
def test_where_memory_errors_are_caught_the_pass_is_halved_until_it_fits(monkeypatch, opened, most, fitting, tried):
    sizes = []

    def pass_of(model, loader, size, precision, device):
        sizes.append(size)
        if size > most:
            raise torch.OutOfMemoryError("CUDA out of memory")

    loader = keyed_loader(Line(), batch_size=8, seed=0, num_workers=0, collate=collate)
    monkeypatch.setattr(probe, "_one_pass", pass_of)
    assert probe._fitting_on_gpu(build_model(), loader, 8, "float32", "cpu") == fitting
    assert sizes == tried


@pytest.mark.mm
@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU")
def test_a_real_pass_on_a_gpu_fits(opened):
    lines = []
    loader = keyed_loader(Line(), batch_size=8, seed=0, num_workers=0, collate=collate)
    check_fits(build_model(), loader, precision="float32", device="cuda", log=lines.append)
    assert lines == ["a pass of 8 images fits"]
