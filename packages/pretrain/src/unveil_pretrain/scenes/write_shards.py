"""webdataset shards: images alone, or image-caption pairs laid out as img2dataset writes them."""

import json
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

from webdataset.writer import TarWriter

from unveil_pretrain.scenes.captions import captions_for
from unveil_pretrain.scenes.pictures import Picture, encode_jpeg

__all__ = ["write_image_shards", "write_pair_shards"]


def write_image_shards(folder: Path, split: str, stream: Iterable[Picture], *, samples_per_shard: int) -> None:
    """`folder/<split>-%05d.tar` of <key>.jpg and <key>.json (key, width, height)."""
    samples = (_sample(f"image-{split}-{picture.index:07d}", picture, captions=None) for picture in stream)
    _write(folder, split, samples, samples_per_shard)


def write_pair_shards(folder: Path, split: str, stream: Iterable[Picture], *, samples_per_shard: int) -> None:
    """`folder/<split>-%05d.tar` of <key>.jpg, <key>.txt (first caption) and <key>.json (all captions)."""
    samples = (
        _sample(f"pair-{split}-{picture.index:07d}", picture, captions=captions_for(picture.scene))
        for picture in stream
    )
    _write(folder, split, samples, samples_per_shard)


def _sample(key: str, picture: Picture, *, captions: tuple[str, ...] | None) -> dict[str, str | bytes]:
    record: dict[str, object] = {"key": key, "width": picture.scene.width, "height": picture.scene.height}
    sample: dict[str, str | bytes] = {"__key__": key, "jpg": encode_jpeg(picture.drawn.image)}
    if captions is not None:
        record |= {"caption": captions[0], "captions": list(captions)}
        sample["txt"] = captions[0].encode()
    return sample | {"json": json.dumps(record).encode()}


def _write(folder: Path, split: str, samples: Iterator[dict[str, str | bytes]], samples_per_shard: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    number = 0
    while part := list(islice(samples, samples_per_shard)):
        with TarWriter(str(folder / f"{split}-{number:05d}.tar"), mtime=0) as writer:
            for sample in part:
                writer.write(sample)
        number += 1
