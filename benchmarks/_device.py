"""The device that is measured: waiting for it, its memory, its peak speed, and the compiler."""

import platform
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks._compare import Clock

__all__ = ["Device", "matmul_peak", "open_device"]

_GPU_SIDE = 8192
_CPU_SIDE = 2048


@dataclass(frozen=True, slots=True)
class Device:
    """Where the work is done."""

    torch: torch.device
    name: str
    """The processor's own name."""
    clock: Clock
    fast_bfloat16: bool = True
    """Whether there are instructions for products in bfloat16; without them they are emulated, far below float32."""

    @property
    def headline(self) -> str:
        """Which of the two times to quote: CPU time on a CPU, whose neighbours disturb the wall clock; else wall."""
        return "cpu" if self.torch.type == "cpu" else "wall"


def open_device(name: str, threads: int = 1) -> Device:
    """Return the device of this name ("cpu", "cuda", "cuda:1") and set the number of threads of the CPU.

    Raises:
        ValueError: There is no such device here.
    """
    device = torch.device(name)
    torch.set_num_threads(threads)
    if device.type == "cpu":
        return Device(device, _cpu_name(), Clock(), _cpu_has_bfloat16())
    if device.type != "cuda" or not torch.cuda.is_available():
        raise ValueError(f"device {name!r} is not here; there is cpu" + _cuda_names() + "; choose one of them")
    # Outputs are compared in float32 before anything is timed; cuDNN's convolutions would round to ten bits.
    torch.backends.cudnn.allow_tf32 = False
    return Device(
        device,
        torch.cuda.get_device_name(device),
        Clock(
            synchronise=lambda: torch.cuda.synchronize(device),
            forget_peak=lambda: torch.cuda.reset_peak_memory_stats(device),
            peak_bytes=lambda: torch.cuda.max_memory_allocated(device),
        ),
    )


def matmul_peak(device: Device, dtype: torch.dtype, repeats: int = 5) -> float:
    """Return FLOP/s of a square product: 8192 cubed on a GPU, 2048 cubed on a CPU. The best of ``repeats`` counts.

    Two operations for each multiply-add. This is the denominator of the utilisation (MFU).
    """
    side = _CPU_SIDE if device.torch.type == "cpu" else _GPU_SIDE
    left = torch.randn(side, side, device=device.torch).to(dtype)
    right = torch.randn(side, side, device=device.torch).to(dtype)
    best = float("inf")
    for _ in range(repeats + 1):  # the first one warms up; being the slowest, it never is the best
        device.clock.synchronise()
        start = time.perf_counter()
        torch.mm(left, right)
        device.clock.synchronise()
        best = min(best, time.perf_counter() - start)
    return 2 * side**3 / best


def _cpu_name() -> str:
    return _cpu_info("model name") or platform.processor() or platform.machine()


def _cpu_has_bfloat16() -> bool:
    flags = _cpu_info("flags").split()
    return "avx512_bf16" in flags or "amx_bf16" in flags


def _cpu_info(field: str) -> str:
    """Return what Linux says of the first processor; empty where it does not say it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(field)), "")


def _cuda_names() -> str:
    return "".join(f", cuda:{i}" for i in range(torch.cuda.device_count())) if torch.cuda.is_available() else ""
