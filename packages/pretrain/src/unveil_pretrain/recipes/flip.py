"""FLIP (arXiv:2212.00794) and its CLIP baseline: models × data × lengths, unmasked tuning, and the axes of scaling.

Tables 9 and 10 of the paper, and for LAION-2B the released configurations. Rates are given for 256 samples; a recipe's
number of samples is rounded up to whole batches.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final, Literal

from unveil_pretrain.config import FlipConfig
from unveil_pretrain.objectives.flip import FLIPConfig

__all__ = [
    "FLIP_CELLS",
    "LENGTHS",
    "SCALING_AXES",
    "FlipData",
    "FlipModel",
    "clip_cell",
    "flip_b16",
    "flip_cell",
    "unmasked",
]

FlipModel = Literal["b16", "l16", "h14"]
FlipData = Literal["laion400m", "laion2b"]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Towers:
    encoder: str
    text: str
    embed_dim: int
    warmup_samples: int


_TOWERS: Final[Mapping[FlipModel, _Towers]] = MappingProxyType(
    {
        "b16": _Towers(encoder="vit_b16", text="text_b", embed_dim=512, warmup_samples=51_200_000),
        "l16": _Towers(encoder="vit_l16", text="text_l", embed_dim=768, warmup_samples=51_200_000),
        "h14": _Towers(encoder="vit_h14", text="text_h", embed_dim=1024, warmup_samples=256_000_000),
    }
)
_BASE_LR: Final[Mapping[FlipData, float]] = MappingProxyType({"laion400m": 4e-6, "laion2b": 2e-6})

LENGTHS: Final[Mapping[str, int]] = MappingProxyType(
    {"2.56b": 2_560_000_000, "5.12b": 5_120_000_000, "12.8b": 12_800_000_000, "25.6b": 25_600_000_000}
)
"""Samples: 6.4, 12.8, 32 and 64 epochs of LAION-400M."""

_TUNING_SAMPLES: Final = 128_000_000  # 0.32 epochs of LAION-400M
_TUNING_WARMUP: Final = 25_600_000
_SMALL: Final = 1_000_000_000


def flip_cell(
    model: FlipModel,
    data: FlipData,
    samples: int,
    *,
    mask_ratio: float = 0.5,
    batch_size: int = 65_536,
) -> FlipConfig:
    """One training of the paper; by default its "best practice" of 50 % masking at a batch of 64k.

    Args:
        model: Size of both towers (table 9).
        data: What is trained on; it decides the learning rate, the shards are given to the command.
        samples: Pairs to be shown, repetitions counted.
        mask_ratio: Share of patches that is dropped.
        batch_size: Pairs per update; the learning rate follows it.
    """
    towers = _TOWERS[model]
    steps = -(-samples // batch_size)
    return FlipConfig(
        objective=FLIPConfig(mask_ratio=mask_ratio, text=towers.text, embed_dim=towers.embed_dim, negative_pool=1000),
        encoder=towers.encoder,
        image_size=(224, 224),
        crop_scale=(0.5, 1.0),
        steps=steps,
        batch_size=batch_size,
        base_lr=_BASE_LR[data],
        lr_reference_batch=256,
        warmup_steps=round(towers.warmup_samples / batch_size),
        schedule="cosine",
        weight_decay=0.2,
        betas=(0.9, 0.95),
        validate_every=2000,
        checkpoint_every=2000,
    )


def clip_cell(model: FlipModel, data: FlipData, samples: int) -> FlipConfig:
    """The paper's CLIP baseline: the same towers, whole images, a batch of 16k (table 1a)."""
    return flip_cell(model, data, samples, mask_ratio=0.0, batch_size=16_384)


def flip_b16() -> FlipConfig:
    """FLIP's ViT-B/16 (tables 2, 9 and 10): LAION-400M, 50 % masking, batch 64k, 12.8 billion samples."""
    return flip_cell("b16", "laion400m", LENGTHS["12.8b"])


def unmasked(config: FlipConfig) -> FlipConfig:
    """The stage after `config`: whole images and captions, at a hundredth of the learning rate (table 10).

    128 million samples, 25.6 million of them warm-up. A run of less than a billion samples is tuned for a tenth of its
    steps at a tenth of its rate instead, a fifth of it warm-up: at a hundredth, so short a stage changes nothing.
    """
    objective = replace(config.objective, mask_ratio=0.0, text_masking="none", text_tags="", reconstruction_weight=0.0)
    if config.steps * config.batch_size >= _SMALL:
        return replace(
            config,
            objective=objective,
            base_lr=config.base_lr / 100,
            steps=-(-_TUNING_SAMPLES // config.batch_size),
            warmup_steps=round(_TUNING_WARMUP / config.batch_size),
            validate_every=200,
            checkpoint_every=200,
        )
    steps = max(5, config.steps // 10)
    return replace(
        config,
        objective=objective,
        base_lr=config.base_lr / 10,
        steps=steps,
        warmup_steps=steps // 5,
        validate_every=min(config.validate_every, steps),
        checkpoint_every=min(config.checkpoint_every, steps),
    )


def _cell(kind: Literal["flip", "clip"], model: FlipModel, data: FlipData, length: str) -> Callable[[], FlipConfig]:
    """The recipe of one cell."""
    make = flip_cell if kind == "flip" else clip_cell

    def recipe() -> FlipConfig:
        return make(model, data, LENGTHS[length])

    name, shown = (
        f"{kind}_{model}_{data}_{length}",
        "50 % masking, batch 64k" if kind == "flip" else "no mask, batch 16k",
    )
    recipe.__name__ = recipe.__qualname__ = name
    size, pairs = f"ViT-{model[0].upper()}/{model[1:]}", data.upper().replace("LAION", "LAION-")
    recipe.__doc__ = f"{kind.upper()} (arXiv:2212.00794): {size}, {pairs}, {length[:-1]} billion samples, {shown}."
    return recipe


def _cells() -> dict[str, Callable[[], FlipConfig]]:
    kinds: tuple[Literal["flip", "clip"], ...] = ("flip", "clip")
    recipes = [
        _cell(kind, model, data, length)
        for kind in kinds
        for model in _TOWERS
        for data in _BASE_LR
        for length in LENGTHS
    ]
    return {recipe.__name__: recipe for recipe in recipes}


FLIP_CELLS: Final[Mapping[str, Callable[[], FlipConfig]]] = MappingProxyType(_cells())
"""All cells by name, as in flip_l16_laion2b_12.8b."""

SCALING_AXES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "baseline": "flip_l16_laion400m_12.8b",
        "model": "flip_h14_laion400m_12.8b",
        "data": "flip_l16_laion2b_12.8b",
        "schedule": "flip_l16_laion400m_25.6b",
        "model+data": "flip_h14_laion2b_12.8b",
        "all": "flip_h14_laion2b_25.6b",
    }
)
"""The cells of the paper's table 8, by what they scale; each is followed by unmasked tuning."""
