"""``--batch-size auto``: the largest batch that fits, found by doing; accumulation keeps the protocol's own batch."""

import gc
import sys
from collections.abc import Callable
from pathlib import Path

from unveil_evalharness.engine.batch import note_batch, noted_batch, smaller_batches
from unveil_evalharness.errors import BatchTooLargeError, OutOfMemoryError, ProtocolError, one_line
from unveil_evalharness.memory import is_out_of_memory
from unveil_evalharness.task import TaskResult

__all__ = ["run_in_memory"]

_UNTRAINED_TASKS_TAKE = 64
"""Where a protocol has no batch of its own, halving begins below this many images."""


def run_in_memory(
    run: Callable[[int | None], TaskResult],
    *,
    total: int | None,
    asked: int | None,
    work: Path,
    log: Callable[[str], None],
) -> tuple[TaskResult, int]:
    """Runs a task, again with fewer images per pass where memory ran out.

    Args:
        run: the task, given images per pass; None lets it take its protocol's whole batch.
        total: images per optimiser step of the protocol; None where the protocol has no such number.
        asked: images per pass that the user asked for; memory that runs out is then an error. None finds them.
        work: the cell's work folder, which keeps what was found for the next run of an interrupted cell.
        log: receives a line for each batch that did not fit.

    Returns:
        The result, and images per pass; 0 where the task chose by itself.

    Raises:
        OutOfMemoryError: it does not fit, with what was asked for or at all.
        Exception: whatever else the task raises.
    """
    size = noted_batch(work) if asked is None else asked
    too_large: int | None = None
    while True:
        try:
            return run(size), size or noted_batch(work) or total or 0
        except ProtocolError as error:
            if too_large is None:
                raise
            message = f"out of memory with {too_large} images per pass, and with {size}: {error}"
            raise OutOfMemoryError(message) from error
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            reason = one_line(error, limit=160)
            if asked is not None:
                raise OutOfMemoryError(
                    f"out of memory with --batch-size {asked} ({reason}); give a smaller one, or --batch-size auto"
                ) from error
            smaller = _smaller(error, total, size)
            too_large = size or total or _UNTRAINED_TASKS_TAKE
            if smaller is None:
                raise OutOfMemoryError(
                    f"out of memory even with {size or 1} image(s) per pass ({reason}); --batch-size cannot help: "
                    "free memory or take a machine with more"
                ) from error
        log(f"out of memory with {too_large} images per pass ({reason}); trying {smaller}")
        note_batch(work, smaller)
        size = smaller
        _release()


def _smaller(error: BaseException, total: int | None, size: int | None) -> int | None:
    """What to try next: what a probe says, else the next smaller divisor of the batch, else half."""
    if isinstance(error, BatchTooLargeError):
        return error.fitting
    if total is not None:
        return next(iter(smaller_batches(total, size or total)), None)
    half = (size or _UNTRAINED_TASKS_TAKE) // 2
    return half or None


def _release() -> None:
    """Gives back what the failed attempt held."""
    gc.collect()
    if "torch" in sys.modules:
        import torch

        torch.cuda.empty_cache()
