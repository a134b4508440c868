"""Hugging Face's transformers: ``ViTModel``, ``Swinv2Model`` and ``CLIPModel``, weights beside a ``config.json``.

Query, key and value are three layers there and one here. A Vision Transformer without a position for its class token is
written with a zero row for it, and read back without.
"""

from torch import Tensor

from unveil_backbones._json import JSON
from unveil_backbones.base import Encoder
from unveil_backbones.conversion.configs import Configs, preprocessor_json, transformers_preprocessing
from unveil_backbones.conversion.details import Details, Found, Written
from unveil_backbones.conversion.huggingface_clip import read_clip, write_clip
from unveil_backbones.conversion.huggingface_names import swin_links, vit_links
from unveil_backbones.conversion.huggingface_read import read_swin, read_vit
from unveil_backbones.conversion.ledger import Ledger, spread
from unveil_backbones.conversion.timm_models import position_table
from unveil_backbones.errors import ConvertError, NotExpressibleError
from unveil_backbones.pair import ImageTextPair
from unveil_backbones.specs import Preprocessing
from unveil_backbones.swin_config import SwinConfig
from unveil_backbones.vit_config import VitConfig

__all__ = ["read", "write"]


def read(ledger: Ledger, details: Details, configs: Configs) -> Found:
    """Read a model of transformers; its ``config.json`` has to lie beside it.

    Raises:
        ConvertError: There is no ``config.json``, or it is of another model.
    """
    config = configs.get("config.json", {})
    known = details.completed(transformers_preprocessing(configs))
    kind = config.get("model_type")
    if kind == "clip":
        return read_clip(ledger, known, config)
    if kind in ("vit", "vit_mae"):
        return read_vit(ledger, known, config)
    if kind == "swinv2":
        return read_swin(ledger, known, config)
    raise ConvertError(
        f"{ledger.where}: model_type {kind!r} in the config.json beside it; vit, vit_mae, swinv2 and clip can be read; "
        "put the model's config.json into the same folder"
    )


def write(model: Encoder | ImageTextPair, preprocessing: Preprocessing) -> Written:
    """Write a pair of CLIP's kind as ``CLIPModel``, an encoder as ``ViTModel`` or ``Swinv2Model``.

    Raises:
        NotExpressibleError: transformers has no such model.
    """
    if isinstance(model, ImageTextPair):
        return write_clip(model, preprocessing)
    config = model.config
    if isinstance(config, SwinConfig):
        return _written(spread(model, swin_links(config, "")), _swin_json(config), preprocessing)
    if not isinstance(config, VitConfig):
        raise NotExpressibleError(f"{model.spec.name} is no ViT and no SwinV2 of this package; use its own program")
    _check_vit(config)
    own = [link for link in vit_links(config, "") if link.ours != "pos_embed"]
    shared = {name: tensor for name, tensor in model.state_dict().items() if name != "pos_embed"}
    tensors: dict[str, Tensor] = {}
    for link in own:
        tensors.update(zip(link.theirs, link.split(shared[link.ours]), strict=True))
    tensors["embeddings.position_embeddings"] = position_table(model, config, class_row=True)
    return _written(tensors, _vit_json(config), preprocessing)


def _written(tensors: dict[str, Tensor], config: dict[str, JSON], preprocessing: Preprocessing) -> Written:
    processor = preprocessor_json("ViTImageProcessor", preprocessing)
    return Written(tensors=tensors, configs={"config.json": config, "preprocessor_config.json": processor})


def _check_vit(config: VitConfig) -> None:
    wanted: tuple[tuple[str, object, object], ...] = (
        ("class_token", config.class_token, True),
        ("num_registers", config.num_registers, 0),
        ("pre_norm", config.pre_norm, False),
        ("patch_bias", config.patch_bias, True),
        ("layer_scale", config.layer_scale, None),
    )
    other = [f"{name} is {given!r} instead of {value!r}" for name, given, value in wanted if given != value]
    if other:
        raise NotExpressibleError(
            f"transformers' ViTModel cannot hold this encoder: {'; '.join(other)}; export to timm"
        )


def _vit_json(config: VitConfig) -> dict[str, JSON]:
    height, width = config.image_size
    return {
        "architectures": ["ViTModel"],
        "model_type": "vit",
        "hidden_size": config.width,
        "num_hidden_layers": config.depth,
        "num_attention_heads": config.num_heads,
        "intermediate_size": round(config.width * config.mlp_ratio),
        "hidden_act": config.activation,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "layer_norm_eps": config.norm_epsilon,
        "image_size": height if height == width else [height, width],
        "patch_size": config.patch_size,
        "num_channels": 3,
        "qkv_bias": config.qkv_bias,
    }


def _swin_json(config: SwinConfig) -> dict[str, JSON]:
    trained = config.pretrained_window_sizes
    if len(set(config.window_sizes)) > 1 or any(rows != cols for rows, cols in trained):
        raise NotExpressibleError(
            f"windows {config.window_sizes}, pre-training windows {trained}; transformers' Swinv2Model has one window, "
            "and square ones of pre-training; export to timm"
        )
    height, width = config.image_size
    return {
        "architectures": ["Swinv2Model"],
        "model_type": "swinv2",
        "image_size": height if height == width else [height, width],
        "patch_size": config.patch_size,
        "num_channels": 3,
        "embed_dim": config.width,
        "depths": list(config.depths),
        "num_heads": list(config.num_heads),
        "window_size": config.window_sizes[0],
        "pretrained_window_sizes": [rows for rows, _ in trained],
        "mlp_ratio": config.mlp_ratio,
        "qkv_bias": True,
        "hidden_act": "gelu",
        "use_absolute_embeddings": False,
        "layer_norm_eps": 1e-5,
        "drop_path_rate": config.drop_path,
    }
