"""What a checkpoint needs beyond the weights so that a run continues exactly: the optimiser and where it stood.

Nothing else has state: order, crops, captions, masks and stochastic depth are functions of the step and the sample, and
the schedule is one of the step.

The files are safetensors and JSON (`tensor_parts.py`): nothing in them is executed on loading. How many processes wrote
them, and whether these held the optimiser whole or in parts, does not matter to those that read them.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from unveil_backbones import train_state as verified_train_state

from unveil_pretrain.errors import ResumeError
from unveil_pretrain.tensor_parts import StoredTensors, read_tensors, write_tensors

__all__ = ["TRAIN_STATE", "Position", "load_train_state", "optimizer_tensors", "save_train_state"]

TRAIN_STATE = "train_state"
_OPTIMIZER = "optimizer.safetensors"
_POSITION = "position.json"
_FLAT = StateDictOptions(flatten_optimizer_state_dict=True)
_STATE = "state."


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


def optimizer_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The state of the optimiser by name, as in "exp_avg/encoder.norm.weight"; no copies, and parts where it has parts.

    An optimiser that has not stepped yet gets its state first.
    """
    if not optimizer.state:
        return _named(get_optimizer_state_dict(model, optimizer, options=_FLAT))
    # The same as PyTorch's function gives, whose search for names takes as long as copying a small model. A step of
    # training waits for this one.
    return {
        f"{key}/{name}": value
        for name, parameter in model.named_parameters()
        for key, value in optimizer.state.get(parameter, {}).items()
        if isinstance(value, Tensor)
    }


def save_train_state(
    folder: Path,
    *,
    tensors: Mapping[str, Tensor],
    position: Position,
    writes: bool = True,
    group: dist.ProcessGroup | None = None,
) -> None:
    """Write `folder`/train_state; the folder must not hold one.

    Args:
        folder: The checkpoint that is being written.
        tensors: What `optimizer_tensors` gave, or a copy of it.
        position: Where the run stands.
        writes: Whether this process writes what is not in parts; one does, the others write their parts if there are
            any.
        group: The processes, where they are not the default group.

    Raises:
        OutputError: the tensors cannot be written.
        OSError: the folder cannot be written.
    """
    target = folder / TRAIN_STATE
    if writes:
        target.mkdir(exist_ok=True)
        (target / _POSITION).write_text(json.dumps(asdict(position)) + "\n", encoding="utf-8")
    write_tensors(target, _OPTIMIZER, tensors, writes=writes, group=group)


def load_train_state(folder: Path, *, model: nn.Module, optimizer: torch.optim.Optimizer) -> Position:
    """Fill the optimiser from `folder`/train_state and return where the run stood.

    Args:
        folder: A checkpoint directory, written by however many processes.
        model: The model with the checkpoint's weights, whole or in parts; names parameters.
        optimizer: A fresh optimiser over the same parameters as the saved one.

    Raises:
        CheckpointError: the state is missing, incomplete or changed.
        ResumeError: the state is of another model or cannot be read.
    """
    source = verified_train_state(folder)
    try:
        position = Position(**json.loads((source / _POSITION).read_text(encoding="utf-8")))
        stored = StoredTensors(source)
    except (OSError, ValueError, TypeError) as error:
        raise ResumeError(
            f"{source} cannot be read ({error}); remove {folder} to continue from the checkpoint before"
        ) from error
    if stored:  # a run that has not stepped has none
        state = get_optimizer_state_dict(model, optimizer, options=_FLAT)
        wanted = _named(state)
        if {name: value.shape for name, value in wanted.items()} != stored.shapes():
            raise ResumeError(f"{source} belongs to another model; continue with the settings the run was started with")
        read_tensors(source, wanted)
        set_optimizer_state_dict(model, optimizer, state, options=_FLAT)
    return position


def _named(state: Mapping[str, object]) -> dict[str, Tensor]:
    """The tensors of a flat state: "state.encoder.norm.weight.exp_avg" is "exp_avg/encoder.norm.weight" in files.

    What else a state has, learning rates and the like, follows from the settings and the step.
    """
    found = dict[str, Tensor]()
    for name, value in state.items():
        if name.startswith(_STATE) and isinstance(value, Tensor):
            parameter, _, key = name.removeprefix(_STATE).rpartition(".")
            found[f"{key}/{parameter}"] = value
    return found
