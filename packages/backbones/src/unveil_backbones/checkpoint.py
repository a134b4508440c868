"""The checkpoint contract: a directory of safetensors and one manifest, whole or absent, verified when read.

::

    step_00000200/
      manifest.json          what it is, and the SHA-256 of every other file
      encoder.safetensors    the encoder alone, timm's names
      heads.safetensors      other tensors, by prefix: "pair." (text tower, projections), "objective." (decoder)
      tokenizer.json         of an image-text pair
      train_state/           whatever the training loop needs to go on; absent in an exported checkpoint
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from unveil_backbones._files import check_file, check_header
from unveil_backbones._layout import (
    ENCODER,
    TRAIN_STATE,
    check_files,
    check_parts,
    is_sharded,
    tokenizer_of,
    write_checkpoint,
)
from unveil_backbones.base import Encoder
from unveil_backbones.encoder import build
from unveil_backbones.errors import (
    CheckpointNotFoundError,
    CheckpointWriteError,
    ConfigError,
    HashMismatchError,
    ImageSizeError,
    ManifestError,
    NonFiniteError,
    NotAPairError,
    ShardedCheckpointError,
    TensorMismatchError,
    UnknownArchitectureError,
    UnknownModelError,
)
from unveil_backbones.manifest import MANIFEST_NAME, Manifest, checkpoint_sha256, read_manifest, resolve_checkpoint
from unveil_backbones.pair import ImageTextPair
from unveil_backbones.plausible import check_plausible
from unveil_backbones.text import build_text
from unveil_backbones.tokenizer_base import CaptionTokenizer
from unveil_backbones.tokenizer_json import tokenizer_from_json

__all__ = [
    "Checkpoint",
    "build_encoder",
    "check_finite",
    "fill",
    "load",
    "load_pair",
    "restore_pair",
    "save",
    "train_state",
    "write_tensors",
]

_HEADS = "heads.safetensors"
_PAIR = "pair."


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A checkpoint that was read and verified."""

    manifest: Manifest
    """What it is."""
    encoder: Encoder
    """The encoder with its weights, in evaluation mode."""
    heads: dict[str, Tensor]
    """The other tensors, by name."""
    tokenizer_json: str | None
    """The tokenizer of an image-text pair."""
    path: Path
    """The checkpoint's directory."""
    sha256: str
    """Hash of its manifest, which names the checkpoint."""


def save(
    path: str | Path,
    *,
    encoder: Encoder,
    manifest: Manifest,
    heads: Mapping[str, Tensor] | None = None,
    tokenizer_json: str | None = None,
    extra: Callable[[Path], None] | None = None,
    weights: Mapping[str, Tensor] | None = None,
) -> Path:
    """Write a checkpoint directory, whole or not at all.

    Args:
        path: The directory to make.
        encoder: Its weights are written.
        manifest: Everything else that is known; ``files`` is filled here.
        heads: Further tensors, names beginning with ``pair.`` or ``objective.``.
        tokenizer_json: The tokenizer of an image-text pair.
        extra: Writes more files into the directory it is given, for instance below ``train_state/``.
        weights: The encoder's weights, where they are to be taken from elsewhere: a copy of them, or whole tensors of
            an encoder that is spread over processes.

    Raises:
        CheckpointExistsError: ``path`` exists.
        CheckpointWriteError: The file system refused; nothing is left behind.
        ManifestError: The manifest describes another encoder.
    """

    def write(folder: Path) -> None:
        write_tensors(folder / ENCODER, encoder.state_dict() if weights is None else weights)
        if heads:
            write_tensors(folder / _HEADS, heads)
        if extra is not None:
            extra(folder)

    return write_checkpoint(Path(path), encoder, manifest, tokenizer_json, write)


