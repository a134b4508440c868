"""``zs_retrieval``: find the image for a caption and a caption for the image, without training.

Three tasks share this: any captioned set, and the two published test splits, whose names stand on nothing else.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from unveil_evalharness.errors import DataError
from unveil_evalharness.task import Metric, MetricSpec, Picture, TaskContext, TaskResult
from unveil_evalharness.tasks.zs_retrieval import data, metrics
from unveil_evalharness.tasks.zs_retrieval.captions import CaptionIndex, collect
from unveil_evalharness.tasks.zs_retrieval.config import RetrievalProtocol, protocol_for
from unveil_evalharness.tasks.zs_retrieval.data import Source
from unveil_evalharness.tasks.zs_retrieval.ranking import ranks_both_ways

if TYPE_CHECKING:
    import polars
    import unveil_backbones.manifest

__all__ = ["CocoRetrieval", "FlickrRetrieval", "ZeroShotRetrieval"]


def _specs(task: str) -> tuple[MetricSpec, ...]:
    return tuple(
        MetricSpec(name=f"{task}.{direction}_recall@{k}", main=(direction, k) == ("image", 5))
        for direction in ("image", "text")
        for k in (1, 5, 10)
    )


class ZeroShotRetrieval:
    """Recall at K in both directions over all captions.

    ``image_recall@K`` (caption → image) averages over captions; ``text_recall@K`` (image → caption) is a hit when any
    of the image's captions is among the first K.
    """

    name = "zs_retrieval"
    version = 1
    description = "zero-shot image–text retrieval with all captions, any captioned set (needs a text tower)"
    metrics = _specs("zs_retrieval")
    requires = ("webdataset",)
    source: Source = "any"

    def protocol(self, suite: str) -> RetrievalProtocol:
        """The protocol of a suite; ``quick`` counts identical captions as hits, the others are the published one."""
        return protocol_for(suite, self.source)

    def expected_time(self, suite: str) -> str:
        """For one checkpoint."""
        return (
            "10 s on one CPU core"
            if protocol_for(suite, self.source).merge_identical_captions
            else "for GPUs, time not measured yet"
        )

    def not_applicable(self, manifest: "unveil_backbones.manifest.Manifest") -> str | None:
        """Only a checkpoint with a text tower can compare images with texts."""
        return None if manifest.text is not None else "the checkpoint has no text tower"

    def data_hash(self, data_root: Path) -> str:
        """See `data.data_hash`."""
        return data.data_hash(data_root, self.source)

    def num_images(self, data_root: Path, protocol: RetrievalProtocol) -> int:
        """All images of the set that the protocol names."""
        return data.count_images(data_root, limit=None, source=protocol.source)

    def run(self, context: TaskContext) -> TaskResult:
        """Embeds everything once, then counts ranks. No metric depends on the batch size."""
        from unveil_evalharness.tasks.zs_retrieval.model import PairEmbedder

        checkpoint = context.checkpoint
        embedder = PairEmbedder(checkpoint.path, checkpoint.manifest.preprocessing, device=context.device)
        images = data.captioned_images(context.data_root, limit=context.limit, source=self.source)
        total = data.count_images(context.data_root, limit=context.limit, source=self.source)
        captions = CaptionIndex.empty()
        image_embeddings = embedder.images(
            collect(_with_progress(_some(images), self.name, total, context.progress), captions)
        )
        title = data.set_title(captions.num_captions)
        context.log(f"{title}, {len(captions.texts)} distinct texts, cut at {embedder.text_length} word pieces")
        text_embeddings = embedder.texts(captions.texts)
        result = self._score(image_embeddings, text_embeddings, captions, context.protocol)
        pictures = self._pictures(context, image_embeddings, text_embeddings, captions)
        return TaskResult(
            metrics=result.metrics,
            samples=result.samples,
            gallery=pictures,
            tables={"data": _data_table(title, captions)},
        )

    def _score(
        self, images: np.ndarray, texts: np.ndarray, index: CaptionIndex, protocol: RetrievalProtocol
    ) -> TaskResult:
        image_of, text_of = index.image_of_caption, index.text_of_caption
        caption, image = metrics.relevant_pairs(image_of, text_of, merge=protocol.merge_identical_captions)
        caption_ranks, image_ranks = ranks_both_ways(images, texts, text_of, caption, image)
        directions = (
            ("image", caption_ranks, image_of, np.bincount(caption), len(images)),
            ("text", image_ranks, np.arange(len(images)), np.bincount(image), len(text_of)),
        )
        measured = []
        for direction, ranks, cluster, num_right, num_candidates in directions:
            for k in protocol.recall_at:
                hits = metrics.hits(ranks, k)
                measured.append(
                    Metric(
                        name=f"{self.name}.{direction}_recall@{k}",
                        value=float(hits.mean()),
                        baseline=metrics.chance_recall(num_right, num_candidates, k),
                        standard_error=metrics.clustered_standard_error(hits, cluster),
                        n=len(ranks),
                    )
                )
        return TaskResult(metrics=tuple(measured), samples=_samples(index, caption_ranks, image_ranks))

    def _pictures(
        self, context: TaskContext, images: np.ndarray, texts: np.ndarray, index: CaptionIndex
    ) -> tuple[Picture, ...]:
        from unveil_evalharness.tasks.zs_retrieval.pictures import retrieval_pictures

        def encoded() -> Iterator[data.CaptionedImage]:
            return data.captioned_images(context.data_root, limit=context.limit, source=self.source)

        return retrieval_pictures(images, texts, index, encoded, merge=context.protocol.merge_identical_captions)


class CocoRetrieval(ZeroShotRetrieval):
    """The published 5K protocol on COCO: Karpathy's test split with all captions, and nothing else."""

    name = "zs_retrieval_coco"
    description = "zero-shot retrieval on COCO 5K, Karpathy's test split (needs a text tower)"
    metrics = _specs("zs_retrieval_coco")
    source: Source = "coco"


