"""When memory runs out: what to do about it, from memory measured on this very model.

The memory of a step is linear in the samples that are computed at once. Two small micro-batches give the line: on a GPU
from the allocator's peak, on a CPU from what autograd keeps for the backward pass, which is most of it.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from unveil_pretrain.data import Batch
from unveil_pretrain.errors import MemoryLimitError, PretrainError
from unveil_pretrain.step import GradientStep, rows_of
from unveil_pretrain.world import World

__all__ = ["is_out_of_memory", "largest_fit", "out_of_memory"]

_SAYINGS = ("can't allocate memory", "not enough memory", "out of memory", "std::bad_alloc")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether PyTorch, CUDA or Python say that memory has run out."""
    if isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(saying in str(error) for saying in _SAYINGS)


def out_of_memory(gradients: GradientStep, batch: Batch, step: int) -> MemoryLimitError:
    """The error for a step that did not fit; measures what would, after giving back what the step held."""
    gradients.objective.zero_grad(set_to_none=True)
    if gradients.device.type == "cuda":
        torch.cuda.empty_cache()
    given = gradients.micro_batch_size or len(batch.sample_ids)
    given = min(given, len(batch.sample_ids))
    fits = _measured(gradients, batch)
    if fits is None or fits < 1:
        what = "not even one sample fits; choose a smaller encoder or image size"
    else:
        what = f"by measured memory {min(fits, given - 1)} would fit; give --micro-batch-size {min(fits, given - 1)}"
    return MemoryLimitError(
        f"step {step} ran out of memory on {gradients.device} with {given} samples at once; {what}, "
        "or --checkpoint-blocks, and repeat the command; the result stays the same up to rounding"
    )


def largest_fit(small: tuple[int, float], large: tuple[int, float], available: float) -> int:
    """Most samples within `available` bytes, by the line through two measured (samples, bytes)."""
    slope = (large[1] - small[1]) / (large[0] - small[0])
    fixed = small[1] - slope * small[0]
    return int((available - fixed) / max(slope, 1.0))


def _measured(gradients: GradientStep, batch: Batch) -> int | None:
    """Most samples that fit; None where not even two do."""
    # Alone: the other processes do not take part.
    alone = replace(gradients, world=World(), micro_batch_size=0)
    measure = _measure_cuda if gradients.device.type == "cuda" else _measure_saved
    sizes = (2, min(6, max(3, len(batch.sample_ids) // 2)))
    try:
        small, large = [(num, measure(alone, rows_of(batch, slice(0, num)))) for num in sizes]
        available = _available(gradients.device)
    except (RuntimeError, MemoryError, PretrainError):  # two do not fit, or the objective needs more of them
        return None
    finally:
        gradients.objective.zero_grad(set_to_none=True)
    # A tenth is left for what the allocator cannot use.
    return largest_fit(small, large, 0.9 * available)


def _measure_cuda(gradients: GradientStep, batch: Batch) -> float:
    gradients.objective.zero_grad(set_to_none=True)
    torch.cuda.reset_peak_memory_stats(gradients.device)
    before = torch.cuda.memory_allocated(gradients.device)
    gradients(batch)
    return torch.cuda.max_memory_allocated(gradients.device) - before


def _measure_saved(gradients: GradientStep, batch: Batch) -> float:
    """Bytes of distinct storages that autograd keeps."""
    saved: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    same: Callable[[Tensor], Tensor] = lambda tensor: tensor  # noqa: E731
    with torch.autograd.graph.saved_tensors_hooks(keep, same):
        gradients(batch)
    return float(sum(saved.values()))


def _available(device: torch.device) -> float:
    """Bytes that a step may still take."""
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[0])
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError as error:  # no Linux
        raise RuntimeError("unknown memory") from error
    return float(next(line.split()[1] for line in lines if line.startswith("MemAvailable"))) * 1024
