"""How large the study is: on two CPU cores within two hours, or on one GPU in stretches of nine minutes."""

from dataclasses import dataclass

__all__ = ["PROFILES", "Profile"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Profile:
    """The sizes of both grids."""

    name: str
    encoders: tuple[str, ...]
    """Three sizes."""
    base_lrs: tuple[float, ...]
    """MAE's learning rate per 256 images, one for each encoder."""
    image_size: int
    """Side of the pre-training images in pixels."""
    batch_size: int
    num_images: int
    """Training images of the whole set."""
    steps: tuple[int, ...]
    """Three lengths, doubling."""
    seeds: tuple[int, ...] = (0, 1)
    """Of the fine-tunes."""
    flip_steps: int
    """Of the reference of the FLIP grid."""
    flip_batch_size: int
    flip_seeds: tuple[int, ...] = (0,)
    suite: str = "quick"
    """Of the evaluations."""
    device: str
    lanes: int
    """Processes that run at the same time."""
    limit: int = 0
    """Evaluation images; 0 for all. Limited results are marked."""


PROFILES = {
    "cpu": Profile(
        name="cpu",
        encoders=("vit_micro", "vit_tiny", "vit_mini"),
        base_lrs=(8e-3, 8e-3, 4e-3),
        image_size=32,
        batch_size=64,
        num_images=300,
        steps=(125, 250, 500),
        flip_steps=150,
        flip_batch_size=32,
        device="cpu",
        lanes=2,
    ),
    "gpu": Profile(
        name="gpu",
        encoders=("vit_tiny", "vit_mini", "vit_ti16"),
        base_lrs=(4e-3, 2e-3, 1.5e-3),
        image_size=64,
        batch_size=256,
        num_images=10_000,
        steps=(1000, 2000, 4000),
        flip_steps=600,
        flip_batch_size=64,
        flip_seeds=(0, 1),
        device="cuda",
        lanes=2,
    ),
    # Shows that every stage runs; its numbers mean nothing.
    "smoke": Profile(
        name="smoke",
        encoders=("vit_micro",),
        base_lrs=(8e-3,),
        image_size=32,
        batch_size=8,
        num_images=40,
        steps=(2, 4),
        seeds=(0,),
        flip_steps=2,
        flip_batch_size=8,
        device="cpu",
        lanes=2,
        limit=8,
    ),
}
"""By name."""
