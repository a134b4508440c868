"""The manifest of a checkpoint directory: everything about a checkpoint that is not a tensor.

Standard library only: reading the manifests of a thousand checkpoints loads no torch.
"""

import hashlib
import json
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath

from unveil_backbones._files import check_inside
from unveil_backbones._json import (
    JSON,
    Fields,
    optional,
    read_float,
    read_int,
    read_object,
    read_text,
    sequence_of,
)
from unveil_backbones.coverage import CoverageReport
from unveil_backbones.errors import (
    CheckpointNotFoundError,
    FormatVersionError,
    ManifestError,
    TruncatedError,
    UnsafePathError,
)
from unveil_backbones.passport import Passport, ValPoint
from unveil_backbones.places import is_folder, is_there
from unveil_backbones.specs import EncoderSpec, Preprocessing, TextSpec

__all__ = [
    "FORMAT_VERSION",
    "MANIFEST_NAME",
    "EncoderSpec",
    "Manifest",
    "Passport",
    "Preprocessing",
    "TextSpec",
    "ValPoint",
    "checkpoint_sha256",
    "read_manifest",
    "resolve_checkpoint",
]

FORMAT_VERSION = 1
"""The one format of checkpoint directories that this version writes and reads."""

MANIFEST_NAME = "manifest.json"

