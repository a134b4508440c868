"""What `cost.py` needs to know of a run, written at its start: the device, and the operations of one sample."""

import platform
from dataclasses import asdict
from pathlib import Path

import torch

from unveil_pretrain.config import FlipConfig, MimConfig
from unveil_pretrain.cost import CostBasis
from unveil_pretrain.planning.flops import sample_flops

__all__ = ["cost_basis", "device_name"]


def cost_basis(
    config: MimConfig | FlipConfig, *, step: int, device: torch.device, num_devices: int = 1
) -> dict[str, object]:
    """The row of cost.jsonl for a run that starts, or continues, at `step`.

    Args:
        config: What is trained.
        step: Updates done before.
        device: Where it is computed.
        num_devices: Processes, each with such a device.

    Raises:
        BackboneError, MaskingError: encoder, image size and mask do not fit together.
    """
    flops = sample_flops(config)
    basis = CostBasis(
        step=step,
        device=device_name(device),
        num_devices=num_devices,
        precision=config.precision,
        flops_per_sample=flops.total,
        counted=tuple(flops.parts),
        not_counted=flops.not_counted,
    )
    return asdict(basis)


def device_name(device: torch.device) -> str:
    """What CUDA or the operating system calls the device."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU {_processor()}, {torch.get_num_threads()} threads"


def _processor() -> str:
    """The processor's model; `platform.processor()` is empty or a mere architecture on Linux."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # no Linux
        return platform.processor() or platform.machine()
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()
