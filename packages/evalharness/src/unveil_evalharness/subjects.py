"""The checkpoints of a run, checked before any work begins; those of other programs are converted first."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from unveil_backbones.places import is_file

from unveil_evalharness.errors import CheckpointInputError, HarnessError, one_line

if TYPE_CHECKING:
    import unveil_backbones.checkpoint
    import unveil_backbones.manifest

    from unveil_evalharness.foreign.convert import ForeignOptions

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


def find_subjects(paths: Iterable[Path], foreign: "ForeignOptions | None" = None) -> list[Subject]:
    """Resolves run folders to their last checkpoint and reads the manifests; a checkpoint given twice counts once.

    Args:
        paths: checkpoint and run folders, and, with `foreign`, what `parse_reference` reads.
        foreign: how checkpoints of other programs are converted; None refuses them.

    Raises:
        CheckpointInputError: a path is not a checkpoint, or its format is newer; names the path.
        HarnessError: as `convert_foreign`.
    """
    from unveil_backbones.manifest import checkpoint_sha256, read_manifest, resolve_checkpoint

    subjects: dict[str, Subject] = {}
    for path in paths:
        try:
            resolved = resolve_checkpoint(_ours(path, foreign))
            subject = Subject(path=resolved, sha256=checkpoint_sha256(resolved), manifest=read_manifest(resolved))
        except HarnessError:
            raise
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


def _ours(path: Path, foreign: "ForeignOptions | None") -> Path:
    """A folder of ours as it is; anything else that is there, or that a program is asked for, converted."""
    named = str(path).startswith(("timm:", "open_clip:"))
    if foreign is None or not (named or is_file(path) or _holds_foreign(path)):
        return path
    from unveil_evalharness.foreign.convert import convert_foreign

    return convert_foreign(str(path), foreign)


def _holds_foreign(folder: Path) -> bool:
    """Whether a folder without a manifest or a run holds weights, as timm, open_clip and transformers write them."""
    if (folder / "manifest.json").exists() or (folder / "checkpoints").exists():
        return False
    return any(folder.glob("*.safetensors")) or any(folder.glob("*.bin"))


def _input_error(path: Path, error: Exception) -> CheckpointInputError:
    text = one_line(error)
    return CheckpointInputError(f"--ckpt: {text}" if str(path) in text else f"--ckpt {path}: {text}")
