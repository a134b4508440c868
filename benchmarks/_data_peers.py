"""Loading images the way most training code does, and our way, on the same shards and with the same crops."""

import io
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import webdataset as wds
from PIL import Image
from torch import Tensor
from unveil_backbones._torchvision import ensure_torchvision
from unveil_pretrain.data import ImageDataset, ShardDataset, WorkerKind, sample_id_of, train_batches
from unveil_pretrain.data.crops import CropBox, random_crop_box
from unveil_pretrain.inputs import Normaliser

__all__ = ["MEAN", "STD", "Task", "default_batches", "default_view", "our_batches", "our_dataset", "write_shards"]

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """What both sides do."""

    shards: str
    """In webdataset's syntax."""
    size: int
    """Height and width of the crops."""
    scale: tuple[float, float]
    """Least and largest area of the crops."""
    batch: int
    num_samples: int


def write_shards(folder: Path, images: Sequence[Path], *, num_samples: int, num_shards: int = 4) -> str:
    """Shards of <key>.jpg and <key>.txt, the images repeated in turn; returns their names in webdataset's syntax."""
    for shard in range(num_shards):
        with tarfile.open(folder / f"{shard:05d}.tar", "w") as archive:
            for number in range(shard, num_samples, num_shards):
                for name, data in (
                    (f"{number:08d}.jpg", images[number % len(images)].read_bytes()),
                    (f"{number:08d}.txt", b"a caption of a few words"),
                ):
                    info = tarfile.TarInfo(name)
                    info.size = len(data)
                    archive.addfile(info, io.BytesIO(data))
    return f"{folder}/{{00000..{num_shards - 1:05d}}}.tar"


def crop_of(key: str, size: tuple[int, int], task: Task) -> CropBox:
    """The crop of a sample in epoch 0 under seed 0, for an image of this height and width."""
    target = (task.size, task.size)
    return random_crop_box(size, target, scale=task.scale, seed=0, epoch=0, sample_id=sample_id_of(key))


def default_view(image: Image.Image, key: str, task: Task) -> Tensor:
    """Torchvision's RandomResizedCrop, RandomHorizontalFlip, ToTensor and Normalize, with our rectangle and coin."""
    ensure_torchvision()
    from torchvision.transforms import InterpolationMode, functional

    box = crop_of(key, (image.height, image.width), task)
    side = [task.size, task.size]
    view = functional.resized_crop(image, box.top, box.left, box.height, box.width, side, InterpolationMode.BICUBIC)
    view = functional.hflip(view) if box.flip else view
    return functional.normalize(functional.to_tensor(view), list(MEAN), list(STD))


class _View:
    """The function above for one task, so that worker processes can be sent it."""

    def __init__(self, task: Task) -> None:
        self._task = task

    def __call__(self, sample: tuple[Image.Image, str]) -> tuple[Tensor, str]:
        return default_view(sample[0], sample[1], self._task), sample[1]


def default_batches(task: Task, num_workers: int) -> Iterator[tuple[Tensor, Any]]:
    """What webdataset's documentation puts together: decoded by Pillow, batched in the workers, float32."""
    pipeline = (
        wds.WebDataset(task.shards, shardshuffle=False, empty_check=False)
        .decode("pilrgb")
        .to_tuple("jpg", "__key__")
        .map(_View(task))
        .batched(task.batch, partial=True)
    )
    yield from wds.WebLoader(pipeline, batch_size=None, num_workers=num_workers)


def our_dataset(task: Task) -> ImageDataset:
    """The same samples as a data set of ours; its index is read once, as in a run."""
    return ImageDataset(ShardDataset(task.shards), image_size=(task.size, task.size), crop_scale=task.scale)


def our_batches(
    dataset: ImageDataset, task: Task, num_workers: int, kind: WorkerKind, normalised: bool
) -> Iterator[Tensor]:
    """One epoch of uint8 batches, or of float32 ones where this CPU has to do what the device does in training."""
    normalise = Normaliser(mean=MEAN, std=STD, device=torch.device("cpu"))
    steps = task.num_samples // task.batch
    for batch in train_batches(
        dataset, batch_size=task.batch, start_step=0, num_steps=steps, seed=0, num_workers=num_workers, worker_kind=kind
    ):
        yield normalise(batch).images if normalised else batch.images


def levels(view: Tensor) -> np.ndarray:
    """A normalised view back in levels of 0 to 255."""
    mean, std = (torch.tensor(values).reshape(3, 1, 1) for values in (MEAN, STD))
    return ((view * std + mean) * 255).numpy()
