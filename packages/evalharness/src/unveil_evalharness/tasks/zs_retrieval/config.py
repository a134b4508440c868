"""The retrieval protocol of each suite."""

from dataclasses import dataclass
from typing import Literal

from unveil_evalharness.errors import ProtocolError, UnknownSuiteError
from unveil_evalharness.task import SUITES
from unveil_evalharness.tasks.zs_retrieval.data import Source

__all__ = ["RetrievalProtocol", "protocol_for"]


@dataclass(frozen=True, kw_only=True, slots=True)
class RetrievalProtocol:
    """Everything that defines the retrieval numbers besides checkpoint and data.

    Similarity is the cosine of the normalised embeddings (FLIP, arXiv 2212.00794; recall as in CLIP_benchmark).
    """

    source: Source = "any"
    """Any captioned set, or the published test split that the numbers are of."""
    captions: Literal["all"] = "all"
    """Every caption of an image is a query, and a right answer for its image."""
    prompt: Literal["none"] = "none"
    """Captions are embedded as they are (FLIP, arXiv 2212.00794)."""
    truncation: Literal["text_tower"] = "text_tower"
    """A caption longer than the text tower reads is cut at that length, which is part of the checkpoint."""
    recall_at: tuple[int, ...] = (1, 5, 10)
    merge_identical_captions: bool = False
    """False, as published COCO and Flickr30k numbers: a caption matches only the image it was written for, also when
    another image carries the same words. True: images that share a caption word for word are all correct answers to
    it, and every copy of an image's own captions is a correct answer to the image. Sets with few distinct captions
    have no meaningful recall without it."""
    ties: Literal["against"] = "against"
    """A wrong candidate with the same score as the right one counts as ranked before it, so that a collapsed encoder,
    to which all candidates look alike, gets 0 and not 1."""

    def __post_init__(self) -> None:
        """Refuses cut-offs that are not positive and ascending."""
        if not self.recall_at or list(self.recall_at) != sorted(set(self.recall_at)) or self.recall_at[0] < 1:
            raise ProtocolError(
                f"recall_at must be ascending positive integers such as (1, 5, 10), got {self.recall_at}"
            )


def protocol_for(suite: str, source: Source = "any") -> RetrievalProtocol:
    """The protocol of a suite; a published set is scored as published in every suite.

    Raises:
        UnknownSuiteError: for any name but those of `SUITES`.
    """
    match suite:
        case "quick":
            return RetrievalProtocol(source=source, merge_identical_captions=source == "any")
        case "short" | "full":
            # Nothing is trained: the papers' protocol takes minutes on a GPU, so both are the same, by fingerprint too.
            return RetrievalProtocol(source=source)
        case _:
            raise UnknownSuiteError(f"zs_retrieval has no suite {suite!r}; use one of {', '.join(SUITES)}")
