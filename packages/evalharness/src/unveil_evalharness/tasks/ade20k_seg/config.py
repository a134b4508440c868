"""What a segmentation protocol consists of."""

from dataclasses import dataclass

from unveil_evalharness.engine.runner import Precision
from unveil_evalharness.errors import ProtocolError
from unveil_evalharness.tasks.dense.training import EncoderTuning, Schedule

__all__ = ["SegmentationProtocol"]


@dataclass(frozen=True, kw_only=True, slots=True)
class SegmentationProtocol:
    """Everything that defines the segmentation numbers besides checkpoint, data and seed."""

    crop_size: int
    """Side of the square that the model sees, in training (a random crop) and in testing (a sliding window)."""
    stride: int
    """Step of the sliding window; overlapping predictions are averaged."""
    scale_range: tuple[float, float]
    """Random scale of training images around the one at which their shorter side is `crop_size`."""
    distort_colours: bool
    """mmseg's PhotoMetricDistortion in training."""
    test_scales: tuple[float, ...]
    """Scales of the multi-scale test around the one at which the shorter side is `crop_size`; each also mirrored, and
    the probabilities of all views averaged."""
    num_train_images: int | None
    """Use a fixed subset of this many training images; None: all."""
    num_val_images: int | None
    """Use a fixed subset of this many validation images; None: all."""
    batch_size: int
    """Images per optimiser step."""
    schedule: Schedule
    plain: EncoderTuning
    """For encoders with one map, as a ViT."""
    hierarchical: EncoderTuning
    """For encoders with four maps, as Swin."""
    channels: int
    """Channels of the UPerNet head."""
    auxiliary_channels: int
    """Channels of the auxiliary head on the stride-16 map (loss weight 0.4); 0 for none."""
    precision: Precision
    """On CUDA; a CPU computes in float32."""
    dropout: float = 0.1
    """In the heads, before their last layer."""
    num_resamples: int = 200
    """Bootstrap resamples of the validation images for the standard errors; 0 for none."""

    def __post_init__(self) -> None:
        if self.crop_size < 32 or self.crop_size % 32 or not 0 < self.stride <= self.crop_size:
            raise ProtocolError(
                f"crop_size must be a multiple of 32 and stride at most that, got {self.crop_size} and {self.stride}"
            )
        if not self.test_scales or min(self.test_scales) <= 0:
            raise ProtocolError(f"test_scales must name at least one positive scale, got {self.test_scales}")
