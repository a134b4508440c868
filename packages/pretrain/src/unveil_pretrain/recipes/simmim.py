"""The cells of *On Data Scaling in Masked Image Modeling* (arXiv:2206.04664): 5 sizes, 5 data sets, 3 lengths.

Read in the released code and configurations: 192 pixels, masks of 32 pixels at 0.6, the target normalised by 47 pixels,
AdamW with decay 0.05 (not on biases, norms, tokens, position biases and temperatures), gradients clipped at 5, batch
2048, base rate 1e-4 per 512 images, 6250 iterations of warm-up, one drop by 10 at 7/8 of 500K iterations, drop path 0.1
of SwinV2-B, lengths of 125K, 250K and 500K iterations.

Not known to us, and chosen here: rate and drop path of the other sizes (those of B), where the drop lies at 125K and
250K (7/8 too), whether every released model used the normalised target, how subsets were drawn (a seeded subset;
`pretrain subset` makes class-balanced ones, nested), and the precision of the released runs (float32 here; give
`--precision bfloat16` on a GPU).

The authors released 63 of the 75 cells; `RELEASED` names the data sets of each size.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Literal, get_args

from unveil_pretrain.config import MimConfig
from unveil_pretrain.objectives.simmim import SimMIMConfig

__all__ = ["RELEASED", "SIMMIM_CELLS", "Data", "Length", "Size", "is_released", "simmim_swinv2", "simmim_swinv2_s"]

Size = Literal["s", "b", "l", "h", "g"]
Data = Literal["in1k_10", "in1k_20", "in1k_50", "in1k_100", "in22k"]
Length = Literal["125k", "250k", "500k"]

_NUM_UNIQUE: Mapping[Data, int] = MappingProxyType(
    # Shares of 1,281,167 images; the paper says 128K, 256K and 641K. 0: all that the shards hold.
    {"in1k_10": 128_117, "in1k_20": 256_233, "in1k_50": 640_584, "in1k_100": 0, "in22k": 0}
)
_STEPS: Mapping[Length, int] = MappingProxyType({"125k": 125_000, "250k": 250_000, "500k": 500_000})

RELEASED: Mapping[Size, tuple[Data, ...]] = MappingProxyType(
    {
        "s": ("in1k_10", "in1k_20", "in1k_50", "in1k_100"),
        "b": ("in1k_10", "in1k_20", "in1k_50", "in1k_100", "in22k"),
        "l": ("in1k_10", "in1k_20", "in1k_50", "in1k_100", "in22k"),
        "h": ("in1k_20", "in1k_50", "in1k_100", "in22k"),
        "g": ("in1k_50", "in1k_100", "in22k"),
    }
)
"""The data sets of each size for which the authors released models, at all three lengths."""


def is_released(size: Size, data: Data) -> bool:
    """Whether the authors released models of this size on this data."""
    return data in RELEASED[size]


def simmim_swinv2(size: Size, data: Data, length: Length) -> MimConfig:
    """One cell; the module says which values are the authors' and which are ours.

    Args:
        size: SwinV2-S, B, L, H (655 million parameters) or g (1.06 billion).
        data: Share of ImageNet-1K in percent, or ImageNet-22K; the shards come from `--train-data`.
        length: Iterations at batch 2048.
    """
    return MimConfig(
        objective=SimMIMConfig(mask_unit=32, mask_ratio=0.6, target_window=47),
        encoder=f"swinv2_{size}",
        image_size=(192, 192),
        drop_path=0.1,
        steps=_STEPS[length],
        batch_size=2048,
        num_unique=_NUM_UNIQUE[data],
        base_lr=1e-4,
        lr_reference_batch=512,
        warmup_steps=6250,
        schedule="multi_step",
        decay_at=7 / 8,
        decay_gamma=0.1,
        weight_decay=0.05,
        betas=(0.9, 0.999),
        clip_norm=5.0,
        validate_every=6250,
        checkpoint_every=6250,
    )


def simmim_swinv2_s() -> MimConfig:
    """SwinV2-S of the data-scaling study (arXiv:2206.04664) on all images of the shards, 125K steps."""
    return simmim_swinv2("s", "in1k_100", "125k")


def _cell(size: Size, data: Data, length: Length) -> Callable[[], MimConfig]:
    def recipe() -> MimConfig:
        return simmim_swinv2(size, data, length)

    shown = "ImageNet-22K" if data == "in22k" else f"{data.removeprefix('in1k_')} % of ImageNet-1K"
    released = "released" if is_released(size, data) else "not among the released models"
    recipe.__name__ = recipe.__qualname__ = f"simmim_swinv2_{size}_{data}_{length}"
    size_shown = size if size == "g" else size.upper()
    recipe.__doc__ = (
        f"Data-scaling study (arXiv:2206.04664): SwinV2-{size_shown}, {shown}, {length[:-1]}K steps; {released}."
    )
    return recipe


SIMMIM_CELLS: Mapping[str, Callable[[], MimConfig]] = MappingProxyType(
    {
        f"simmim_swinv2_{size}_{data}_{length}": _cell(size, data, length)
        for size in get_args(Size)
        for data in get_args(Data)
        for length in get_args(Length)
    }
)
"""All 75 cells by name, such as simmim_swinv2_b_in1k_50_250k."""
