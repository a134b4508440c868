"""One tar shard from some samples: the same bytes whenever and wherever it is written."""

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image
from unveil_backbones.redaction import redact

from unveil_pretrain.data.datasets import image_extension
from unveil_pretrain.data.decode import decode
from unveil_pretrain.data.samples import Samples
from unveil_pretrain.data.shard_index import ShardRecord
from unveil_pretrain.errors import DataError

__all__ = ["Writing", "sha256_of", "write_shard"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Writing:
    """How samples become files."""

    max_side: int = 0
    """Images with a longer side are made smaller and encoded as JPEG; 0 copies every image as it is."""
    quality: int = 95
    """Of those JPEG files."""
    check_images: bool = True
    """Decode every image; one that is broken is left out and named."""
    class_numbers: Mapping[str, int] = field(default_factory=dict)
    """Number of each class, written as <key>.cls."""
    captions: Mapping[str, list[str]] = field(default_factory=dict)
    """Captions by key, written as <key>.json and (the first) <key>.txt."""


def write_shard(path: Path, samples: Samples, writing: Writing) -> ShardRecord:
    """Write all samples to one tar file, atomically, in the order given, without times and owners.

    Raises:
        DataError: no sample could be used.
        OSError: the file cannot be written.
    """
    left_out: list[str] = []
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as stream:
            with tarfile.open(fileobj=stream, mode="w", format=tarfile.GNU_FORMAT) as archive:
                for index in range(len(samples)):
                    try:
                        files = _files_of(samples, index, writing)
                    except DataError as error:
                        left_out.append(redact(str(error)))
                        continue
                    for extension, content in files.items():
                        _add(archive, f"{samples.keys[index]}.{extension}", content)
            stream.flush()
            os.fsync(stream.fileno())
        record = ShardRecord(
            name=path.name,
            sha256=sha256_of(temporary),
            num_bytes=temporary.stat().st_size,
            num_samples=len(samples) - len(left_out),
            left_out=tuple(left_out),
        )
        if record.num_samples == 0:
            raise DataError(f"none of the {len(samples)} samples of {path.name} can be used; the first: {left_out[0]}")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return record


def sha256_of(path: Path) -> str:
    """64 hex digits over a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _files_of(samples: Samples, index: int, writing: Writing) -> dict[str, bytes]:
    files, where, key = samples.read(index), samples.where(index), samples.keys[index]
    extension = image_extension(tuple(files))
    if extension is None:
        raise DataError(f"{where}: a sample must hold one image, this one holds {', '.join(files)}")
    if writing.check_images or writing.max_side:
        pixels = decode(files[extension], where)
        if writing.max_side and max(pixels.shape[:2]) > writing.max_side:
            del files[extension]
            files = {"jpg": _smaller(Image.fromarray(pixels), writing), **files}
    label = samples.label(index)
    if label is not None and label in writing.class_numbers and "cls" not in files:
        files["cls"] = str(writing.class_numbers[label]).encode()
    if key in writing.captions:
        files["json"] = json.dumps({"captions": writing.captions[key]}, ensure_ascii=False).encode()
        files["txt"] = writing.captions[key][0].encode()
    return files


def _smaller(image: Image.Image, writing: Writing) -> bytes:
    scale = writing.max_side / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    stream = io.BytesIO()
    image.resize(size, Image.Resampling.BICUBIC).save(stream, "JPEG", quality=writing.quality)
    return stream.getvalue()


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(content), 0o644  # times and owners stay 0 and empty
    archive.addfile(info, io.BytesIO(content))
