"""A foreign checkpoint becomes a checkpoint folder under OUT/foreign, once; equal files become equal checkpoints."""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from unveil_evalharness.console import say
from unveil_evalharness.errors import ForeignCheckpointError, OutputError, one_line
from unveil_evalharness.foreign.arguments import parse_details
from unveil_evalharness.foreign.models import Known, know, random_weights
from unveil_evalharness.foreign.reference import FORMATS, ForeignFormat, Reference, parse_reference

if TYPE_CHECKING:
    from unveil_backbones.conversion.details import Details

__all__ = ["ForeignOptions", "convert_foreign"]

_CREATED = "1970-01-01T00:00:00+00:00"
"""Nobody knows when the weights were made; a fixed time lets equal files have equal hashes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ForeignOptions:
    """How checkpoints of other programs are read."""

    folder: Path
    """Where converted ones are kept."""
    format: ForeignFormat | None = None
    """Format of files; found out if None."""
    model_args: str = ""
    """Details that files do not tell; see `parse_details`."""
    allow_download: bool = False
    """Whether timm and open_clip may download weights into their own caches."""


def convert_foreign(text: str, options: ForeignOptions) -> Path:
    """The checkpoint folder of a foreign model, converted now or earlier; says on stderr what was used of its file.

    Raises:
        ForeignCheckpointError: there is no such model, its weights are not on this machine, or its file is not one of
            the format: tensors missing, left over or of another shape, by name.
        UsageError: `options.model_args` cannot be read.
        DependencyError: a program is needed that is not installed.
        OutputError: the folder cannot be written.
    """
    reference, details = parse_reference(text), parse_details(options.model_args)
    known = _known(reference, options, details)
    if reference.random:
        with _fresh_file(reference) as weights:
            return _kept(reference, weights, known, options.folder)
    weights = reference.weights or known.cached
    if weights is None:
        raise ForeignCheckpointError(_not_here(reference))
    return _kept(reference, weights, known, options.folder)


def _known(reference: Reference, options: ForeignOptions, details: "Details") -> Known:
    if reference.program != "file":
        return know(reference, details, allow_download=options.allow_download)
    layout = options.format or ""
    return Known(format=FORMATS.get(layout, layout), details=details, configs=None, cached=None)


@contextmanager
def _fresh_file(reference: Reference) -> Iterator[Path]:
    from unveil_backbones.checkpoint import write_tensors

    with TemporaryDirectory() as folder:
        file = Path(folder) / f"{reference.model}@random.safetensors"
        write_tensors(file, random_weights(reference))
        yield file


def _kept(reference: Reference, weights: Path, known: Known, folder: Path) -> Path:
    """Converts into a folder whose name holds a hash over the file and everything that the conversion depends on."""
    from unveil_backbones.conversion.incoming import save_foreign
    from unveil_backbones.converting import load_foreign
    from unveil_backbones.errors import BackboneError, CheckpointExistsError
    from unveil_backbones.manifest import MANIFEST_NAME

    try:
        digest = _digest(weights, known)
    except (BackboneError, OSError) as error:
        raise ForeignCheckpointError(f"--ckpt {reference.text}: {one_line(error)}") from error
    out = folder / f"{_name(reference, weights)}-{digest}"
    if (out / MANIFEST_NAME).is_file():
        return out
    try:
        incoming = load_foreign(weights, format=_layout(known), details=known.details, configs=known.configs)
        folder.mkdir(parents=True, exist_ok=True)
        save_foreign(incoming, out, created=_CREATED)
    except CheckpointExistsError:
        return out  # another process was faster
    except BackboneError as error:
        raise ForeignCheckpointError(f"--ckpt {reference.text}: {one_line(error)}") from error
    except OSError as error:
        raise OutputError(f"cannot write {folder}: {error.strerror or error}; choose another --output-path") from error
    say(f"--ckpt {reference.text}: {incoming.report}\n  kept as {out}")
    return out


def _layout(known: Known) -> Any:
    return known.format or None


def _name(reference: Reference, weights: Path) -> str:
    name = reference.model or weights.stem
    mark = f"-{reference.tag}" if reference.tag else "-random" if reference.random else ""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", name + mark)[:60]


def _digest(weights: Path, known: Known) -> str:
    from importlib.metadata import version

    from unveil_backbones.conversion.sources import find_source

    source = find_source(weights)
    with source.weights.open("rb") as stream:
        content = hashlib.file_digest(stream, "sha256").hexdigest()
    rest: Mapping[str, object] = {
        "format": known.format,
        "details": asdict(known.details),
        "configs": known.configs if known.configs is not None else source.configs,
        "converter": version("unveil-backbones"),
    }
    text = f"{content}{json.dumps(rest, sort_keys=True)}"
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _not_here(reference: Reference) -> str:
    if reference.program == "open_clip" and not reference.tag:
        return (
            f"--ckpt {reference.text} names no weights; write open_clip:{reference.model}/TAG, "
            f"open_clip:{reference.model}=FILE or open_clip:{reference.model}@random"
        )
    program = reference.program
    return (
        f"--ckpt {reference.text}: its weights are not on this machine; write {program}:{reference.model}=FILE, put "
        f"them into {program}'s cache, let {program} download them with --allow-download, or take fresh ones: "
        f"{program}:{reference.model}@random"
    )
