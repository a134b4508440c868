"""Tensors of a run in safetensors files, also where each process holds a part of them.

What is spread over processes (DTensors of `fully_shard`) is written by torch.distributed.checkpoint, each process its
part, in its safetensors layout (`hf_storage`): offsets stand in the headers, so that nothing is pickled. What is whole
on every process is one plain file of the first process. Both are read by torch.distributed.checkpoint into tensors that
may be cut in another way, or not at all: each process reads the bytes it needs, and no process waits for another.

Names are those of a flat mapping.
"""

import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.tensor import DTensor

from unveil_pretrain.errors import OutputError, ResumeError

__all__ = ["StoredTensors", "any_sharded", "read_tensors", "whole_tensors", "write_tensors"]


def any_sharded(tensors: Mapping[str, Tensor]) -> bool:
    """Whether processes hold parts of some of these tensors."""
    return any(isinstance(value, DTensor) for value in tensors.values())


def whole_tensors(tensors: Mapping[str, Tensor], *, keep: bool) -> dict[str, Tensor]:
    """The tensors of all processes put together, one after the other: no process ever holds more than one of them.

    Every process that holds a part calls it.

    Args:
        tensors: Whole tensors and parts.
        keep: Whether this process is the one that wants them; they go to its host memory.

    Returns:
        All of them where `keep`, else nothing.
    """
    found = dict[str, Tensor]()
    for name, value in tensors.items():
        whole = value.full_tensor() if isinstance(value, DTensor) else value
        if keep:
            found[name] = whole.detach().cpu() if isinstance(value, DTensor) else whole.detach()
    return found


def write_tensors(
    folder: Path, name: str, tensors: Mapping[str, Tensor], *, writes: bool, group: dist.ProcessGroup | None = None
) -> None:
    """Write tensors into a folder that is made if need be; files are on the disk when it returns.

    Every process that holds a part calls it.

    Args:
        folder: The folder.
        name: The file of tensors that are whole; parts are in files that torch.distributed.checkpoint names.
        tensors: The tensors of this process.
        writes: Whether this process writes what is whole; one does.
        group: The processes, where they are not the default group.

    Raises:
        OutputError: they cannot be written; on every process that took part.
    """
    try:
        if any_sharded(tensors):
            writer = HuggingFaceStorageWriter(str(folder), save_distributed=True)
            save(dict(tensors), storage_writer=writer, process_group=group)
        elif writes:
            folder.mkdir(exist_ok=True)
            save_file({key: value.detach().cpu().contiguous() for key, value in tensors.items()}, folder / name)
    except (CheckpointException, SafetensorError) as error:  # the latter is also what a full disk ends in
        raise OutputError(
            f"cannot write {folder.name} ({_first_reason(error)}); free some space and repeat the command"
        ) from error


def read_tensors(folder: Path, into: Mapping[str, Tensor]) -> None:
    """Fill tensors, or this process's parts of them, in place.

    Args:
        folder: Where `write_tensors` wrote, on however many processes.
        into: What is wanted; the folder may hold more.

    Raises:
        ResumeError: a tensor is missing or of another shape, or a file cannot be read.
    """
    try:
        with warnings.catch_warnings():
            # Reading needs no agreement among processes; that there is none is what the warning says.
            warnings.filterwarnings("ignore", "torch.distributed is disabled", UserWarning)
            load(dict(into), storage_reader=HuggingFaceStorageReader(str(folder)), no_dist=True)
    except (CheckpointException, SafetensorError, OSError) as error:
        raise ResumeError(f"{folder} cannot be read ({_first_reason(error)})") from error


class StoredTensors(Mapping[str, Tensor]):
    """What lies in a folder, by name; a tensor is read, whole, when it is asked for."""

    def __init__(self, folder: Path, *, prefix: str = "") -> None:
        """Read the headers.

        Args:
            folder: Where `write_tensors` wrote.
            prefix: Only names that begin with it, and without it.

        Raises:
            ResumeError: a header cannot be read.
        """
        try:
            found = HuggingFaceStorageReader(str(folder)).read_metadata().state_dict_metadata
        except (SafetensorError, OSError, ValueError, KeyError) as error:
            raise ResumeError(f"{folder} cannot be read ({_first_reason(error)})") from error
        self._folder, self._prefix = folder, prefix
        self._known = {
            name.removeprefix(prefix): about
            for name, about in sorted(found.items())
            if name.startswith(prefix) and isinstance(about, TensorStorageMetadata)
        }

    def __getitem__(self, name: str) -> Tensor:
        about = self._known[name]
        value = torch.empty(about.size, dtype=about.properties.dtype)
        read_tensors(self._folder, {self._prefix + name: value})
        return value

    def read(self) -> dict[str, Tensor]:
        """All of them at once.

        Raises:
            ResumeError: a file cannot be read.
        """
        values = {name: torch.empty(about.size, dtype=about.properties.dtype) for name, about in self._known.items()}
        read_tensors(self._folder, {self._prefix + name: value for name, value in values.items()})
        return values

    def shapes(self) -> dict[str, torch.Size]:
        """The shape of each, of all parts together."""
        return {name: about.size for name, about in self._known.items()}

    def __iter__(self) -> Iterator[str]:
        return iter(self._known)

    def __len__(self) -> int:
        return len(self._known)


def _first_reason(error: BaseException) -> str:
    """One line of what went wrong; torch.distributed.checkpoint lists a traceback of each process."""
    if isinstance(error, CheckpointException) and error.failures:
        rank, (reason, _) = next(iter(error.failures.items()))
        return f"process {rank}: {type(reason).__name__}: {reason}".splitlines()[0]
    return str(error).partition("\n")[0]