class FlickrRetrieval(ZeroShotRetrieval):
    """The published 1K protocol on Flickr30k: Karpathy's test split with all captions, and nothing else."""

    name = "zs_retrieval_flickr30k"
    description = "zero-shot retrieval on Flickr30k 1K, Karpathy's test split (needs a text tower)"
    metrics = _specs("zs_retrieval_flickr30k")
    source: Source = "flickr30k"


def _some(images: Iterator[data.CaptionedImage]) -> Iterator[data.CaptionedImage]:
    first = next(images, None)
    if first is None:
        raise DataError("the caption set holds no image with a caption; add some or choose another --data-root")
    yield first
    yield from images


def _with_progress(
    images: Iterator[data.CaptionedImage], name: str, total: int, progress: bool
) -> Iterator[data.CaptionedImage]:
    from tqdm import tqdm

    return iter(tqdm(images, desc=name, unit=" images", total=total, disable=not progress, leave=False))


def _data_table(title: str, index: CaptionIndex) -> "polars.DataFrame":
    """What the numbers are of: the set's published name, if its images are that set."""
    import polars

    return polars.DataFrame(
        {"set": [title], "images": [len(index.image_keys)], "captions": [len(index.text_of_caption)]}
    )


def _samples(index: CaptionIndex, caption_ranks: np.ndarray, image_ranks: np.ndarray) -> "polars.DataFrame":
    """One row per query, both directions in one table; a caption's key is its image's with the caption's number."""
    import polars

    num_images, texts = len(index.image_keys), index.texts
    image_of = index.image_of_caption
    return polars.DataFrame(
        {
            "key": [f"image:{key}" for key in index.caption_keys] + [f"text:{key}" for key in index.image_keys],
            "direction": ["image"] * len(caption_ranks) + ["text"] * num_images,
            "image_key": [index.image_keys[i] for i in image_of] + index.image_keys,
            "caption": [texts[i] for i in index.text_of_caption] + [None] * num_images,
            "rank": np.concatenate([caption_ranks, image_ranks]),
        },
        schema_overrides={"caption": polars.String},
    )
