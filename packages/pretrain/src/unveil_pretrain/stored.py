"""A checkpoint that a run continues from: of the contract, or in the parts that its processes wrote."""

from pathlib import Path

from torch import Tensor
from unveil_backbones import Checkpoint, load, read_manifest
from unveil_backbones.sharded import ShardedCheckpoint, is_sharded, open_sharded

from unveil_pretrain.errors import ResumeError
from unveil_pretrain.objectives.base import Objective
from unveil_pretrain.tensor_parts import StoredTensors, read_tensors

__all__ = [
    "ENCODER_PREFIX",
    "HEADS_PREFIX",
    "PartsCheckpoint",
    "SavedCheckpoint",
    "fill_from_parts",
    "read_saved",
    "weights_of",
]

ENCODER_PREFIX, HEADS_PREFIX = "encoder/", "heads/"
"""What names begin with where weights are not cut into the files of the contract."""


class PartsCheckpoint:
    """A verified checkpoint whose weights are read tensor by tensor, when they are asked for."""

    def __init__(self, opened: ShardedCheckpoint) -> None:
        """Read the headers of the parts.

        Raises:
            ResumeError: they cannot be read.
        """
        self.manifest, self.tokenizer_json = opened.manifest, opened.tokenizer_json
        self.path, self.weights = opened.path, opened.weights
        self.encoder_tensors = StoredTensors(opened.weights, prefix=ENCODER_PREFIX)
        self.heads = StoredTensors(opened.weights, prefix=HEADS_PREFIX)


SavedCheckpoint = Checkpoint | PartsCheckpoint


def read_saved(path: Path) -> SavedCheckpoint:
    """The checkpoint in a directory, verified but for its train state.

    Raises:
        CheckpointError: it is missing or damaged.
        ResumeError: the headers of its parts cannot be read.
    """
    return PartsCheckpoint(open_sharded(path)) if is_sharded(read_manifest(path)) else load(path)


def weights_of(objective: Objective) -> dict[str, Tensor]:
    """All weights of an objective by name; no copies, and parts where it has parts."""
    return {
        **{ENCODER_PREFIX + name: value for name, value in objective.encoder.state_dict().items()},
        **{HEADS_PREFIX + name: value for name, value in objective.heads().items()},
    }


def fill_from_parts(objective: Objective, checkpoint: SavedCheckpoint) -> None:
    """Read the weights of a checkpoint in parts, those that this process holds; one of the contract is left alone.

    Raises:
        ResumeError: the weights are of another model, or cannot be read.
    """
    if not isinstance(checkpoint, PartsCheckpoint):
        return
    wanted = weights_of(objective)
    if {name: value.shape for name, value in wanted.items()} != StoredTensors(checkpoint.weights).shapes():
        raise ResumeError(
            f"{checkpoint.path} belongs to another model; continue with the settings the run was started with"
        )
    read_tensors(checkpoint.weights, wanted)
