"""Clips of videos as training sees them: some frames of a video, all cropped alike."""

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from unveil_pretrain.data.clip_decode import VIDEO_EXTENSIONS, clip_files, read_frames
from unveil_pretrain.data.clip_sampling import ClipSettings, centre_frames, clip_box, random_frames
from unveil_pretrain.data.crops import SIMMIM_SCALE, CropBox, check_crop_scale
from unveil_pretrain.data.datasets import Example
from unveil_pretrain.data.images import check_image_size
from unveil_pretrain.data.samples import Samples
from unveil_pretrain.errors import DataError

__all__ = ["ClipDataset"]


class ClipDataset:
    """Clips of some samples, each a video file or a numbered series of images; other files are ignored.

    The image of an `Example` is a clip here: uint8 [3, t, h, w].
    """

    def __init__(
        self,
        shards: Samples,
        *,
        image_size: Sequence[int],
        clips: ClipSettings,
        crop_scale: tuple[float, float] = SIMMIM_SCALE,
        mirror: bool = True,
    ) -> None:
        """Find the video of every sample. One that holds none, or several, raises DataError when it is read.

        Args:
            shards: The samples, of shards or of a folder.
            image_size: Height and width of the crops in pixels.
            clips: Number and stride of the frames, and the training crop.
            crop_scale: Smallest and largest area of `resized` training crops, as shares of a frame.
            mirror: Mirror half of the training clips; directions matter in Something-Something.

        Raises:
            DataError: no sample holds a video.
            ConfigError: the image size is not two positive numbers, or the areas are no shares.
        """
        check_crop_scale(crop_scale)
        self.shards = shards
        self.image_size = check_image_size(image_size)
        self.clips = clips
        self._scale, self._mirror = crop_scale, mirror
        self._names = tuple(clip_files(shards.extensions(index)) for index in range(len(shards)))
        if not any(self._names):
            raise DataError(f"{self._no_video(0)} (no other sample does, either)")

    @property
    def sample_ids(self) -> np.ndarray:
        """int64 [n], the stable ids of the samples."""
        return self.shards.sample_ids

    @property
    def content_hash(self) -> str:
        """64 hex digits that identify the samples and their order."""
        return self.shards.content_hash

    def __len__(self) -> int:
        return len(self.shards)

    def of_samples(self, shards: Samples) -> "ClipDataset":
        """The same kind of clips from other samples."""
        return ClipDataset(
            shards, image_size=self.image_size, clips=self.clips, crop_scale=self._scale, mirror=self._mirror
        )

    def train_example(self, index: int, *, seed: int, epoch: int) -> Example:
        """The random clip of this seed and epoch, all of its frames under the same random crop."""
        sample_id = int(self.sample_ids[index])
        frames = self._frames(
            self.shards.read(index),
            index,
            partial(random_frames, settings=self.clips, seed=seed, epoch=epoch, sample_id=sample_id),
        )
        box = clip_box(
            frames[0].shape[:2],
            self.image_size,
            self.clips,
            scale=self._scale,
            seed=seed,
            epoch=epoch,
            sample_id=sample_id,
        )
        clip = _cut(frames, box, self.image_size)
        return Example(clip.flip(-1) if box.flip and self._mirror else clip, sample_id, None)

    def val_example(self, index: int) -> Example:
        """The clip from the middle of the video under the largest centre crop of the target's shape."""
        frames = self._frames(self.shards.read(index), index, partial(centre_frames, settings=self.clips))
        box = _centre_box(frames[0].shape[:2], self.image_size)
        return Example(_cut(frames, box, self.image_size), int(self.sample_ids[index]), None)

    def _frames(self, files: Mapping[str, bytes], index: int, choose: "partial[list[int]]") -> list[np.ndarray]:
        names = self._names[index]
        if not names:
            raise DataError(self._no_video(index))
        return read_frames(files, names, self.shards.where(index), choose)

    def _no_video(self, index: int) -> str:
        has = ", ".join(f".{extension}" for extension in self.shards.extensions(index)[:8])
        return (
            f"{self.shards.where(index)}: a sample must hold one video ({', '.join(VIDEO_EXTENSIONS)}) or numbered "
            f"images (000.jpg, 001.jpg, ...), this one holds {has}; remove the sample or write the shard again"
        )


def _centre_box(size: tuple[int, int], target: tuple[int, int]) -> CropBox:
    """The largest rectangle of the target's shape in the middle of a frame."""
    share = min(size[0] / target[0], size[1] / target[1])
    height, width = (min(side, max(1, round(share * wanted))) for side, wanted in zip(size, target, strict=True))
    return CropBox((size[1] - width) // 2, (size[0] - height) // 2, width, height, flip=False)


def _cut(frames: Sequence[np.ndarray], box: CropBox, target: tuple[int, int]) -> UInt8[Tensor, "3 t h w"]:
    """Every frame's part inside the box, resized (bilinear with antialiasing, as VideoMAE's crops)."""
    corners = (box.left, box.top, box.left + box.width, box.top + box.height)
    done: dict[int, np.ndarray] = {}
    for frame in frames:  # a held frame is resized once
        if id(frame) not in done:
            image = Image.fromarray(frame)
            done[id(frame)] = np.array(image.resize((target[1], target[0]), Image.Resampling.BILINEAR, box=corners))
    return torch.from_numpy(np.stack([done[id(frame)] for frame in frames])).permute(3, 0, 1, 2).contiguous()
