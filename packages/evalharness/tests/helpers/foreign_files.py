"""Randomly initialised weights in the formats of other programs, small; each function writes one file.

The models are the programs' own (timm, open_clip), so that names and shapes are theirs by more than our word; what the
authors of MAE and SimMIM add to timm's names stands here.
"""

import re
from collections.abc import Callable
from pathlib import Path

import torch
import unveil_backbones
from torch import Tensor
from unveil_backbones.position import sin_cos_position

__all__ = ["WRITERS", "state_of"]

_SIDE, _PATCH, _WIDTH = 32, 8, 64


def _vit(**options: object) -> dict[str, Tensor]:
    unveil_backbones.ensure_torchvision()
    from timm.models.vision_transformer import VisionTransformer

    torch.manual_seed(0)
    sizes = {"img_size": _SIDE, "patch_size": _PATCH, "embed_dim": _WIDTH, "depth": 2, "num_heads": 1}
    model = VisionTransformer(**{**sizes, "num_classes": 3, **options})
    return dict(model.state_dict())


def _encoder(**options: object) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in _vit(**options).items() if not name.startswith("head.")}


def _fixed_positions(width: int) -> Tensor:
    side = _SIDE // _PATCH
    table = sin_cos_position(side, side, width, base_rows=side, base_cols=side)
    return torch.cat([table.new_zeros(1, width), table])[None]


def timm_state() -> dict[str, Tensor]:
    return _vit()


def dinov2_state() -> dict[str, Tensor]:
    return {**_encoder(init_values=1e-5), "mask_token": torch.zeros(1, _WIDTH)}


def mae_state(width: int = 32) -> dict[str, Tensor]:
    """With the decoder of pre-training: one block of `width` channels."""
    state = {**_encoder(), "pos_embed": _fixed_positions(_WIDTH)}
    shapes = {
        "decoder_embed": (width, _WIDTH),
        "decoder_blocks.0.norm1": (width,),
        "decoder_blocks.0.attn.qkv": (3 * width, width),
        "decoder_blocks.0.attn.proj": (width, width),
        "decoder_blocks.0.norm2": (width,),
        "decoder_blocks.0.mlp.fc1": (4 * width, width),
        "decoder_blocks.0.mlp.fc2": (width, 4 * width),
        "decoder_norm": (width,),
        "decoder_pred": (3 * _PATCH**2, width),
    }
    for name, shape in shapes.items():
        state[f"{name}.weight"] = torch.ones(shape) if "norm" in name else torch.randn(shape) * 0.1
        state[f"{name}.bias"] = torch.zeros(shape[0])
    return {**state, "mask_token": torch.randn(1, 1, width), "decoder_pos_embed": _fixed_positions(width)}


def simmim_state() -> dict[str, Tensor]:
    """Swin V2 in its authors' names: mergings a stage earlier, buffers saved, an ``encoder.`` before everything."""
    unveil_backbones.ensure_torchvision()
    from timm.models.swin_transformer_v2 import SwinTransformerV2

    torch.manual_seed(0)
    model = SwinTransformerV2(
        img_size=64, window_size=4, embed_dim=32, depths=(2, 2, 2, 1), num_heads=(1, 2, 4, 8), num_classes=0
    )
    state: dict[str, Tensor] = {}
    for name, tensor in {**dict(model.named_buffers()), **model.state_dict()}.items():
        if not name.endswith("k_bias"):
            moved = re.sub(r"layers\.(\d)\.down", lambda found: f"layers.{int(found[1]) - 1}.down", name)
            state[f"encoder.{moved}"] = tensor
    heads = {"decoder.0.weight": torch.randn(3072, 256, 1, 1) * 0.01, "decoder.0.bias": torch.zeros(3072)}
    return {**state, **heads, "encoder.mask_token": torch.zeros(1, 1, 32)}


def open_clip_state() -> dict[str, Tensor]:
    unveil_backbones.ensure_torchvision()
    from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg

    torch.manual_seed(0)
    vision = CLIPVisionCfg(layers=2, width=_WIDTH, head_width=64, patch_size=_PATCH, image_size=_SIDE)
    text = CLIPTextCfg(context_length=77, vocab_size=49408, width=64, heads=1, layers=1)
    return dict(CLIP(embed_dim=16, vision_cfg=vision, text_cfg=text).state_dict())


STATES: dict[str, Callable[[], dict[str, Tensor]]] = {
    "timm": timm_state,
    "mae": mae_state,
    "simmim": simmim_state,
    "dinov2": dinov2_state,
    "open_clip": open_clip_state,
}


def state_of(format: str) -> dict[str, Tensor]:
    """The tensors of a file of `format`."""
    return STATES[format]()


def _write_pickle(path: Path, state: dict[str, Tensor]) -> Path:
    file = path.with_suffix(".pth")
    torch.save({"model": state}, file)
    return file


def _write_safetensors(path: Path, state: dict[str, Tensor]) -> Path:
    from unveil_backbones.checkpoint import write_tensors

    file = path.with_suffix(".safetensors")
    write_tensors(file, state)
    return file


WRITERS: dict[str, Callable[[Path, dict[str, Tensor]], Path]] = {
    "timm": _write_safetensors,
    "mae": _write_pickle,
    "simmim": _write_pickle,
    "dinov2": _write_pickle,
    "open_clip": _write_safetensors,
}
"""How each program keeps its weights."""
