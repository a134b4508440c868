"""Zero-shot retrieval over a validation set: which captions are nearest to an image, and which images to a caption.

Text recall@k asks for each image whether one of its captions is among the k nearest texts (image to text). Image
recall@k asks for each caption whether its image is among the k nearest images (text to image); it is averaged over the
captions of an image first, so that images are the units of both scores and of their standard errors. The first is
FLIP's "text retrieval", the second its "image retrieval" (arXiv:2212.00794, table 5).

Two rules make the numbers exact. Captions with the same words are the same answer: every copy of a caption of the image
is right for the image, and every image with these words is right for the caption. Equal similarities count against the
query, and so do similarities that are no numbers: an encoder that maps everything to one point scores nothing.

Shapes: n images, r texts, g different texts, q queries at once, e embedding width.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Final

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from unveil_pretrain.errors import ConfigError

__all__ = ["RECALL_AT", "caption_keys", "recalls", "retrieval_rows", "retrieval_scores"]

RECALL_AT: Final = (1, 5, 10)

_QUERIES_AT_ONCE: Final = 512


def caption_keys(captions: Sequence[str]) -> Int64[Tensor, " r"]:
    """A number per caption that is equal where the words are, whatever their case and spaces (63 bits of BLAKE2b)."""
    words = [" ".join(caption.lower().split()).encode() for caption in captions]
    digests = [hashlib.blake2b(word, digest_size=8).digest() for word in words]
    return torch.tensor([int.from_bytes(digest, "big") >> 1 for digest in digests], dtype=torch.int64)


def recalls(
    images: Float[Tensor, "n e"],
    texts: Float[Tensor, "r e"],
    *,
    num_texts: Int64[Tensor, " n"],
    text_keys: Int64[Tensor, " r"],
    at: Sequence[int] = RECALL_AT,
) -> dict[str, Float[Tensor, " n"]]:
    """Text recall and image recall of each image; the mean over images is the score.

    Args:
        images: Unit vectors of the images.
        texts: Unit vectors of all captions: first those of image 0, then those of image 1, ....
        num_texts: How many captions each image has, at least one.
        text_keys: `caption_keys` of the captions.
        at: The cut-offs k.

    Returns:
        "text_recall_k" (0 or 1) and "image_recall_k" (a share of the image's captions) for each k, in float64.

    Raises:
        ConfigError: the numbers of texts do not add up, or an image has none.
    """
    if len(num_texts) != len(images) or int(num_texts.sum()) != len(texts) or len(text_keys) != len(texts):
        raise ConfigError(
            f"{len(images)} images with {int(num_texts.sum())} captions, but {len(texts)} texts and {len(text_keys)} "
            "keys; give one row per caption, in the order of the images"
        )
    if len(images) and int(num_texts.min()) < 1:
        raise ConfigError(f"image {int(num_texts.argmin())} has no caption; leave it out of retrieval")
    owner = torch.repeat_interleave(torch.arange(len(images)), num_texts)
    group = torch.unique(text_keys, return_inverse=True)[1]
    images, texts = images.float(), texts.float()
    text_ranks = torch.cat([
        _ranks(images[part] @ texts.T, _texts_of(part, owner, group))
        for part in torch.arange(len(images)).split(_QUERIES_AT_ONCE)
    ])  # fmt: skip
    image_ranks = torch.cat([
        _ranks(texts[part] @ images.T, _images_of(part, owner, group, len(images)))
        for part in torch.arange(len(texts)).split(_QUERIES_AT_ONCE)
    ])  # fmt: skip
    scores: dict[str, Float[Tensor, " n"]] = {}
    for k in at:
        scores[f"text_recall_{k}"] = (text_ranks <= k).double()
        found = torch.zeros(len(images), dtype=torch.float64).index_add_(0, owner, (image_ranks <= k).double())
        scores[f"image_recall_{k}"] = found / num_texts
    return scores


def retrieval_rows(
    images: Mapping[str, Float[Tensor, "b e"]], texts: Float[Tensor, "t e"], captions: Sequence[Sequence[str]]
) -> dict[str, Tensor]:
    """What `retrieval_scores` needs of some images; rows of several parts are joined one after the other.

    Args:
        images: Unit vectors of the same images by view; the view "" is that of whole images.
        texts: Unit vectors of all their captions, in their order.
        captions: The captions of each image.
    """
    return {
        **{f"images_{view}": vectors for view, vectors in images.items()},
        "texts": texts,
        "num_texts": torch.tensor([len(of_image) for of_image in captions], dtype=torch.int64),
        "text_keys": caption_keys([caption for of_image in captions for caption in of_image]),
    }


def retrieval_scores(rows: Mapping[str, Tensor]) -> dict[str, Float[Tensor, " n"]]:
    """`recalls` of every view: "text_recall_1", and "masked_text_recall_1" for the view "masked"."""
    cpu = {name: value.cpu() for name, value in rows.items()}
    scores: dict[str, Float[Tensor, " n"]] = {}
    for name, vectors in cpu.items():
        if name.startswith("images_"):
            view = name.removeprefix("images_")
            of_view = recalls(vectors, cpu["texts"], num_texts=cpu["num_texts"], text_keys=cpu["text_keys"])
            scores |= {f"{view}_{score}" if view else score: values for score, values in of_view.items()}
    return scores


def _texts_of(part: Int64[Tensor, " q"], owner: Int64[Tensor, " r"], group: Int64[Tensor, " r"]) -> Bool[Tensor, "q r"]:
    """Whether an image of `part` has a caption with the words of each text; owner and group are those of the texts."""
    first, last = torch.searchsorted(owner, torch.stack([part[0], part[-1] + 1])).tolist()
    words = torch.zeros(len(part), int(group.max()) + 1, dtype=torch.bool)
    words[owner[first:last] - part[0], group[first:last]] = True
    return words[:, group]


def _images_of(
    part: Int64[Tensor, " q"], owner: Int64[Tensor, " r"], group: Int64[Tensor, " r"], num_images: int
) -> Bool[Tensor, "q n"]:
    """Whether each image has a caption with the words of a text of `part`."""
    query, text = torch.nonzero(group[part, None] == group[None, :], as_tuple=True)
    right = torch.zeros(len(part), num_images, dtype=torch.bool)
    right[query, owner[text]] = True
    return right


def _ranks(similarities: Float[Tensor, "q c"], right: Bool[Tensor, "q c"]) -> Int64[Tensor, " q"]:
    """One plus the number of wrong candidates that are not below the best right one."""
    best = similarities.masked_fill(~right, -torch.inf).amax(dim=1, keepdim=True)
    # "Not below" rather than "at least": comparisons with NaN are false, and must count against the query.
    return 1 + (~(similarities < best) & ~right).sum(dim=1)
