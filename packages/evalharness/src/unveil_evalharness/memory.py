"""How much memory a task takes, how much there is, and whether an error means that it was too little.

On a GPU memory is the device's, by torch's own counters. On a CPU it is the resident memory of this process: loader
processes are not in it. Importing this module loads no torch.
"""

import contextlib
import resource
import sys
from collections.abc import Iterator
from pathlib import Path

__all__ = ["PeakMemory", "available_memory", "is_out_of_memory", "peak_memory", "resident_memory"]

_WORDS = ("out of memory", "can't allocate memory", "not enough memory", "cannot allocate memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out: Python's, CUDA's, or the text of torch's CPU allocator."""
    if isinstance(error, MemoryError):
        return True
    if any(kind.__name__ == "OutOfMemoryError" for kind in type(error).__mro__):
        return True
    text = str(error).lower()
    return isinstance(error, (RuntimeError, OSError)) and any(words in text for words in _WORDS)


def available_memory(device: str) -> int:
    """Bytes that can still be taken on ``"cuda"`` or ``"cpu"``; a control group's limit counts."""
    if device != "cpu":
        import torch

        return torch.cuda.mem_get_info()[0]
    amounts = [_line_of(Path("/proc/meminfo"), "MemAvailable") or sys.maxsize]
    for limit, usage in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ):
        most, used = _number_in(Path(limit)), _number_in(Path(usage))
        if most is not None and used is not None:
            amounts.append(max(most - used, 0))
    return min(amounts)


def resident_memory() -> int:
    """Bytes of main memory that this process holds; 0 where the system does not tell."""
    return _line_of(Path("/proc/self/status"), "VmRSS") or 0


class PeakMemory:
    """The most memory held since `peak_memory` began."""

    def __init__(self) -> None:
        self.bytes: int = 0


@contextlib.contextmanager
def peak_memory(device: str) -> Iterator[PeakMemory]:
    """Measures the most bytes held on a device while the block runs; the number is there after the block.

    Args:
        device: ``"cuda"`` or ``"cpu"``.
    """
    peak = PeakMemory()
    if device != "cpu":
        import torch

        torch.cuda.reset_peak_memory_stats()
        try:
            yield peak
        finally:
            peak.bytes = torch.cuda.max_memory_allocated()
        return
    with contextlib.suppress(OSError):  # where it is not allowed, the peak of the process's life is reported
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    try:
        yield peak
    finally:
        peak.bytes = _line_of(Path("/proc/self/status"), "VmHWM") or _largest_resident()


def _largest_resident() -> int:
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _line_of(file: Path, name: str) -> int | None:
    """A line ``name: 123 kB`` of a file under /proc, in bytes."""
    if not file.is_file():
        return None
    for line in file.read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    return None


def _number_in(file: Path) -> int | None:
    """The number that a control group's file holds; None where there is none, or no limit."""
    try:
        text = file.read_text(encoding="ascii").strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None
