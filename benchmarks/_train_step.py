"""Whole training steps: normalise, masks, forward, backward, clip, optimiser; ours as the loop runs them, and theirs.

Both begin with the same uint8 batch. Ours is ``unveil_pretrain.update.train_step``. Theirs is the loop body of the
references (``engine_pretrain.py``, ``main_simmim_pt.py``) without their logging: they normalise in the data loader,
which is done in the step here, once for the batch; SimMIM's masks come ready, as from its data loader.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn
from unveil_pretrain.config import MimConfig
from unveil_pretrain.data import Batch
from unveil_pretrain.objectives.base import Objective
from unveil_pretrain.train_state import Position
from unveil_pretrain.update import train_step

from benchmarks._bare_run import bare_run
from benchmarks._steps import Work

__all__ = ["our_step", "reference_step", "uint8_batch"]


def uint8_batch(work: Work, sides: tuple[int, ...]) -> Batch:
    """Return noise pixels [b, 3, *sides] on the CPU, as the loader hands them over, the same in every call."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (work.batch, 3, *sides), generator=generator, dtype=torch.uint8)
    zeros = torch.zeros(work.batch, dtype=torch.int64)
    return Batch(images=pixels, sample_ids=torch.arange(work.batch), epochs=zeros, captions=None)


def our_step(objective: Objective, config: MimConfig, batch: Batch, work: Work) -> Callable[[], None]:
    """Return a function that does one update of the objective on the batch, as a run does."""
    config = replace(config, batch_size=work.batch, precision="bfloat16" if work.autocast else "float32")
    run = bare_run(objective, config, work.device.torch)
    position = replace(Position(), step=config.warmup_steps)
    return lambda: cast(None, train_step(cast(Any, run), position, batch))


def reference_step(model: nn.Module, config: MimConfig, batch: Batch, work: Work, *, clip: bool) -> Callable[[], None]:
    """Return a function that does one update of a reference's model on the batch, as its training loop does.

    Args:
        model: From normalised images to a loss.
        config: Rates, betas, decay and clipping, as for ours.
        batch: The pixels.
        work: Device and precision.
        clip: Whether gradients are clipped (SimMIM), or their norm is taken alone (MAE).
    """
    device = work.device.torch
    channels = (3,) + (1,) * (batch.images.dim() - 2)
    mean, std = (torch.tensor(one, device=device).reshape(channels) for one in (config.pixel_mean, config.pixel_std))
    decayed = [one for one in model.parameters() if one.requires_grad and one.dim() > 1]
    others = [one for one in model.parameters() if one.requires_grad and one.dim() <= 1]
    groups = [{"params": others, "weight_decay": 0.0}, {"params": decayed, "weight_decay": config.weight_decay}]
    optimizer = torch.optim.AdamW(groups, lr=config.lr, betas=config.betas)
    scaler = torch.amp.GradScaler(device.type, enabled=device.type == "cuda")
    model.train()

    def run() -> None:
        images = batch.images.to(device, non_blocking=True).float().div_(255).sub_(mean).div_(std)
        with torch.autocast(device.type, torch.bfloat16, enabled=work.autocast):
            loss = cast(Tensor, model(images))
        loss.item()
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        parameters = [one for one in model.parameters() if one.grad is not None]
        if clip:
            torch.nn.utils.clip_grad_norm_(parameters, config.clip_norm)
        else:
            torch.stack([cast(Tensor, one.grad).norm() for one in parameters]).norm()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()

    return run
