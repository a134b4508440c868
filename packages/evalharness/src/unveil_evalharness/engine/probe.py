"""One training pass tried before training: does the batch fit, and if not, which one does?

A pass is forward and backward on the first samples of the stream, in training mode. Afterwards random generators and
the model's buffers are as before, so that training goes as it would have gone without.
"""

import contextlib
import gc
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader

from unveil_evalharness.engine.batch import smaller_batches
from unveil_evalharness.engine.session import restored_random_state
from unveil_evalharness.engine.stream import StreamBatches
from unveil_evalharness.errors import BatchTooLargeError
from unveil_evalharness.memory import available_memory, is_out_of_memory, peak_memory, resident_memory

__all__ = ["check_fits", "fitting_by_extrapolation"]

_SMALL, _LARGER = 2, 4
"""Images of the two passes from which a CPU's need is extrapolated."""
_SHARE = 0.8
"""Of the memory that is there, how much a plan may take."""


def check_fits(
    model: nn.Module, loader: DataLoader[Any], *, precision: str, device: str, log: Callable[[str], None]
) -> None:
    """Raises unless a training pass of the loader's batch fits into the memory of the device.

    On a GPU the pass is run, and halved until it fits. A CPU has no such error to catch, as the system ends a process
    that takes too much: two small passes are measured and extrapolated to the whole batch.

    Args:
        model: an ``mmengine.model.BaseModel``; moved to the device.
        loader: from `unveil_evalharness.engine.stream.keyed_loader`; other loaders are not probed.
        precision: ``"float32"``, or the type of mixed precision on a GPU.
        device: ``"cpu"`` or ``"cuda"``.
        log: receives a line with the outcome.

    Raises:
        BatchTooLargeError: it does not fit; holds the size that does.
    """
    sampler = loader.batch_sampler
    if not isinstance(sampler, StreamBatches):
        return
    total = sampler.batch_size
    if device == "cpu" and total <= _LARGER:
        return
    model.to(device)
    with restored_random_state(), _restored_model(model):
        if device == "cpu":
            fitting = _fitting_on_cpu(model, loader, total, log)
        else:
            fitting = _fitting_on_gpu(model, loader, total, precision, device)
    if fitting == total:
        log(f"a pass of {total} images fits")
        return
    raise BatchTooLargeError(f"a training pass of {total} images does not fit into memory", fitting=fitting)


def fitting_by_extrapolation(total: int, *, small: int, larger: int, fixed: int, available: int) -> int | None:
    """The largest divisor of a batch whose pass fits.

    Args:
        total: images per optimiser step.
        small: bytes that a pass of two images took.
        larger: bytes that a pass of four images took.
        fixed: bytes that come on top, whatever the batch.
        available: bytes that are there.

    Returns:
        Images per pass; None when not even one image fits.
    """
    per_image = max(larger - small, 0) / (_LARGER - _SMALL)
    for size in (total, *smaller_batches(total, total)):
        if larger + per_image * (size - _LARGER) + fixed <= _SHARE * available:
            return size
    return None


def _fitting_on_cpu(model: nn.Module, loader: DataLoader[Any], total: int, log: Callable[[str], None]) -> int | None:
    needs = []
    for size in (_SMALL, _SMALL, _LARGER):  # the first pass also fills caches and is not counted
        before = resident_memory()
        with peak_memory("cpu") as peak:
            _one_pass(model, loader, size, "float32", "cpu")
        needs.append(max(peak.bytes - before, 0))
    fixed = 2 * _trainable_bytes(model)
    available = available_memory("cpu")
    log(f"passes of {_SMALL} and {_LARGER} images took {needs[1]:,} and {needs[2]:,} bytes; there are {available:,}")
    return fitting_by_extrapolation(total, small=needs[1], larger=needs[2], fixed=fixed, available=available)


def _fitting_on_gpu(model: nn.Module, loader: DataLoader[Any], total: int, precision: str, device: str) -> int | None:
    for size in (total, *smaller_batches(total, total)):
        fits = True
        try:
            # AdamW keeps two numbers per parameter; they are not there yet.
            moments = [torch.empty_like(parameter) for parameter in _trainable(model) for _ in range(2)]
            _one_pass(model, loader, size, precision, device)
            del moments
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            fits = False
        # Outside the handler, whose error keeps the tensors of the failed pass alive.
        model.zero_grad(set_to_none=True)
        gc.collect()
        torch.cuda.empty_cache()
        if fits:
            return size
    return None


def _one_pass(model: Any, loader: DataLoader[Any], size: int, precision: str, device: str) -> None:
    """Forward and backward on the first `size` samples."""
    batch = loader.collate_fn([loader.dataset[position] for position in range(size)])
    mixed = device != "cpu" and precision != "float32"
    kind = torch.bfloat16 if precision == "bfloat16" else torch.float16
    context = torch.autocast(device, dtype=kind) if mixed else contextlib.nullcontext()
    with context:
        losses = model._run_forward(model.data_preprocessor(batch, True), mode="loss")
    loss, _ = model.parse_losses(losses)
    loss.backward()


@contextlib.contextmanager
def _restored_model(model: nn.Module) -> Iterator[None]:
    """Puts buffers (statistics of normalisation), gradients and mode back."""
    buffers = {name: buffer.detach().clone() for name, buffer in model.named_buffers()}
    training = model.training
    model.train()
    try:
        yield
    finally:
        with torch.no_grad():
            for name, buffer in model.named_buffers():
                buffer.copy_(buffers[name])
        model.zero_grad(set_to_none=True)
        model.train(training)


def _trainable(model: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def _trainable_bytes(model: nn.Module) -> int:
    return sum(parameter.numel() * parameter.element_size() for parameter in _trainable(model))
