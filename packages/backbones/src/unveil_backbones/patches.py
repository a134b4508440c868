"""A plain encoder with patches of another size, such as a stride of 16 for detection instead of 14.

The projection is resampled by the pseudo-inverse of resizing an image (FlexiViT, Beyer et al., arXiv 2212.08013,
section 3.4, as timm does it): for larger patches, the tokens of an enlarged image are those of the image itself.
"""

from dataclasses import replace

import torch

from unveil_backbones._timm import resample_patch_embed
from unveil_backbones.base import Encoder
from unveil_backbones.encoder import build
from unveil_backbones.errors import ConfigError
from unveil_backbones.specs import EncoderSpec
from unveil_backbones.timm_encoder import TimmEncoder
from unveil_backbones.vit import VitEncoder

__all__ = ["with_patch_size"]

_WEIGHT = "patch_embed.proj.weight"


def with_patch_size(encoder: Encoder, patch_size: int) -> Encoder:
    """Return a copy of a plain encoder with other patches and the same weights but for the resampled projection.

    The image size of pre-training changes along, so that the grid of positions stays.

    Args:
        encoder: A ``VitEncoder`` or a ``TimmEncoder``.
        patch_size: Wanted side of a patch in pixels.

    Raises:
        ConfigError: The encoder's stages are tied to its patches (Swin, Hiera), or the patch has no pixel.
    """
    if not isinstance(encoder, VitEncoder | TimmEncoder):
        raise ConfigError(f"{encoder.spec.name} has stages of fixed strides; only plain encoders change their patches")
    if patch_size < 1:
        raise ConfigError(f"patch_size {patch_size}; a patch has at least one pixel; give a positive number")
    rows, cols = encoder.grid(*encoder.config.image_size)
    config = replace(encoder.config, patch_size=patch_size, image_size=(rows * patch_size, cols * patch_size))
    # A name such as vit_h14 would promise other patches; the family's name promises nothing.
    name = "vit" if isinstance(encoder, VitEncoder) else encoder.spec.name
    changed = build(EncoderSpec(name, config.to_json()))
    state = encoder.state_dict()
    with torch.no_grad():
        state[_WEIGHT] = resample_patch_embed(state[_WEIGHT], [patch_size, patch_size])
    changed.load_state_dict(state)
    return changed.train(encoder.training)
