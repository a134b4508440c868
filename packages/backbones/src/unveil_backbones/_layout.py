"""The files of a checkpoint directory, as `checkpoint.py` and `sharded.py` share them."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from unveil_backbones._files import check_file, hash_files, write_directory
from unveil_backbones.base import Encoder
from unveil_backbones.errors import HashMismatchError, ManifestError
from unveil_backbones.manifest import MANIFEST_NAME, Manifest

__all__ = [
    "ENCODER",
    "SHARDED_WEIGHTS",
    "TRAIN_STATE",
    "check_files",
    "check_parts",
    "is_sharded",
    "tokenizer_of",
    "write_checkpoint",
]

ENCODER = "encoder.safetensors"
TRAIN_STATE = "train_state"
SHARDED_WEIGHTS = "weights"
"""The folder with the parts of the weights of a sharded checkpoint."""
_TOKENIZER = "tokenizer.json"


def write_checkpoint(
    target: Path, encoder: Encoder, manifest: Manifest, tokenizer_json: str | None, fill: Callable[[Path], None]
) -> Path:
    """Let ``fill`` write the weights, add tokenizer and manifest; all of it or nothing.

    Raises:
        CheckpointExistsError, CheckpointWriteError: As ``write_directory``.
        ManifestError: The manifest describes another encoder.
    """
    _check_described(encoder, manifest)

    def write(folder: Path) -> None:
        fill(folder)
        if tokenizer_json is not None:
            (folder / _TOKENIZER).write_text(tokenizer_json, encoding="utf-8")
        complete = replace(manifest, files=hash_files(folder))
        (folder / MANIFEST_NAME).write_text(complete.to_json(), encoding="utf-8")

    write_directory(target, write)
    return target


def is_sharded(manifest: Manifest) -> bool:
    """Whether a checkpoint was written by ``save_sharded``: its weights lie in parts."""
    return ENCODER not in manifest.files and any(name.startswith(f"{SHARDED_WEIGHTS}/") for name in manifest.files)


def check_files(folder: Path, manifest: Manifest) -> None:
    """Refuse a checkpoint of which a file is absent or changed, those of the train state aside; as ``check_file``."""
    for name, digest in manifest.files.items():
        if not name.startswith(f"{TRAIN_STATE}/"):
            check_file(folder, name, digest)


def check_parts(folder: Path, manifest: Manifest, name: str) -> None:
    """Refuse a folder of tensors with a file that the manifest does not list: all of them are read, by their endings.

    Raises:
        HashMismatchError: There is one, as another run or checkpoint may have left behind.
    """
    found = (f"{name}/{file.name}" for file in sorted((folder / name).glob("*.safetensors")))
    stranger = next((file for file in found if file not in manifest.files), None)
    if stranger is not None:
        raise HashMismatchError(
            f"{folder / stranger} is not listed in {MANIFEST_NAME}; it is of another checkpoint: move it elsewhere"
        )


def tokenizer_of(folder: Path, manifest: Manifest) -> str | None:
    """The tokenizer of an image-text pair."""
    return (folder / _TOKENIZER).read_text(encoding="utf-8") if _TOKENIZER in manifest.files else None


def _check_described(encoder: Encoder, manifest: Manifest) -> None:
    if manifest.encoder != encoder.spec:
        raise ManifestError(
            f"the manifest describes {manifest.encoder}, the encoder is {encoder.spec}; "
            "use `encoder.spec` as the manifest's encoder"
        )
    if manifest.num_parameters != encoder.num_parameters:
        raise ManifestError(
            f"the manifest counts {manifest.num_parameters} parameters, the encoder has {encoder.num_parameters}; "
            "use `encoder.num_parameters`"
        )
