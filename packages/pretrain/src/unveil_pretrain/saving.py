"""When and by whom a checkpoint is written: at once, or in the background while training goes on.

In the background, what training is about to change is copied to host memory first, which is all that a step waits for;
a thread of each process then writes, over a group of processes of its own. At most one checkpoint is being written: the
next one waits for it, and says so. An error is raised at the next step, in every process; none is lost.
"""

import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, cast

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions
from torch.distributed.tensor import DTensor
from unveil_backbones.errors import BackboneError

from unveil_pretrain.errors import OutputError, PretrainError
from unveil_pretrain.world import World

__all__ = ["CheckpointFormat", "CheckpointSaver", "write_together"]

CheckpointFormat = Literal["contract", "sharded"]
"""What checkpoints hold: whole weights that can be evaluated at once, or what each process has of them."""

Write = Callable[[dist.ProcessGroup | None], None]

_Error = PretrainError | BackboneError

# Seconds that one checkpoint may wait for another before a person is told.
_NOTICED = 1.0


class CheckpointSaver:
    """Writes the checkpoints of a run; every process of the run has one and calls the same methods."""

    def __init__(
        self,
        world: World | None = None,
        *,
        asynchronous: bool = False,
        format: CheckpointFormat = "contract",
        log: Callable[[str], None] | None = None,
    ) -> None:
        """Write nothing yet.

        Args:
            world: The processes of the run.
            asynchronous: Whether to write in the background.
            format: What checkpoints hold that are not the last of a run.
            log: Receives lines about the writing.
        """
        self.world, self.asynchronous, self.format = world or World(), asynchronous, format
        self._log = log or (lambda line: None)
        self._job: _Job | None = None
        self._group: dist.ProcessGroup | None = None
        self._stager: DefaultStager | None = None
        self._copies: dict[str, Tensor] = {}

    def copied(self, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Copies in host memory, which stay as they are, of wholes or parts; the tensors themselves if writing at once.

        The memory is that of the copies of the checkpoint before, so `wait` comes first; called once per checkpoint.
        """
        if not self.asynchronous or not tensors:
            return tensors
        on_gpu = any(value.is_cuda for value in tensors.values())
        if _shapes(self._copies) != _shapes(tensors):
            self._release()
            # Detached, parameters are plain tensors; the stager of PyTorch 2.11 knows no others.
            plain = {name: value.detach() for name, value in tensors.items()}
            self._stager = DefaultStager(
                StagingOptions(
                    use_pinned_memory=on_gpu,
                    use_shared_memory=False,
                    use_async_staging=False,
                    use_non_blocking_copy=on_gpu,
                )
            )
            self._copies = cast(dict[str, Tensor], self._stager.stage(plain))
            return self._copies
        # The stager takes three times as long over what it has staged before, and that of PyTorch 2.11 and 2.12 ends
        # with its first time.
        with torch.no_grad():
            for name, value in tensors.items():
                _held(self._copies[name]).copy_(_held(value), non_blocking=on_gpu)
        if on_gpu:
            torch.cuda.synchronize()
        return self._copies

    def start(self, step: int, write: Write) -> None:
        """Write a checkpoint, or begin to.

        Args:
            step: The step it is of.
            write: Writes this process's part; gets the group of processes to agree over.

        Raises:
            PretrainError, BackboneError: it cannot be written; in every process.
        """
        if not self.asynchronous:
            self.world.agree(_error_of(write))
            return
        self.wait()
        if self.world.size > 1 and self._group is None:
            # Messages of a thread must not meet those of the step.
            self._group = cast(dist.ProcessGroup, dist.new_group(backend="gloo"))
        self._job = _Job(step, write, self._group)

    @property
    def trouble(self) -> _Error | None:
        """Why the checkpoint in the background could not be written; None as long as nothing is known to be wrong."""
        return None if self._job is None else self._job.error

    def wait(self) -> None:
        """Wait until nothing is being written.

        Raises:
            PretrainError, BackboneError: it could not be written; in every process.
        """
        job = self._job
        if job is None:
            return
        begun = time.perf_counter()
        job.thread.join()
        seconds = time.perf_counter() - begun
        if seconds > _NOTICED and self.world.writes:
            self._log(f"waited {seconds:.1f} s until the checkpoint of step {job.step} was written")
        self._job = None
        self.world.agree(job.error)

    def close(self) -> None:
        """Wait without a word: for the end of a run that has failed already."""
        if self._job is not None:
            self._job.thread.join()
        self._release()

    def _release(self) -> None:
        self._copies = {}
        if self._stager is not None:
            self._stager.close()
            self._stager = None


class _Job:
    """A thread that writes one checkpoint; the interpreter does not wait for it."""

    def __init__(self, step: int, write: Write, group: dist.ProcessGroup | None) -> None:
        self.step = step
        self.error: _Error | None = None
        # The thread alone holds `write`, and with it what was put together for it, so that this ends with it.
        self.thread = threading.Thread(target=self._run, args=(write, group), name=f"checkpoint-{step}", daemon=True)
        self.thread.start()

    def _run(self, write: Write, group: dist.ProcessGroup | None) -> None:
        try:
            self.error = _error_of(write, group)
        except Exception as error:  # in a thread nobody else would see it
            self.error = OutputError(
                f"the checkpoint of step {self.step} could not be written ({type(error).__name__}: {error}); free some "
                "space, or look at the other processes' messages, and repeat the command"
            )


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, tuple[torch.Size, torch.dtype]]:
    return {name: (value.shape, value.dtype) for name, value in tensors.items()}


def _held(tensor: Tensor) -> Tensor:
    """What this process has of a tensor."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def _error_of(write: Write, group: dist.ProcessGroup | None = None) -> _Error | None:
    try:
        write(group)
    except (PretrainError, BackboneError) as error:
        return error
    return None


def write_together(
    world: World,
    group: dist.ProcessGroup | None,
    *,
    make: Callable[[Callable[[Path], None]], object],
    fill: Callable[[Path], None],
) -> None:
    """Let the first process make a directory and all of them write into it; every process calls it.

    Args:
        world: The processes.
        group: The group they agree over.
        make: Makes the directory, in the first process; calls what it is given once, with a folder.
        fill: Writes the part of a process into that folder.
    """
    if not world.writes:
        folder = _told(group)
        if folder is not None:
            fill(folder)
        return
    called = False

    def fill_all(folder: Path) -> None:
        nonlocal called
        called = True
        _tell(folder, group)
        fill(folder)

    try:
        make(fill_all)
    finally:
        if not called:
            # The others must not wait for a directory that will not be; they learn the reason from `World.agree`.
            with suppress(RuntimeError):  # they may be gone, and the first error is the one to see
                _tell(None, group)


def _tell(folder: Path | None, group: dist.ProcessGroup | None) -> None:
    dist.broadcast_object_list([None if folder is None else str(folder.absolute())], src=0, group=group)


def _told(group: dist.ProcessGroup | None) -> Path | None:
    said: list[Any] = [None]
    dist.broadcast_object_list(said, src=0, group=group)
    return None if said[0] is None else Path(said[0])
