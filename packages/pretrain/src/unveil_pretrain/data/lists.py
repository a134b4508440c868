"""Lists of samples: text files that say which samples a run uses, one key per line.

The first lines begin with `# ` and describe the list: what it was made from, by which rule, and two hashes. `list` is
over the keys and is checked when the list is read; `data` is the content hash of the samples it chose, which a run on
the same source records in its manifests.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeVar

from unveil_pretrain.data.samples import Samples, first_repeated
from unveil_pretrain.errors import DataError

__all__ = ["SampleList", "read_list", "samples_of_list"]

_TITLE: Final = "# list of samples 1"
_Source = TypeVar("_Source", bound=Samples)


@dataclass(frozen=True, kw_only=True, slots=True)
class SampleList:
    """Keys of samples in stored order, and what is known about them."""

    keys: tuple[str, ...]
    """One or more keys, no two equal."""
    about: Mapping[str, str] = field(default_factory=dict)
    """What else the head of the file says, by name."""

    @property
    def hash(self) -> str:
        """64 hex digits over the keys in order."""
        return hashlib.sha256("".join(f"{key}\n" for key in self.keys).encode()).hexdigest()

    def text(self) -> str:
        """The file.

        Raises:
            DataError: a key cannot stand on a line of its own.
        """
        for key in self.keys:
            if not key.strip() or key != key.strip() or key.startswith("#") or len(key.splitlines()) != 1:
                raise DataError(f"the key {key!r} cannot be written as a line of a list; rename the sample")
        about = {**self.about, "list": self.hash}
        return "\n".join([_TITLE, *(f"# {name}: {value}" for name, value in about.items()), *self.keys, ""])


def read_list(path: Path) -> SampleList:
    """The list in a file; one without a head is taken as it is.

    Raises:
        DataError: it cannot be read, is empty, names a key twice, or is not what its `list` hash was made for.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"the list {str(path)!r} cannot be read ({error}); give a text file of one key per line"
        ) from error
    heads = [line.removeprefix("# ").partition(": ") for line in lines if line.startswith("#")]
    about = {name: value for name, separator, value in heads if separator}
    keys = tuple(line.rstrip("\r") for line in lines if line.strip() and not line.startswith("#"))
    if not keys:
        raise DataError(f"the list {str(path)!r} names no sample; `pretrain subset` writes lists")
    repeated = first_repeated(keys)
    if repeated is not None:
        raise DataError(f"the list {str(path)!r} names {repeated!r} twice; remove one of the lines")
    stated = about.pop("list", None)
    listed = SampleList(keys=keys, about=about)
    if stated is not None and stated != listed.hash:
        raise DataError(
            f"the list {str(path)!r} has changed since it was written (its keys hash to {listed.hash[:12]}, its head "
            f"says {stated[:12]}); restore it, or remove the line '# list: ...' if the change is meant"
        )
    return listed


def samples_of_list(samples: _Source, listed: SampleList, name: str) -> _Source:
    """The samples whose keys the list names, in stored order, whatever the order of the list.

    Args:
        samples: The source that the list is about.
        listed: The list.
        name: The list's file, for messages.

    Raises:
        DataError: a key of the list is not there, or belongs to several samples.
    """
    wanted = set(listed.keys)
    indices = [index for index, key in enumerate(samples.keys) if key in wanted]
    missing = wanted.difference(samples.keys[index] for index in indices)
    if missing:
        raise DataError(
            f"{len(missing)} of {len(wanted)} keys of the list {name!r} are not in the data, for example "
            f"{min(missing)!r} (the data has {samples.keys[0]!r} and others); give the data that the list was made from"
        )
    if len(indices) != len(wanted):
        repeated = first_repeated([samples.keys[index] for index in indices])
        raise DataError(f"{repeated!r} of the list {name!r} is the key of several samples; write the shards again")
    return samples.select(indices)
