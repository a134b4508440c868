"""The names of transformers' modules: which of our tensors is which of theirs."""

from unveil_backbones.conversion.ledger import Link, same, stacked
from unveil_backbones.swin_config import SwinConfig
from unveil_backbones.vit_config import VitConfig

__all__ = ["clip_block_links", "swin_links", "vit_links"]

_PARTS = ("weight", "bias")


def vit_links(config: VitConfig, prefix: str) -> list[Link]:
    """Link a Vision Transformer's tensors to those of ``ViTModel``."""
    links = [same("cls_token", f"{prefix}embeddings.cls_token")]
    if config.position == "learned":
        links.append(same("pos_embed", f"{prefix}embeddings.position_embeddings"))
    for part in _PARTS:
        links.append(same(f"patch_embed.proj.{part}", f"{prefix}embeddings.patch_embeddings.projection.{part}"))
        links.append(same(f"norm.{part}", f"{prefix}layernorm.{part}"))
    for index in range(config.depth):
        ours, theirs = f"blocks.{index}.", f"{prefix}encoder.layer.{index}."
        self_attention = f"{theirs}attention.attention."
        for part in _PARTS:
            if part == "weight" or config.qkv_bias:
                three = tuple(f"{self_attention}{name}.{part}" for name in ("query", "key", "value"))
                links.append(stacked(f"{ours}attn.qkv.{part}", three))
            links += _layers(ours, theirs, part, _VIT_LAYERS)
    return links


def swin_links(config: SwinConfig, prefix: str) -> list[Link]:
    """Link a Swin Transformer's tensors to those of ``Swinv2Model``, which merges at the end of a stage, not before."""
    links = []
    for part in _PARTS:
        links.append(same(f"patch_embed.proj.{part}", f"{prefix}embeddings.patch_embeddings.projection.{part}"))
        links.append(same(f"patch_embed.norm.{part}", f"{prefix}embeddings.norm.{part}"))
        links.append(same(f"norm.{part}", f"{prefix}layernorm.{part}"))
    for stage, depth in enumerate(config.depths):
        for block in range(depth):
            links += _swin_block(f"layers.{stage}.blocks.{block}.", f"{prefix}encoder.layers.{stage}.blocks.{block}.")
        if stage:
            ours, theirs = f"layers.{stage}.downsample.", f"{prefix}encoder.layers.{stage - 1}.downsample."
            links += [same(ours + name, theirs + name) for name in ("reduction.weight", "norm.weight", "norm.bias")]
    return links


def clip_block_links(depth: int, ours: str, theirs: str) -> list[Link]:
    """Link the blocks of one of CLIP's towers below two stems."""
    links = []
    for index in range(depth):
        mine, other = f"{ours}{index}.", f"{theirs}{index}."
        for part in _PARTS:
            three = tuple(f"{other}self_attn.{name}_proj.{part}" for name in ("q", "k", "v"))
            links.append(stacked(f"{mine}attn.qkv.{part}", three))
            links += _layers(mine, other, part, _CLIP_LAYERS)
    return links


_VIT_LAYERS = {
    "attn.proj": "attention.output.dense",
    "norm1": "layernorm_before",
    "norm2": "layernorm_after",
    "mlp.fc1": "intermediate.dense",
    "mlp.fc2": "output.dense",
}

_CLIP_LAYERS = {
    "attn.proj": "self_attn.out_proj",
    "norm1": "layer_norm1",
    "norm2": "layer_norm2",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}


def _layers(ours: str, theirs: str, part: str, names: dict[str, str]) -> list[Link]:
    return [same(f"{ours}{mine}.{part}", f"{theirs}{other}.{part}") for mine, other in names.items()]


def _swin_block(ours: str, theirs: str) -> list[Link]:
    attention = f"{theirs}attention.self."
    bias = "continuous_position_bias_mlp"
    three = tuple(f"{attention}{name}.weight" for name in ("query", "key", "value"))
    links = [
        stacked(f"{ours}attn.qkv.weight", three),
        same(f"{ours}attn.q_bias", f"{attention}query.bias"),
        same(f"{ours}attn.v_bias", f"{attention}value.bias"),
        same(f"{ours}attn.logit_scale", f"{attention}logit_scale"),
        same(f"{ours}attn.cpb_mlp.0.weight", f"{attention}{bias}.0.weight"),
        same(f"{ours}attn.cpb_mlp.0.bias", f"{attention}{bias}.0.bias"),
        same(f"{ours}attn.cpb_mlp.2.weight", f"{attention}{bias}.2.weight"),
    ]
    for part in _PARTS:
        links += _layers(ours, theirs, part, _VIT_LAYERS)
    return links
