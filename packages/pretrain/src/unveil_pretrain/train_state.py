"""What a checkpoint needs beyond the weights so that a run continues exactly: the optimiser and where it stood.

Nothing else has state: order, crops, captions, masks and stochastic depth are functions of the step and the sample, and
the schedule is one of the step.

The files are safetensors and JSON: torch.distributed.checkpoint would pickle its index, which is then executed on
loading. Processes hold equal weights and optimisers, and the first of them writes.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from unveil_backbones import train_state as verified_train_state

from unveil_pretrain.errors import OutputError, ResumeError

__all__ = ["TRAIN_STATE", "Position", "load_train_state", "save_train_state"]

TRAIN_STATE = "train_state"
_OPTIMIZER = "optimizer.safetensors"
_POSITION = "position.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class Position:
    """Where a run stands."""

    step: int = 0
    """Updates done."""
    samples_seen: int = 0
    """Images shown, repetitions counted."""
    tokens_seen: int = 0
    """Image tokens that went through the encoder."""
    seconds: float = 0.0
    """Seconds of training, validation not counted."""
    device_seconds: float = 0.0
    """The same, times the number of processes that trained."""

    def after(self, num_samples: int, num_tokens: int, seconds: float, *, num_devices: int = 1) -> "Position":
        """The position one step later."""
        return Position(
            step=self.step + 1,
            samples_seen=self.samples_seen + num_samples,
            tokens_seen=self.tokens_seen + num_tokens,
            seconds=self.seconds + seconds,
            device_seconds=self.device_seconds + num_devices * seconds,
        )


def save_train_state(folder: Path, *, model: nn.Module, optimizer: torch.optim.Optimizer, position: Position) -> None:
    """Write `folder`/train_state; the folder must not hold one.

    Raises:
        OutputError: the tensors cannot be written.
        OSError: the folder cannot be written.
    """
    target = folder / TRAIN_STATE
    target.mkdir()
    names: dict[Tensor, str] = {parameter: name for name, parameter in model.named_parameters()}
    tensors = {
        f"{key}/{names[parameter]}": value.detach().cpu().contiguous()
        for parameter, state in optimizer.state.items()
        for key, value in state.items()
    }
    try:
        save_file(tensors, target / _OPTIMIZER)
    except SafetensorError as error:  # also what a full disk ends in
        raise OutputError(
            f"cannot write the training state ({error}); free some space and repeat the command"
        ) from error
    (target / _POSITION).write_text(json.dumps(asdict(position)) + "\n", encoding="utf-8")


def load_train_state(folder: Path, *, model: nn.Module, optimizer: torch.optim.Optimizer) -> Position:
    """Fill the optimiser from `folder`/train_state and return where the run stood.

    Args:
        folder: A checkpoint directory.
        model: The model with the checkpoint's weights; names parameters.
        optimizer: An optimiser over the same parameter groups as the saved one.

    Raises:
        CheckpointError: the state is missing, incomplete or changed.
        ResumeError: the state is of another model or cannot be read.
    """
    source = verified_train_state(folder)
    try:
        tensors = load_file(source / _OPTIMIZER)
        position = Position(**json.loads((source / _POSITION).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, SafetensorError) as error:
        raise ResumeError(
            f"{source} cannot be read ({error}); remove {folder} to continue from the checkpoint before"
        ) from error
    by_name: dict[str, dict[str, Tensor]] = {}
    for full_name, value in tensors.items():
        key, name = full_name.split("/", 1)
        by_name.setdefault(name, {})[key] = value
    names: dict[Tensor, str] = {parameter: name for name, parameter in model.named_parameters()}
    order = [names[parameter] for group in optimizer.param_groups for parameter in group["params"]]
    if set(by_name) - set(order) or (by_name and set(order) - set(by_name)):
        raise ResumeError(f"{source} belongs to another model; continue with the settings the run was started with")
    packed = optimizer.state_dict()
    packed["state"] = {index: by_name[name] for index, name in enumerate(order) if name in by_name}
    optimizer.load_state_dict(packed)
    return position
