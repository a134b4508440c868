"""The processes of a run: who they are, and the few things they tell each other.

Everything about them comes from torchrun's environment (RANK, LOCAL_RANK, WORLD_SIZE); a process that torchrun did not
start is a world of its own, and nothing here then costs anything. torchrun elects, restarts and stops processes.

Shapes: b rows of one process, g of all.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous
from unveil_backbones.errors import BackboneError

from unveil_pretrain.errors import ONE_PROCESS, ConfigError, PretrainError, ProcessLostError
from unveil_pretrain.starts import name_of_start

__all__ = ["World", "joined", "world_of_environment"]

_Value = TypeVar("_Value")

_SHARED = "raised by every process"


@dataclass(frozen=True, kw_only=True, slots=True)
class World:
    """The processes that compute one run together; with `size` 1 all methods return at once what they were given."""

    rank: int = 0
    """Which of them this is, from 0."""
    local_rank: int = 0
    """Which of those on this machine."""
    size: int = 1
    """How many there are."""

    @property
    def writes(self) -> bool:
        """Whether this process writes the run's files: exactly one does."""
        return self.rank == 0

    def share(self, count: int) -> slice:
        """This process's contiguous part of `count` samples.

        Raises:
            ConfigError: they cannot be dealt out equally.
        """
        if count % self.size:
            raise ConfigError(
                f"a batch of {count} cannot be dealt out equally to {self.size} processes; give a batch_size that is a "
                f"multiple of {self.size}, or another number of processes"
            )
        each = count // self.size
        return slice(self.rank * each, (self.rank + 1) * each)

    def gather(self, rows: Float[Tensor, "b *e"]) -> Float[Tensor, "g *e"]:
        """The rows of all processes in rank order; gradients flow back to the process a row came from.

        Each process gives as many rows. A sum over processes of losses of gathered rows has exact gradients.
        """
        if self.size == 1:
            return rows
        return cast(Tensor, _Gather.apply(rows, self.rank, self.size))

    def gather_rows(self, rows: Shaped[Tensor, "b *e"]) -> Shaped[Tensor, "g *e"]:
        """As `gather` without gradients, where processes may give different numbers of rows."""
        if self.size == 1:
            return rows
        counts = [torch.zeros(1, dtype=torch.int64, device=rows.device) for _ in range(self.size)]
        dist.all_gather(counts, torch.tensor([len(rows)], dtype=torch.int64, device=rows.device))
        most = max(int(count) for count in counts)
        padded = rows.new_zeros(most, *rows.shape[1:])
        padded[: len(rows)] = rows
        parts = [torch.empty_like(padded) for _ in range(self.size)]
        dist.all_gather(parts, padded)
        return torch.cat([part[: int(count)] for part, count in zip(parts, counts, strict=True)])

    def gather_objects(self, value: _Value) -> list[_Value]:
        """A plain Python value of each process, in rank order."""
        if self.size == 1:
            return [value]
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, value)
        return found

    def sum(self, values: Sequence[float]) -> list[float]:
        """Element-wise sums over all processes, in float64."""
        if self.size == 1:
            return [float(value) for value in values]
        total = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(total)
        return total.tolist()

    def first_says(self, make: Callable[[], _Value]) -> _Value:
        """What `make` gives in the first process, in all of them; they wait for it.

        Raises:
            PretrainError, BackboneError: what `make` raised, in every process, so that none waits for the others.
        """
        if self.size == 1:
            return make()
        said: list[Any] = [None]
        if self.writes:
            try:
                said = [make()]
            except (PretrainError, BackboneError) as error:
                said = [error]
        dist.broadcast_object_list(said, src=0)
        if isinstance(said[0], (PretrainError, BackboneError)):
            said[0].add_note(_SHARED)
            raise said[0]
        return said[0]

    def agree(self, error: PretrainError | BackboneError | None, *, stop: bool = False) -> bool:
        """Go on if no process has an error; one message tells that and whether a process was asked to stop.

        Returns:
            Whether any process gave `stop`; the same in all of them.

        Raises:
            PretrainError, BackboneError: the error of the first process that has one, in every process.
        """
        if self.size == 1:
            if error is not None:
                raise error
            return stop
        num_errors, num_stops = self.sum([error is not None, stop])
        if num_errors == 0:
            return num_stops > 0
        shared = next(found for found in self.gather_objects(error) if found is not None)
        shared.add_note(_SHARED)
        raise shared

    def copy_from_first(self, module: nn.Module) -> None:
        """Give every process the first one's parameters and buffers."""
        if self.size > 1:
            for value in module.state_dict().values():
                dist.broadcast(value, src=0)

    def barrier(self) -> None:
        """Wait for all processes."""
        if self.size > 1:
            dist.barrier()


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, rank: int, size: int) -> Tensor:
        ctx.rank, ctx.num_rows = rank, len(rows)
        parts = [torch.empty_like(rows, memory_format=torch.contiguous_format) for _ in range(size)]
        dist.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        # Every process's loss reads these rows: the sum of what they all say is the gradient.
        total = gradients[0].contiguous().clone()
        dist.all_reduce(total)
        return total[ctx.rank * ctx.num_rows : (ctx.rank + 1) * ctx.num_rows], None, None


