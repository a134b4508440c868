"""What a checkpoint is, whoever made it, as text for people and as JSON for programs.

(The module is not called ``inspect``: a module of a function's name would take the function's place in the package.)
"""

from dataclasses import dataclass
from pathlib import Path

from unveil_backbones._json import JSON
from unveil_backbones.conversion.layouts import detect
from unveil_backbones.conversion.reading import read_tensors
from unveil_backbones.conversion.sources import find_source
from unveil_backbones.converting import OURS, is_ours, load_foreign
from unveil_backbones.errors import BackboneError, ConvertError
from unveil_backbones.manifest import Manifest, checkpoint_sha256, read_manifest, resolve_checkpoint
from unveil_backbones.pair import ImageTextPair

__all__ = ["Inspection", "inspect"]


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """What was found."""

    path: Path
    """The checkpoint directory or the file of weights."""
    format: str
    """``unveil``, one of the foreign formats, or ``unknown``."""
    facts: dict[str, JSON]
    """What is known, by name; values are plain JSON."""

    def to_json(self) -> dict[str, JSON]:
        """Return plain JSON values."""
        return {"path": str(self.path), "format": self.format, **self.facts}

    def __str__(self) -> str:
        """Return one line per fact."""
        pairs = self.to_json().items()
        width = max(len(name) for name, _ in pairs)
        return "\n".join(f"{name:{width}s}  {_shown(value)}" for name, value in pairs)


def inspect(path: str | Path) -> Inspection:
    """Say what a checkpoint is: one of ours, a run directory's newest, or a foreign file or folder.

    Of ours the manifest is read and nothing verified (see ``verify``); what nobody knows is ``None``. A foreign file is
    read as a conversion would read it, and what is missing for one is said under ``problem``.

    Args:
        path: The directory or file.

    Raises:
        CheckpointNotFoundError: There is nothing of the kind.
        CheckpointError: The manifest is damaged, or the foreign file is truncated or unsafe.
    """
    if is_ours(path):
        folder = resolve_checkpoint(path)
        return Inspection(path=folder, format=OURS, facts=_ours(folder, read_manifest(folder)))
    source = find_source(Path(path))
    tensors, entry = read_tensors(source.weights)
    facts: dict[str, JSON] = {
        "entry": entry,
        "bytes": source.weights.stat().st_size,
        "num_tensors": len(tensors),
        "num_numbers": sum(tensor.numel() for tensor in tensors.values()),
        "types": sorted({str(tensor.dtype).removeprefix("torch.") for tensor in tensors.values()}),
    }
    try:
        layout = detect(tensors, source.configs, str(source.weights))
    except ConvertError as error:
        return Inspection(path=source.weights, format="unknown", facts={**facts, "problem": str(error)})
    return Inspection(path=source.weights, format=layout, facts={**facts, **_foreign(Path(path))})


def _foreign(path: Path) -> dict[str, JSON]:
    """What a conversion would make of the file, or why it would not."""
    try:
        incoming = load_foreign(path)
    except BackboneError as error:
        return {"problem": str(error)}
    report, model = incoming.report, incoming.model
    return {
        "encoder": incoming.encoder.spec.name,
        "encoder_config": incoming.encoder.spec.config,
        "num_parameters": incoming.encoder.num_parameters,
        "text": model.text.spec.name if isinstance(model, ImageTextPair) else None,
        "objective": incoming.objective,
        "preprocessing": incoming.preprocessing.to_json(),
        "sha256": report.source_sha256,
        "tensors_used": report.num_used,
        "tensors_dropped": {reason: len(names) for reason, names in report.dropped.items()},
        "assumed": dict(report.assumed),
    }


def _ours(folder: Path, manifest: Manifest) -> dict[str, JSON]:
    last = manifest.val[-1] if manifest.val else None
    origin = manifest.origin
    facts: dict[str, JSON] = {
        "label": manifest.label,
        "sha256": checkpoint_sha256(folder),
        "format_version": manifest.format_version,
        "encoder": manifest.encoder.name,
        "encoder_config": manifest.encoder.config,
        "num_parameters": manifest.num_parameters,
        "text": None if manifest.text is None else manifest.text.name,
        "objective": manifest.objective,
        "mask": manifest.mask,
        "realised_ratio": manifest.realised_ratio,
        "preprocessing": manifest.preprocessing.to_json(),
        "step": manifest.step,
        "samples_seen": manifest.samples_seen,
        "unique_samples": manifest.unique_samples,
        "tokens_seen": manifest.tokens_seen,
        "flops": manifest.flops,
        "device_seconds": manifest.device_seconds,
        "seed": manifest.seed,
        "data_hash": manifest.data_hash,
        "validation": None if last is None else last.to_json(),
        "passport": None if manifest.passport is None else manifest.passport.hash,
        "versions": dict(manifest.versions),
        "git_commit": manifest.git_commit,
        "created": manifest.created,
        "files": sorted(manifest.files),
        "origin": None if origin is None else origin.to_json(),
    }
    unknown = () if origin is None else origin.unknown
    return {name: None if name in unknown else value for name, value in facts.items()}


def _shown(value: JSON) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name}={_shown(item)}" for name, item in value.items()) or "none"
    if isinstance(value, list):
        return " ".join(_shown(item) for item in value) or "none"
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "-"}[value]
    return f"{value:,}" if isinstance(value, int) and abs(value) >= 10_000 else str(value)