_LARGEST_MANIFEST = 64 * 2**20
_GIVE = "give a checkpoint directory (.../checkpoints/step_00000200) or the directory of a run"


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """All that is known of a checkpoint; ``save`` fills ``files``."""

    encoder: EncoderSpec
    """The image encoder."""
    preprocessing: Preprocessing
    """What its input has to look like."""
    objective: str
    """``simmim``, ``mae`` or ``flip``."""
    mask: dict[str, JSON]
    """What the masking strategy says of itself."""
    realised_ratio: float
    """The share of tokens really hidden in training."""
    seed: int
    """Seed of the run."""
    step: int
    """Optimiser steps done."""
    samples_seen: int
    """Images (or pairs) shown so far, repetitions counted."""
    unique_samples: int
    """Different images (or pairs) in the training set."""
    tokens_seen: int
    """Tokens that went through the encoder so far."""
    device_seconds: float
    """Seconds of training summed over devices."""
    data_hash: str
    """Hash of the training data's manifest."""
    num_parameters: int
    """Parameters of the encoder alone."""
    versions: dict[str, str]
    """Versions of the packages that trained it."""
    created: str
    """Time of writing, ISO 8601."""
    text: TextSpec | None = None
    """The text tower of an image-text pair."""
    flops: float | None = None
    """Floating point operations of training so far in the image encoder, two for each multiply-add."""
    val: tuple[ValPoint, ...] = ()
    """The validation curve up to this step."""
    passport: Passport | None = None
    """What that curve depends on besides the model."""
    git_commit: str | None = None
    """Commit of the training code, where it ran from a repository."""
    initial: str | None = None
    """Hash of the manifest of the checkpoint whose weights training began with. Absent from the text where it began
    with fresh ones."""
    objective_settings: dict[str, JSON] | None = None
    """Settings of the objective by name, as training had them or as a foreign format's convention has them: what the
    objective is built from again, to score images. Absent from the text of checkpoints that do not know them."""
    files: dict[str, str] = field(default_factory=dict)
    """SHA-256 of each other file of the directory, by its path inside it."""
    origin: CoverageReport | None = None
    """Where the weights came from and what was used of them, if another program made them (``convert``). Fields that
    it calls unknown hold 0, ``""`` or ``"unknown"``. Absent from the text of a checkpoint that was trained here."""
    format_version: int = FORMAT_VERSION
    """Format of the directory."""

    @property
    def label(self) -> str:
        """A short name for tables and legends: ``simmim swinv2_tiny u=64 s=200``, ``mae vit_b16 of mae.pth``."""
        if self.origin is not None:
            return f"{self.objective} {self.encoder.name} of {self.origin.source}"
        return f"{self.objective} {self.encoder.name} u={self.unique_samples} s={self.step}"

    def to_json(self) -> str:
        """Return the text of ``manifest.json``; equal manifests give equal text.

        Raises:
            ManifestError: A value has no JSON form, for instance the NaN loss of a diverged run.
        """
        record = {
            **asdict(self),
            "preprocessing": self.preprocessing.to_json(),
            "val": [point.to_json() for point in self.val],
            "passport": None if self.passport is None else self.passport.to_json(),
        }
        for name in ("origin", "initial", "objective_settings"):
            if record[name] is None:
                del record[name]  # as earlier versions of this package wrote it, which refuse unknown fields
        try:
            return json.dumps(record, indent=1, sort_keys=True, allow_nan=False) + "\n"
        except (ValueError, TypeError) as error:
            raise ManifestError(
                f"the manifest of {self.label} holds a value without JSON form ({error}); values are finite numbers, "
                "text, lists and objects; leave out the point of a diverged run"
            ) from error

    @classmethod
    def from_json(cls, text: str, where: str = MANIFEST_NAME) -> "Manifest":
        """Read the text of a ``manifest.json``; ``where`` names it in messages.

        Raises:
            TruncatedError: The text is not complete JSON.
            FormatVersionError: It was written in a format that this version does not read.
            ManifestError: A field is missing, unknown or of the wrong type.
            UnsafePathError: A file name leads out of the directory.
        """
        members = Fields(_parsed(text, where), where)
        _check_format(members.take("format_version", read_int), where)
        manifest = cls(
            encoder=members.take("encoder", EncoderSpec.from_json),
            text=members.take("text", optional(TextSpec.from_json)),
            preprocessing=members.take("preprocessing", Preprocessing.from_json),
            objective=members.take("objective", read_text),
            mask=members.take("mask", read_object),
            realised_ratio=members.take("realised_ratio", read_float),
            seed=members.take("seed", read_int),
            step=members.take("step", read_int),
            samples_seen=members.take("samples_seen", read_int),
            unique_samples=members.take("unique_samples", read_int),
            tokens_seen=members.take("tokens_seen", read_int),
            flops=members.take("flops", optional(read_float)),
            device_seconds=members.take("device_seconds", read_float),
            data_hash=members.take("data_hash", read_text),
            val=members.take("val", sequence_of(ValPoint.from_json)),
            passport=members.take("passport", optional(Passport.from_json)),
            num_parameters=members.take("num_parameters", read_int),
            versions=members.take("versions", _read_versions),
            git_commit=members.take("git_commit", optional(read_text)),
            created=members.take("created", read_text),
            initial=members.take("initial", optional(read_text), default=None),
            objective_settings=members.take("objective_settings", optional(read_object), default=None),
            files=members.take("files", _read_files),
            origin=members.take("origin", optional(CoverageReport.from_json), default=None),
        )
        members.done()
        return manifest


def read_manifest(path: str | Path) -> Manifest:
    """Read the manifest of a checkpoint directory, or of the newest checkpoint of a run directory.

    Raises:
        CheckpointError: There is no checkpoint, or its manifest is truncated, of another format or malformed.
    """
    folder = resolve_checkpoint(path)
    file = folder / MANIFEST_NAME
    check_inside(folder, MANIFEST_NAME)
    if file.stat().st_size > _LARGEST_MANIFEST:
        raise ManifestError(
            f"{file} has {file.stat().st_size} bytes, a manifest at most {_LARGEST_MANIFEST}; "
            "do not use a checkpoint from this source"
        )
    try:
        text = file.read_bytes().decode()
    except UnicodeDecodeError as error:
        raise TruncatedError(f"{file} is not text ({error}); copy the checkpoint again") from error
    return Manifest.from_json(text, str(file))


