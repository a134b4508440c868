"""The cells of the data-scaling study (arXiv:2206.04664)."""

from unveil_pretrain.config import MimConfig
from unveil_pretrain.objectives.simmim import SimMIMConfig

__all__ = ["simmim_swinv2_s"]


def simmim_swinv2_s() -> MimConfig:
    """SwinV2-S of the data-scaling study (arXiv:2206.04664): 192 pixels, normalised target, batch 2048, 125K steps.

    Base rate, warm-up, drop path and the drop at 7/8 of the run are those of the released SwinV2-B configuration.
    """
    return MimConfig(
        objective=SimMIMConfig(mask_unit=32, mask_ratio=0.6, target_window=47),
        encoder="swinv2_s",
        image_size=(192, 192),
        drop_path=0.1,
        steps=125_000,
        batch_size=2048,
        base_lr=1e-4,
        lr_reference_batch=512,
        warmup_steps=6250,
        schedule="multi_step",
        validate_every=6250,
        checkpoint_every=6250,
    )
