"""Masked Autoencoder files of its authors: pre-training (with or without decoder) and fine-tuning ``.pth``.

The encoder's names are timm's. Pre-training keeps positions fixed (He et al., arXiv 2111.06377, appendix A.1);
fine-tuning trains them, and may pool before the last norm, which no encoder here does.
"""

import re
from dataclasses import replace

from unveil_backbones.conversion.configs import Configs
from unveil_backbones.conversion.decoders import mae_decoder
from unveil_backbones.conversion.details import Details, Found, infer_vit, make_encoder, vit_positions
from unveil_backbones.conversion.ledger import Ledger, same
from unveil_backbones.conversion.timm_models import refuse_norm_after_pooling
from unveil_backbones.specs import Preprocessing

__all__ = ["read"]


def read(ledger: Ledger, details: Details, configs: Configs) -> Found:
    """Read a file of MAE; there are no configuration files of this format.

    Raises:
        ConvertError: A detail has to be given.
        NotExpressibleError: The file was fine-tuned with its norm after pooling.
    """
    prefix = ledger.prefix("patch_embed.proj.weight")
    refuse_norm_after_pooling(ledger, prefix)
    table = f"{prefix}pos_embed"
    cells = ledger.look(table, 3).shape[1] - 1
    fc1, patch = f"{prefix}blocks.0.mlp.fc1.weight", f"{prefix}patch_embed.proj.weight"
    config = infer_vit(ledger, patch, fc1, ledger.depth(f"{prefix}blocks."), cells, details)
    config = replace(config, norm_epsilon=details.norm_epsilon or config.norm_epsilon)
    config = vit_positions(ledger, config, table)
    pretrained = any(re.match(rf"{re.escape(prefix)}decoder_", name) for name in ledger.tensors)
    heads = [name for name in ledger.tensors if name.startswith(f"{prefix}head.")]
    finetuned = bool(heads)
    config = replace(config, pooling=details.pooling or ("cls" if finetuned else "mean"))
    ledger.drop(heads, "the classifier")
    encoder = make_encoder(config, details.arch)
    decoder = mae_decoder(
        ledger,
        prefix,
        width=config.width,
        patch=config.patch_size,
        grid=encoder.grid(*config.image_size),
        heads=details.decoder_heads,
    )
    return Found(
        model=encoder,
        links=[same(name, prefix + name) for name in encoder.state_dict()],
        objective="mae" if pretrained or not finetuned else "unknown",
        preprocessing=details.preprocessing(Preprocessing(image_size=config.image_size)),
        assumed={
            "num_heads": config.num_heads,
            "norm_epsilon": config.norm_epsilon,
            "activation": config.activation,
            "pooling": config.pooling,
            **decoder.assumed,
        },
        heads=decoder.links,
        settings=decoder.settings,
    )
