"""How neighbours are found and how they vote: everything that can move the number, and nothing else."""

from dataclasses import dataclass, replace
from typing import Literal

from unveil_evalharness.errors import ProtocolError, UnknownSuiteError

__all__ = ["KnnProtocol", "protocol_for"]


@dataclass(frozen=True, kw_only=True, slots=True)
class KnnProtocol:
    """One look at every image and one vote per validation image."""

    neighbours: tuple[int, ...]
    """Numbers of neighbours that vote; each gives a metric of its own."""
    main_neighbours: int
    """The one of them whose predictions are kept and tabled."""
    temperature: float
    """A neighbour of cosine similarity s has the weight ``exp(s / temperature)``."""
    image_side: int | Literal["pretraining"]
    """Side of the square images in pixels, or the checkpoint's own image size."""
    test_crop: float
    """Side of the central crop over the resized shorter side, of training images too."""
    interpolation: str
    """Resampling filter of the resize."""
    max_train_images: int | None
    """Class-balanced, fixed subset of the training images; None for all."""
    max_val_images: int | None
    """Class-balanced, fixed subset of the validation images; None for all."""

    def __post_init__(self) -> None:
        if self.main_neighbours not in self.neighbours or min(self.neighbours) < 1:
            raise ProtocolError(
                f"neighbours must be at least 1 and hold main_neighbours={self.main_neighbours}, got {self.neighbours}"
            )
        if self.temperature <= 0:
            raise ProtocolError(f"temperature must be above 0, got {self.temperature}")


def protocol_for(suite: str) -> KnnProtocol:
    """The protocol of a suite: DINO's (arXiv 2104.14294, and its code), over fewer images where time is short.

    Raises:
        UnknownSuiteError: a suite other than ``"quick"``, ``"short"`` and ``"full"``.
    """
    full = KnnProtocol(
        neighbours=(10, 20, 100, 200),
        main_neighbours=20,
        temperature=0.07,
        image_side=224,
        test_crop=224 / 256,
        interpolation="bicubic",
        max_train_images=None,
        max_val_images=None,
    )
    match suite:
        case "quick":
            return replace(full, image_side="pretraining", test_crop=1.0, max_train_images=1000, max_val_images=500)
        case "short":
            return replace(full, max_train_images=256_000)
        case "full":
            return full
        case _:
            raise UnknownSuiteError(f"knn has no suite {suite!r}; choose 'quick', 'short' or 'full'")
