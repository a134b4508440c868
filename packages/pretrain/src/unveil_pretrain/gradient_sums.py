"""Gradients of whole copies of the weights, summed over processes while the backward pass goes on.

Parameters are packed into messages of 25 MB in the order in which the backward pass reaches them, the last registered
first, and a message leaves when its last gradient is there. As in DistributedDataParallel (Li et al.,
arXiv:2006.15704), which allows either a gradient that is missing on some processes, as where stochastic depth drops a
block, or a parameter that is used outside of its module's forward alone, as the temperature of a contrastive loss is,
and not both. A loss whose own backward pass sends messages (embeddings of the whole batch) is let finish first, since
processes have to send in one order. With micro-batches only the last backward pass sends.

Gradients of shards are passed over: FSDP sums them itself, and is told here which backward pass is the last.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch._utils import _flatten_dense_tensors as flatten
from torch._utils import _unflatten_dense_tensors as unflatten
from torch.autograd.graph import register_multi_grad_hook
from torch.distributed.tensor import DTensor
from torch.utils.hooks import RemovableHandle

from unveil_pretrain.parallel import sync_gradients
from unveil_pretrain.world import World

__all__ = ["GradientSums", "summed_gradients"]

# Elements per message: 25 MB of float32, as DistributedDataParallel sends.
_MESSAGE = 25 * 2**20 // 4


class GradientSums:
    """The sums of one step; by `summed_gradients`."""

    def __init__(self, world: World, module: nn.Module) -> None:
        self._module = module
        trained = [one for one in module.parameters() if one.requires_grad and not isinstance(one, DTensor)]
        self._messages = list(_messages(trained)) if world.size > 1 else []
        self._place = {one: place for place, message in enumerate(self._messages) for one in message}
        self._lacking = [len(message) for message in self._messages]
        self._sent: list[tuple[Tensor, Any]] = []
        self._held = False
        self._hooks: list[RemovableHandle] = []
        sync_gradients(module, wanted=False)

    def last_pass(self) -> None:
        """Gradients are whole after the next backward pass: it sends them."""
        sync_gradients(self._module, wanted=True)
        self._hooks += [one.register_post_accumulate_grad_hook(self._arrived) for one in self._place]

    def hold_until(self, embeddings: Sequence[Tensor]) -> None:
        """Send nothing before the backward pass knows the gradients of these: what comes earlier sends by itself."""
        behind = [one for one in embeddings if one.requires_grad]
        if self._messages and behind:
            self._held = True
            self._hooks.append(register_multi_grad_hook(behind, self._let_go))

    def finish(self) -> None:
        """Send what is left, wait for all, and put the sums in place; a gradient that no process has stays None."""
        if not self._messages:
            return
        there = [one.grad is not None for message in self._messages for one in message]
        while len(self._sent) < len(self._messages):
            self._send()
        # Last: whether a gradient comes at all is known only now.
        flags = torch.tensor(there, dtype=torch.int32, device=self._messages[0][0].device)
        dist.all_reduce(flags, op=dist.ReduceOp.MAX)
        somewhere = iter(flags.tolist())
        for message, (packed, handle) in zip(self._messages, self._sent, strict=True):
            handle.wait()
            for parameter, total in zip(message, unflatten(packed, message), strict=True):
                if not next(somewhere):
                    continue
                if parameter.grad is None:
                    parameter.grad = torch.empty_like(parameter)
                parameter.grad.copy_(total)

    def close(self) -> None:
        """Listen no longer."""
        for hook in self._hooks:
            hook.remove()

    def _arrived(self, parameter: Tensor) -> None:
        self._lacking[self._place[cast(nn.Parameter, parameter)]] -= 1
        self._send_whole()

    def _let_go(self, _: Sequence[Tensor | None]) -> None:
        self._held = False
        self._send_whole()

    def _send_whole(self) -> None:
        """Processes may not overtake: a message leaves after all before it."""
        while not self._held and len(self._sent) < len(self._messages) and not self._lacking[len(self._sent)]:
            self._send()

    def _send(self) -> None:
        message = self._messages[len(self._sent)]
        packed = flatten([torch.zeros_like(one) if one.grad is None else one.grad for one in message])
        self._sent.append((packed, dist.all_reduce(packed, async_op=True)))


@contextmanager
def summed_gradients(world: World, module: nn.Module) -> Iterator[GradientSums]:
    """Replace every gradient by its sum over all processes, at the end of a `with` that computes it.

    Call `last_pass` before the last backward pass, so that it sends what it has; without it everything is sent after.
    """
    sums = GradientSums(world, module)
    try:
        yield sums
        sums.finish()
    finally:
        sums.close()


def _messages(parameters: Sequence[nn.Parameter]) -> Iterator[list[nn.Parameter]]:
    """Neighbours of one type whose sizes sum up to a message, the last first.

    Scalars come at the end: the temperature of a contrastive loss has its gradient before the last backward pass.
    """
    message: list[nn.Parameter] = []
    backwards = parameters[::-1]
    for parameter in (*(one for one in backwards if one.dim()), *(one for one in backwards if not one.dim())):
        full = sum(one.numel() for one in message) + parameter.numel() > _MESSAGE
        if message and (full or message[0].dtype != parameter.dtype):
            yield message
            message = []
        message.append(parameter)
    if message:
        yield message
