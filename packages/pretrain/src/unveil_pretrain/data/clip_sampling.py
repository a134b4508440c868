"""Which frames of a video a clip shows, and which part of them: pure functions of (seed, epoch, sample id).

A clip is `num_frames` frames, `frame_stride` apart, from a random start in training and from the middle in validation.
A video that is too short for that starts at its first frame and holds its last one: the frames after the end are copies
of it, as VideoMAE's loader has it (arXiv:2203.12602).
"""

from dataclasses import dataclass
from typing import Final, Literal

from unveil_pretrain.data.crops import CropBox, random_crop_box
from unveil_pretrain.data.streams import AUGMENT_STREAM, CLIP_STREAM, draw_block
from unveil_pretrain.errors import ConfigError

__all__ = ["ClipCrop", "ClipSettings", "centre_frames", "clip_box", "random_frames"]

ClipCrop = Literal["multi_scale", "resized"]

_SCALES: Final = (1.0, 0.875, 0.75, 0.66)
_PAIRS: Final = tuple((tall, wide) for tall in range(4) for wide in range(4) if abs(tall - wide) <= 1)
# In quarters of the free space, from the top left: corners, middle, middles of the edges, and between those.
_PLACES: Final = (
    (0, 0), (0, 4), (4, 0), (4, 4), (2, 2), (2, 0), (2, 4), (4, 2), (0, 2), (1, 1), (1, 3), (3, 1), (3, 3),
)  # fmt: skip
# Beyond the numbers that `random_crop_box` draws.
_CROP_DRAWS: Final = AUGMENT_STREAM + 64


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipSettings:
    """How clips are taken from videos."""

    num_frames: int = 16
    """Frames of a clip; a whole number of the encoder's tubelets."""
    frame_stride: int = 4
    """Frames of the video from one frame of the clip to the next: 4 for Kinetics, 2 for Something-Something."""
    clip_crop: ClipCrop = "multi_scale"
    """Training crop: VideoMAE's (four sizes, thirteen places), or "resized": the images' random crop by crop_scale."""

    def __post_init__(self) -> None:
        if self.num_frames < 1 or self.frame_stride < 1:
            raise ConfigError(
                f"num_frames is {self.num_frames} and frame_stride {self.frame_stride}; give at least 1 of each, "
                "for example 16 and 4"
            )
        if self.clip_crop not in ("multi_scale", "resized"):
            raise ConfigError(f"clip_crop is {self.clip_crop!r}; give multi_scale or resized")


def random_frames(num: int, settings: ClipSettings, *, seed: int, epoch: int, sample_id: int) -> list[int]:
    """Frames of a training clip from a video of `num` frames; every start that leaves room is equally likely."""
    room = max(0, num - _span(settings))
    draw = draw_block(seed, epoch, sample_id, CLIP_STREAM)[0]
    return _frames_from(int(draw * (room + 1)), num, settings)


def centre_frames(num: int, settings: ClipSettings) -> list[int]:
    """Frames of the fixed clip from the middle of a video of `num` frames."""
    return _frames_from(max(0, num - _span(settings)) // 2, num, settings)


def clip_box(
    size: tuple[int, int],
    target: tuple[int, int],
    settings: ClipSettings,
    *,
    scale: tuple[float, float],
    seed: int,
    epoch: int,
    sample_id: int,
) -> CropBox:
    """The part that all frames of a training clip show, and whether it may be mirrored.

    `multi_scale` is the crop of temporal segment networks (Wang et al., arXiv:1608.00859, section 3.2): height and
    width are one of four shares of the shorter side, at most one step apart, at one of thirteen places.

    Args:
        size: Height and width of the frames.
        target: Height and width the crop will be resized to.
        settings: Which crop.
        scale: Least and largest area of a `resized` crop, as shares of the frame.
        seed: Seed of the run.
        epoch: Epoch in which the sample is seen.
        sample_id: Stable id of the sample.
    """
    resized = random_crop_box(size, target, scale=scale, seed=seed, epoch=epoch, sample_id=sample_id)
    if settings.clip_crop == "resized":
        return resized
    size_draw, place_draw, _, _ = draw_block(seed, epoch, sample_id, _CROP_DRAWS)
    tall, wide = _PAIRS[int(size_draw * len(_PAIRS))]
    height, width = (max(1, int(min(size) * _SCALES[share])) for share in (tall, wide))
    down, right = _PLACES[int(place_draw * len(_PLACES))]
    return CropBox((size[1] - width) // 4 * right, (size[0] - height) // 4 * down, width, height, resized.flip)


def _span(settings: ClipSettings) -> int:
    """Frames of the video from the first of a clip to its last, both included."""
    return (settings.num_frames - 1) * settings.frame_stride + 1


def _frames_from(start: int, num: int, settings: ClipSettings) -> list[int]:
    return [min(start + index * settings.frame_stride, num - 1) for index in range(settings.num_frames)]
