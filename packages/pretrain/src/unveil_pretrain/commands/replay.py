"""`pretrain replay RUN`: compute a failed step again and say where its numbers end."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from unveil_pretrain.commands.parsing import parse
from unveil_pretrain.replay import Replay, replay
from unveil_pretrain.run import DeviceName, choose_device

__all__ = ["ReplayCommand", "run"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ReplayCommand:
    """Compute the step that failed (failure.json) again, with its own weights and samples; changes nothing."""

    out: Annotated[Path, tyro.conf.Positional]
    """Folder of the run."""
    train_data: str | None = None
    """Training data, if they are not where run.json says."""
    val_data: str | None = None
    """Validation data, likewise."""
    device: DeviceName = "auto"
    """Where to compute; auto takes CUDA where there is one."""


def run(given: Sequence[str]) -> int:
    """Print what the step gave; 1 if it failed again, 0 if it did not."""
    command = parse(ReplayCommand, given, prog="pretrain replay")
    found = replay(
        command.out,
        device=choose_device(command.device),
        train_data=command.train_data,
        val_data=command.val_data,
    )
    print("\n".join(_lines(found)))
    return int(found.failed_again)


def _lines(found: Replay) -> list[str]:
    weights = "its own weights" if found.exact else "the last checkpoint's weights: its own were not kept"
    lines = [f"step {found.step} with {weights}: gradient norm {found.grad_norm:.6g}"]
    for sample_id, loss in found.losses.items():
        lines.append(f"  sample {sample_id}: loss {loss:.6g}{'' if math.isfinite(loss) else '  <- not finite'}")
    if found.first_module is not None:
        lines.append(f"first module whose output is not finite: {found.first_module}")
    if found.gradients:
        more = f" and {len(found.gradients) - 3} more" if len(found.gradients) > 3 else ""
        lines.append(f"gradients that are not finite: {', '.join(found.gradients[:3])}{more}")
    lines.append("failed again" if found.failed_again else "this time all numbers are finite")
    return lines
