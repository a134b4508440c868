"""Before the first step: whether it can fit into memory, by prediction.

Predicting takes seconds, so that a run which obviously fits is told by a bound that takes none.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

import torch
from unveil_backbones import SwinEncoder

from unveil_pretrain.config import FlipConfig, MimConfig
from unveil_pretrain.errors import ConfigError, MemoryLimitError
from unveil_pretrain.objectives.base import Objective
from unveil_pretrain.objectives.flip import FLIPConfig
from unveil_pretrain.parallel import Parallel
from unveil_pretrain.planning.layouts import KNOWN_NAMES, Layout
from unveil_pretrain.run import Run

__all__ = ["available_memory", "check_memory", "rough_bound"]

_GIGA = 1e9
_BYTES_PER_WEIGHT: Final = 26  # weights and a copy of two bytes, gradients, two averages, and two more copies
_FLOATS_PER_CHANNEL: Final = 64  # of a token in a block, scores included; a block keeps 16 and its scores
_TEXT_COPIES: Final = 8


def check_memory(
    run: Run,
    *,
    checkpoint_blocks: bool,
    parallel: Parallel | None,
    limit: float,
    log: Callable[[str], None],
) -> None:
    """Refuse a run whose steps cannot fit, and warn of one whose steps may not.

    Args:
        run: The run, its model on its device.
        checkpoint_blocks: Whether the encoder's blocks forget their inner activations.
        parallel: How the weights lie on its processes, which all learn if one has too little.
        limit: GB that a process may take; 0 for what there is.
        log: Receives a warning.

    Raises:
        ConfigError: the limit is negative.
        MemoryLimitError: a step cannot fit, however far the prediction is off; names the nearest that do.
    """
    if limit < 0.0:
        raise ConfigError(f"memory_limit is {limit}; give GB, or 0 for what there is")
    own = run.config.batch_size // run.world.size
    micro = min(run.gradients.micro_batch_size or own, own)
    available = limit * _GIGA or available_memory(run.device, run.objective)
    error = None
    if available is not None and rough_bound(run.config, run.objective, micro=micro, own=own) >= available:
        num_shards = (parallel or Parallel()).num_shards(run.world)
        layout = Layout(
            micro_batch=micro,
            device="cuda" if run.device.type == "cuda" else "cpu",
            checkpointing=checkpoint_blocks,
            num_shards=num_shards,
            num_replicas=run.world.size // num_shards,
        )
        error = _too_large(run.config, layout, available, log if run.world.writes else _silent)
    run.world.agree(error)


def rough_bound(config: MimConfig | FlipConfig, objective: Objective, *, micro: int, own: int) -> float:
    """More bytes than a step takes, by arithmetic: no model is simulated."""
    encoder, weights = objective.encoder, sum(parameter.numel() for parameter in objective.parameters())
    rows, cols = encoder.grid(*config.image_size)
    # A Swin's later stages have half as many channels in all for each token of the first.
    width = encoder.embed_width if isinstance(encoder, SwinEncoder) else encoder.width
    blocks = max(1, len(objective.block_names()))
    activations = 4.0 * _FLOATS_PER_CHANNEL * micro * (rows * cols + 1) * width * blocks
    pixels = 3 * config.image_size[0] * config.image_size[1]
    loss = 0.0
    if isinstance(config.objective, FLIPConfig):
        numbers = _TEXT_COPIES * config.objective.embed_dim + 4 * min(config.objective.loss_chunk, own)
        loss = 4.0 * config.batch_size * numbers
    return _BYTES_PER_WEIGHT * weights + activations + 2 * own * pixels + 40 * micro * pixels + loss


def available_memory(device: torch.device, objective: Objective) -> float | None:
    """Bytes that this process may have, those of its weights included; None where nobody says."""
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device))
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:  # no Linux
        return None
    free = float(next(line.split()[1] for line in lines if line.startswith("MemAvailable"))) * 1024
    here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return free / here + sum(parameter.numel() * parameter.element_size() for parameter in objective.parameters())


def _too_large(
    config: MimConfig | FlipConfig, layout: Layout, available: float, log: Callable[[str], None]
) -> MemoryLimitError | None:
    # The simulation's libraries take a second to load, and most runs need none.
    from unveil_pretrain.planning.fits import judge_fit

    if config.objective.name not in KNOWN_NAMES:
        log(f"the memory of {config.objective.name} cannot be predicted; whether a step fits will be seen")
        return None
    verdict, said = judge_fit(config, layout, available)
    if verdict == "cannot fit":
        return MemoryLimitError(f"{said}; to run it nevertheless, give the GB there are as --memory-limit")
    if verdict == "may not fit":
        log(f"memory may run out: {said}")
    return None


def _silent(line: str) -> None:
    del line
