"""`pretrain subset DATA --fractions ... --out DIR`: nested, class-balanced lists of samples."""

import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import tyro
from unveil_backbones.places import is_there
from unveil_backbones.whole_files import alone, write_whole

from unveil_pretrain.commands.parsing import parse
from unveil_pretrain.data.balance import balance_of, balanced_subsets, exact_fraction
from unveil_pretrain.data.folder import FolderDataset
from unveil_pretrain.data.leaks import Leak, find_leaks, leaks_to_text
from unveil_pretrain.data.lists import SampleList
from unveil_pretrain.data.near_duplicates import DEFAULT_DISTANCE
from unveil_pretrain.data.opening import open_samples
from unveil_pretrain.data.samples import first_repeated
from unveil_pretrain.data.shards import ShardDataset
from unveil_pretrain.errors import ConfigError, DataError, OutputError

__all__ = ["SubsetCommand", "run"]


@dataclass(frozen=True, kw_only=True, slots=True)
class SubsetCommand:
    """Write a list of samples for each fraction, for --train-list; each list is part of every larger one."""

    data: tyro.conf.Positional[str]
    """Shards, a folder of shards or of images, or a .zip of one."""
    out: Path
    """Folder of the lists: S10.txt for a tenth, and so on."""
    fractions: tuple[str, ...]
    """Shares of the data, above 0 and at most 1."""
    seed: int = 0
    """Draws which samples come first."""
    check_leak: str | None = None
    """Validation data: training images that are near-duplicates of one of its images are listed in leaks.tsv."""
    leak_distance: int = DEFAULT_DISTANCE
    """Bits of 64 in which the perceptual hashes of near-duplicates differ at most."""
    exclude_leaks: bool = False
    """Leave those training images out of all lists."""
    num_workers: int = 0
    """Threads that decode images for --check-leak; 0 for none besides the main one."""

    def __post_init__(self) -> None:
        if self.exclude_leaks and self.check_leak is None:
            raise ConfigError("exclude_leaks needs to know of what: give --check-leak VALDATA")
        if self.seed < 0 or self.num_workers < 0:
            raise ConfigError(f"seed={self.seed}, num_workers={self.num_workers}; give numbers that are not negative")


def run(given: Sequence[str]) -> int:
    """Write the lists, and print how they are balanced and that they are nested."""
    command = parse(SubsetCommand, given, prog="pretrain subset")
    fractions = sorted({exact_fraction(written) for written in command.fractions})
    samples = open_samples(command.data)
    repeated = first_repeated(samples.keys)
    if repeated is not None:
        raise DataError(
            f"{command.data}: the key {repeated!r} occurs more than once, a list could not tell which is meant"
        )
    if is_there(command.out) and (not command.out.is_dir() or any(command.out.iterdir())):
        raise OutputError(f"{command.out} is not empty; give a new or an empty --out")
    about = {"seed": str(command.seed), "source": f"{samples.content_hash} ({len(samples)} samples)"}
    with _whole_folder(command.out.absolute()) as folder:
        if command.check_leak is not None:
            leaks = _report_leaks(samples, command, command.check_leak, folder)
            leaking = {leak.train for leak in leaks}
            about["leaks"] = f"{len(leaking)} {'left out' if command.exclude_leaks else 'kept'}"
            if command.exclude_leaks:
                samples = samples.select([index for index, key in enumerate(samples.keys) if key not in leaking])
        _write_lists(command, samples, fractions, about, folder)
    return 0


@contextmanager
def _whole_folder(out: Path) -> Iterator[Path]:
    """A folder to write into that takes the place of `out`, which is absent or empty, once all of it is written.

    Raises:
        OutputError: another process writes the same folder, or it cannot be written.
    """
    unfinished = out.with_name(f".{out.name}.unfinished")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with alone(out.with_name(f".{out.name}.lock")) as mine:
            if not mine:
                raise OutputError(f"another `pretrain subset` is writing {out}; wait for it, or give another --out")
            if unfinished.exists():  # of a process that was killed
                shutil.rmtree(unfinished)
            unfinished.mkdir()
            try:
                yield unfinished
                unfinished.rename(out)
            finally:
                shutil.rmtree(unfinished, ignore_errors=True)  # nothing is there once it is renamed
    except OSError as error:
        raise OutputError(
            f"{out} cannot be written ({error.strerror or error}); free some space or give another --out, and repeat "
            "the command"
        ) from error


def _report_leaks(
    samples: ShardDataset | FolderDataset, command: SubsetCommand, val_data: str, folder: Path
) -> list[Leak]:
    leaks, unreadable = find_leaks(
        samples,
        open_samples(val_data),
        max_distance=command.leak_distance,
        num_workers=command.num_workers,
        tell=lambda line: print(line, file=sys.stderr, flush=True),
    )
    write_whole(folder / "leaks.tsv", leaks_to_text(leaks))
    for line in unreadable:
        print(f"not compared: {line}")
    print(
        f"leaks: {len({leak.train for leak in leaks}):,} training images are within {command.leak_distance} bits of "
        f"{len({leak.val for leak in leaks}):,} validation images, "
        f"{'left out' if command.exclude_leaks else 'kept'}; {len(unreadable):,} images could not be compared; "
        f"pairs and distances in {command.out / 'leaks.tsv'}"
    )
    return leaks


def _write_lists(
    command: SubsetCommand,
    samples: ShardDataset | FolderDataset,
    fractions: Sequence[Fraction],
    about: dict[str, str],
    folder: Path,
) -> None:
    labels = _labels(samples)
    subsets = balanced_subsets(labels, samples.sample_ids, fractions, seed=command.seed)
    smaller: set[int] = set()
    before = ""
    for fraction, subset in zip(fractions, subsets, strict=True):
        chosen = samples.select(subset)
        balance = balance_of(labels, subset, fraction)
        text = (
            f"{len(subset)} of {len(samples)} samples, {balance.fewest} to {balance.most} of each of "
            f"{balance.num_classes - balance.num_absent} of {balance.num_classes} classes, "
            f"at most {float(balance.largest_deviation):.3f} from the exact share"
        )
        head = {"fraction": str(float(fraction)), **about, "balance": text, "data": chosen.content_hash}
        listed = SampleList(keys=chosen.keys, about=head)
        path = command.out / f"S{float(fraction * 100):g}.txt"
        write_whole(folder / path.name, listed.text())
        print(f"{path}: {text}; list {listed.hash[:16]}, data {chosen.content_hash[:16]}")
        if before:
            outside = len(smaller - set(subset))
            print(f"  {before} lies in {path.name}: {outside} of its {len(smaller)} samples are outside")
        smaller, before = set(subset), path.name


def _labels(samples: ShardDataset | FolderDataset) -> list[str]:
    """The class of each sample, or one for all where none is named; DataError where only some are."""
    labels = [samples.label(index) for index in range(len(samples))]
    named = [label for label in labels if label is not None]
    if not named:
        return [""] * len(labels)
    if len(named) < len(labels):
        without = labels.index(None)
        raise DataError(
            f"{samples.where(without)} has no class, {len(named)} of {len(labels)} samples have one; "
            "give all of them one (a sub-folder, a .cls file), or none"
        )
    return named
