"""timm's Vision Transformers and Swin Transformers V2: our names are timm's, so little but positions changes.

Written files are those of timm's ``local-dir:`` models: ``model.safetensors`` beside a ``config.json``.
"""

import re
from dataclasses import replace

import torch

from unveil_backbones._json import JSON
from unveil_backbones.base import Encoder
from unveil_backbones.conversion.configs import Configs, timm_details
from unveil_backbones.conversion.details import Details, Found, Written, infer_vit, make_encoder, vit_positions
from unveil_backbones.conversion.ledger import Ledger, same, spread
from unveil_backbones.conversion.simmim import infer_swin, swin_links
from unveil_backbones.conversion.timm_adapter import needs_adapter, read_adapted, write_adapted
from unveil_backbones.errors import NotExpressibleError
from unveil_backbones.pair import ImageTextPair
from unveil_backbones.position import sin_cos_position
from unveil_backbones.specs import Preprocessing
from unveil_backbones.swin import SwinConfig
from unveil_backbones.timm_config import TIMM_PREFIX
from unveil_backbones.timm_encoder import TimmEncoder
from unveil_backbones.vit import VitConfig

__all__ = ["position_table", "read", "refuse_norm_after_pooling", "write"]

_HEAD = ("head.weight", "head.bias", "head.fc.weight", "head.fc.bias")


def read(ledger: Ledger, details: Details, configs: Configs) -> Found:
    """Read a state dict of timm: a Vision Transformer, or a Swin Transformer V2; ``config.json`` tells the details.

    Raises:
        ConvertError: A detail has to be given.
        NotExpressibleError: It has a part that no encoder here has.
    """
    prefix = ledger.prefix("patch_embed.proj.weight")
    known = details.completed(timm_details(configs))
    named = _named_model(details, configs)
    if named is not None and (details.arch is not None or needs_adapter(ledger, prefix)):
        # Pooling is what timm's name stands for unless the caller says otherwise.
        return read_adapted(ledger, prefix, named, replace(known, pooling=details.pooling))
    ledger.drop([prefix + name for name in _HEAD], "the classifier")
    if any(name.startswith(f"{prefix}layers.") for name in ledger.tensors):
        return _read_swin(ledger, prefix, known)
    refuse_norm_after_pooling(ledger, prefix)
    config = _vit_config(ledger, prefix, known)
    encoder = make_encoder(config, details.arch)
    return Found(
        model=encoder,
        links=[same(name, prefix + name) for name in encoder.state_dict()],
        objective="unknown",
        preprocessing=known.preprocessing(Preprocessing(image_size=config.image_size)),
        assumed={
            "num_heads": config.num_heads,
            "norm_epsilon": config.norm_epsilon,
            "activation": config.activation,
            "pooling": config.pooling,
        },
    )


def write(model: Encoder | ImageTextPair, preprocessing: Preprocessing) -> Written:
    """Write the image encoder for timm.

    Raises:
        NotExpressibleError: timm has no such model.
    """
    encoder = model.encoder if isinstance(model, ImageTextPair) else model
    if isinstance(encoder, TimmEncoder):
        return write_adapted(encoder, preprocessing)
    config = encoder.config
    pretrained: dict[str, JSON] = {
        "input_size": [3, *config.image_size],
        "mean": list(preprocessing.mean),
        "std": list(preprocessing.std),
        "interpolation": preprocessing.interpolation,
        "crop_pct": preprocessing.crop_fraction,
        "num_classes": 0,
    }
    if isinstance(config, SwinConfig):
        tensors = spread(encoder, swin_links(list(encoder.state_dict()), "", merge_shift=0))
        architecture, arguments = "swinv2_base_window12_192", _swin_arguments(config)
        pooling = "avg"
    elif isinstance(config, VitConfig):
        tensors = spread(encoder, [same(name, name) for name in encoder.state_dict()])
        tensors["pos_embed"] = position_table(encoder, config, class_row=config.class_position)
        architecture, arguments = _vit_architecture(config)
        pooling = arguments["global_pool"]
    else:
        raise NotExpressibleError(f"{encoder.spec.name} is no ViT and no SwinV2 of this package; use its own program")
    return Written(
        tensors=tensors,
        configs={
            "config.json": {
                "architecture": architecture,
                "num_classes": 0,
                "num_features": encoder.width,
                "global_pool": pooling,
                "model_args": arguments,
                "pretrained_cfg": pretrained,
            }
        },
    )


def _named_model(details: Details, configs: Configs) -> str | None:
    """Timm's name of the model, as the caller gave it or as its ``config.json`` does."""
    if details.arch is not None:
        return details.arch.removeprefix(TIMM_PREFIX) if details.arch.startswith(TIMM_PREFIX) else None
    name = configs.get("config.json", {}).get("architecture")
    return name if isinstance(name, str) else None


def position_table(encoder: Encoder, config: VitConfig, *, class_row: bool) -> torch.Tensor:
    """Return positions as a table ``[1, n, d]``, with a row for the class token or without.

    A row that does not exist here is zero: adding nothing and adding zero are the same.

    Raises:
        NotExpressibleError: The class token has a position and no row was asked for.
    """
    if config.position == "learned":
        table = encoder.state_dict()["pos_embed"]
    else:
        rows, cols = encoder.grid(*config.image_size)
        table = sin_cos_position(rows, cols, config.width, base_rows=rows, base_cols=cols)[None]
    if config.class_position and not class_row:
        raise NotExpressibleError("the class token has a position, for which the other layout has no place")
    if class_row and not config.class_position:
        table = torch.cat([table.new_zeros(1, 1, config.width), table], dim=1)
    return table


