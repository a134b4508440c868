"""How the weights of a run lie on its processes: a whole copy on each (ddp), or shards of one copy (fsdp).

With whole copies each process computes its part of the batch, and the gradients are summed once per step, during the
last backward pass (`gradient_sums.py`).
With shards every transformer block is a unit of PyTorch's `fully_shard` (FSDP2): its weights are gathered just before
it runs and freed after it, and its gradients are summed into the shards while the backward pass goes on. Optimiser and
gradients exist in shards only. Both give the same gradients up to rounding.

Hybrid sharding (`shard_over` smaller than the number of processes) keeps one copy for each group of neighbouring
processes, for example for those of a machine, and sums gradients between the groups. Groups of one process are whole
copies whose gradients are summed block by block while the backward pass goes on.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor

from unveil_pretrain.errors import ConfigError
from unveil_pretrain.objectives.base import Objective
from unveil_pretrain.world import World

__all__ = ["Parallel", "ParallelKind", "clip_gradients", "gathered", "is_sharded", "shard", "sync_gradients"]

ParallelKind = Literal["ddp", "fsdp"]
"""Whole copies of the weights, or shards of one."""

# What the step calls besides forward(): in these, too, weights have to be there.
_ENTRIES = ("encode_samples", "compare")


@dataclass(frozen=True, kw_only=True, slots=True)
class Parallel:
    """How the weights lie on the processes of a run; the result does not depend on it beyond rounding."""

    kind: ParallelKind = "ddp"
    """A whole copy of the weights on each process, or shards of one."""
    shard_over: int = 0
    """fsdp: processes that share one copy of the weights, for example those of a machine; 0 for all."""

    def num_shards(self, world: World) -> int:
        """Parts that the weights are cut into.

        Raises:
            ConfigError: the processes are no multiple of `shard_over`.
        """
        if self.kind == "ddp":
            return 1
        num = self.shard_over or world.size
        if num < 1 or world.size % num:
            raise ConfigError(
                f"shard_over is {self.shard_over} and there are {world.size} processes; give a divisor of them, or 0"
            )
        return num


def shard(objective: Objective, parallel: Parallel, world: World, device: torch.device, *, bfloat16: bool) -> None:
    """Cut the weights of `objective` into shards on `device`, block by block; nothing to do for a single process.

    Under bfloat16 the weights of blocks are gathered in two bytes and their gradients summed in four. What is outside
    of blocks (patches, positions, tokens, last norms) is gathered in float32, and once per pass. Scalars, such as a
    temperature, stay whole on every process.

    Args:
        objective: A model with the same weights on every process, in host memory or on the device.
        parallel: In how many shards.
        world: The connected processes.
        device: Where this process computes.
        bfloat16: Whether the run computes under bfloat16 autocast.

    Raises:
        ConfigError: the processes are no multiple of `shard_over`, or this PyTorch's FSDP2 is too old.
    """
    num_shards = parallel.num_shards(world)
    if parallel.kind == "ddp" or world.size == 1:
        objective.to(device)
        return
    lacking = [
        name for name in ("set_force_sum_reduction_for_comms", "reset_iter_state") if not hasattr(FSDPModule, name)
    ]
    if lacking:
        raise ConfigError(
            f"the FSDP2 of PyTorch {torch.__version__} has no {lacking[0]}; use a newer one (2.13 is tested), or "
            "--parallel ddp"
        )
    mesh = _mesh(world.size, num_shards, device)
    whole = {parameter for parameter in objective.parameters() if parameter.dim() == 0}
    for parameter in whole:
        parameter.data = parameter.data.to(device)
    # The residual stream keeps its precision: autocast decides about inputs, as it does without shards.
    full = MixedPrecisionPolicy(cast_forward_inputs=False)
    half = MixedPrecisionPolicy(torch.bfloat16, torch.float32, cast_forward_inputs=False) if bfloat16 else full
    for name in objective.block_names():
        fully_shard(objective.get_submodule(name), mesh=mesh, mp_policy=half, ignored_params=whole)
    fully_shard(objective, mesh=mesh, mp_policy=full, ignored_params=whole)
    for module in _units(objective):
        # The step weighs its losses so that gradients are to be added, and gloo knows no other reduction.
        module.set_gradient_divide_factor(1.0)
        module.set_force_sum_reduction_for_comms(True)
    _enter_by(objective)
    # Otherwise whichever module runs first takes itself for the root, and validation may start at a block.
    cast(Any, fully_shard).state(objective)._lazy_init()


def sync_gradients(objective: nn.Module, wanted: bool) -> None:
    """Sum the gradients of shards over processes in the backward passes to come, or leave that to a later one."""
    if isinstance(objective, FSDPModule):
        objective.set_requires_gradient_sync(wanted)


def is_sharded(objective: nn.Module) -> bool:
    """Whether `shard` has cut the weights."""
    return isinstance(objective, FSDPModule)


@contextmanager
def gathered(objective: nn.Module) -> Iterator[None]:
    """All weights whole on every process for the length of a `with`, so that processes may call it unequally often.

    Costs the memory of one copy of the weights (of two bytes each in blocks under bfloat16). For passes without
    gradients.
    """
    if not isinstance(objective, FSDPModule):
        yield
        return
    for module in _units(objective):
        module.unshard()
        module.set_reshard_after_forward(False, recurse=False)
    # An entry that is called by another one would free the weights behind it.
    for name in _ENTRIES:
        del objective.__dict__[name]
    try:
        yield
    finally:
        _enter_by(objective)
        for module in _units(objective):
            module.set_reshard_after_forward(module is not objective, recurse=False)
        # Cuts the weights again, and forgets in which order the blocks ran: FSDP would gather ahead by it in the next
        # backward pass, and the orders of processes that ran unequally often differ.
        objective.reset_iter_state()


def clip_gradients(parameters: Iterable[Tensor], max_norm: float) -> float:
    """Scale all gradients so that their norm is at most `max_norm`, and return the norm they had.

    As torch.nn.utils.clip_grad_norm_, also where some parameters are shards and others whole. Every process gets the
    same norm.
    """
    known = [parameter for parameter in parameters if parameter.grad is not None]
    sides = [
        [parameter for parameter in known if isinstance(parameter, DTensor)],
        [parameter for parameter in known if not isinstance(parameter, DTensor)],
    ]
    groups = [side for side in sides if side]
    norms = [_norm([parameter.grad for parameter in group if parameter.grad is not None]) for group in groups]
    total = norms[0] if len(norms) == 1 else torch.linalg.vector_norm(torch.stack(norms))
    for group in groups:
        torch.nn.utils.clip_grads_with_norm_(group, max_norm, total)
    return float(total)


def _enter_by(objective: nn.Module) -> None:
    """Let FSDP gather weights in the entries, as it does in forward()."""
    for name in _ENTRIES:
        register_fsdp_forward_method(objective, name)


def _norm(gradients: list[Tensor]) -> Tensor:
    norm = torch.nn.utils.get_total_norm(gradients)
    return norm.full_tensor() if isinstance(norm, DTensor) else norm


def _mesh(size: int, num_shards: int, device: torch.device) -> DeviceMesh:
    if num_shards == size:
        return init_device_mesh(device.type, (size,), mesh_dim_names=("shard",))
    return init_device_mesh(device.type, (size // num_shards, num_shards), mesh_dim_names=("replica", "shard"))


def _units(objective: nn.Module) -> list[FSDPModule]:
    return [module for module in objective.modules() if isinstance(module, FSDPModule)]
