"""How many images go through the device at once, without changing what is measured.

The protocol fixes the *total* batch of an optimiser step. ``--batch-size`` only says how many of them fit the device;
gradients are accumulated over the rest. ``auto`` takes the whole batch in one piece where it fits, else the largest
divisor that does (`unveil_evalharness.engine.probe`, `unveil_evalharness.fitting`).
"""

import json
from dataclasses import dataclass
from pathlib import Path

from unveil_backbones.limits import parse_json

from unveil_evalharness.errors import ProtocolError

__all__ = ["BatchPlan", "note_batch", "noted_batch", "plan_batch", "smaller_batches"]

_NOTE = "batch.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchPlan:
    """One optimiser step: `accumulate` passes of `size` images."""

    size: int
    accumulate: int


def plan_batch(*, total: int, requested: int | None) -> BatchPlan:
    """Splits a protocol's batch into passes that the caller says fit.

    Args:
        total: images per optimiser step, from the protocol.
        requested: images per pass; None means all of them. Larger than `total` means all of them too.

    Raises:
        ProtocolError: `requested` does not divide `total`, so the step could not hold exactly `total` images.
    """
    if total < 1:
        raise ProtocolError(f"the protocol's batch is {total}; it must be at least 1")
    if requested is None or requested >= total:
        return BatchPlan(size=total, accumulate=1)
    if requested < 1 or total % requested:
        divisors = [number for number in range(1, total + 1) if total % number == 0]
        raise ProtocolError(
            f"--batch-size {requested} does not divide this protocol's batch of {total}; choose one of {divisors}"
        )
    return BatchPlan(size=requested, accumulate=total // requested)


def smaller_batches(total: int, size: int) -> list[int]:
    """Passes to try, largest first, where `size` images of a batch of `total` do not fit.

    Only divisors of the batch, each at most half of the one before. Odd ones are left out while an even one is there:
    mixup pairs images, and normalisation over a pass wants more than one.
    """
    found: list[int] = []
    for number in range(min(size, total) // 2, 0, -1):
        if (
            total % number == 0
            and (number % 2 == 0 or number == 1 or total % 2)
            and (not found or 2 * number <= found[-1])
        ):
            found.append(number)
    return found


def note_batch(work_dir: Path, size: int) -> None:
    """Keeps images per pass in a task's work folder: an interrupted task goes on with passes of the same size."""
    (work_dir / _NOTE).write_text(json.dumps({"batch_size": size}), encoding="utf-8")


def noted_batch(work_dir: Path) -> int | None:
    """What `note_batch` kept; None where there is nothing, or half a note of a killed process."""
    try:
        return int(parse_json((work_dir / _NOTE).read_text(encoding="utf-8"))["batch_size"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
