"""Shards from an image folder: cut by a rule, written side by side, continued after a kill, checked at the end.

Which samples a shard holds depends on the source and the settings alone, so that work can stop and go on anywhere: a
shard is finished when its record is there and its bytes hash to what the record says, and is written again otherwise.
"""

import json
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import numpy as np
from unveil_backbones.limits import parse_json
from unveil_backbones.whole_files import alone, remove_unfinished, write_whole

from unveil_pretrain.data.caption_files import read_caption_file
from unveil_pretrain.data.folder import FolderDataset
from unveil_pretrain.data.opening import open_samples
from unveil_pretrain.data.samples import first_repeated
from unveil_pretrain.data.shard_index import (
    INDEX_NAME,
    ShardIndex,
    ShardRecord,
    index_from_json,
    index_to_json,
    record_from_json,
)
from unveil_pretrain.data.shard_writer import Writing, sha256_of, write_shard
from unveil_pretrain.data.shards import ShardDataset
from unveil_pretrain.data.streams import SHARD_STREAM, words
from unveil_pretrain.errors import ConfigError, DataError, OutputError

__all__ = ["ShardsConfig", "build_shards"]

_PLAN: Final = ".plan.json"
_PARTS: Final = ".parts"


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardsConfig:
    """Build webdataset shards from images. The same command again continues where a kill stopped it."""

    source: str
    """A folder of images (class sub-folders or flat), a .zip of one, or shards to be cut or encoded anew."""
    out: Path
    """Folder of the shards: <name>-00000.tar, ... and index.json."""
    name: str = "train"
    """First part of the shards' names."""
    samples_per_shard: int = 1000
    """Samples in every shard but the last."""
    captions: Path | None = None
    """Captions by image: a .json as COCO has them, or a text of lines `image,caption`."""
    max_side: int = 0
    """Make images with a longer side smaller, as JPEG; 0 copies every image as it is."""
    quality: int = 95
    """Of those JPEG files."""
    check_images: bool = True
    """Decode every image before it is written."""
    max_bad_samples: int = 0
    """Broken images that are left out, and named in index.json; one more ends the command."""
    seed: int = 0
    """Seed of the order of the samples over all shards."""
    num_workers: int = 0
    """Threads that write shards; 0 writes one after the other."""

    def __post_init__(self) -> None:
        if self.samples_per_shard < 1 or min(self.max_side, self.max_bad_samples, self.num_workers, self.seed) < 0:
            raise ConfigError(
                f"samples_per_shard={self.samples_per_shard}, max_side={self.max_side}, max_bad_samples="
                f"{self.max_bad_samples}, num_workers={self.num_workers}, seed={self.seed}; give at least one sample "
                "per shard, and no negative number"
            )
        if not 1 <= self.quality <= 100:
            raise ConfigError(f"quality is {self.quality}; give 1 to 100")
        if not self.name or "/" in self.name or self.name.startswith("."):
            raise ConfigError(f"name is {self.name!r}; give the beginning of a file name, such as train")


def build_shards(config: ShardsConfig, log: Callable[[str], None] = lambda line: None) -> ShardIndex:
    """Write the shards that are not there yet, check all, and write index.json.

    Raises:
        DataError: the source cannot be used, or has more broken images than allowed.
        OutputError: the folder holds shards of another source or other settings, or came out wrong.
    """
    samples = open_samples(config.source)
    repeated = first_repeated(samples.keys)
    if repeated is not None:
        raise DataError(f"{config.source}: the key {repeated!r} occurs more than once; rename one of the samples")
    captions = {} if config.captions is None else _captions(config.captions, samples)
    if captions:
        samples = samples.select([index for index, key in enumerate(samples.keys) if key in captions])
    try:
        config.out.mkdir(parents=True, exist_ok=True)
        with alone(config.out / ".lock") as mine:
            if not mine:
                raise OutputError(
                    f"another `pretrain shards` is writing {config.out}; wait for it, or give another --out"
                )
            return _build(config, samples, captions, log)
    except OSError as error:
        raise OutputError(
            f"{config.out} cannot be written ({error.strerror or error}); finished shards are kept: free some space "
            "and repeat the command, or give another --out"
        ) from error


def _build(
    config: ShardsConfig,
    samples: ShardDataset | FolderDataset,
    captions: Mapping[str, list[str]],
    log: Callable[[str], None],
) -> ShardIndex:
    """All shards and their index, in a folder that no other process writes."""
    _claim(config.out, _settings(config, samples, captions))
    log(f"{len(samples):,} samples of {config.source} into {-(-len(samples) // config.samples_per_shard)} shards")
    classes = _classes(samples)
    writing = Writing(
        max_side=config.max_side,
        quality=config.quality,
        check_images=config.check_images,
        class_numbers={name: number for number, name in enumerate(classes)},
        captions=captions,
    )
    records = _write_all(config, samples, writing, log)
    return _finish(config, samples, captions, classes, records)