def resolve_checkpoint(path: str | Path) -> Path:
    """Return the checkpoint directory that ``path`` means.

    Args:
        path: A checkpoint directory, or a run directory, which stands for the highest step in its ``checkpoints``.

    Raises:
        CheckpointNotFoundError: It is neither.
    """
    folder = Path(path)
    if not is_folder(folder):
        what = "is no folder" if is_there(folder) else "does not exist"
        raise CheckpointNotFoundError(f"{folder} {what}; {_GIVE}")
    if (folder / MANIFEST_NAME).is_file():
        return folder
    steps = {
        int(found.group(1)): candidate
        for candidate in folder.glob("checkpoints/step_*")
        if (found := re.fullmatch(r"step_(\d+)", candidate.name)) and (candidate / MANIFEST_NAME).is_file()
    }
    if steps:
        return steps[max(steps)]
    raise CheckpointNotFoundError(f"{folder} holds neither {MANIFEST_NAME} nor checkpoints/step_*; {_GIVE}")


def checkpoint_sha256(path: str | Path) -> str:
    """Return the SHA-256 of the manifest's bytes, which names the checkpoint, as every file's hash is in it.

    Raises:
        CheckpointNotFoundError: ``path`` is neither a checkpoint nor a run directory.
    """
    return hashlib.sha256((resolve_checkpoint(path) / MANIFEST_NAME).read_bytes()).hexdigest()


def _parsed(text: str, where: str) -> JSON:
    """JSON without the freedoms that let two readers see two things: keys given twice, NaN, bottomless nesting."""

    def once(members: list[tuple[str, JSON]]) -> dict[str, JSON]:
        unique = dict(members)
        if len(unique) < len(members):
            names = [name for name, _ in members]
            twice = sorted({name for name in names if names.count(name) > 1})
            raise ManifestError(f"{where} gives {twice} more than once; each field stands once; write it with `save`")
        return unique

    def refuse(constant: str) -> JSON:
        raise ManifestError(f"{where} holds {constant}, which is not JSON; numbers are finite; write it with `save`")

    try:
        return json.loads(text, object_pairs_hook=once, parse_constant=refuse)
    except json.JSONDecodeError as error:
        raise TruncatedError(
            f"{where} is not complete JSON ({error}); it was written whole; copy the checkpoint again"
        ) from error
    except RecursionError as error:
        raise ManifestError(f"{where} nests too deeply; a manifest has a few levels; write it with `save`") from error
    except ManifestError:
        raise
    except ValueError as error:  # an integer of thousands of digits
        raise ManifestError(f"{where} holds a number that cannot be read ({error}); write it with `save`") from error


def _check_format(version: int, where: str) -> None:
    if version > FORMAT_VERSION:
        raise FormatVersionError(
            f"{where} has format {version}, this unveil-backbones reads {FORMAT_VERSION}; "
            "upgrade unveil-backbones or export the checkpoint again"
        )
    if version < 1:
        raise FormatVersionError(f"{where} has format {version}; formats start at 1; copy the checkpoint again")


def _read_versions(value: JSON, where: str) -> dict[str, str]:
    return {name: read_text(version, f"{where}.{name}") for name, version in read_object(value, where).items()}


def _read_files(value: JSON, where: str) -> dict[str, str]:
    files = _read_versions(value, where)
    for name, digest in files.items():
        _check_file_name(name, where)
        if not re.fullmatch("[0-9a-f]{64}", digest):
            raise ManifestError(f"{where} gives {digest!r} for {name!r}; a SHA-256 has 64 hexadecimal digits")
    return files


def _check_file_name(name: str, where: str) -> None:
    """Refuse names that are absolute, climb, or mean different things on different systems."""
    parts = name.split("/")
    if (
        any(part in ("", ".", "..") for part in parts)
        or "\\" in name
        or ":" in name
        or PurePosixPath(name).is_absolute()
    ):
        raise UnsafePathError(
            f"{where} names the file {name!r}; names are relative, use '/', and stay inside the checkpoint; "
            "do not use a checkpoint from this source"
        )
