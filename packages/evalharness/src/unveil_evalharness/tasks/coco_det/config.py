"""What a detection protocol consists of."""

from dataclasses import dataclass

from unveil_evalharness.engine.runner import Precision
from unveil_evalharness.errors import ProtocolError
from unveil_evalharness.tasks.dense.training import EncoderTuning, Schedule

__all__ = ["DetectionProtocol", "HeadSizes"]


@dataclass(frozen=True, kw_only=True, slots=True)
class HeadSizes:
    """How large the parts after the encoder are."""

    channels: int
    """Channels of the feature pyramid, the region proposal head and the mask head."""
    box_channels: int
    """Width of the fully connected layers of the box head."""
    num_mask_convs: int
    """3 × 3 convolutions of the mask head."""
    num_proposal_convs: int = 1
    """3 × 3 convolutions of the region proposal head."""
    num_box_convs: int = 0
    """3 × 3 convolutions of the box head before its fully connected layers."""
    num_box_layers: int = 2
    """Fully connected layers of the box head."""
    layer_norm: bool = False
    """LayerNorm over channels after each convolution of the neck and of the box and mask heads, as in ViTDet."""
    box_cells: int = 7
    """Cells per side of a region that the box head sees."""
    mask_cells: int = 14
    """Cells per side of a region that the mask head sees; masks are predicted at twice that."""
    anchor_scale: float = 8.0
    """Side of an anchor in cells of its level."""
    proposals_before_nms: int = 1000
    """Best proposals per level that enter suppression."""
    train_proposals: int = 1000
    """Proposals per training image after suppression."""
    test_proposals: int = 1000
    """Proposals per test image after suppression."""
    rpn_samples: int = 256
    """Anchors per image in the proposal loss."""
    region_samples: int = 512
    """Regions per image in the box and mask losses, a quarter of them objects."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DetectionProtocol:
    """Everything that defines the detection numbers besides checkpoint, data and seed."""

    image_size: int
    """Images are scaled to fit a square of this side, aspect ratio kept, and padded to it."""
    scale_range: tuple[float, float]
    """Random scale of training images around that fit (large-scale jitter); (1, 1) for none."""
    num_train_images: int | None
    """Use a fixed subset of this many training images; None: all."""
    num_val_images: int | None
    """Use a fixed subset of this many validation images; None: all."""
    batch_size: int
    """Images per optimiser step."""
    schedule: Schedule
    plain: EncoderTuning
    """For encoders with one map, as a ViT: ViTDet's simple feature pyramid."""
    hierarchical: EncoderTuning
    """For encoders with four maps, as Swin: a feature pyramid network."""
    precision: Precision
    """On CUDA; a CPU computes in float32."""
    heads: HeadSizes
    score_threshold: float = 0.05
    """Detections below are dropped, as in mmdet's Mask R-CNN."""
    max_detections: int = 100
    """Per image, as COCO's average precision counts them."""
    num_resamples: int = 50
    """Bootstrap resamples of the validation images for the standard errors; 0 for none."""

    def __post_init__(self) -> None:
        low, high = self.scale_range
        if self.image_size < 32 or self.image_size % 32 or not 0 < low <= high:
            raise ProtocolError(
                f"image_size must be a multiple of 32 and scale_range positive and ascending, got {self.image_size} "
                f"and {self.scale_range}"
            )
