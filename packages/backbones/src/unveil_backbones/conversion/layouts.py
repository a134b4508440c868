"""The foreign formats by name, and which of them a file has."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from unveil_backbones.base import Encoder
from unveil_backbones.conversion import clip_models, dino, huggingface, mae, simmim, timm_models
from unveil_backbones.conversion.configs import Configs
from unveil_backbones.conversion.details import Details, Found, Written
from unveil_backbones.conversion.ledger import Ledger
from unveil_backbones.errors import ConvertError
from unveil_backbones.pair import ImageTextPair
from unveil_backbones.specs import Preprocessing

__all__ = ["LAYOUTS", "Layout", "detect"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """One foreign format."""

    read: Callable[[Ledger, Details, Configs], Found]
    """Says what a file holds."""
    write: Callable[[Encoder | ImageTextPair, Preprocessing], Written] | None = None
    """Says what a file has to hold; ``None`` if the format is only read."""


LAYOUTS: Mapping[str, Layout] = MappingProxyType(
    {
        "simmim": Layout(read=simmim.read),
        "mae": Layout(read=mae.read),
        "timm": Layout(read=timm_models.read, write=timm_models.write),
        "open_clip": Layout(read=clip_models.read, write=clip_models.write),
        "dino": Layout(read=dino.read),
        "huggingface": Layout(read=huggingface.read, write=huggingface.write),
    }
)
"""By the name that ``convert`` takes."""


def detect(names: Collection[str], configs: Configs, where: str) -> str:
    """Return the format of a file, by the names of its tensors and the configuration files beside it.

    MAE's files without decoder have timm's names and count as timm's; the weights are the same, but the objective is
    then unknown. Give the format to say so.

    Args:
        names: Names of the tensors.
        configs: Configuration files beside the weights.
        where: Name of the file in messages.

    Raises:
        ConvertError: The names are those of no known format.
    """
    if "open_clip_config.json" in configs or _any_ends(names, "visual.conv1.weight"):
        return "open_clip"
    if "model_type" in configs.get("config.json", {}) or _any_ends(
        names, "patch_embeddings.projection.weight", "vision_model.embeddings.patch_embedding.weight"
    ):
        return "huggingface"
    if not _any_ends(names, "patch_embed.proj.weight"):
        raise ConvertError(
            f"{where} has tensors like {', '.join(sorted(names)[:4])}, which are of no known format; there are "
            f"{', '.join(LAYOUTS)}; give the file of a vision model"
        )
    if "architecture" in configs.get("config.json", {}):
        return "timm"
    return _by_blocks(names)


def _by_blocks(names: Collection[str]) -> str:
    """Tell apart the formats that name the patch projection as timm does."""
    if _any_ends(names, "layers.0.blocks.0.norm1.weight"):
        merges_late = _any_ends(names, "layers.0.downsample.reduction.weight")
        return "simmim" if merges_late or _any_ends(names, "relative_position_bias_table") else "timm"
    if _any_ends(names, "decoder_embed.weight"):
        return "mae"
    marks = ("register_tokens", "storage_tokens", "rope_embed.periods", "blocks.0.0.norm1.weight", "mask_token")
    return "dino" if _any_ends(names, *marks) else "timm"


def _any_ends(names: Collection[str], *endings: str) -> bool:
    """Whether a name is one of the endings or ends in a dot and one of them."""
    dotted = tuple(f".{ending}" for ending in endings)
    return any(name in endings or name.endswith(dotted) for name in names)
