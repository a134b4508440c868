"""Names of a reference's tensors for ours, written out a second time so that tests do not lean on the converters."""

from collections.abc import Mapping
from types import MappingProxyType

__all__ = ["open_clip_name"]

_OPEN_CLIP: Mapping[str, str] = MappingProxyType(
    {
        "norm1": "ln_1",
        "norm2": "ln_2",
        "attn.qkv.": "attn.in_proj_",
        "attn.proj": "attn.out_proj",
        "mlp.fc1": "mlp.c_fc",
        "mlp.fc2": "mlp.c_proj",
        "encoder.blocks": "visual.transformer.resblocks",
        "encoder.patch_embed.proj": "visual.conv1",
        "encoder.norm_pre": "visual.ln_pre",
        "encoder.norm.": "visual.ln_post.",
        "encoder.cls_token": "visual.class_embedding",
        "encoder.pos_embed": "visual.positional_embedding",
        "image_projection.weight": "visual.proj",
        "text.blocks": "transformer.resblocks",
        "text.token_embed": "token_embedding",
        "text.pos_embed": "positional_embedding",
        "text.norm.": "ln_final.",
        "text_projection.weight": "text_projection",
        "raw_logit_scale": "logit_scale",
    }
)


def open_clip_name(name: str) -> str:
    """Return open_clip's name of a tensor of an image-text pair of ours."""
    for ours, theirs in _OPEN_CLIP.items():
        name = name.replace(ours, theirs)
    return name
