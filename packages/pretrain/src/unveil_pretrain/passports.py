"""The passport of a validation: what its losses depend on besides the model."""

from unveil_backbones.manifest import Passport

from unveil_pretrain.config import Precision
from unveil_pretrain.objectives.base import Objective
from unveil_pretrain.validate import MASK_EPOCH, ValidationSet

__all__ = ["make_passport"]


def make_passport(
    name: str, objective: Objective, validation: ValidationSet, *, image_size: tuple[int, int], precision: Precision
) -> Passport:
    """What the losses of `objective` over `validation` depend on.

    Args:
        name: The objective's name.
        objective: What scores.
        validation: The images and their masks.
        image_size: Height and width of the crops in pixels.
        precision: Arithmetic of the forward pass.
    """
    card = objective.card()
    return Passport(
        objective=name,
        target_normalisation=card.target_normalisation,
        reduction=card.reduction,
        mask=dict(card.mask),
        realised_ratio=card.realised_ratio,
        mask_seed=validation.mask_seed,
        mask_epoch=MASK_EPOCH,
        image_size=image_size,
        crop="center1.0",
        images_hash=validation.samples.content_hash,
        negative_pool=card.negative_pool,
        dtype=precision,
        num_masks=validation.num_masks,
    )
