"""``zs_retrieval``: find the image for a caption and a caption for the image, without training."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Int

from unveil_evalharness.errors import DataError
from unveil_evalharness.task import Metric, MetricSpec, TaskContext, TaskResult
from unveil_evalharness.tasks.zs_retrieval import data, metrics
from unveil_evalharness.tasks.zs_retrieval.config import RetrievalProtocol, protocol_for

if TYPE_CHECKING:
    import polars
    import unveil_backbones.manifest

__all__ = ["ZeroShotRetrieval"]

_BATCH_SIZE = 64


class ZeroShotRetrieval:
    """Recall at K in both directions over all captions.

    ``image_recall@K`` (caption → image) averages over captions; ``text_recall@K`` (image → caption) is a hit when any
    of the image's captions is among the first K.
    """

    name = "zs_retrieval"
    version = 1
    description = "zero-shot image–text retrieval with all captions (needs a text tower)"
    metrics = tuple(
        MetricSpec(name=f"zs_retrieval.{direction}_recall@{k}", main=(direction, k) == ("image", 5))
        for direction in ("image", "text")
        for k in (1, 5, 10)
    )
    requires = ("webdataset",)

    def protocol(self, suite: str) -> RetrievalProtocol:
        """The protocol of a suite; ``quick`` counts identical captions as hits, ``full`` is the published one."""
        return protocol_for(suite)

    def expected_time(self, suite: str) -> str:
        """For one checkpoint."""
        return (
            "10 s on one CPU core"
            if protocol_for(suite).merge_identical_captions
            else "COCO-5K: for GPUs, time not measured yet"
        )

    def not_applicable(self, manifest: "unveil_backbones.manifest.Manifest") -> str | None:
        """Only a checkpoint with a text tower can compare images with texts."""
        return None if manifest.text is not None else "the checkpoint has no text tower"

    def data_hash(self, data_root: Path) -> str:
        """See `data.data_hash`."""
        return data.data_hash(data_root)

    def run(self, context: TaskContext) -> TaskResult:
        """Embeds everything once, then counts ranks."""
        from unveil_evalharness.tasks.zs_retrieval.model import PairEmbedder

        checkpoint = context.checkpoint
        embedder = PairEmbedder(
            checkpoint.path,
            checkpoint.manifest.preprocessing,
            device=context.device,
            batch_size=context.batch_size or _BATCH_SIZE,
        )
        captions = _CaptionCollector()
        images = captions.watch(data.captioned_images(context.data_root, limit=context.limit))
        total = data.count_images(context.data_root, limit=context.limit)
        image_embeddings = embedder.images(_with_progress(images, total, context.progress))
        index = captions.index()
        context.log(f"{len(index.image_keys)} images, {len(index.texts)} distinct texts in {len(index.image)} captions")
        text_embeddings = embedder.texts(index.texts)
        return _score(image_embeddings, text_embeddings, index, context.protocol)


@dataclass(frozen=True, kw_only=True, slots=True)
class _CaptionIndex:
    """Captions in reading order: the image each was written for and the number of its text."""

    image_keys: list[str]
    texts: list[str]
    image: Int[np.ndarray, " c"]
    text: Int[np.ndarray, " c"]


class _CaptionCollector:
    """Notes the captions of images that stream past, so that encoded images need not be kept."""

    def __init__(self) -> None:
        self._keys: list[str] = []
        self._numbers: dict[str, int] = {}
        self._image: list[int] = []
        self._text: list[int] = []

    def watch(self, images: Iterator[data.CaptionedImage]) -> Iterator[data.CaptionedImage]:
        for image in images:
            for caption in image.captions:
                self._image.append(len(self._keys))
                self._text.append(self._numbers.setdefault(caption, len(self._numbers)))
            self._keys.append(image.key)
            yield image
        if not self._keys:
            raise DataError("the caption set holds no image with a caption; add some or choose another --data-root")

    def index(self) -> _CaptionIndex:
        return _CaptionIndex(
            image_keys=self._keys,
            texts=list(self._numbers),
            image=np.array(self._image, dtype=np.int64),
            text=np.array(self._text, dtype=np.int64),
        )


def _with_progress(images: Iterator[data.CaptionedImage], total: int, progress: bool) -> Iterator[data.CaptionedImage]:
    from tqdm import tqdm

    return iter(tqdm(images, desc="zs_retrieval", unit=" images", total=total, disable=not progress, leave=False))


def _score(images: np.ndarray, texts: np.ndarray, index: _CaptionIndex, protocol: RetrievalProtocol) -> TaskResult:
    num_images, num_captions = len(index.image_keys), len(index.image)
    caption, image = metrics.relevant_pairs(index.image, index.text, merge=protocol.merge_identical_captions)
    all_images = np.arange(num_images)
    caption_ranks = metrics.ranks(texts[index.text], images, all_images, caption, image)
    by_image = np.argsort(image, kind="stable")
    image_ranks = metrics.ranks(images, texts, index.text, image[by_image], caption[by_image])
    directions = (
        ("image", caption_ranks, index.image, np.bincount(caption), num_images),
        ("text", image_ranks, all_images, np.bincount(image), num_captions),
    )
    measured = []
    for direction, ranks, cluster, num_right, num_candidates in directions:
        for k in protocol.recall_at:
            hits = metrics.hits(ranks, k)
            measured.append(
                Metric(
                    name=f"zs_retrieval.{direction}_recall@{k}",
                    value=float(hits.mean()),
                    baseline=metrics.chance_recall(num_right, num_candidates, k),
                    standard_error=metrics.clustered_standard_error(hits, cluster),
                    n=len(ranks),
                )
            )
    return TaskResult(metrics=tuple(measured), samples=_samples(index, caption_ranks, image_ranks))


def _samples(index: _CaptionIndex, caption_ranks: np.ndarray, image_ranks: np.ndarray) -> "polars.DataFrame":
    """One row per query: both directions in one table."""
    import polars

    num_images = len(index.image_keys)
    return polars.DataFrame(
        {
            "direction": ["image"] * len(caption_ranks) + ["text"] * num_images,
            "image_key": [index.image_keys[i] for i in index.image] + index.image_keys,
            "caption": [index.texts[i] for i in index.text] + [None] * num_images,
            "rank": np.concatenate([caption_ranks, image_ranks]),
        },
        schema_overrides={"caption": polars.String},
    )
