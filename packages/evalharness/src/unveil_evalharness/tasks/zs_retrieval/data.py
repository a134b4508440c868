"""Captioned evaluation images: webdataset shards, Karpathy's test splits, or COCO captions.

Any set is looked for in this order: ``captions/val-*.tar`` (``<key>.jpg`` and ``<key>.json`` with a list ``captions``),
``coco/dataset_coco.json`` (Karpathy), ``coco/annotations/captions_val2017.json`` with ``coco/val2017``, and
``flickr30k/dataset_flickr30k.json`` (Karpathy). A published set is read from Karpathy's file only, and refused unless
its test images are the published ones.
"""

import hashlib
import io
import tarfile
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal, cast

from PIL import Image
from unveil_backbones.limits import parse_json

from unveil_evalharness.errors import DataError, one_line
from unveil_evalharness.opening import inside, opened_image
from unveil_evalharness.tasks.zs_retrieval.karpathy import ANNOTATIONS, read_test_split
from unveil_evalharness.tasks.zs_retrieval.splits import COCO_5K, FLICKR30K_1K, KnownSplit, recognise

__all__ = ["CaptionedImage", "Source", "captioned_images", "count_images", "data_hash", "set_title"]

Source = Literal["any", "coco", "flickr30k"]
"""Any captioned set, or one of Karpathy's two test splits and nothing else."""

_IMAGE_SUFFIXES = ("jpg", "jpeg", "png", "webp")
_HASH_BLOCK = 1 << 20
_TAR_END = bytes(1024)


@dataclass(frozen=True, kw_only=True, slots=True)
class CaptionedImage:
    """One image, still encoded, with the captions written for it."""

    key: str
    encoded: bytes
    captions: tuple[str, ...]
    where: str
    """File (and record) the image comes from, for messages."""

    def decode(self) -> Image.Image:
        """The image as RGB.

        Raises:
            DataError: the bytes are not a readable image; names where they are.
        """
        try:
            with warnings.catch_warnings():
                # A palette image with a transparent colour is legitimate; Pillow only advises another mode.
                warnings.filterwarnings("ignore", message="Palette images with Transparency", category=UserWarning)
                with opened_image(self.encoded) as image:
                    return image.convert("RGB")
        except (OSError, SyntaxError, ValueError) as error:
            raise DataError(
                f"cannot decode the image {self.where}: {error}; replace it or leave it out of the set"
            ) from error


def captioned_images(data_root: Path, *, limit: int | None, source: Source = "any") -> Iterator[CaptionedImage]:
    """The first `limit` captioned images under `data_root`, in their order on disk; None: all.

    Raises:
        DataError: there is no such caption set, or a record is damaged; names the file and the record.
    """
    shards = _shards(data_root, source)
    pairs = _from_shards(shards) if shards else _from_files(*_listed(data_root, source))
    return islice(pairs, limit)


def count_images(data_root: Path, *, limit: int | None, source: Source = "any") -> int:
    """How many images `captioned_images` will give, from the shards' headers or the annotations alone.

    Raises:
        DataError: as `captioned_images`.
    """
    shards = _shards(data_root, source)
    number = sum(map(_count_in_shard, shards)) if shards else len(_listed(data_root, source)[1])
    return number if limit is None else min(limit, number)


def set_title(num_captions: Mapping[str, int]) -> str:
    """What a set of images is called: by its published name if it is that set, else by its size."""
    known = recognise(num_captions)
    size = f"{len(num_captions)} images with {sum(num_captions.values())} captions"
    return f"{known.title}: {size}" if known else f"no published split: {size}"


def _count_in_shard(shard: Path) -> int:
    _check_whole(shard)
    try:
        with tarfile.open(shard) as members:
            return sum(member.name.rpartition(".")[2].lower() in _IMAGE_SUFFIXES for member in members)
    except tarfile.TarError as error:
        raise DataError(f"cannot read the shard {shard}: {one_line(error)}; copy it again") from error


def data_hash(data_root: Path, source: Source = "any") -> str:
    """16 hex digits over shard names and contents, or over captions and the images' names and sizes.

    Raises:
        DataError: there is no caption set under `data_root`, or an annotation names a missing image.
    """
    digest = hashlib.sha256()
    shards = _shards(data_root, source)
    if shards:
        for shard in shards:
            digest.update(f"{shard.name}\0{shard.stat().st_size}\0".encode())
            _update_with_file(digest, shard)
        return digest.hexdigest()[:16]
    annotations, records = _listed(data_root, source)
    _update_with_file(digest, annotations)
    for image, _ in records:
        digest.update(f"{image.name}\0{_size(image, annotations)}\0".encode())
    return digest.hexdigest()[:16]


def _update_with_file(digest: Any, path: Path) -> None:
    with path.open("rb") as file:
        while block := file.read(_HASH_BLOCK):
            digest.update(block)


def _shards(data_root: Path, source: Source) -> list[Path]:
    return sorted((data_root / "captions").glob("val-*.tar")) if source == "any" else []


def _from_shards(shards: list[Path]) -> Iterator[CaptionedImage]:
    for shard in shards:
        _check_whole(shard)
        is_empty = True
        for sample in _samples(shard):
            is_empty = False
            yield _from_sample(sample, shard)
        if is_empty:
            raise DataError(f"the shard {shard} holds no sample; copy it again or remove it")


