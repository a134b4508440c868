"""From what a user names to a source of samples: shards, a folder, or a zip file."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from fsspec.core import split_protocol
from unveil_backbones.places import is_folder

from unveil_pretrain.data.folder import FolderDataset, key_of_path
from unveil_pretrain.data.images import IMAGE_EXTENSIONS
from unveil_pretrain.data.lists import SampleList, read_list, samples_of_list
from unveil_pretrain.data.retrying import ReadPolicy
from unveil_pretrain.data.shards import ShardDataset
from unveil_pretrain.errors import DataError

__all__ = ["open_listed", "open_samples", "shards_of_folder"]

_POLICY: Final = ReadPolicy()


def open_samples(
    place: str, *, extensions: Sequence[str] = IMAGE_EXTENSIONS, policy: ReadPolicy = _POLICY
) -> ShardDataset | FolderDataset:
    """The samples that `place` names.

    Args:
        place: Shards (path or fsspec URL with braces, globs and `::`), a folder of .tar shards, a folder of images
            (class sub-folders or flat), or a .zip of one.
        extensions: Which files of a folder are samples: those of images, or of videos.
        policy: How long and how often to try to read.

    Raises:
        DataError: nothing is there, a folder holds both shards and images, or a shard is damaged.
        MissingExtraError: the package of a store is not installed.
    """
    path = Path(place)
    if place.endswith(".zip"):
        _check_on_this_machine(place, "a zip file")
        return FolderDataset(place, extensions=extensions, policy=policy)
    if not is_folder(path):
        return ShardDataset(place, policy)
    shards = shards_of_folder(path)
    if not shards:
        return FolderDataset(place, extensions=extensions, policy=policy)
    if any(entry.is_dir() and not entry.name.startswith(".") for entry in path.iterdir()):
        raise DataError(
            f"{place!r} holds .tar files and folders; name the shards ('{place.rstrip('/')}/*.tar') or the image folder"
        )
    return ShardDataset("::".join(shards), policy)


def open_listed(
    place: str,
    listed: Path | None,
    *,
    extensions: Sequence[str] = IMAGE_EXTENSIONS,
    policy: ReadPolicy = _POLICY,
) -> ShardDataset | FolderDataset:
    """The samples of `place` that a list names, or all of them.

    Args:
        place: As `open_samples` takes it; or a .txt file, a list of paths within the folder that it lies in.
        listed: A file of keys, as `pretrain subset` writes it, or of paths within `place`, one per line.
        extensions: Which files of a folder are samples.
        policy: How long and how often to try to read.

    Raises:
        DataError: as `open_samples`; or the list cannot be read, or names what is not there.
    """
    if place.endswith(".txt"):
        if listed is not None:
            raise DataError(f"{place!r} is a list already; give the folder of its images, or leave the other list out")
        _check_on_this_machine(place, "a list")
        place, listed = str(Path(place).absolute().parent), Path(place)
    samples = open_samples(place, extensions=extensions, policy=policy)
    if listed is None:
        return samples
    names = read_list(listed)
    # An entry with the suffix of an image is a path, whose key has none.
    keys = tuple(key_of_path(name) if name.rpartition(".")[2].lower() in extensions else name for name in names.keys)
    return samples_of_list(samples, SampleList(keys=keys), str(listed))


def shards_of_folder(folder: Path) -> list[str]:
    """The .tar files that lie directly in a folder, by name."""
    return sorted(str(entry) for entry in folder.glob("*.tar"))


def _check_on_this_machine(place: str, what: str) -> None:
    if split_protocol(place)[0] is not None:
        raise DataError(f"{place!r} is {what} in a store; copy it to this machine, or name tar shards in the store")