def world_of_environment(environment: Mapping[str, str] | None = None) -> World:
    """What torchrun says in the environment (by default os.environ); a single process if it says nothing.

    Raises:
        ConfigError: the variables are incomplete or contradict each other.
    """
    given = os.environ if environment is None else environment
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE")
    values = [given.get(name, "") for name in names]
    if not any(values):
        return World()
    if not all(value.isdigit() for value in values) or not int(values[0]) < int(values[2]):
        said = ", ".join(f"{name}={value!r}" for name, value in zip(names, values, strict=True))
        raise ConfigError(f"{said}: start several processes by torchrun, or unset these variables")
    rank, local_rank, size = map(int, values)
    return World(rank=rank, local_rank=local_rank, size=size)


@contextmanager
def joined(world: World, device: torch.device) -> Iterator[World]:
    """Connect the processes for the length of a `with`: NCCL between GPUs, gloo for whatever is in host memory.

    An error that leaves it without having been told to all processes gets the note `ONE_PROCESS`.

    Raises:
        ConfigError: there are fewer GPUs on this machine than processes.
        ProcessLostError: a message to other processes failed, as when one of them was killed.
    """
    if world.size == 1 or dist.is_initialized():
        yield world
        return
    if device.type == "cuda":
        if world.local_rank >= torch.cuda.device_count():
            error = ConfigError(
                f"process {world.local_rank} of this machine has no GPU: there are {torch.cuda.device_count()}; "
                "give torchrun at most so many for --nproc-per-node"
            )
            error.add_note(ONE_PROCESS)
            raise error
        torch.cuda.set_device(world.local_rank)
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    try:
        dist.init_process_group(backend, store=_fresh_store(world), rank=world.rank, world_size=world.size)
    except ValueError as error:  # a variable of torchrun's is missing
        raise ConfigError(f"{error}; start several processes by torchrun") from error
    except RuntimeError as error:
        raise _lost(world) from error
    try:
        yield world
    except Exception as error:
        if _is_of_connection(error):
            raise _lost(world) from error
        if _SHARED not in getattr(error, "__notes__", ()):
            error.add_note(ONE_PROCESS)
        raise
    finally:
        dist.destroy_process_group()


def _fresh_store(world: World) -> Store:
    """Where the processes find each other's addresses, and only theirs.

    A store of torchrun's agents outlives the processes that they start (`starts.py`); otherwise the first process has
    made it for this start.
    """
    store = next(iter(rendezvous("env://", world.rank, world.size)))[0]
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return store
    return PrefixStore(name_of_start(store, rank=world.rank, size=world.size), store)


def _is_of_connection(error: Exception) -> bool:
    """Whether a message to other processes failed; gloo has no class for that."""
    if isinstance(error, (dist.DistBackendError, dist.DistNetworkError)):
        return True
    return isinstance(error, RuntimeError) and "gloo" in str(error)


def _lost(world: World) -> ProcessLostError:
    error = ProcessLostError(
        f"process {world.rank} of {world.size} has no connection, or no longer, to another one, which has ended or "
        "cannot be reached; what it said, or the system's log where it was killed, has the reason; torchrun with "
        "--max-restarts starts all of them again from the last checkpoint, and so does the same command"
    )
    error.add_note(ONE_PROCESS)
    return error
