"""Results in order, computed ahead by threads or processes, none of which can end or hang unnoticed."""

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue
from typing import Final, Generic, Literal, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

from unveil_pretrain.data.deadline import serve
from unveil_pretrain.data.retrying import Retry, note_retries
from unveil_pretrain.errors import DataError

__all__ = ["Loaded", "WorkerKind", "loaded_in_order"]

WorkerKind = Literal["processes", "threads"]
"""What decodes. Threads of this process need no copy of a batch and no fork, and decoders run without Python's lock;
processes are for many cores, where that lock is what is left of the work."""

# Results that each worker has ready or in hand, as PyTorch's DataLoader has by default.
_AHEAD: Final = 2
# Seconds that threads get to end their work when the caller stops; one that is stuck ends with the process.
_FAREWELL: Final = 5.0
# Seconds between a process's socket closing, as it is killed, and PyTorch's signal handler saying who died.
_OBITUARY: Final = 1.0

_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class Loaded(Generic[_Result]):
    """What a worker hands back: a result or why there is none, and which reads had to be tried again for it.

    Errors are values here: DataLoader would wrap a raised one in another process's traceback.
    """

    value: _Result | DataError
    retries: tuple[Retry, ...] = ()


def loaded_in_order(
    items: Dataset[Loaded[_Result]], order: range, *, num_workers: int, worker_kind: WorkerKind, patience: float
) -> Iterator[_Result]:
    """The items of `order`, with their retries noted where the caller listens.

    Args:
        items: Item s is computed by ``items[s]``.
        order: Which ones.
        num_workers: Threads or processes that work ahead; 0 computes each item when it is asked for.
        worker_kind: Which of the two.
        patience: Seconds to wait for one item of a worker.

    Raises:
        DataError: an item holds one; a process ended; or no item came in time.
    """
    if worker_kind == "threads" and num_workers:
        found = _by_threads(items.__getitem__, order, num_workers, patience)
    else:
        found = _by_processes(items, order, num_workers, patience)
    for item in found:
        note_retries(item.retries)
        if isinstance(item.value, DataError):
            raise item.value
        yield item.value


def _by_processes(
    items: Dataset[Loaded[_Result]], order: range, num_workers: int, patience: float
) -> Iterator[Loaded[_Result]]:
    # A generator of its own: DataLoader draws a seed for its workers, which must not move torch's global generator.
    loader: DataLoader[Loaded[_Result]] = DataLoader(
        items, batch_size=None, sampler=order, num_workers=num_workers, timeout=patience if num_workers else 0,
        generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    maker = os.getpid()
    try:
        try:
            yield from loader
        except (ConnectionError, EOFError):
            # Killed as it hands a batch over. The handler then raises wherever this process stands: here, not in
            # whatever the caller does next.
            time.sleep(_OBITUARY)
            raise
    except (RuntimeError, ConnectionError, EOFError) as error:
        if "DataLoader timed out" in str(error):
            raise _stuck("process", patience) from error
        if not (num_workers and _tells_of_a_death(error)) or os.getpid() != maker:
            raise
        raise DataError(
            f"a decoding process ended ({error}); often memory or /dev/shm is full: give fewer --num-workers, and "
            "repeat the command"
        ) from error


def _tells_of_a_death(error: Exception) -> bool:
    """Whether a process is gone; an error that one met, and outlived, comes as "Caught … in DataLoader worker"."""
    said = str(error)
    return not said.startswith("Caught ") and (not isinstance(error, RuntimeError) or "DataLoader worker" in said)


def _by_threads(
    load: Callable[[int], Loaded[_Result]], order: range, num_threads: int, patience: float
) -> Iterator[Loaded[_Result]]:
    tasks: SimpleQueue[tuple[Callable[[], Loaded[_Result]], Future[Loaded[_Result]]] | None] = SimpleQueue()
    threads = [
        threading.Thread(target=serve, args=(tasks,), name=f"decode_{number}", daemon=True)
        for number in range(num_threads)
    ]
    for thread in threads:
        thread.start()
    waiting: deque[Future[Loaded[_Result]]] = deque()
    try:
        for step in order:
            waiting.append(Future())
            tasks.put((partial(load, step), waiting[-1]))
            if len(waiting) >= _AHEAD * num_threads:
                yield _wait(waiting.popleft(), patience)
        while waiting:
            yield _wait(waiting.popleft(), patience)
    finally:  # also when the caller stops early
        for future in waiting:
            future.cancel()
        for _ in threads:
            tasks.put(None)
        for thread in threads:
            thread.join(_FAREWELL)


def _wait(future: Future[Loaded[_Result]], patience: float) -> Loaded[_Result]:
    try:
        return future.result(patience)
    except TimeoutError as error:
        if future.done():  # the work itself raised it
            raise
        raise _stuck("thread", patience) from error


def _stuck(worker: str, patience: float) -> DataError:
    return DataError(
        f"no batch came for {patience:g} s: a decoding {worker} is stuck, or far too slow; look at the disk and the "
        "load of the machine, find the file by `pretrain audit`, or allow more by --read-timeout; then repeat the "
        "command"
    )
