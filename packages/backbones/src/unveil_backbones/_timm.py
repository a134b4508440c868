"""What is taken from timm, in the one module that imports it: torchvision has to be made importable first."""

from unveil_backbones._torchvision import ensure_torchvision

ensure_torchvision()

from timm.layers.attention import Attention  # noqa: E402
from timm.layers.norm import LayerNorm  # noqa: E402
from timm.layers.patch_embed import PatchEmbed, resample_patch_embed  # noqa: E402
from timm.models import create_model, get_pretrained_cfg, is_model_in_modules, list_models  # noqa: E402
from timm.models.eva import Eva  # noqa: E402
from timm.models.hiera import Hiera  # noqa: E402
from timm.models.swin_transformer_v2 import SwinTransformerV2, SwinTransformerV2Stage  # noqa: E402
from timm.models.vision_transformer import Block, VisionTransformer  # noqa: E402

__all__ = [
    "Attention",
    "Block",
    "Eva",
    "Hiera",
    "LayerNorm",
    "PatchEmbed",
    "SwinTransformerV2",
    "SwinTransformerV2Stage",
    "VisionTransformer",
    "create_model",
    "get_pretrained_cfg",
    "is_model_in_modules",
    "list_models",
    "resample_patch_embed",
]
