"""How a batch and the weights lie on devices: what a prediction of memory is about."""

from dataclasses import dataclass
from typing import Final, Literal

__all__ = ["KNOWN_NAMES", "Device", "Layout"]

Device = Literal["cpu", "cuda"]
"""Where a step is computed."""

KNOWN_NAMES: Final = ("simmim", "mae", "flip", "ijepa")
"""Objectives whose memory can be predicted."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """How a batch and the weights lie on devices."""

    micro_batch: int
    """Samples computed at once on each; 0 for all of its part of the batch."""
    device: Device
    """Where they are computed."""
    checkpointing: bool = False
    """Whether the blocks of the encoder forget their inner activations."""
    num_shards: int = 1
    """Parts that the weights are cut into."""
    num_replicas: int = 1
    """Copies of the weights."""
