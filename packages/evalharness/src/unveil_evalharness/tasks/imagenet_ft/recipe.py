"""One way to fine-tune, and which encoders it is for."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from unveil_evalharness.errors import ProtocolError

if TYPE_CHECKING:
    import unveil_backbones.manifest

__all__ = ["Architecture", "Recipe", "architecture_of", "choose_recipe"]

Architecture = Literal["swin", "vit", "any"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """Everything about training that may differ between families and sizes of encoders."""

    name: str
    """For people: ``"SimMIM SwinV2-L"``."""
    architecture: Architecture
    """Encoders that it is for: with shifted windows, plain vision transformers, or any."""
    objectives: tuple[str, ...]
    """Pre-training objectives that it is for; empty for any."""
    max_parameters: int | None
    """Largest encoder that it is for, in parameters; None for any size."""
    duration: int
    """Length of training, in `unit`."""
    warmup: int
    """Length of the linear warm-up, in `unit`."""
    unit: Literal["iterations", "epochs"]
    batch_size: int
    """Images per optimiser step."""
    lr: float
    """Peak learning rate at this `batch_size`."""
    warmup_start: float
    """Learning rate at the start of the warm-up, as a fraction of `lr`."""
    final_lr: float
    """Learning rate at the end of the cosine, as a fraction of `lr`."""
    weight_decay: float
    layer_decay: float
    """Factor on the learning rate per layer, from the last down."""
    drop_path: float
    """Stochastic depth of the encoder's last block."""
    clip_norm: float | None
    """Largest norm of the gradient; None does not clip."""
    ema_decay: float
    """Decay per step of the moving average of the weights that is tested in their place; 0 tests the weights."""
    head: Literal["random", "probe"]
    """Where the linear layer starts: small random weights, or logistic regression on the frozen features."""
    head_std: float
    """Standard deviation of the random weights; read with ``head="random"`` only."""
    head_penalty: float
    """Weight penalty of the regression; read with ``head="probe"`` only."""
    label_smoothing: float
    mixup: float
    """Alpha of mixup; 0 for none."""
    cutmix: float
    """Alpha of CutMix; 0 for none."""
    crop_scale: tuple[float, float]
    """Area of the random training crop over that of the image."""
    flip: float
    """Probability of a horizontal flip in training."""
    colour_jitter: float
    """Strength of the colour jitter, where `auto_augment` is empty."""
    auto_augment: str
    """timm's name of an augmentation policy, such as ``"rand-m9-mstd0.5-inc1"``; empty for none."""
    random_erasing: float
    """Probability of erasing a random rectangle of a training image."""

    def __post_init__(self) -> None:
        if self.duration < 1 or not 0 <= self.warmup < self.duration:
            raise ProtocolError(
                f"a recipe needs duration >= 1 and 0 <= warmup < duration, got {self.duration} and {self.warmup}"
            )
        if (self.mixup or self.cutmix) and self.batch_size % 2:
            raise ProtocolError(f"mixup pairs the images of a batch; batch_size {self.batch_size} must be even")
        if not 0 <= self.ema_decay < 1:
            raise ProtocolError(f"ema_decay must be at least 0 and below 1, got {self.ema_decay}")

    def suits(self, manifest: "unveil_backbones.manifest.Manifest") -> bool:
        """Whether it is for this checkpoint's encoder."""
        return (
            self.architecture in ("any", architecture_of(manifest))
            and (not self.objectives or manifest.objective in self.objectives)
            and (self.max_parameters is None or manifest.num_parameters <= self.max_parameters)
        )


def architecture_of(manifest: "unveil_backbones.manifest.Manifest") -> Architecture:
    """The family of a checkpoint's encoder, by what its configuration holds."""
    config = manifest.encoder.config
    if "window_sizes" in config:
        return "swin"
    return "vit" if "patch_size" in config and "depth" in config else "any"


def choose_recipe(recipes: Sequence[Recipe], manifest: "unveil_backbones.manifest.Manifest") -> Recipe:
    """The first recipe that suits the checkpoint.

    Raises:
        ProtocolError: none does; names the checkpoint.
    """
    for recipe in recipes:
        if recipe.suits(manifest):
            return recipe
    raise ProtocolError(
        f"no recipe for {manifest.label} ({manifest.num_parameters:,} parameters) among "
        f"{', '.join(recipe.name for recipe in recipes)}; the last recipe of a protocol should suit every encoder"
    )
