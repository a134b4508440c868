"""How the linear layer is trained and tested: everything that can move the numbers, and nothing else."""

from dataclasses import dataclass, replace
from typing import Literal

from unveil_evalharness.errors import ProtocolError, UnknownSuiteError

__all__ = ["LinearProbeProtocol", "powers_of_ten", "protocol_for"]


@dataclass(frozen=True, kw_only=True, slots=True)
class LinearProbeProtocol:
    """Two linear layers on the same frozen encoder: LARS as MAE trains one, and logistic regression by L-BFGS."""

    epochs: int
    """Length of the training with LARS."""
    warmup: int
    """Epochs in which its learning rate rises linearly from 0; then it falls to 0 by half a cosine."""
    batch_size: int
    """Images per step of LARS, and of the batch normalisation before the layer."""
    lr: float
    """Peak learning rate at this `batch_size`."""
    weight_decay: float
    momentum: float
    trust: float
    """LARS: length of a weight's step over that of the weight, at a learning rate of 1."""
    head_std: float
    """Standard deviation of the layer's first weights."""
    norm_epsilon: float
    """Added to the variance in the batch normalisation, which has no scale and offset of its own."""
    augment: bool
    """Whether LARS sees a random crop in each epoch; else every image is looked at once, as it is tested."""
    crop_scale: tuple[float, float]
    """Area of the random crop over that of the image; read with `augment` only."""
    flip: float
    """Probability of a horizontal flip; read with `augment` only."""
    inverse_penalties: tuple[float, ...]
    """Logistic regression: scikit-learn's ``C`` to choose from, larger for less penalty."""
    max_steps: int
    """Most steps of L-BFGS for each of them."""
    held_out: float
    """Fraction of each class's training images on which ``C`` is chosen; then all of them are fitted."""
    image_side: int | Literal["pretraining"]
    """Side of the square images in pixels, or the checkpoint's own image size."""
    test_crop: float
    """Side of the central test crop over the resized shorter side."""
    interpolation: str
    """Resampling filter."""
    max_train_images: int | None
    """Class-balanced, fixed subset of the training images; None for all."""
    max_val_images: int | None
    """Class-balanced, fixed subset of the validation images; None for all."""

    def __post_init__(self) -> None:
        if not 0 <= self.warmup < self.epochs:
            raise ProtocolError(f"a probe needs 0 <= warmup < epochs, got {self.warmup} and {self.epochs}")
        if not self.inverse_penalties or min(self.inverse_penalties) <= 0:
            raise ProtocolError(f"inverse_penalties must be above 0, got {self.inverse_penalties}")
        if not 0 < self.held_out < 1:
            raise ProtocolError(f"held_out must be between 0 and 1, got {self.held_out}")


def powers_of_ten(low: float, high: float, number: int) -> tuple[float, ...]:
    """``10 ** x`` for `number` values of x from `low` to `high`, to six digits."""
    step = (high - low) / (number - 1)
    return tuple(float(f"{10 ** (low + index * step):.6g}") for index in range(number))


def protocol_for(suite: str) -> LinearProbeProtocol:
    """The protocol of a suite: MAE's linear probe and DINOv2's sweep, with less of both where time is short.

    Raises:
        UnknownSuiteError: a suite other than ``"quick"``, ``"short"`` and ``"full"``.
    """
    full = LinearProbeProtocol(
        epochs=90,
        warmup=10,
        batch_size=16_384,
        lr=6.4,
        weight_decay=0.0,
        momentum=0.9,
        trust=0.001,
        head_std=0.01,
        norm_epsilon=1e-6,
        augment=True,
        crop_scale=(0.08, 1.0),
        flip=0.5,
        inverse_penalties=powers_of_ten(-6.0, 5.0, 45),
        max_steps=1000,
        held_out=0.1,
        image_side=224,
        test_crop=224 / 256,
        interpolation="bicubic",
        max_train_images=None,
        max_val_images=None,
    )
    match suite:
        case "quick":
            return replace(
                full,
                # LARS scales each step to the weights' length, so a thousandth of the steps takes longer ones.
                batch_size=64,
                lr=20.0,
                augment=False,
                inverse_penalties=powers_of_ten(-3.0, 2.0, 6),
                max_steps=100,
                held_out=0.2,
                image_side="pretraining",
                test_crop=1.0,
                max_train_images=1000,
                max_val_images=500,
            )
        case "short":
            return replace(
                full,
                batch_size=4096,
                augment=False,
                inverse_penalties=powers_of_ten(-4.0, 3.0, 8),
                max_train_images=256_000,
            )
        case "full":
            return full
        case _:
            raise UnknownSuiteError(f"linear_probe has no suite {suite!r}; choose 'quick', 'short' or 'full'")
