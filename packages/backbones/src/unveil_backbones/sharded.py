"""A checkpoint whose weights lie in the parts that several processes wrote: the contract but for its weights.

::

    step_00000200/
      manifest.json          as of the contract; lists the parts, too
      weights/               parts of the weights, by whatever wrote them
      tokenizer.json         of an image-text pair
      train_state/           as of the contract

What is evaluated is made of it by exporting; `load` refuses it by name.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from unveil_backbones._layout import (
    SHARDED_WEIGHTS,
    check_files,
    check_parts,
    is_sharded,
    tokenizer_of,
    write_checkpoint,
)
from unveil_backbones.base import Encoder
from unveil_backbones.errors import ManifestError
from unveil_backbones.manifest import (
    MANIFEST_NAME,
    Manifest,
    checkpoint_sha256,
    read_manifest,
    resolve_checkpoint,
)

__all__ = ["SHARDED_WEIGHTS", "ShardedCheckpoint", "is_sharded", "open_sharded", "save_sharded"]


@dataclass(frozen=True, kw_only=True)
class ShardedCheckpoint:
    """A checkpoint of ``save_sharded`` whose files were verified, all but the train state; no weight is read yet."""

    manifest: Manifest
    """What it is."""
    tokenizer_json: str | None
    """The tokenizer of an image-text pair."""
    path: Path
    """The checkpoint's directory."""
    sha256: str
    """Hash of its manifest, which names the checkpoint."""

    @property
    def weights(self) -> Path:
        """The folder with the parts."""
        return self.path / SHARDED_WEIGHTS


def save_sharded(
    path: str | Path,
    *,
    encoder: Encoder,
    manifest: Manifest,
    fill: Callable[[Path], None],
    tokenizer_json: str | None = None,
) -> Path:
    """Write a directory whose weights lie in parts below ``weights/``, whole or not at all.

    Args:
        path: The directory to make.
        encoder: What the weights are of; none are taken from it.
        manifest: Everything else that is known; ``files`` is filled here.
        fill: Writes ``weights/``, and whatever else belongs to the checkpoint, into the directory it is given.
        tokenizer_json: The tokenizer of an image-text pair.

    Raises:
        CheckpointError: As ``unveil_backbones.checkpoint.save``.
    """
    return write_checkpoint(Path(path), encoder, manifest, tokenizer_json, fill)


def open_sharded(path: str | Path) -> ShardedCheckpoint:
    """Verify a checkpoint of ``save_sharded``, all but the train state.

    Raises:
        ManifestError: It is another kind of checkpoint.
        CheckpointError: A file is missing, cut short or changed, or there are parts that do not belong to it.
    """
    folder = resolve_checkpoint(path)
    manifest = read_manifest(folder)
    if not is_sharded(manifest):
        raise ManifestError(f"{folder / MANIFEST_NAME} lists no {SHARDED_WEIGHTS}/; read the checkpoint by `load`")
    check_files(folder, manifest)
    check_parts(folder, manifest, SHARDED_WEIGHTS)
    return ShardedCheckpoint(
        manifest=manifest, tokenizer_json=tokenizer_of(folder, manifest), path=folder, sha256=checkpoint_sha256(folder)
    )
