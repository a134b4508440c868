"""The checkpoints of a run, checked before any work begins."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from unveil_evalharness.errors import CheckpointInputError, one_line

if TYPE_CHECKING:
    import unveil_backbones.checkpoint
    import unveil_backbones.manifest

__all__ = ["Subject", "find_subjects", "load_fresh"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Subject:
    """One checkpoint under evaluation."""

    path: Path
    sha256: str
    manifest: "unveil_backbones.manifest.Manifest"

    @property
    def short(self) -> str:
        """The first 12 digits of the hash, used in file names."""
        return self.sha256[:12]


def find_subjects(paths: Iterable[Path]) -> list[Subject]:
    """Resolves run folders to their last checkpoint and reads the manifests; a checkpoint given twice counts once.

    Raises:
        CheckpointInputError: a path is not a checkpoint, or its format is newer; names the path.
    """
    from unveil_backbones.manifest import checkpoint_sha256, read_manifest, resolve_checkpoint

    subjects: dict[str, Subject] = {}
    for path in paths:
        try:
            resolved = resolve_checkpoint(path)
            subject = Subject(path=resolved, sha256=checkpoint_sha256(resolved), manifest=read_manifest(resolved))
        except (ValueError, OSError) as error:
            raise _input_error(path, error) from error
        subjects.setdefault(subject.sha256, subject)
    return list(subjects.values())


def load_fresh(subject: Subject) -> "unveil_backbones.checkpoint.Checkpoint":
    """Loads and verifies the whole checkpoint; every task gets its own, because tasks train in place.

    Raises:
        CheckpointInputError: a file is truncated or altered, or the tensors are those of another architecture.
    """
    import unveil_backbones

    try:
        return unveil_backbones.load(subject.path)
    except (ValueError, OSError) as error:
        raise _input_error(subject.path, error) from error


def _input_error(path: Path, error: Exception) -> CheckpointInputError:
    text = one_line(error)
    return CheckpointInputError(f"--ckpt: {text}" if str(path) in text else f"--ckpt {path}: {text}")
