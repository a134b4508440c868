"""How the encoder is fine-tuned and tested: everything that can move the number, and nothing else."""

from dataclasses import dataclass, replace
from typing import Literal

from unveil_evalharness.engine.runner import Precision
from unveil_evalharness.errors import ProtocolError, UnknownSuiteError

__all__ = ["ImagenetProtocol", "full", "protocol_for", "quick", "short"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ImagenetProtocol:
    """One fine-tuning and one evaluation."""

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
    """Learning rate at the end, as a fraction of `lr`."""
    weight_decay: float
    layer_decay: float
    """Factor on the learning rate per layer, from the last down."""
    drop_path: float
    """Stochastic depth of the encoder's last block."""
    clip_norm: float
    """Largest norm of the gradient."""
    head: Literal["random", "probe"]
    """Where the linear layer starts: small random weights, or logistic regression on the frozen features."""
    head_penalty: float
    """Weight penalty of that regression; read with ``head="probe"`` only."""
    label_smoothing: float
    mixup: float
    """Alpha of mixup; 0 for none."""
    cutmix: float
    """Alpha of CutMix; 0 for none."""
    image_side: int | Literal["pretraining"]
    """Side of the square images in pixels, or the checkpoint's own image size."""
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
    test_crop: float
    """Side of the central test crop over the resized shorter side."""
    interpolation: str
    """Resampling filter of training crop and test resize."""
    max_train_images: int | None
    """Class-balanced, fixed subset of the training images; None for all."""
    max_val_images: int | None
    """Class-balanced, fixed subset of the validation images; None for all."""
    in_memory: bool
    """Decode every image once and keep it, its shorter side reduced to at most twice the image side."""
    precision: Precision
    """Arithmetic of training on CUDA; a CPU trains in float32."""

    def __post_init__(self) -> None:
        if self.duration < 1 or not 0 <= self.warmup < self.duration:
            raise ProtocolError(
                f"a protocol needs duration >= 1 and 0 <= warmup < duration, got {self.duration} and {self.warmup}"
            )
        if (self.mixup or self.cutmix) and self.batch_size % 2:
            raise ProtocolError(f"mixup pairs the images of a batch; batch_size {self.batch_size} must be even")


def quick() -> ImagenetProtocol:
    """Seconds on one CPU core: a linear probe, then fifty steps of fine-tuning from it, at the checkpoint's image size.

    The values are ours, chosen on images of 64 pixels with the ``*_tiny`` encoders; the number tells checkpoints
    apart but is not an ImageNet accuracy. Without the probe fifty steps from a random head stay at chance.
    """
    return ImagenetProtocol(
        duration=50,
        warmup=5,
        unit="iterations",
        batch_size=32,
        lr=2e-4,
        warmup_start=1e-2,
        final_lr=1e-2,
        weight_decay=0.05,
        layer_decay=0.9,
        drop_path=0.0,
        clip_norm=5.0,
        head="probe",
        head_penalty=1e-3,
        label_smoothing=0.0,
        mixup=0.0,
        cutmix=0.0,
        image_side="pretraining",
        crop_scale=(0.9, 1.0),
        flip=0.0,
        colour_jitter=0.0,
        auto_augment="",
        random_erasing=0.0,
        test_crop=1.0,
        interpolation="bicubic",
        max_train_images=1000,
        max_val_images=500,
        in_memory=True,
        precision="float32",
    )


def full() -> ImagenetProtocol:
    """SimMIM's ImageNet-1K fine-tuning of SwinV2-B, as in the data-scaling study of masked image modelling.

    Xie et al., "On Data Scaling in Masked Image Modeling" (arXiv 2206.04664) with the fine-tune configuration of the
    code it builds on (SimMIM, arXiv 2111.09886): 100 epochs, 20 of warm-up, learning rate 1.25e-3 per 512 images,
    from and down to 2.5e-7 per 512 images, layer decay 0.75, drop path 0.1, weight decay 0.05, RandAugment
    m9-mstd0.5-inc1, random erasing 0.25, mixup 0.8, CutMix 1.0, label smoothing 0.1, gradient norm 5; test at 224 of
    256, bicubic. Total batch 2048, so the learning rate is 5e-3.
    """
    return ImagenetProtocol(
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
        head="random",
        head_penalty=0.0,
        label_smoothing=0.1,
        mixup=0.8,
        cutmix=1.0,
        image_side=224,
        crop_scale=(0.08, 1.0),
        flip=0.5,
        colour_jitter=0.4,
        auto_augment="rand-m9-mstd0.5-inc1",
        random_erasing=0.25,
        test_crop=224 / 256,
        interpolation="bicubic",
        max_train_images=None,
        max_val_images=None,
        in_memory=False,
        precision="bfloat16",
    )


def short() -> ImagenetProtocol:
    """About an hour on one GPU: the augmentation of `full`, 20 epochs of 128 images of each of ImageNet-1K's classes."""
    return replace(full(), duration=20, warmup=2, batch_size=1024, lr=2.5e-3, max_train_images=128_000)


def protocol_for(suite: str) -> ImagenetProtocol:
    """The protocol of a suite.

    Raises:
        UnknownSuiteError: a suite other than ``"quick"``, ``"short"`` and ``"full"``.
    """
    match suite:
        case "quick":
            return quick()
        case "short":
            return short()
        case "full":
            return full()
        case _:
            raise UnknownSuiteError(f"imagenet_ft has no suite {suite!r}; choose 'quick', 'short' or 'full'")
