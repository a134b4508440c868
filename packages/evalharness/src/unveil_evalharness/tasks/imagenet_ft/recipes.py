"""The published fine-tuning recipes of ImageNet-1K by family, objective and size; docs/protocols.md has the sources."""

from dataclasses import replace

from unveil_evalharness.tasks.imagenet_ft.recipe import Recipe

__all__ = ["published", "quick_recipe", "shortened"]

_BASE = 150_000_000
"""ViT-B has 86 million parameters, SwinV2-S and -B 49 and 87."""
_LARGE = 450_000_000
"""ViT-L has 303 million parameters, SwinV2-L 195."""
_CONTRASTIVE = ("flip", "clip", "siglip")


def _simmim() -> Recipe:
    """SimMIM's fine-tuning of SwinV2-B (arXiv 2111.09886 and 2206.04664, configurations of their code).

    Learning rate 1.25e-3 per 512 images, from and down to 2.5e-7 per 512 images.
    """
    return Recipe(
        name="SimMIM SwinV2-S/B",
        architecture="swin",
        objectives=(),
        max_parameters=_BASE,
        duration=100,
        warmup=20,
        unit="epochs",
        batch_size=2048,
        lr=5e-3,
        warmup_start=2e-4,
        final_lr=2e-4,
        weight_decay=0.05,
        layer_decay=0.75,
        drop_path=0.1,
        clip_norm=5.0,
        ema_decay=0.0,
        head="random",
        head_std=0.02,
        head_penalty=0.0,
        label_smoothing=0.1,
        mixup=0.8,
        cutmix=1.0,
        crop_scale=(0.08, 1.0),
        flip=0.5,
        colour_jitter=0.4,
        auto_augment="rand-m9-mstd0.5-inc1",
        random_erasing=0.25,
    )


def _mae() -> Recipe:
    """MAE's fine-tuning of ViT-B (arXiv 2111.06377, table 9, and the commands of its code).

    Learning rate 5e-4 per 256 images, from 0 and down to 1e-6; no clipping, no jitter beside RandAugment.
    """
    return replace(
        _simmim(),
        name="MAE ViT-B",
        architecture="any",
        warmup=5,
        batch_size=1024,
        lr=2e-3,
        warmup_start=1e-6,
        final_lr=5e-4,
        layer_decay=0.65,
        clip_norm=None,
        head_std=2e-5,
        colour_jitter=0.0,
    )


def _flip() -> Recipe:
    """FLIP's fine-tuning of ViT-L and -H (arXiv 2212.00794, appendix): learning rate 5e-5 per 256 images, 50 epochs."""
    return replace(
        _mae(),
        name="FLIP ViT-L/H",
        objectives=_CONTRASTIVE,
        max_parameters=None,
        duration=50,
        lr=2e-4,
        final_lr=5e-3,
        layer_decay=0.75,
        drop_path=0.2,
        auto_augment="rand-m9-mstd0.5",
        random_erasing=0.0,
    )


def published() -> tuple[Recipe, ...]:
    """The recipes in the order in which they are tried; the last one suits every encoder."""
    simmim, mae, flip = _simmim(), _mae(), _flip()
    large = replace(mae, name="MAE ViT-L", max_parameters=_LARGE, duration=50, lr=4e-3, final_lr=2.5e-4)
    return (
        simmim,
        replace(simmim, name="SimMIM SwinV2-L", max_parameters=_LARGE, layer_decay=0.7, drop_path=0.2),
        replace(simmim, name="SimMIM SwinV2-H/g", max_parameters=None, layer_decay=0.7, drop_path=0.3),
        replace(simmim, name="SimMIM ViT-B", architecture="vit", objectives=("simmim",), layer_decay=0.65),
        replace(flip, name="FLIP ViT-B", max_parameters=_BASE, duration=100, drop_path=0.1),
        flip,
        mae,
        replace(large, layer_decay=0.75, drop_path=0.2),
        replace(large, name="MAE ViT-H", max_parameters=None, layer_decay=0.75, drop_path=0.3),
    )


def shortened(recipe: Recipe, *, duration: int, warmup: int, batch_size: int) -> Recipe:
    """A recipe for less time: the learning rate follows the batch linearly, everything else stays."""
    return replace(
        recipe,
        duration=duration,
        warmup=warmup,
        batch_size=batch_size,
        lr=recipe.lr * batch_size / recipe.batch_size,
    )


def quick_recipe() -> Recipe:
    """A linear probe, then fifty steps from it: values of ours, chosen on 64-pixel images with ``*_tiny`` encoders.

    Without the probe fifty steps from a random head stay at chance.
    """
    return replace(
        _simmim(),
        name="quick",
        architecture="any",
        max_parameters=None,
        duration=50,
        warmup=5,
        unit="iterations",
        batch_size=32,
        lr=2e-4,
        warmup_start=1e-2,
        final_lr=1e-2,
        layer_decay=0.9,
        drop_path=0.0,
        head="probe",
        head_penalty=1e-3,
        label_smoothing=0.0,
        mixup=0.0,
        cutmix=0.0,
        crop_scale=(0.9, 1.0),
        flip=0.0,
        colour_jitter=0.0,
        auto_augment="",
        random_erasing=0.0,
    )
