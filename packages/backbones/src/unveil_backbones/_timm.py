"""The classes taken from timm, in the one module that imports it: torchvision has to be made importable first."""

from unveil_backbones._torchvision import ensure_torchvision

ensure_torchvision()

from timm.layers.attention import Attention  # noqa: E402
from timm.layers.norm import LayerNorm  # noqa: E402
from timm.models.swin_transformer_v2 import SwinTransformerV2, SwinTransformerV2Stage  # noqa: E402
from timm.models.vision_transformer import Block, VisionTransformer  # noqa: E402

__all__ = [
    "Attention",
    "Block",
    "LayerNorm",
    "SwinTransformerV2",
    "SwinTransformerV2Stage",
    "VisionTransformer",
]
