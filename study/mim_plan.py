"""The cells of the MIM grid: three widths × four fractions × three lengths of MAE.

MAE and not SimMIM, because it costs a quarter of the time here; the data-scaling study is reported to have checked its
observations with both. At 32 pixels patches of 8 leave 16 tokens, 4 of them visible.
"""

from collections.abc import Sequence

from unveil_pretrain.planning.plans import Cell, Plan

__all__ = ["ENCODERS", "FRACTIONS", "STEPS", "study_plan"]

ENCODERS = ("vit_micro", "vit_tiny", "vit_mini")
"""Widths 64, 128 and 256; four blocks each."""
FRACTIONS = (0.1, 0.2, 0.5, 1.0)
"""Shares of the training images, as in the data-scaling study."""
STEPS = (125, 250, 500)
"""Lengths, doubling as in the data-scaling study."""

_BASE_LRS = (8e-3, 8e-3, 4e-3)


def study_plan(
    num_images: int,
    *,
    encoders: Sequence[str] = ENCODERS,
    base_lrs: Sequence[float] = _BASE_LRS,
    fractions: Sequence[float] = FRACTIONS,
    steps: Sequence[int] = STEPS,
    image_size: int = 32,
    batch_size: int = 64,
    num_seeds: int = 1,
) -> Plan:
    """All cells, short ones first, so that a study that is stopped has whole lengths.

    Args:
        num_images: Training images of fraction 1.
        encoders: Names of the encoders.
        base_lrs: Learning rate of each, per 256 images.
        fractions: Shares of the training images.
        steps: Lengths in optimiser steps.
        image_size: Side of the images in pixels.
        batch_size: Images per step.
        num_seeds: Repetitions, which differ in initialisation, order, crops, masks and subset.
    """
    # The training images of the gap are the smallest subset's size, so that every cell scores equally many.
    gap_images = max(1, round(min(fractions) * num_images))
    rates = dict(zip(encoders, base_lrs, strict=False))
    cells = [
        Cell(
            recipe="tiny_mae",
            steps=length,
            fraction=fraction,
            seed=seed,
            name=f"{encoder}-f{fraction:g}-s{length}-r{seed}",
            settings={
                "encoder": encoder,
                "image_size": f"{image_size} {image_size}",
                "batch_size": batch_size,
                "base_lr": rates[encoder],
                "warmup_steps": min(20, length // 4),
                "decoder_width": 64,
                "decoder_depth": 1,
                "decoder_heads": 2,
                "val_images": 500,
                "gap_images": gap_images,
                "validate_every": min(steps),
            },
        )
        for length in sorted(steps)
        for encoder in encoders
        for fraction in fractions
        for seed in range(num_seeds)
    ]
    notes = (f"{len(encoders)} widths, {len(fractions)} fractions, {len(steps)} lengths",)
    return Plan(cells=tuple(cells), num_images=num_images, notes=notes)
