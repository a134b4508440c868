"""What is in some data, and what is wrong with it, found before the first hour of training and not after it.

Nothing is left out silently: a shard that cannot be opened and an image that cannot be decoded are findings, and so
is every sample that training would have to skip.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Literal

from unveil_backbones.places import is_folder

from unveil_pretrain.data.datasets import image_extension
from unveil_pretrain.data.decode import decode
from unveil_pretrain.data.folder import FolderDataset
from unveil_pretrain.data.opening import open_samples, shards_of_folder
from unveil_pretrain.data.pairs import CAPTION_FILES, CaptionReport, inspect_captions
from unveil_pretrain.data.retrying import ReadPolicy, count_causes, noting_retries, with_retries
from unveil_pretrain.data.samples import Samples, sample_id_of
from unveil_pretrain.data.shard_index import INDEX_NAME, ShardIndex, index_from_json
from unveil_pretrain.data.shard_source import ShardSource
from unveil_pretrain.data.shard_urls import expand_shards
from unveil_pretrain.data.shards import ShardDataset
from unveil_pretrain.errors import DataError, SourceError

__all__ = ["Audit", "Finding", "Kind", "audit"]

Kind = Literal["shard", "hash", "index", "image", "class", "duplicate", "key", "ignored"]
"""Of a finding: a shard that is truncated or no tar; one that is not what index.json says; index.json itself; a sample
without a readable image; one without the class that others have; an image that is there twice; a key that is there
twice; a file that is no image. Duplicates and ignored files cost training nothing: they are told, and are no fault."""

_HARMLESS: Final = ("duplicate", "ignored")
_POLICY: Final = ReadPolicy()


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """Something a person should know."""

    kind: Kind
    where: str
    """Shard, or place and key."""
    what: str

    @property
    def is_fault(self) -> bool:
        """Whether training would stop at it, or skip something."""
        return self.kind not in _HARMLESS


@dataclass(frozen=True, kw_only=True, slots=True)
class Audit:
    """What was found."""

    num_shards: int
    """Shards that were looked at; 0 for a folder of images."""
    num_samples: int
    """Samples in the shards that could be opened."""
    num_readable: int
    """Samples whose image can be decoded: what an epoch shows."""
    num_bytes: int
    """Of all images."""
    samples_per_shard: tuple[int, ...]
    """In the order of the shards; 0 for a broken one."""
    class_counts: dict[str, int]
    """Samples of each class; empty where nothing names classes."""
    content_hash: str | None
    """Of all samples; None where a shard is broken."""
    index: Literal["matches", "differs", "absent"]
    """index.json beside the shards."""
    findings: tuple[Finding, ...]
    captions: CaptionReport | None = None
    """What was done to the captions of shards; None where there are none, or a shard is broken. A sample without one
    is no fault: only training on pairs skips it."""
    retries: dict[str, int] = field(default_factory=dict)
    """Reads that failed and were tried again, by cause."""

    @property
    def num_faults(self) -> int:
        """Findings at which training would stop, or skip something."""
        return sum(finding.is_fault for finding in self.findings)


@dataclass(frozen=True, slots=True)
class _Looked:
    """One sample after its look."""

    key: str
    where: str
    num_bytes: int
    digest: bytes | None
    label: str | None
    problem: str | None


def audit(
    place: str, *, num_workers: int = 0, policy: ReadPolicy = _POLICY, tell: Callable[[str], None] = lambda line: None
) -> Audit:
    """Look at everything that `place` names, as `unveil_pretrain.data.open_samples` takes it.

    Args:
        place: Shards, a folder or a zip file.
        num_workers: Threads; 0 for none besides the caller's.
        policy: How long and how often to try to read.
        tell: Receives lines about how far the work is.

    Raises:
        DataError: there is nothing to look at.
        SourceError: a disk or store stopped to answer.
    """
    with noting_retries() as retries:
        found = _audit(place, num_workers, policy, tell)
    return replace(found, retries=count_causes(retries))


def _audit(place: str, num_workers: int, policy: ReadPolicy, tell: Callable[[str], None]) -> Audit:
    findings: list[Finding] = []
    path = Path(place)
    shards = shards_of_folder(path) if is_folder(path) else []
    of_files = place.endswith(".zip") or (is_folder(path) and not shards)
    sources = [] if of_files else expand_shards("::".join(shards) or place, policy)
    if of_files:
        folder = open_samples(place, policy=policy)
        assert isinstance(folder, FolderDataset)
        findings += [Finding(kind="ignored", where=place, what=f"{name} is no image") for name in folder.ignored]
        parts: list[Samples] = [folder]
    else:
        parts = list(_openable(sources, findings))
    looked = [sample for part in parts for sample in _look(part, num_workers, tell)]
    findings += [Finding(kind="image", where=one.where, what=one.problem) for one in looked if one.problem is not None]
    findings += _repetitions(looked)
    counts = _class_counts(looked, findings)
    whole = None if len(parts) != max(1, len(sources)) else (parts[0] if of_files else _whole(sources, findings))
    state = "absent" if of_files else _compare_with_index(sources, whole, findings, tell)
    sizes = {part.shards[0]: len(part) for part in parts if isinstance(part, ShardDataset)}
    return Audit(
        num_shards=len(sources),
        num_samples=len(looked),
        num_readable=sum(one.problem is None for one in looked),
        num_bytes=sum(one.num_bytes for one in looked),
        samples_per_shard=tuple(sizes.get(source.url, 0) for source in sources),
        class_counts=counts,
        content_hash=None if whole is None else whole.content_hash,
        index=state,
        findings=tuple(findings),
        captions=_captions(whole),
    )


def _whole(sources: Sequence[ShardSource], findings: list[Finding]) -> Samples | None:
    """All shards as one set; None, and a finding, where one has vanished or changed since it was looked at."""
    try:
        return ShardDataset.of(sources)
    except SourceError:
        raise
    except DataError as error:
        findings.append(Finding(kind="shard", where=str(error).split(": ", 1)[0], what=str(error).split(": ", 1)[-1]))
        return None


def _captions(whole: Samples | None) -> CaptionReport | None:
    if whole is None or not any(CAPTION_FILES.intersection(whole.extensions(index)) for index in range(len(whole))):
        return None
    try:
        report = inspect_captions(whole)
    except SourceError:
        raise
    except DataError:  # a sample that cannot be read is a finding by now
        return None
    return report if report.counts.shown else None  # a .json may hold classes alone


def _openable(sources: Sequence[ShardSource], findings: list[Finding]) -> Iterator[ShardDataset]:
    for source in sources:
        try:
            yield ShardDataset.of([source])
        except DataError as error:
            findings.append(Finding(kind="shard", where=source.url, what=str(error).removeprefix(f"{source.url}: ")))


def _look(samples: Samples, num_workers: int, tell: Callable[[str], None]) -> list[_Looked]:
    with ThreadPoolExecutor(max(1, num_workers)) as pool:
        # Each in a copy of this context, so that its retries are noted where the caller listens.
        waiting = [pool.submit(copy_context().run, _look_at, samples, index) for index in range(len(samples))]
        try:
            looked = [future.result() for future in waiting]
        finally:
            for future in waiting:
                future.cancel()
    place = samples.shards[0] if isinstance(samples, ShardDataset) else "the folder"
    tell(f"{place}: {len(looked):,} samples, {sum(one.problem is not None for one in looked)} of them unreadable")
    return looked


def _look_at(samples: Samples, index: int) -> _Looked:
    where = samples.where(index)
    label: str | None = None
    try:
        files = samples.read(index)
        label = samples.label(index)
        extension = image_extension(tuple(files))
        if extension is None:
            raise DataError(f"{where}: a sample must hold one image, this one holds {', '.join(files)}")
        data = files[extension]
        decode(data, where)
    except SourceError:  # nothing is known to be wrong with the sample, and the next one would wait as long
        raise
    except DataError as error:
        return _Looked(samples.keys[index], where, 0, None, label, str(error).removeprefix(f"{where}: "))
    digest = hashlib.blake2b(data, digest_size=16).digest()
    return _Looked(samples.keys[index], where, len(data), digest, label, None)


def _repetitions(looked: Sequence[_Looked]) -> Iterator[Finding]:
    """Equal keys, which lists cannot tell apart, and equal images, each with the first of its kind."""
    keys: dict[str, str] = {}
    images: dict[bytes, str] = {}
    for one in looked:
        if one.key in keys:
            yield Finding(kind="key", where=one.where, what=f"its key is also that of {keys[one.key]}")
        if one.digest is not None and one.digest in images:
            yield Finding(
                kind="duplicate", where=one.where, what=f"its image is, byte by byte, that of {images[one.digest]}"
            )
        keys.setdefault(one.key, one.where)
        if one.digest is not None:
            images.setdefault(one.digest, one.where)


def _class_counts(looked: Sequence[_Looked], findings: list[Finding]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for one in looked:
        if one.label is not None:
            counts[one.label] = counts.get(one.label, 0) + 1
    if counts:
        findings += [
            Finding(kind="class", where=one.where, what="it has no class, others have")
            for one in looked
            if one.label is None and one.problem is None
        ]
    return dict(sorted(counts.items()))


def _compare_with_index(
    sources: Sequence[ShardSource], whole: Samples | None, findings: list[Finding], tell: Callable[[str], None]
) -> Literal["matches", "differs", "absent"]:
    index = _index_beside(sources, findings)
    if index is None:
        return "differs" if any(finding.kind == "index" for finding in findings) else "absent"
    before = len(findings)
    stated = {record.name: record for record in index.shards}
    present = {source.path.rsplit("/", 1)[-1]: source for source in sources}
    gone = f"{INDEX_NAME} names this shard; it was not looked at, or is gone"
    findings += [Finding(kind="hash", where=name, what=gone) for name in sorted(set(stated) - set(present))]
    for name, source in present.items():
        if name not in stated:
            findings.append(Finding(kind="hash", where=source.url, what=f"{INDEX_NAME} does not name this shard"))
        elif _sha256(source) != stated[name].sha256:
            findings.append(
                Finding(kind="hash", where=source.url, what=f"its bytes are not those that {INDEX_NAME} states")
            )
    if whole is not None and len(findings) == before and whole.content_hash != index.content_hash:
        findings.append(
            Finding(kind="index", where=INDEX_NAME, what="its content hash is not that of the shards, in this order")
        )
    tell(f"hashes of {len(present)} shards compared with {INDEX_NAME}")
    return "matches" if len(findings) == before else "differs"


def _index_beside(sources: Sequence[ShardSource], findings: list[Finding]) -> ShardIndex | None:
    """index.json in the folder of the first shard, if there is one that can be read."""
    first = sources[0]
    place = f"{first.path.rpartition('/')[0] or '.'}/{INDEX_NAME}"
    try:
        data = with_retries(lambda: _file(first, place), first.policy, what=place, key=sample_id_of(place), kind="file")
        return None if data is None else index_from_json(data.decode("utf-8", "replace"), place)
    except DataError as error:
        findings.append(Finding(kind="index", where=place, what=str(error).removeprefix(f"{place}: ")))
        return None


def _sha256(source: ShardSource) -> str:
    digest = hashlib.sha256()
    for block in source.blocks():
        digest.update(block)
    return digest.hexdigest()


def _file(beside: ShardSource, path: str) -> bytes | None:
    """A file in the store of a shard; None where there is none."""
    try:
        return beside.store.call("cat_file", path)
    except (FileNotFoundError, PermissionError):  # S3 denies what is not there to those who may not list
        return None