def _write_all(
    config: ShardsConfig, samples: ShardDataset | FolderDataset, writing: Writing, log: Callable[[str], None]
) -> list[ShardRecord]:
    order = np.argsort(words(config.seed, 0, samples.sample_ids, SHARD_STREAM), kind="stable")
    starts = range(0, len(order), config.samples_per_shard)
    known = _known_records(config.out)

    def one(number: int) -> ShardRecord:
        path = config.out / f"{config.name}-{number:05d}.tar"
        record = known.get(path.name)
        if record is not None and path.is_file() and sha256_of(path) == record.sha256:
            log(f"{path.name}: finished before, its hash is right")
            return record
        chosen = order[starts[number] : starts[number] + config.samples_per_shard]
        record = write_shard(path, samples.select(chosen.tolist()), writing)
        write_whole(config.out / _PARTS / f"{path.name}.json", json.dumps(asdict(record)))
        log(f"{path.name}: {record.num_samples:,} samples, {record.num_bytes / 1e6:.1f} MB")
        return record

    records: list[ShardRecord] = []
    num_bad = 0
    with ThreadPoolExecutor(max(1, config.num_workers)) as pool:
        futures = [pool.submit(one, number) for number in range(len(starts))]
        try:
            for future in futures:
                records.append(future.result())
                num_bad += len(records[-1].left_out)
                if num_bad > config.max_bad_samples:
                    raise DataError(
                        f"{num_bad} broken images so far, {config.max_bad_samples} are allowed; "
                        f"{records[-1].left_out[-1]}; or give a larger --max-bad-samples"
                    )
        finally:
            for future in futures:
                future.cancel()
    return records


def _finish(
    config: ShardsConfig,
    samples: ShardDataset | FolderDataset,
    captions: Mapping[str, list[str]],
    classes: tuple[str, ...],
    records: list[ShardRecord],
) -> ShardIndex:
    """Read the shards as training does, compare with what was meant, and write index.json."""
    written = ShardDataset("::".join(str(config.out / record.name) for record in records))
    meant = sum(record.num_samples for record in records)
    num_bad = sum(len(record.left_out) for record in records)
    if len(written) != meant or meant + num_bad != len(samples) or not set(written.keys) <= set(samples.keys):
        raise OutputError(
            f"{config.out}: {len(written)} samples are in the shards, {meant} were written; remove them and start again"
        )
    index = ShardIndex(
        settings=_settings(config, samples, captions),
        num_samples=len(written),
        content_hash=written.content_hash,
        classes=classes,
        shards=tuple(records),
    )
    write_whole(config.out / INDEX_NAME, index_to_json(index))
    for unfinished in config.out.glob(f".{config.name}-*.tar.*.tmp"):  # what a kill left
        unfinished.unlink()
    for folder in (config.out, config.out / _PARTS):
        remove_unfinished(folder)
    for part in (config.out / _PARTS).glob("*.json"):
        part.unlink()
    (config.out / _PARTS).rmdir()
    (config.out / _PLAN).unlink()
    return index


def _settings(
    config: ShardsConfig, samples: ShardDataset | FolderDataset, captions: Mapping[str, list[str]]
) -> dict[str, object]:
    """What determines the bytes of the shards."""
    return {
        "source_hash": samples.content_hash,
        "name": config.name,
        "samples_per_shard": config.samples_per_shard,
        "captions": sum(len(texts) for texts in captions.values()),
        "max_side": config.max_side,
        "quality": config.quality if config.max_side else None,
        "check_images": config.check_images,
        "seed": config.seed,
    }


def _classes(samples: ShardDataset | FolderDataset) -> tuple[str, ...]:
    """Names of the classes of a folder; shards bring their own .cls files."""
    if isinstance(samples, ShardDataset):
        return ()
    return tuple(sorted({label for index in range(len(samples)) if (label := samples.label(index)) is not None}))


def _captions(path: Path, samples: ShardDataset | FolderDataset) -> dict[str, list[str]]:
    """Captions by key. Their file names images with or without folders; the last part of the key decides."""
    by_name = read_caption_file(path)
    found = {key: by_name[name] for key in samples.keys if (name := key.rsplit("/", 1)[-1]) in by_name}
    if not found:
        raise DataError(
            f"{str(path)!r} has captions for {min(by_name)!r} and others, images are {samples.keys[0]!r} and others; "
            "give the captions of these images"
        )
    return found


def _claim(out: Path, settings: Mapping[str, object]) -> None:
    """Make the folder the home of these shards, or check that it is."""
    for file in (out / INDEX_NAME, out / _PLAN):
        if file.is_file():
            before = _settings_in(file)
            differing = [name for name, value in settings.items() if before.get(name) != value]
            if differing:
                raise OutputError(
                    f"{out} holds shards made otherwise: {differing[0]} is {settings[differing[0]]!r} now and was "
                    f"{before.get(differing[0])!r}; give a new --out, or the settings of then"
                )
    strangers = sorted(entry.name for entry in out.glob("*.tar"))
    if strangers and not any((out / name).is_file() for name in (INDEX_NAME, _PLAN)):
        raise OutputError(f"{out} holds {strangers[0]}, which this command did not write; give a new --out")
    write_whole(out / _PLAN, json.dumps({"settings": settings}))
    (out / _PARTS).mkdir(exist_ok=True)


def _settings_in(file: Path) -> dict[str, object]:
    try:
        return parse_json(file.read_text(encoding="utf-8"))["settings"]
    except (ValueError, KeyError, TypeError) as error:
        raise OutputError(f"{file} cannot be read ({error!r}); remove the folder and start again") from error


def _known_records(out: Path) -> dict[str, ShardRecord]:
    """What earlier runs of the command finished, by name."""
    records: dict[str, ShardRecord] = {}
    if (out / INDEX_NAME).is_file():
        index = index_from_json((out / INDEX_NAME).read_text(encoding="utf-8"), str(out / INDEX_NAME))
        records |= {record.name: record for record in index.shards}
    for part in (out / _PARTS).glob("*.json"):
        try:
            record = record_from_json(parse_json(part.read_text(encoding="utf-8")))
        except (ValueError, KeyError, TypeError) as error:
            raise OutputError(f"{part} cannot be read ({error!r}); remove it, and its shard is built again") from error
        records[record.name] = record
    return records
