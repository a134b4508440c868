"""AdamW with layer decay, linear warm-up and one of three decays: what BERT-style fine-tuning shares over the tasks.

Layer decay (Clark et al., ELECTRA; BEiT, MAE, SimMIM): a parameter of the encoder's layer group ``g`` of ``G``
trains at ``lr * layer_decay ** (G - 1 - g)``; the last group (final norm) and everything outside the encoder (heads)
at ``lr``.
Biases, norm scales and what ``encoder.no_weight_decay()`` names are not decayed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import nn

from unveil_evalharness.errors import ProtocolError

__all__ = ["Decay", "LayeredEncoder", "OptimiserSettings", "build_optimiser", "parameter_groups", "schedule"]

Decay = Literal["cosine", "linear", "steps"]
"""How the learning rate falls after the warm-up."""

_STEP_FACTOR = 0.1  # at each milestone, as in mmdet's and detectron2's schedules


@runtime_checkable
class LayeredEncoder(Protocol):
    """The part of ``unveil_backbones.Encoder`` that layer decay needs."""

    def named_parameters(self) -> Any:
        """Pairs of name and parameter, as of `torch.nn.Module`."""

    def layer_groups(self) -> Sequence[Sequence[str]]:
        """Parameter names, input side first."""
        ...

    def no_weight_decay(self) -> frozenset[str]:
        """Names that weight decay leaves alone."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class OptimiserSettings:
    """Values of AdamW and of its schedule, in optimiser steps."""

    lr: float
    """Peak learning rate of the heads and of the encoder's last group."""
    weight_decay: float = 0.05
    layer_decay: float = 1.0
    """Factor per layer group, in (0, 1]; 1 trains all layers alike."""
    warmup_iters: int = 0
    """Steps of linear warm-up; 0 for none."""
    warmup_start: float = 1e-3
    """Learning rate of the first warm-up step, as a fraction of `lr`."""
    final_lr: float = 0.0
    """Learning rate at the end of a cosine or line, as a fraction of `lr`."""
    decay: Decay = "cosine"
    """Along a cosine or a line to `final_lr`, or to a tenth at each of `milestones`."""
    milestones: tuple[int, ...] = ()
    """Steps at which ``"steps"`` lowers the rate."""
    betas: tuple[float, float] = (0.9, 0.999)
    clip_norm: float | None = None
    """Largest norm of the gradient; None does not clip."""

    def __post_init__(self) -> None:
        if self.lr <= 0 or not 0 < self.layer_decay <= 1 or self.warmup_iters < 0:
            raise ProtocolError(
                f"optimiser settings need lr > 0, 0 < layer_decay <= 1 and warmup_iters >= 0, got lr={self.lr}, "
                f"layer_decay={self.layer_decay}, warmup_iters={self.warmup_iters}"
            )
        ascending = sorted(set(self.milestones)) == list(self.milestones)
        if (self.decay == "steps") != bool(self.milestones) or not ascending or min(self.milestones, default=1) < 1:
            raise ProtocolError(
                f"decay 'steps' needs ascending milestones of at least 1 and no other decay has any, got "
                f"decay={self.decay!r}, milestones={self.milestones}"
            )


def _encoder_layers(encoder: LayeredEncoder) -> dict[int, tuple[str, int]]:
    """``id(parameter) -> (name, group)``; refuses a parameter outside all groups and a name without parameter."""
    named = dict(encoder.named_parameters())
    group_of: dict[str, int] = {}
    for number, names in enumerate(encoder.layer_groups()):
        for name in names:
            if name in group_of:
                raise ProtocolError(f"layer_groups() lists {name!r} twice; every parameter belongs to one group")
            group_of[name] = number
    missing, unknown = sorted(named.keys() - group_of.keys()), sorted(group_of.keys() - named.keys())
    if missing or unknown:
        raise ProtocolError(
            f"layer_groups() must list every parameter of the encoder once; not listed: {missing[:3]}, "
            f"listed but not there: {unknown[:3]}"
        )
    return {id(parameter): (name, group_of[name]) for name, parameter in named.items()}


