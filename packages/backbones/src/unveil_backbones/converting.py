"""Checkpoints of other programs become ours, and ours become theirs.

(The module is not called ``convert``: a module of a function's name would take the function's place in the package.)
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from unveil_backbones.base import Pooling
from unveil_backbones.checkpoint import load, restore_pair
from unveil_backbones.conversion.configs import Configs
from unveil_backbones.conversion.details import Details
from unveil_backbones.conversion.incoming import Incoming, read_foreign, save_foreign
from unveil_backbones.conversion.outgoing import WRITABLE, write_foreign
from unveil_backbones.coverage import CoverageReport
from unveil_backbones.errors import CheckpointNotFoundError, ConvertError
from unveil_backbones.manifest import resolve_checkpoint
from unveil_backbones.pair import ImageTextPair
from unveil_backbones.vit_config import Activation

__all__ = ["OURS", "Converted", "ForeignFormat", "TargetFormat", "convert", "is_ours", "load_foreign"]

ForeignFormat = Literal["simmim", "mae", "timm", "open_clip", "dino", "huggingface"]
TargetFormat = Literal["unveil", "timm", "open_clip", "huggingface"]

OURS = "unveil"
"""Name of this package's own format."""


@dataclass(frozen=True, kw_only=True)
class Converted:
    """What a conversion made."""

    path: Path
    """The folder that was written."""
    source_format: str
    """Format that was read."""
    target_format: str
    """Format that was written."""
    coverage: CoverageReport | None
    """What was used of a foreign file, and why the rest was not; ``None`` for a checkpoint of ours."""
    left_out: tuple[str, ...]
    """Names of tensors of our checkpoint that the other format has no place for: decoders of pre-training."""

    def __str__(self) -> str:
        """Return lines for people: what was used and what was not, and where the result is."""
        lines = [] if self.coverage is None else [str(self.coverage)]
        if self.left_out:
            lines.append(f"{len(self.left_out)} tensors have no place in {self.target_format}: {self.left_out[0]} ...")
        return "\n".join([*lines, f"{self.path} ({self.target_format})"])


def convert(
    source: str | Path,
    out: str | Path,
    *,
    format: ForeignFormat | None = None,
    to: TargetFormat = "unveil",
    arch: str | None = None,
    image_size: tuple[int, int] | None = None,
    num_heads: int | None = None,
    decoder_heads: int | None = None,
    window: int | None = None,
    norm_epsilon: float | None = None,
    activation: Activation | None = None,
    pooling: Pooling | None = None,
    mean: tuple[float, float, float] | None = None,
    std: tuple[float, float, float] | None = None,
) -> Converted:
    """Convert a checkpoint; every tensor of a foreign file becomes a weight or is dropped for a stated reason.

    What shapes and configuration files do not tell is taken from the format's convention, and recorded as assumed in
    the manifest's ``origin``; the arguments after ``to`` take its place.

    Args:
        source: A checkpoint or run of ours, a ``.pth``, ``.bin`` or ``.safetensors`` file, or a folder of timm,
            open_clip or transformers.
        out: The folder to make.
        format: Format of a foreign source; found out if ``None``.
        to: Format to write.
        arch: Name of the preset that the model is; a check, and a source of sizes that shapes do not tell.
        image_size: Height and width that its positions or windows were made for.
        num_heads: Attention heads of each block (Vision Transformers).
        decoder_heads: Attention heads of each block of MAE's decoder.
        window: Window side of all stages (Swin).
        norm_epsilon: Added to variances.
        activation: Of the MLPs.
        pooling: How tokens become one vector.
        mean: Subtracted from pixels in [0, 1], per channel.
        std: Pixels are divided by it, per channel.

    Raises:
        CoverageError: Tensors are neither used nor knowingly dropped, or some that are needed are missing.
        NotExpressibleError: A part of the model has no place on the other side.
        ConvertError: The format is unknown, or a detail has to be given.
        CheckpointError: Another of its kinds: the source is absent, truncated, unsafe, or holds weights that do not fit
            or are no numbers; ``out`` exists or cannot be written.
        TokenizerError: A CLIP pair's tokenizer needs the extra ``clip``.
    """
    if to not in (OURS, *WRITABLE):
        raise ConvertError(f"format {to!r} cannot be written; there are {', '.join((OURS, *WRITABLE))}; choose one")
    details = Details(
        arch=arch,
        image_size=image_size,
        num_heads=num_heads,
        decoder_heads=decoder_heads,
        window=window,
        norm_epsilon=norm_epsilon,
        activation=activation,
        pooling=pooling,
        mean=mean,
        std=std,
    )
    source, out = Path(source), Path(out)
    if is_ours(source):
        if format is not None or details != Details():
            raise ConvertError(f"{source} is a checkpoint of ours, whose manifest says what it is; give only `to`")
        return _export(source, out, to)
    incoming = load_foreign(source, format=format, details=details)
    report = incoming.report
    if to == OURS:
        save_foreign(incoming, out)
    else:
        write_foreign(incoming.model, incoming.preprocessing, out, to)
    return Converted(path=out, source_format=report.format, target_format=to, coverage=report, left_out=())


def load_foreign(
    source: str | Path,
    *,
    format: ForeignFormat | None = None,
    details: Details | None = None,
    configs: Configs | None = None,
) -> Incoming:
    """Read a foreign file or folder without writing anything.

    Args:
        source: The file or folder.
        format: Its format; found out if ``None``.
        details: What the caller knows about the model.
        configs: Configuration files by name that the caller knows, in the place of those beside the weights.

    Raises:
        BackboneError: As ``convert``.
    """
    return read_foreign(Path(source), format, details or Details(), configs)


def is_ours(path: str | Path) -> bool:
    """Whether a path is a checkpoint directory or a run directory of this package."""
    try:
        resolve_checkpoint(path)
    except CheckpointNotFoundError:
        return False
    return True


def _export(source: Path, out: Path, to: TargetFormat) -> Converted:
    if to == OURS:
        raise ConvertError(f"{source} is a checkpoint of ours already; give another format: {', '.join(WRITABLE)}")
    checkpoint = load(source)
    model = checkpoint.encoder if checkpoint.manifest.text is None else restore_pair(checkpoint)
    path = write_foreign(model, checkpoint.manifest.preprocessing, out, to)
    paired = isinstance(model, ImageTextPair) and to != "timm"
    left_out = tuple(sorted(name for name in checkpoint.heads if not (paired and name.startswith("pair."))))
    return Converted(path=path, source_format=OURS, target_format=to, coverage=None, left_out=left_out)
