"""The encoder as a backbone of mmdet and mmseg models; needs mmengine, so it is imported inside an open session only.

Both build a part from its class as well as from a registered name, so the encoder enters as a class and no registry
is changed.
"""

import copy
from typing import Any

from jaxtyping import Float
from mmengine.model import BaseModule
from torch import Tensor
from unveil_backbones import Encoder, FeaturePyramid

from unveil_evalharness.engine.parity import check_forward_parity, check_load_coverage, probe_image

__all__ = ["ENCODER_PREFIX", "PyramidBackbone", "check_encoder"]

ENCODER_PREFIX = "backbone.pyramid.encoder."
"""Where the encoder's tensors are in a model's state dict."""


class PyramidBackbone(BaseModule):
    """`FeaturePyramid` as mmdet and mmseg expect a backbone.

    Args:
        pyramid: the encoder with its four feature maps, weights in place.
    """

    def __init__(self, pyramid: FeaturePyramid) -> None:
        super().__init__()
        self.pyramid = pyramid

    def init_weights(self) -> None:
        """Nothing: the weights are in place, and mmengine would reset them."""

    def forward(self, images: Float[Tensor, "b c h w"]) -> tuple[Tensor, ...]:
        """Four maps at strides 4, 8, 16 and 32."""
        return self.pyramid(images)


def check_encoder(encoder: Encoder, model: Any, *, image_size: int) -> float:
    """The two gates before training: the model holds the checkpoint's encoder and computes the same with it.

    Forward parity compares the model's backbone with the same pyramid layers around the checkpoint's own encoder.

    Args:
        encoder: the checkpoint's encoder.
        model: an mmdet or mmseg model whose ``backbone`` is a `PyramidBackbone`.
        image_size: side of the probe image, one that the task trains on.

    Returns:
        The load coverage, 1.0.

    Raises:
        GateError: see `unveil_evalharness.engine.parity`.
    """
    coverage = check_load_coverage(encoder.state_dict(), model.state_dict(), prefix=ENCODER_PREFIX)
    reference = copy.deepcopy(model.backbone.pyramid)
    reference.encoder = encoder
    check_forward_parity(
        reference,
        model,
        reference_features=reference,
        task_features=model.backbone,
        image=probe_image(image_size, image_size),
    )
    return coverage
