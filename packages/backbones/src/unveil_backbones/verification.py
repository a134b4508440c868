"""Check a whole checkpoint and say everything that is wrong with it, not only the first thing."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from unveil_backbones._files import check_file, hash_files
from unveil_backbones._json import JSON
from unveil_backbones._layout import is_sharded
from unveil_backbones.checkpoint import Checkpoint, load, restore_pair
from unveil_backbones.conversion.details import Details
from unveil_backbones.converting import OURS, ForeignFormat, is_ours, load_foreign
from unveil_backbones.errors import BackboneError, CheckpointNotFoundError
from unveil_backbones.manifest import MANIFEST_NAME, read_manifest, resolve_checkpoint
from unveil_backbones.tokenizer_json import tokenizer_from_json

__all__ = ["Verification", "verify"]


@dataclass(frozen=True, kw_only=True)
class Verification:
    """What was checked."""

    path: Path
    """The checkpoint."""
    format: str
    """``unveil``, or the format of a foreign file; ``unknown`` if it could not be read."""
    checks: tuple[str, ...]
    """What holds."""
    problems: tuple[str, ...]
    """What does not, each with what to do."""

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems

    def to_json(self) -> dict[str, JSON]:
        """Return plain JSON values."""
        return {
            "path": str(self.path),
            "format": self.format,
            "ok": self.ok,
            "checks": list(self.checks),
            "problems": list(self.problems),
        }

    def __str__(self) -> str:
        """Return one line per check and per problem."""
        lines = [f"ok       {check}" for check in self.checks] + [f"problem  {problem}" for problem in self.problems]
        return "\n".join([*lines, f"{self.path}: {'good' if self.ok else 'not good'}"])


class _Findings:
    """Collects what holds and what does not."""

    def __init__(self) -> None:
        self.checks: list[str] = []
        self.problems: list[str] = []

    @contextlib.contextmanager
    def check(self, what: str) -> Iterator[None]:
        """Note ``what`` as holding unless the block raises an error of this package."""
        try:
            yield
        except BackboneError as error:
            if str(error) not in self.problems:
                self.problems.append(str(error))
        else:
            self.checks.append(what)


def verify(path: str | Path, *, format: ForeignFormat | None = None, details: Details | None = None) -> Verification:
    """Check a checkpoint of ours entirely, train state included, or that a foreign file would convert.

    Of ours: the manifest's fields, every file's hash, files that nobody listed, names, shapes, types and finiteness of
    the weights, the text tower and the tokenizer.

    Args:
        path: A checkpoint or run directory, or a foreign file or folder.
        format: Format of a foreign file; found out if ``None``.
        details: What the caller knows about a foreign model.

    Raises:
        CheckpointNotFoundError: There is nothing of the kind.
    """
    findings = _Findings()
    if is_ours(path):
        folder = resolve_checkpoint(path)
        _check_ours(folder, findings)
        return _result(folder, OURS, findings)
    layout = "unknown"
    try:
        report = load_foreign(path, format=format, details=details).report
    except CheckpointNotFoundError:
        raise
    except BackboneError as error:
        findings.problems.append(str(error))
    else:
        layout = report.format
        findings.checks += [
            "readable without running code",
            "every weight finite",
            *(line.strip() for line in str(report).splitlines()),
        ]
    return _result(Path(path), layout, findings)


def _result(path: Path, layout: str, findings: _Findings) -> Verification:
    return Verification(path=path, format=layout, checks=tuple(findings.checks), problems=tuple(findings.problems))


def _check_ours(folder: Path, findings: _Findings) -> None:
    try:
        manifest = read_manifest(folder)
    except BackboneError as error:
        findings.problems.append(str(error))
        return
    findings.checks.append(f"{MANIFEST_NAME}: format {manifest.format_version}, every field of its type")
    for name, digest in manifest.files.items():
        with findings.check(f"{name}: sha256"):
            check_file(folder, name, digest)
    strangers = sorted(hash_files(folder).keys() - manifest.files.keys() - {MANIFEST_NAME})
    if strangers:
        findings.problems.append(f"{folder} holds files that its manifest does not list: {strangers}; remove them")
    if findings.problems or is_sharded(manifest):  # whose weights only the run that wrote them can put together
        return
    checkpoint: Checkpoint | None = None
    with findings.check("weights: names, shapes, types, all finite"):
        checkpoint = load(folder)
    if checkpoint is not None and manifest.text is not None:
        with findings.check("text tower and projections: names, shapes, types, all finite"):
            restore_pair(checkpoint)
    if checkpoint is not None and checkpoint.tokenizer_json is not None:
        with findings.check("tokenizer: readable"):
            tokenizer_from_json(checkpoint.tokenizer_json)
