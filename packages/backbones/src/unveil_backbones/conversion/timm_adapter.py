"""Weights of timm's models that are no plain Vision Transformer: rotary positions, gated MLPs, a norm after pooling.

They become ``timm:<model>`` encoders, whose modules and names are timm's own.
"""

from dataclasses import replace

import torch

from unveil_backbones.conversion.details import Details, Found, Written
from unveil_backbones.conversion.ledger import Ledger, same
from unveil_backbones.errors import ConvertError, NotExpressibleError, UnknownModelError
from unveil_backbones.specs import Preprocessing
from unveil_backbones.timm_config import TIMM_PREFIX, TimmConfig
from unveil_backbones.timm_encoder import TimmEncoder, timm_preset

__all__ = ["make_adapter", "needs_adapter", "read_adapted", "write_adapted"]

_MARKS = ("fc_norm.weight", "blocks.0.gamma_1", "blocks.0.attn.q_bias", "blocks.0.attn.norm.weight", "dist_token")
"""Tensors that no encoder of this package has under its own name."""


def needs_adapter(ledger: Ledger, prefix: str) -> bool:
    """Whether a file of timm has parts that only timm's own modules have."""
    return any(prefix + mark in ledger for mark in _MARKS)


def read_adapted(ledger: Ledger, prefix: str, model: str, details: Details) -> Found:
    """Read a file of timm as an encoder on timm's modules.

    Args:
        ledger: The file.
        prefix: What stands before every name.
        model: timm's name.
        details: What is known about the model.

    Raises:
        ConvertError: timm has no such model, or it cannot be an encoder here.
    """
    encoder = make_adapter(ledger, prefix, model, details)
    heads = [name for name in ledger.tensors if name.startswith((f"{prefix}head.", f"{prefix}head_dist."))]
    ledger.drop(heads, "the classifier")
    return Found(
        model=encoder,
        links=[same(name, prefix + name) for name in encoder.state_dict()],
        objective="unknown",
        preprocessing=details.preprocessing(Preprocessing(image_size=encoder.config.image_size)),
        assumed={"model": model, "pooling": encoder.pooling},
    )


def make_adapter(ledger: Ledger, prefix: str, model: str, details: Details) -> TimmEncoder:
    """Make the encoder, after a look at whether the file has as many numbers.

    Raises:
        ConvertError: timm has no such model, or it cannot be an encoder here.
        CoverageError: The model has more weights than the file.
    """
    try:
        preset = timm_preset(model)
        config = replace(
            preset,
            patch_size=ledger.look(f"{prefix}patch_embed.proj.weight", 4).shape[2],
            image_size=details.image_size or preset.image_size,
            pooling=details.pooling or preset.pooling,
        )
        with torch.device("meta"):
            ledger.check_room(TimmEncoder(config).num_parameters)
        return TimmEncoder(config)
    except UnknownModelError as error:
        raise ConvertError(f"{ledger.where}: {error}") from error


def write_adapted(encoder: TimmEncoder, preprocessing: Preprocessing) -> Written:
    """Write such an encoder for timm.

    Raises:
        NotExpressibleError: It pools otherwise than timm's model does.
    """
    config: TimmConfig = encoder.config
    preset = timm_preset(config.model)
    if config.pooling != preset.pooling:
        raise NotExpressibleError(
            f"{TIMM_PREFIX}{config.model} pools {config.pooling!r} here and {preset.pooling!r} in timm, whose other "
            "norms may depend on it; rebuild the encoder with timm's pooling first"
        )
    pretrained = {
        "input_size": [3, *config.image_size],
        "mean": list(preprocessing.mean),
        "std": list(preprocessing.std),
        "interpolation": preprocessing.interpolation,
        "crop_pct": preprocessing.crop_fraction,
        "num_classes": 0,
    }
    return Written(
        tensors=encoder.state_dict(),
        configs={
            "config.json": {
                "architecture": config.model.partition(".")[0],
                "num_classes": 0,
                "num_features": encoder.width,
                "model_args": {"img_size": list(config.image_size), "patch_size": config.patch_size},
                "pretrained_cfg": pretrained,
            }
        },
    )
