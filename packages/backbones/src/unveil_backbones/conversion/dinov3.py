"""DINOv3's backbones under their authors' names, as encoders on timm's modules (Siméoni et al., arXiv 2508.10104).

Queries and keys are turned by rotary positions, which are computed. Keys have no bias: the file has one for all three
and a mask. In most published models the others are zero as well, and timm has a model for either case.
"""

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from torch import Tensor

from unveil_backbones.conversion.details import Details, Found
from unveil_backbones.conversion.ledger import Ledger, Link, same
from unveil_backbones.conversion.timm_adapter import make_adapter
from unveil_backbones.errors import NotExpressibleError
from unveil_backbones.specs import Preprocessing

__all__ = ["is_dinov3", "read"]

_SIZES: Mapping[int, str] = MappingProxyType(
    {192: "tiny", 384: "small", 768: "base", 1024: "large", 1280: "huge", 4096: "7b"}
)
"""Name of the size by width."""

_RENAMED = (
    ("reg_token", "storage_tokens"),
    ("gamma_1", "ls1.gamma"),
    ("gamma_2", "ls2.gamma"),
    ("mlp.fc1_g.", "mlp.w1."),
    ("mlp.fc1_x.", "mlp.w2."),
)


def is_dinov3(ledger: Ledger, prefix: str) -> bool:
    """Whether a file of the authors is DINOv3's and not DINOv2's."""
    return f"{prefix}storage_tokens" in ledger or f"{prefix}rope_embed.periods" in ledger


def read(ledger: Ledger, prefix: str, details: Details) -> Found:
    """Read a backbone of DINOv3.

    Raises:
        NotExpressibleError: It is of a size that timm has not, or its keys have biases.
        ConvertError: timm has no such model.
        CoverageError: The file has fewer weights than that model.
    """
    gated = f"{prefix}blocks.0.mlp.w1.weight" in ledger
    biased = _has_biases(ledger)
    encoder = make_adapter(ledger, prefix, _model(ledger, prefix, gated, biased), _with_class_token(details))
    endings = (".bias_mask", ".periods", "mask_token")
    computed = [name for name in ledger.tensors if name.endswith(endings) or f"{prefix}local_cls_norm." in name]
    ledger.drop(computed, "rotary periods, masks of biases, mask token and norm of local crops: not used afterwards")
    if not biased:
        zero = [name for name in ledger.tensors if name.endswith(".attn.qkv.bias")]
        ledger.drop(zero, "biases of queries, keys and values, which are zero")
    heads = [name for name in ledger.tensors if name.startswith(("dino_head.", "ibot_head."))]
    ledger.drop(heads, "the heads of self-distillation")
    return Found(
        model=encoder,
        links=[_link(name, prefix, gated) for name in encoder.state_dict()],
        objective="dino",
        preprocessing=details.preprocessing(Preprocessing(image_size=encoder.config.image_size)),
        assumed={"model": encoder.config.model, "pooling": encoder.pooling},
    )


def _model(ledger: Ledger, prefix: str, gated: bool, biased: bool) -> str:
    patch = ledger.look(f"{prefix}patch_embed.proj.weight", 4)
    size = _SIZES.get(patch.shape[0])
    if size is None:
        raise NotExpressibleError(
            f"{ledger.where} is DINOv3 of width {patch.shape[0]}; timm has the widths {', '.join(map(str, _SIZES))}; "
            "take one of the published models"
        )
    plus = "_plus" if gated and size != "7b" else ""
    return f"vit_{size}{plus}_patch16_dinov3{'_qkvb' if biased else ''}"


def _has_biases(ledger: Ledger) -> bool:
    """Whether queries or values have biases; those of keys must be masked away."""
    found = False
    for name in [name for name in ledger.tensors if name.endswith(".attn.qkv.bias")]:
        query, key, value = ledger.look(name, 1).tensor_split(3)
        if key.any() and name.removesuffix("bias") + "bias_mask" not in ledger:
            raise NotExpressibleError(f"{ledger.where}: {name} has biases of keys, which timm's model has not")
        found = found or bool(query.any() or value.any())
    return found


def _with_class_token(details: Details) -> Details:
    # The authors evaluate the class token; timm's default is the mean.
    return replace(details, pooling=details.pooling or "cls")


def _link(name: str, prefix: str, gated: bool) -> Link:
    theirs = name
    for our, other in _RENAMED:
        theirs = theirs.replace(our, other)
    if gated:
        theirs = theirs.replace("mlp.fc2.", "mlp.w3.")
    part = {"q_bias": 0, "v_bias": 2}.get(name.rpartition(".")[2])
    if part is None:
        return same(name, prefix + theirs)
    whole = prefix + theirs.rpartition(".")[0] + ".qkv.bias"
    return Link(ours=name, theirs=(whole,), join=lambda parts: parts[0].tensor_split(3)[part], split=_one_way)


def _one_way(tensor: Tensor) -> list[Tensor]:
    """This layout is only read."""
    raise NotExpressibleError(
        f"a bias of shape {tuple(tensor.shape)} cannot be written in the layout of DINOv3's authors; export to timm"
    )