def load(path: str | Path) -> Checkpoint:
    """Read a checkpoint directory, or the newest checkpoint of a run directory, and verify all but the train state.

    Raises:
        CheckpointError: One of its kinds, each naming what was found, what is allowed and what to do: not found, newer
            format, truncated, changed, unsafe file name, unknown architecture, tensors missing, unexpected or of
            another shape or type, weights that are NaN or infinite.
    """
    folder = resolve_checkpoint(path)
    manifest = read_manifest(folder)
    if is_sharded(manifest):
        raise ShardedCheckpointError(
            f"{folder} holds its weights in the parts that the processes of a run wrote; make a checkpoint of it that "
            f"can be loaded: `pretrain export {folder} --out DIR`"
        )
    if ENCODER not in manifest.files:
        raise ManifestError(f"{folder / MANIFEST_NAME} lists no {ENCODER}; every checkpoint has one; save it again")
    check_files(folder, manifest)
    tensors = _read_tensors(folder / ENCODER)
    encoder = build_encoder(folder, manifest, tensors)
    fill(encoder, tensors, str(folder / ENCODER))
    return Checkpoint(
        manifest=manifest,
        encoder=encoder.eval(),
        heads=_read_tensors(folder / _HEADS) if _HEADS in manifest.files else {},
        tokenizer_json=tokenizer_of(folder, manifest),
        path=folder,
        sha256=checkpoint_sha256(folder),
    )


def load_pair(path: str | Path) -> tuple[ImageTextPair, CaptionTokenizer]:
    """Read the image-text pair of a checkpoint, in evaluation mode, and its tokenizer.

    Raises:
        NotAPairError: The checkpoint has no text tower, no projections or no tokenizer.
        TokenizerError: Its tokenizer is none of this package's, or needs an extra that is not installed.
        CheckpointError: As ``load``.
    """
    checkpoint = load(path)
    pair = restore_pair(checkpoint)
    if checkpoint.tokenizer_json is None:
        raise _not_a_pair(checkpoint)
    return pair, tokenizer_from_json(checkpoint.tokenizer_json)


def restore_pair(checkpoint: Checkpoint) -> ImageTextPair:
    """Return the image-text pair of a checkpoint, in evaluation mode; it shares the checkpoint's encoder.

    Raises:
        NotAPairError: The checkpoint has no text tower or no projections.
        CheckpointError: The text tower is unknown or impossible, or its tensors do not fit.
    """
    spec = checkpoint.manifest.text
    state = {name.removeprefix(_PAIR): tensor for name, tensor in checkpoint.heads.items() if name.startswith(_PAIR)}
    projection = state.get("image_projection.weight")
    if spec is None or projection is None or projection.dim() != 2:
        raise _not_a_pair(checkpoint)
    try:
        check_plausible(spec, _count(state), str(checkpoint.path / MANIFEST_NAME))
        text = build_text(spec)
    except UnknownModelError as error:
        raise UnknownArchitectureError(f"{checkpoint.path}: {error}") from error
    except ConfigError as error:
        raise ManifestError(f"{checkpoint.path / MANIFEST_NAME}: {error}") from error
    except (ArithmeticError, RuntimeError) as error:
        raise _no_model(checkpoint.path, spec.name, error) from error
    pair = ImageTextPair(checkpoint.encoder, text, embed_dim=projection.shape[0])
    encoder_state = {f"encoder.{name}": tensor for name, tensor in checkpoint.encoder.state_dict().items()}
    fill(pair, {**encoder_state, **state}, str(checkpoint.path / _HEADS))
    return pair.eval()


def _not_a_pair(checkpoint: Checkpoint) -> NotAPairError:
    return NotAPairError(
        f"{checkpoint.path} ({checkpoint.manifest.label}) has no text tower with projections and tokenizer; "
        "image-text evaluation needs one; pre-train with `pretrain flip`"
    )


def train_state(path: str | Path) -> Path:
    """Return the verified ``train_state`` directory of a checkpoint, to resume from.

    Raises:
        CheckpointNotFoundError: The checkpoint was saved or exported without one.
        CheckpointError: A file of it is missing or was changed, or tensors are there that do not belong to it.
    """
    folder = resolve_checkpoint(path)
    manifest = read_manifest(folder)
    files = {name: digest for name, digest in manifest.files.items() if name.startswith(f"{TRAIN_STATE}/")}
    if not files:
        raise CheckpointNotFoundError(
            f"{folder} has no {TRAIN_STATE}; it can be evaluated but not resumed; use a checkpoint of the run itself"
        )
    for name, digest in files.items():
        check_file(folder, name, digest)
    check_parts(folder, manifest, TRAIN_STATE)
    return folder / TRAIN_STATE


