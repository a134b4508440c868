"""The protocol of each suite: how many images, under which frozen masks, in which arithmetic."""

from dataclasses import dataclass
from typing import Literal

from unveil_evalharness.errors import ProtocolError, UnknownSuiteError
from unveil_evalharness.task import SUITES

__all__ = ["ValLossProtocol", "protocol_for"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ValLossProtocol:
    """Everything that defines the loss besides checkpoint and data.

    Target, mask strategy and ratio are those of the checkpoint's own objective, and with all the rest they are in the
    passport of each loss: losses are compared only where passports agree.
    """

    num_images: int = 0
    """Images to score: the seeded subset that `pretrain --val-images` takes; 0 for all."""
    num_masks: int = 1
    """Frozen masks per image, whose mean is its loss."""
    mask_seed: int = 1_000_003
    """Seed of masks and subset for ``--seeds 0``, that of `pretrain`'s validations; other seeds are added to it."""
    negative_pool: int = 100
    """Pairs that are compared with each other in a contrastive loss; images beyond the last whole pool are left out."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Arithmetic of the forward pass."""

    def __post_init__(self) -> None:
        """Refuses numbers that no validation has."""
        least = {"num_images": 0, "num_masks": 1, "mask_seed": 0, "negative_pool": 2}
        for name, smallest in least.items():
            value = getattr(self, name)
            if value < smallest:
                raise ProtocolError(f"{name} is {value}; give a whole number of at least {smallest}")


def protocol_for(suite: str) -> ValLossProtocol:
    """The protocol of a suite.

    Raises:
        UnknownSuiteError: there is no such suite.
    """
    match suite:
        case "quick":
            return ValLossProtocol(num_images=64, negative_pool=16)
        case "short":
            return ValLossProtocol(num_images=5000)
        case "full":
            return ValLossProtocol()
        case _:
            raise UnknownSuiteError(f"val_loss has no suite {suite!r}; use one of {', '.join(SUITES)}")
