"""A run that begins with another one's weights: unmasked tuning, another resolution, another data set.

Encoder, text tower and heads are taken over; the optimiser, the schedule and the position are new. The checkpoint's
hash is part of what defines the run and stands in the manifests of its checkpoints.
"""

from pathlib import Path

from unveil_backbones import Checkpoint, load
from unveil_backbones.specs import EncoderSpec

from unveil_pretrain.errors import ConfigError
from unveil_pretrain.objectives.base import Objective

__all__ = ["begin_with", "load_initial"]

_FREE = ("image_size", "drop_path")
"""Settings of an encoder that no weight depends on."""


def load_initial(path: Path | None) -> Checkpoint | None:
    """The checkpoint to begin with, verified; None for fresh weights.

    Raises:
        CheckpointError: it is missing, damaged or of a newer format.
    """
    return None if path is None else load(path)


def begin_with(objective: Objective, initial: Checkpoint) -> None:
    """Copy the weights of a checkpoint into a fresh objective.

    Heads that the objective does not have are left behind: the decoder of a reconstruction, for instance.

    Raises:
        ConfigError: encoder or text tower are others, or the checkpoint lacks a head.
    """
    theirs, mine = initial.manifest.encoder, objective.encoder.spec
    difference = _difference(theirs, mine)
    if difference is not None:
        raise ConfigError(
            f"{initial.path} has the encoder {theirs.name}, this run {mine.name}: {difference}; "
            "give the recipe of the checkpoint's encoder, or another --from"
        )
    if objective.text_spec is not None and initial.manifest.text != objective.text_spec:
        raise ConfigError(
            f"{initial.path} has the text tower {initial.manifest.text}, this run {objective.text_spec}; "
            "give the settings of its text tower, or another --from"
        )
    expected = objective.heads()
    missing = sorted(expected.keys() - initial.heads.keys())
    if missing:
        raise ConfigError(
            f"{initial.path} has no {', '.join(missing[:3])}, which this run needs; give a checkpoint of the same "
            "objective and loss"
        )
    state, own = initial.encoder.state_dict(), objective.encoder.state_dict()
    moved = sorted(name for name in own if name not in state or state[name].shape != own[name].shape)
    if moved:
        raise ConfigError(
            f"{initial.path} has another {moved[0]}: it was trained at {theirs.config.get('image_size')} with a table "
            f"for that size; give --image-size of the checkpoint"
        )
    objective.encoder.load_state_dict(state)
    objective.load_heads({name: initial.heads[name] for name in expected})


def _difference(theirs: EncoderSpec, mine: EncoderSpec) -> str | None:
    """The first setting that differs and that weights depend on."""
    for name in sorted({*theirs.config, *mine.config} - set(_FREE)):
        if theirs.config.get(name) != mine.config.get(name):
            return f"{name} is {theirs.config.get(name)!r} there and {mine.config.get(name)!r} here"
    return None