def build_encoder(folder: Path, manifest: Manifest, tensors: Mapping[str, Tensor]) -> Encoder:
    """The encoder that a checkpoint's manifest describes, with fresh weights.

    Args:
        folder: The checkpoint's directory, for messages.
        manifest: Its manifest.
        tensors: The encoder's weights: a model that is far larger than they are is not built.

    Raises:
        UnknownArchitectureError: This version of the package has no such model.
        ManifestError: The configuration makes no model, or one that the weights cannot be of.
    """
    try:
        check_plausible(manifest.encoder, _count(tensors), str(folder / MANIFEST_NAME))
        return build(manifest.encoder)
    except UnknownModelError as error:
        raise UnknownArchitectureError(f"{folder}: {error}") from error
    except (ConfigError, ImageSizeError, ManifestError) as error:
        named = str(error) if MANIFEST_NAME in str(error) else f"{folder / MANIFEST_NAME}: {error}"
        raise ManifestError(named) from error
    except (ArithmeticError, RuntimeError) as error:  # no heads, negative sides: what no configuration should say
        raise _no_model(folder, manifest.encoder.name, error) from error


def _no_model(folder: Path, name: str, error: Exception) -> ManifestError:
    return ManifestError(
        f"{folder / MANIFEST_NAME}: the configuration of {name} makes no model ({error}); "
        "do not use a checkpoint from this source"
    )


def _count(tensors: Mapping[str, Tensor]) -> int:
    return sum(tensor.numel() for tensor in tensors.values())


def write_tensors(file: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file, with the given entries in its header.

    Raises:
        CheckpointWriteError: The file system refused.
    """
    # safetensors refuses tensors that share memory and keeps no strides; clones on the CPU have neither problem.
    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    try:
        save_file(plain, file, metadata)
    except SafetensorError as error:  # also what a full disk ends in, without the OSError
        raise CheckpointWriteError(
            f"{file.name} could not be written ({error}); nothing was left behind; "
            "free space or choose a writable folder"
        ) from error


def _read_tensors(file: Path) -> dict[str, Tensor]:
    check_header(file)
    try:
        tensors = load_file(file)
    except SafetensorError as error:  # its hash is right, so it was written like this
        raise HashMismatchError(f"{file} is not a safetensors file ({error}); save the checkpoint again") from error
    check_finite(tensors, str(file))
    return tensors


def check_finite(tensors: Mapping[str, Tensor], where: str) -> None:
    """Refuse weights that are NaN or infinite: every result of such a model would be meaningless.

    Raises:
        NonFiniteError: There are some; names the tensors.
    """
    wrong = [name for name, value in tensors.items() if value.is_floating_point() and not _finite(value)]
    if wrong:
        raise NonFiniteError(
            f"{where}: NaN or infinite values in {_shortened(sorted(wrong))}; weights are finite; "
            "the run diverged or the file was damaged: use an earlier checkpoint"
        )


def _finite(tensor: Tensor) -> bool:
    # PyTorch cannot ask numbers of one byte.
    return bool((tensor.float() if tensor.element_size() == 1 else tensor).isfinite().all())


def fill(module: nn.Module, tensors: Mapping[str, Tensor], where: str) -> None:
    """Load tensors into a module if names, shapes and types all fit; coverage is 100 % or an error.

    Raises:
        TensorMismatchError: They do not; names the tensors.
    """
    wanted = module.state_dict()
    missing, unexpected = sorted(wanted.keys() - tensors.keys()), sorted(tensors.keys() - wanted.keys())
    misshapen = [
        f"{name}: {_described(tensors[name])} instead of {_described(wanted[name])}"
        for name in sorted(wanted.keys() & tensors.keys())
        if not _fits(tensors[name], wanted[name])
    ]
    if missing or unexpected or misshapen:
        raise TensorMismatchError(
            f"{where}: missing {_shortened(missing)}; unexpected {_shortened(unexpected)}; "
            f"of another shape or type {_shortened(misshapen)}; the {len(wanted)} tensors of the manifest's model have "
            "to be there and no other; save the checkpoint from the model its manifest describes"
        )
    module.load_state_dict(dict(tensors))


def _fits(given: Tensor, wanted: Tensor) -> bool:
    """Whether a tensor can be copied without loss: the same type, or a narrower one of PyTorch's common floats."""
    narrower = wanted.dtype == torch.float32 and given.dtype in (torch.float16, torch.bfloat16)
    return given.shape == wanted.shape and (given.dtype == wanted.dtype or narrower)


def _described(tensor: Tensor) -> str:
    return f"{tuple(tensor.shape)} {tensor.dtype}".replace("torch.", "")


def _shortened(names: list[str], most: int = 4) -> str:
    if not names:
        return "none"
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
