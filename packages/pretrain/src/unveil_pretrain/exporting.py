"""A checkpoint of a run as it is handed on: of the contract, whole weights, no training state."""

from dataclasses import replace
from pathlib import Path

from unveil_backbones import resolve_checkpoint, save
from unveil_backbones.checkpoint import build_encoder, check_finite, fill

from unveil_pretrain.stored import PartsCheckpoint, read_saved

__all__ = ["export_checkpoint"]


def export_checkpoint(source: Path, target: Path) -> Path:
    """Write the checkpoint of `source` to the new directory `target`; one process does, whoever wrote the parts.

    Needs host memory for twice the weights.

    Args:
        source: A checkpoint directory, of the contract or in parts, or that of a run, whose newest is taken.
        target: The directory to make.

    Raises:
        CheckpointError: there is no checkpoint, it is damaged, or `target` exists or cannot be written.
        ResumeError: the parts cannot be read.
    """
    found = read_saved(resolve_checkpoint(source))
    if isinstance(found, PartsCheckpoint):
        heads, weights = found.heads.read(), found.encoder_tensors.read()
        check_finite({**heads, **weights}, str(found.weights))
        encoder = build_encoder(found.path, found.manifest, weights)
        fill(encoder, weights, str(found.weights))
    else:
        encoder, heads = found.encoder, found.heads
    manifest = replace(found.manifest, files={})
    return save(target, encoder=encoder, manifest=manifest, heads=heads, tokenizer_json=found.tokenizer_json)