def parameter_groups(
    model: nn.Module, encoder: LayeredEncoder, *, lr: float, weight_decay: float, layer_decay: float
) -> list[dict[str, Any]]:
    """The optimiser's parameter groups, lowest layer first, heads last.

    Args:
        model: the whole task model; parameters that do not require gradients are left out.
        encoder: the encoder inside `model`, found by identity of its parameters.
        lr: peak learning rate.
        weight_decay: for weights of two or more dimensions.
        layer_decay: factor per layer group.

    Returns:
        Dicts with ``params``, ``lr``, ``weight_decay`` and ``name`` (``"layer 3"``, ``"heads, no decay"``).

    Raises:
        ProtocolError: the encoder is not inside `model`, or its groups are not a partition of its parameters.
    """
    layers = _encoder_layers(encoder)
    num_groups = len(encoder.layer_groups())
    undecayed = encoder.no_weight_decay()
    absent = layers.keys() - {id(parameter) for parameter in model.parameters()}
    if absent:
        raise ProtocolError(f"{len(absent)} parameters of the encoder are not in the task's model; was it copied?")
    groups: dict[tuple[int, bool], dict[str, Any]] = {}
    for parameter in model.parameters():
        if not parameter.requires_grad:
            continue
        name, layer = layers.get(id(parameter), ("", num_groups))
        decayed = parameter.ndim > 1 and name not in undecayed
        scale = layer_decay ** max(num_groups - 1 - layer, 0)
        title = ("heads" if layer == num_groups else f"layer {layer}") + ("" if decayed else ", no decay")
        group = groups.setdefault(
            (layer, not decayed),
            {"params": [], "lr": lr * scale, "weight_decay": weight_decay if decayed else 0.0, "name": title},
        )
        group["params"].append(parameter)
    return [groups[key] for key in sorted(groups)]


def build_optimiser(model: nn.Module, encoder: LayeredEncoder, settings: OptimiserSettings) -> torch.optim.AdamW:
    """AdamW over `parameter_groups`."""
    groups = parameter_groups(
        model,
        encoder,
        lr=settings.lr,
        weight_decay=settings.weight_decay,
        layer_decay=settings.layer_decay,
    )
    return torch.optim.AdamW(groups, lr=settings.lr, betas=settings.betas)


def schedule(settings: OptimiserSettings, *, max_iters: int) -> list[Mapping[str, Any]]:
    """Scheduler configs of mmengine for linear warm-up and decay, counted in optimiser steps.

    Args:
        settings: see `OptimiserSettings`.
        max_iters: optimiser steps in all.

    Raises:
        ProtocolError: the warm-up is as long as the training.
    """
    if settings.warmup_iters >= max_iters:
        raise ProtocolError(f"warmup_iters={settings.warmup_iters} must be below max_iters={max_iters}")
    warmup, end = settings.warmup_iters, max_iters
    decay: dict[str, Any] = {"begin": warmup, "end": end, "by_epoch": False}
    match settings.decay:
        case "cosine":
            decay |= {"type": "CosineAnnealingLR", "T_max": end - warmup, "eta_min_ratio": settings.final_lr}
        case "linear":
            # mmengine reaches the end value one step before `end`.
            line = {"start_factor": 1.0, "end_factor": settings.final_lr, "end": end + 1}
            decay |= {"type": "LinearLR", **line}
        case "steps":
            decay |= {"type": "MultiStepLR", "milestones": list(settings.milestones), "gamma": _STEP_FACTOR, "begin": 0}
    if warmup == 0:
        return [decay]
    # mmengine reaches the full rate one step before `end`; `+ 1` makes step `warmup` the first at the full rate.
    linear = {
        "type": "LinearLR",
        "start_factor": settings.warmup_start,
        "begin": 0,
        "end": warmup + 1,
        "by_epoch": False,
    }
    return [linear, decay]
