"""DINOv2's and DINOv3's backbones under their authors' names.

DINOv2 is a Vision Transformer with layer scale, a learned position for the class token, and perhaps registers. Training
programs number blocks within chunks (``blocks.0.5.``). DINOv3 has its own module, ``dinov3``.
"""

import re
from dataclasses import replace

from unveil_backbones.conversion import dinov3
from unveil_backbones.conversion.configs import Configs
from unveil_backbones.conversion.details import Details, Found, infer_vit, make_encoder, vit_positions
from unveil_backbones.conversion.ledger import Ledger, Link, same
from unveil_backbones.errors import CoverageError, NotExpressibleError
from unveil_backbones.specs import Preprocessing

__all__ = ["read"]

_REGISTERS = "register_tokens"


def read(ledger: Ledger, details: Details, configs: Configs) -> Found:
    """Read a backbone of DINOv2 or DINOv3; there are no configuration files of this format.

    Raises:
        ConvertError: A detail has to be given.
        NotExpressibleError: It is DINOv2 with gated MLPs, or a DINOv3 that timm has not.
    """
    prefix = ledger.prefix("patch_embed.proj.weight")
    if dinov3.is_dinov3(ledger, prefix):
        return dinov3.read(ledger, prefix, details)
    _refuse(ledger, prefix)
    blocks = _blocks(ledger, prefix)
    first, table = blocks[0] if blocks else f"{prefix}blocks.0.", f"{prefix}pos_embed"
    cells = ledger.look(table, 3).shape[1] - 1
    patch = f"{prefix}patch_embed.proj.weight"
    config = infer_vit(ledger, patch, f"{first}mlp.fc1.weight", len(blocks), cells, details)
    registers = f"{prefix}{_REGISTERS}"
    config = replace(
        config,
        num_registers=ledger.look(registers, 3).shape[1] if registers in ledger else 0,
        layer_scale=1e-5 if f"{first}ls1.gamma" in ledger else None,
        norm_epsilon=details.norm_epsilon or 1e-6,
        pooling=details.pooling or "cls",
    )
    config = vit_positions(ledger, config, table)
    ledger.drop([f"{prefix}mask_token"], "the mask token of pre-training")
    heads = [name for name in ledger.tensors if re.match(r"(.*\.)?(dino_head|ibot_head)\.", name)]
    ledger.drop(heads, "the heads of self-distillation")
    encoder = make_encoder(config, details.arch)
    return Found(
        model=encoder,
        links=[_link(name, prefix, blocks) for name in encoder.state_dict()],
        objective="dino",
        preprocessing=details.preprocessing(Preprocessing(image_size=config.image_size)),
        assumed={
            "num_heads": config.num_heads,
            "norm_epsilon": config.norm_epsilon,
            "activation": config.activation,
            "pooling": config.pooling,
        },
    )


def _refuse(ledger: Ledger, prefix: str) -> None:
    if any(".mlp.w12." in name for name in ledger.tensors):
        raise NotExpressibleError(
            f"{ledger.where} has gated MLPs (DINOv2 giant), which this package's ViT has not; use the same model of "
            "timm, for example `timm:vit_giant_patch14_dinov2`"
        )


def _blocks(ledger: Ledger, prefix: str) -> list[str]:
    """Stems of the blocks in order, whether or not they are numbered within chunks."""
    pattern = re.compile(rf"({re.escape(prefix)}blocks\.(?:\d+\.)?(\d+)\.)norm1\.weight")
    found = [match for name in ledger.tensors if (match := pattern.fullmatch(name))]
    found.sort(key=lambda match: int(match[2]))
    numbers = [int(match[2]) for match in found]
    if numbers != list(range(len(numbers))):
        raise CoverageError(f"{ledger.where} has the blocks {numbers}; they count from 0 without gaps; copy it again")
    return [match[1] for match in found]


def _link(name: str, prefix: str, blocks: list[str]) -> Link:
    if match := re.match(r"blocks\.(\d+)\.", name):
        return same(name, blocks[int(match[1])] + name.removeprefix(match[0]))
    return same(name, prefix + (_REGISTERS if name == "reg_token" else name))