def _check_whole(shard: Path) -> None:
    """Refuses a cut tar file, which a streaming reader would take for a shorter one."""
    with shard.open("rb") as file:
        file.seek(0, io.SEEK_END)
        size = file.tell()
        file.seek(max(0, size - len(_TAR_END)))
        if size % 512 or file.read() != _TAR_END:
            raise DataError(f"cannot read the shard {shard}: it does not end as a tar file does; copy it again")


def _samples(shard: Path) -> Iterator[dict[str, Any]]:
    """The shard's records as webdataset groups them, from a file that is closed (its own opener leaves it open)."""
    from webdataset.tariterators import group_by_keys, tar_file_iterator

    with shard.open("rb") as file:
        members = ({**member, "__url__": str(shard)} for member in tar_file_iterator(cast(Any, file)))
        try:
            yield from group_by_keys(members)
        except (tarfile.TarError, ValueError, EOFError, OSError) as error:
            raise DataError(f"cannot read the shard {shard}: {one_line(error)}; copy it again") from error


def _from_sample(sample: dict[str, Any], shard: Path) -> CaptionedImage:
    key = sample["__key__"]
    where = f"{shard}:{key}"
    suffix = next((suffix for suffix in _IMAGE_SUFFIXES if suffix in sample), None)
    if suffix is None:
        raise DataError(f"{where} has no image; expected one of {', '.join(_IMAGE_SUFFIXES)} beside the json")
    try:
        record = parse_json(sample["json"])
        captions = record["captions"]
    except KeyError as error:
        raise DataError(f"{where} has no captions; expected {key}.json with a list 'captions'") from error
    except ValueError as error:
        raise DataError(f"{where}.json is not JSON: {error}") from error
    return CaptionedImage(
        key=key, encoded=sample[suffix], captions=_checked(captions, where), where=f"{where}.{suffix}"
    )


def _checked(captions: Any, where: str) -> tuple[str, ...]:
    if not isinstance(captions, list) or not captions or not all(isinstance(text, str) for text in captions):
        raise DataError(f"{where}: 'captions' must be a list with at least one text, got {str(captions)[:80]!r}")
    return tuple(text.strip() for text in captions)


def _listed(data_root: Path, source: Source) -> tuple[Path, list[tuple[Path, tuple[str, ...]]]]:
    """The annotation file, and every image file with its captions."""
    if source != "any":
        return _published(data_root / ANNOTATIONS[source], COCO_5K if source == "coco" else FLICKR30K_1K)
    for name in (ANNOTATIONS["coco"], "coco/annotations/captions_val2017.json", ANNOTATIONS["flickr30k"]):
        path = data_root / name
        if path.is_file():
            return path, _coco_records(path) if "annotations" in name else _karpathy_records(path)
    raise DataError(
        f"no captioned images under {data_root}; zs_retrieval reads captions/val-*.tar (webdataset), "
        f"{ANNOTATIONS['coco']} or coco/annotations/captions_val2017.json with coco/val2017/, "
        f"{ANNOTATIONS['flickr30k']}"
    )


def _published(path: Path, split: KnownSplit) -> tuple[Path, list[tuple[Path, tuple[str, ...]]]]:
    if not path.is_file():
        raise DataError(f"{path} is missing; {split.title} is read from Karpathy's file, with its images beside it")
    records = _karpathy_records(path)
    counts = {image.stem: len(captions) for image, captions in records}
    if recognise(counts) != split:
        raise DataError(
            f"the test images of {path} are not {split.title} ({set_title(counts)}); take Karpathy's original file, "
            "or evaluate another set with the task zs_retrieval"
        )
    return path, records


def _karpathy_records(path: Path) -> list[tuple[Path, tuple[str, ...]]]:
    return [(image, _checked(captions, f"{path}: {image.name}")) for image, captions in read_test_split(path)]


def _coco_records(annotations: Path) -> list[tuple[Path, tuple[str, ...]]]:
    """Every image that has captions, in the file's order, with its captions by annotation id."""
    try:
        content = parse_json(annotations.read_bytes())
        captions: dict[Any, list[tuple[Any, str]]] = {}
        for annotation in content["annotations"]:
            if not isinstance(annotation["id"], int):
                raise TypeError(f"an annotation has the id {str(annotation['id'])[:40]!r}")
            captions.setdefault(annotation["image_id"], []).append((annotation["id"], annotation["caption"]))
        names = {image["id"]: image["file_name"] for image in content["images"]}
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{annotations} is not a COCO caption file: {type(error).__name__}: {error}") from error
    unknown = next((identity for identity in captions if identity not in names), None)
    if unknown is not None:
        raise DataError(f"{annotations}: a caption names image_id {unknown}, which is not in 'images'")
    folder = annotations.parent.parent / "val2017"
    return [
        (
            inside(folder, name, annotations),
            _checked(
                [text for _, text in sorted(captions[identity], key=lambda one: one[0])],
                f"{annotations}: image {identity}",
            ),
        )
        for identity, name in names.items()
        if identity in captions
    ]


def _from_files(annotations: Path, records: list[tuple[Path, tuple[str, ...]]]) -> Iterator[CaptionedImage]:
    for image, captions in records:
        _size(image, annotations)
        try:
            encoded = image.read_bytes()
        except OSError as error:
            raise DataError(f"cannot read {image}: {error.strerror or error}; restore it") from error
        yield CaptionedImage(key=image.stem, encoded=encoded, captions=captions, where=str(image))


def _size(image: Path, annotations: Path) -> int:
    try:
        return image.stat().st_size
    except OSError as error:
        raise DataError(f"{annotations} names {image.name}, which is not in {image.parent}") from error