def refuse_norm_after_pooling(ledger: Ledger, prefix: str) -> None:
    """Refuse files whose last norm follows the pooling.

    Raises:
        NotExpressibleError: It does; encoders here norm the tokens, so the weights would mean something else.
    """
    if f"{prefix}fc_norm.weight" in ledger:
        raise NotExpressibleError(
            f"{ledger.where} norms after pooling (fc_norm); encoders here norm every token before, which gives other "
            "results with the same weights; take the pre-training file, one fine-tuned with the class token, or, if "
            "timm has the model under a name, give that (--arch timm:NAME)"
        )


def _read_swin(ledger: Ledger, prefix: str, details: Details) -> Found:
    config, assumed = infer_swin(ledger, prefix, details)
    buffers = [name for name in ledger.tensors if re.search(r"\.(relative_\w+|attn_mask|k_bias)$", name)]
    ledger.drop(buffers, "buffers, which are computed from windows and image size")
    encoder = make_encoder(config, details.arch)
    return Found(
        model=encoder,
        links=swin_links(list(encoder.state_dict()), prefix, merge_shift=0),
        objective="unknown",
        preprocessing=details.preprocessing(Preprocessing(image_size=config.image_size)),
        assumed=assumed,
    )


def _vit_config(ledger: Ledger, prefix: str, details: Details) -> VitConfig:
    class_token, registers = f"{prefix}cls_token" in ledger, _length(ledger, f"{prefix}reg_token")
    table = f"{prefix}pos_embed"
    entries = _length(ledger, table)
    cells = _cells(entries, class_token, details)
    fc1, patch = f"{prefix}blocks.0.mlp.fc1.weight", f"{prefix}patch_embed.proj.weight"
    plain = infer_vit(ledger, patch, fc1, ledger.depth(f"{prefix}blocks."), cells, details)
    pre_norm = f"{prefix}norm_pre.weight" in ledger
    config = replace(
        plain,
        class_token=class_token,
        num_registers=registers,
        pre_norm=pre_norm,
        patch_bias=f"{prefix}patch_embed.proj.bias" in ledger,
        qkv_bias=f"{prefix}blocks.0.attn.qkv.bias" in ledger,
        layer_scale=1e-5 if f"{prefix}blocks.0.ls1.gamma" in ledger else None,
        activation=details.activation or "gelu",
        # CLIP's models, which alone have a norm before the blocks, use PyTorch's default.
        norm_epsilon=details.norm_epsilon or (1e-5 if pre_norm else 1e-6),
        pooling=details.pooling or ("cls" if class_token else "mean"),
    )
    return vit_positions(ledger, config, table)


def _length(ledger: Ledger, name: str) -> int:
    """Entries of a table ``[1, n, d]``; 0 if it is absent."""
    return ledger.look(name, 3).shape[1] if name in ledger else 0


def _cells(entries: int, class_token: bool, details: Details) -> int:
    """Entries of the table that belong to patches: all of them if that makes a square, else all but the class's."""
    square = round(entries**0.5) ** 2 == entries
    return entries if square or not class_token or details.image_size else entries - 1


def _vit_architecture(config: VitConfig) -> tuple[str, dict[str, JSON]]:
    if config.patch_bias == config.pre_norm:
        raise NotExpressibleError(
            "timm's patch projection has a bias exactly if no norm precedes the blocks; ours differs"
        )
    if config.class_position and config.num_registers:
        raise NotExpressibleError(
            "timm has no position for the class token beside register tokens; keep this encoder in its own format"
        )
    epsilons = {1e-6: "vit_base_patch16_224", 1e-5: "vit_base_patch16_clip_224"}
    if config.norm_epsilon not in epsilons:
        raise NotExpressibleError(
            f"norm_epsilon {config.norm_epsilon}; timm's models have {', '.join(map(str, epsilons))}"
        )
    arguments: dict[str, JSON] = {
        "img_size": list(config.image_size),
        "patch_size": config.patch_size,
        "embed_dim": config.width,
        "depth": config.depth,
        "num_heads": config.num_heads,
        "mlp_ratio": config.mlp_ratio,
        "qkv_bias": config.qkv_bias,
        "init_values": config.layer_scale,
        "class_token": config.class_token,
        "global_pool": "token" if config.pooling == "cls" else "avg",
        "no_embed_class": not config.class_position,
        "reg_tokens": config.num_registers,
        "pre_norm": config.pre_norm,
        "act_layer": config.activation,
        "fc_norm": False,
        "pool_include_prefix": config.pooling == "mean_all",
    }
    return epsilons[config.norm_epsilon], arguments


def _swin_arguments(config: SwinConfig) -> dict[str, JSON]:
    if len(set(config.window_sizes)) > 1:
        raise NotExpressibleError(f"windows {config.window_sizes}; timm's models have one; export to huggingface")
    return {
        "img_size": list(config.image_size),
        "patch_size": config.patch_size,
        "embed_dim": config.width,
        "depths": list(config.depths),
        "num_heads": list(config.num_heads),
        "window_size": config.window_sizes[0],
        "mlp_ratio": config.mlp_ratio,
        "pretrained_window_sizes": [list(window) for window in config.pretrained_window_sizes],
    }
