"""What the rows of ``benchmarks.backbones`` share: training steps, the same weights and noise on both sides, equality.

A step is forward, backward and forgetting the gradients; no optimiser. Every candidate is a module whose ``forward``
takes images and returns a loss.
"""

import contextlib
import gc
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal
from unittest import mock

import torch
from torch import Tensor, nn

from benchmarks._compare import Candidate
from benchmarks._device import Device

__all__ = ["Compile", "Work", "candidate", "difference", "drawn", "forget", "noise_that_keeps", "scramble", "step"]


Compile = Literal["none", "blocks", "whole"]

_BLOCK = re.compile(r"(^|[._])(res)?blocks\.\d+$")
"""Path of a block in our encoders and in every peer's."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """How all steps of a run are made."""

    device: Device
    batch: int
    """Images per step."""
    check_batch: int = 2
    """Images on which outputs are compared."""
    autocast: bool = True
    """Whether products run in bfloat16."""
    compile: Compile = "none"
    """Whether both sides are compiled, and how: every block for itself, or the whole step."""
    compile_mode: str = "default"
    """``mode`` of ``torch.compile``."""
    attention: Literal["usual", "folded", "triton"] = "usual"
    """How our SwinV2 attends: as it does by itself, by plain products, or by our own kernel."""
    quick: bool = False
    """Whether tiny models stand in for the real ones: shows that the benchmark runs, measures nothing."""

    def images(self, side: int, batch: int | None = None) -> Tensor:
        """Return noise pixels, the same in every call."""
        generator = torch.Generator().manual_seed(0)
        return torch.randn(batch or self.batch, 3, side, side, generator=generator).to(self.device.torch)


def candidate(name: str, module: nn.Module, images: Tensor, work: Work, *, flops: float | None = None) -> Candidate:
    """Return a training step of ``module`` on ``images``, compiled if the run is."""
    return Candidate(name=name, run=step(module, images, work), flops=flops)


def step(module: nn.Module, images: Tensor, work: Work) -> Callable[[], None]:
    """Return a function that does forward and backward, and drops the gradients.

    What is to be compiled is compiled in the first call, so that modules can be compared before at other sizes.
    """
    kind = work.device.torch.type
    forward: list[Callable[[Tensor], Tensor]] = []

    def run() -> None:
        if not forward:
            forward.append(_compiled(module, work))
        with torch.autocast(kind, torch.bfloat16, enabled=work.autocast):
            loss = forward[0](images)
        loss.backward()
        module.zero_grad(set_to_none=True)

    return run


def difference(
    ours: nn.Module,
    theirs: nn.Module,
    images: Tensor,
    pairs: Mapping[str, str],
    outputs: Callable[[], None] | None = None,
) -> float:
    """Return how far loss and gradients are apart in float32: the largest absolute difference over the largest value.

    Args:
        ours: A module from images to a loss.
        theirs: The peer's.
        images: Pixels.
        pairs: Parameters whose gradients are compared: our name and theirs.
        outputs: Called before each of the two runs, for example to set random generators back.
    """
    results = []
    for module, names in ((ours, pairs.keys()), (theirs, pairs.values())):
        if outputs is not None:
            outputs()
        module.zero_grad(set_to_none=True)
        loss = module(images)
        loss.backward()
        parameters = dict(module.named_parameters())
        gradients = [parameters[name].grad for name in names]
        results.append(
            [loss.detach(), *(torch.zeros(()) if one is None else one.detach().clone() for one in gradients)]
        )
        module.zero_grad(set_to_none=True)
    return max(_apart(left, right) for left, right in zip(*results, strict=True))


def _compiled(module: nn.Module, work: Work) -> Callable[[Tensor], Tensor]:
    if work.compile == "whole":
        return torch.compile(module, mode=work.compile_mode)
    if work.compile == "blocks":
        blocks = [part for name, part in module.named_modules() if _BLOCK.search(name)]
        if not blocks:
            raise ValueError(f"{type(module).__name__} has no modules named blocks.0 and so on; compile it as a whole")
        for block in blocks:
            block.compile(mode=work.compile_mode, dynamic=False)
    return module


def forget(work: Work) -> None:
    """Free what a comparison held: models that refer to themselves, and the compiler's versions of their blocks.

    The compiler keeps eight versions of a function, over all models; the next one would run as it stands.
    """
    gc.collect()
    if work.compile != "none":
        torch.compiler.reset()


def scramble(module: nn.Module) -> None:
    """Move all weights away from values that hide mistakes: zero norms (SwinV2), zero biases, equal tokens."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.requires_grad:
                parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator).to(parameter.device))


def noise_that_keeps(keep: Tensor, num: int, *, largest: bool) -> Tensor:
    """Return noise [b, n] from which "sort and take the first k" selects exactly the tokens ``keep`` [b, k].

    Args:
        keep: Indices of kept tokens.
        num: Number of tokens.
        largest: Whether the peer keeps those with the largest noise; else the smallest.
    """
    batch, kept = keep.shape
    noise = torch.arange(1.0, num + 1.0).expand(batch, num).clone()
    noise.scatter_(1, keep.cpu(), torch.arange(-float(kept), 0.0).expand(batch, kept))
    return -noise if largest else noise


@contextlib.contextmanager
def drawn(function: str, noise: Tensor) -> Iterator[None]:
    """Let ``torch.rand`` or ``torch.randn`` return this noise, so that a peer draws the keep set it is told to."""

    def draw(*shape: int, device: torch.device | None = None) -> Tensor:
        if tuple(shape) != tuple(noise.shape):
            raise ValueError(f"the peer draws {shape}, but the noise is {tuple(noise.shape)}; adapt the benchmark")
        return noise.to(device) if device is not None else noise

    with mock.patch.object(torch, function, draw):
        yield


def _apart(left: Tensor, right: Tensor) -> float:
    if left.numel() != right.numel():
        return float("inf")
    right = right.reshape(left.shape)
    return ((left - right).abs().max() / right.abs().max().clamp(min=1e-30)).item()
