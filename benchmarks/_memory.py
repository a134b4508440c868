"""Bytes of this process's memory, from Linux: those resident now, and the most there have been.

`resource.getrusage` is no good here: its maximum survives exec, so a small process started by a large one would
report the large one's.
"""

from pathlib import Path

__all__ = ["high_water_mark", "resident"]


def resident() -> int:
    """Bytes that are in memory now."""
    return _read("VmRSS")


def high_water_mark() -> int:
    """The most bytes this process has had in memory since it began to run its program."""
    return _read("VmHWM")


def _read(what: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{what}:"))
