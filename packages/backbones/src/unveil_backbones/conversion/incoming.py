"""From a foreign file to a model of ours, with a report of what was used of it."""

import time
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

from torch import Tensor

from unveil_backbones._files import file_sha256
from unveil_backbones._json import JSON
from unveil_backbones.base import Encoder
from unveil_backbones.checkpoint import save
from unveil_backbones.conversion.configs import Configs
from unveil_backbones.conversion.details import Details
from unveil_backbones.conversion.layouts import LAYOUTS, detect
from unveil_backbones.conversion.ledger import Ledger, fill_linked, joined
from unveil_backbones.conversion.reading import read_tensors
from unveil_backbones.conversion.sources import find_source
from unveil_backbones.coverage import CoverageReport
from unveil_backbones.errors import ConfigError, ConvertError, ImageSizeError, ManifestError
from unveil_backbones.manifest import Manifest
from unveil_backbones.pair import ImageTextPair
from unveil_backbones.specs import Preprocessing

__all__ = ["Incoming", "read_foreign", "save_foreign"]

_UNKNOWN = (
    "mask",
    "realised_ratio",
    "seed",
    "step",
    "samples_seen",
    "unique_samples",
    "tokens_seen",
    "device_seconds",
    "data_hash",
)
"""Fields of a manifest that no foreign file tells."""


@dataclass(frozen=True, kw_only=True)
class Incoming:
    """A model read from a foreign file."""

    model: Encoder | ImageTextPair
    """With the file's weights, in evaluation mode."""
    objective: str
    """What it was trained for, or ``unknown``."""
    preprocessing: Preprocessing
    """What its input looks like."""
    tokenizer_json: str | None
    """The tokenizer of a pair, if its vocabulary is known."""
    report: CoverageReport
    """What was used of the file, and why the rest was not."""
    heads: dict[str, Tensor] = field(default_factory=dict)
    """Tensors of its objective (a decoder), by the names that checkpoints have for them."""
    settings: dict[str, JSON] | None = None
    """Settings of the objective, where its tensors are known."""

    @property
    def encoder(self) -> Encoder:
        """The image encoder."""
        return self.model.encoder if isinstance(self.model, ImageTextPair) else self.model


def read_foreign(path: Path, layout: str | None, details: Details, configs: Configs | None = None) -> Incoming:
    """Read a foreign file or folder.

    Args:
        path: The file, or a folder as timm, open_clip and transformers write it.
        layout: Name of its format; found out if ``None``.
        details: What the caller knows about the model.
        configs: Configuration files that the caller knows, in the place of those beside the weights.

    Raises:
        ConvertError: The format is unknown, a detail has to be given, or tensors are not covered.
        CheckpointError: One of its kinds: the file is absent, truncated, unsafe, or holds weights of other shapes.
        TokenizerError: The pair's tokenizer needs an extra that is not installed.
    """
    source = find_source(path)
    known = source.configs if configs is None else configs
    tensors, entry = read_tensors(source.weights)
    where = str(source.weights) if entry is None else f"{source.weights} ({entry})"
    name = detect(tensors, known, where) if layout is None else layout
    if name not in LAYOUTS:
        raise ConvertError(f"format {name!r} is unknown; there are {', '.join(LAYOUTS)}; choose one of them")
    ledger = Ledger(tensors, where)
    try:
        found = LAYOUTS[name].read(ledger, details, known)
    except (ConfigError, ImageSizeError, ManifestError) as error:
        # What shapes and configuration describe is no model; they came with the file.
        reason = str(error).removesuffix("; write it with `save`")
        raise ConvertError(f"{where}: {reason}; give the details it really has, or take another file") from error
    except (ArithmeticError, RuntimeError) as error:  # no heads, negative sides
        raise ConvertError(
            f"{where}: its shapes and configuration make no model ({error}); give the details it really has"
        ) from error
    heads = joined(found.heads, ledger)
    fill_linked(found.model, found.links, ledger)
    report = CoverageReport(
        format=name,
        source=source.weights.name,
        source_sha256=file_sha256(source.weights),
        num_used=ledger.num_used,
        num_filled=len(found.links),
        dropped=ledger.dropped,
        assumed=found.assumed,
        unknown=(*_UNKNOWN, *(("objective",) if found.objective == "unknown" else ())),
    )
    return Incoming(
        model=found.model.eval(),
        objective=found.objective,
        preprocessing=found.preprocessing,
        tokenizer_json=found.tokenizer_json,
        report=report,
        heads=heads,
        settings=found.settings,
    )


def save_foreign(incoming: Incoming, out: Path, *, created: str | None = None) -> Path:
    """Write a model that was read from a foreign file as a checkpoint of ours.

    Args:
        incoming: The model.
        out: The folder to make.
        created: Time that the manifest gives; now if ``None``. Equal files give equal checkpoints if it is fixed.

    Raises:
        CheckpointExistsError: ``out`` exists.
        CheckpointWriteError: The file system refused.
    """
    pair = incoming.model if isinstance(incoming.model, ImageTextPair) else None
    encoder = incoming.encoder
    manifest = Manifest(
        encoder=encoder.spec,
        text=None if pair is None else pair.text.spec,
        preprocessing=incoming.preprocessing,
        objective=incoming.objective,
        mask={},
        realised_ratio=0.0,
        seed=0,
        step=0,
        samples_seen=0,
        unique_samples=0,
        tokens_seen=0,
        device_seconds=0.0,
        data_hash="",
        num_parameters=encoder.num_parameters,
        versions={name: version(name) for name in ("unveil-backbones", "torch", "timm")},
        created=time.strftime("%Y-%m-%dT%H:%M:%S%z") if created is None else created,
        origin=incoming.report,
        objective_settings=incoming.settings,
    )
    return save(
        out,
        encoder=encoder,
        manifest=manifest,
        heads={**incoming.heads, **({} if pair is None else pair.heads_state())},
        tokenizer_json=incoming.tokenizer_json,
    )
