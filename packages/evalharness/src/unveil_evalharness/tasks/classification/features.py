"""Features of a frozen encoder: past both gates, computed once, kept for an interrupted run to go on from."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader
from tqdm import tqdm

from unveil_evalharness.engine.encoder import fresh_encoder
from unveil_evalharness.engine.loader_errors import one_line_loader_errors
from unveil_evalharness.engine.parity import check_forward_parity, check_load_coverage, probe_image
from unveil_evalharness.task import TaskContext
from unveil_evalharness.tasks.imagenet_ft.data import FolderImages, ImageFolder
from unveil_evalharness.tasks.imagenet_ft.transforms import image_size, test_transform

if TYPE_CHECKING:
    import unveil_backbones.base
    import unveil_backbones.specs

__all__ = ["FrozenEncoder", "freeze", "images_per_pass", "num_workers"]

_ROWS = 32
"""Images in one call of the encoder, filled up with zeros, so that no feature depends on the batch size."""
_IN_MEMORY = 10_000
"""Images that are few enough to be read by this process alone."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FrozenEncoder:
    """An encoder that only looks at images, and how images are shown to it."""

    encoder: "unveil_backbones.base.Encoder"
    """In evaluation mode on the task's device, without gradients."""
    coverage: float
    size: tuple[int, int]
    """Height and width of the images."""
    preprocessing: "unveil_backbones.specs.Preprocessing"
    transform: Callable[[Image.Image], Any]
    """As images are tested: PIL image to tensor [3, h, w]."""
    context: TaskContext

    def features(self, folder: ImageFolder, name: str) -> Float[Tensor, "n d"]:
        """Pooled features of all images in their order, float32 on the CPU.

        They are kept in the task's work folder under `name`, so that a run that was interrupted does not compute them
        twice.
        """
        from safetensors.torch import load_file, save_file

        kept = self.context.work_dir / f"features-{name}.safetensors"
        if kept.is_file():
            return load_file(kept)["features"]
        loader = DataLoader(
            FolderImages(folder, self.transform, kept_side=None),
            batch_size=images_per_pass(self.context),
            num_workers=num_workers(len(folder.images)),
        )
        batches = tqdm(loader, desc=f"features of {name}", disable=not self.context.progress, leave=False)
        with one_line_loader_errors():
            found = torch.cat([self.pooled(batch["inputs"]).cpu() for batch in batches])
        _write_whole(kept, lambda path: save_file({"features": found}, path))
        return found

    @torch.inference_mode()
    def pooled(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d"]:
        """The vector that a classifier sees, in float32 on the task's device."""
        parts = []
        for part in images.to(self.context.device).split(_ROWS):
            filled = functional.pad(part, (0, 0, 0, 0, 0, 0, 0, _ROWS - len(part)))
            parts.append(self.encoder(filled)[: len(part)].float())
        return torch.cat(parts)


def freeze(
    context: TaskContext, *, image_side: int | Literal["pretraining"], test_crop: float, interpolation: str
) -> FrozenEncoder:
    """The checkpoint's encoder for images of a size, with the same gates as before any training.

    Args:
        context: the task's.
        image_side: side of the square images in pixels, or the checkpoint's own image size.
        test_crop: side of the central crop over the resized shorter side.
        interpolation: resampling filter of the resize.

    Raises:
        GateError: the encoder does not hold the checkpoint's weights or gives other features.
    """
    preprocessing = context.checkpoint.manifest.preprocessing
    size = image_size(image_side, preprocessing)
    side = None if image_side == "pretraining" else size[0]
    source = context.checkpoint.encoder
    encoder = fresh_encoder(source, drop_path=0.0, image_side=side)
    coverage = check_load_coverage(source.state_dict(), encoder.state_dict())
    same_windows = encoder.spec.config.get("window_sizes") == source.spec.config.get("window_sizes")
    # With other windows the features differ by design; then the reference is a second build with the same windows.
    reference: nn.Module = source if same_windows else fresh_encoder(source, drop_path=0.0, image_side=side)
    difference = check_forward_parity(
        reference,
        encoder,
        reference_features=lambda images: [reference(images)],
        task_features=lambda images: [encoder(images)],
        image=probe_image(*size),
    )
    context.log(f"load coverage {coverage:.4f}, forward parity {difference:.1e}")
    return FrozenEncoder(
        encoder=encoder.requires_grad_(False).eval().to(context.device),
        coverage=coverage,
        size=size,
        preprocessing=preprocessing,
        transform=test_transform(preprocessing, size=size, crop=test_crop, interpolation=interpolation),
        context=context,
    )


def images_per_pass(context: TaskContext) -> int:
    """Images that go through the frozen encoder at once; no gradients are kept, so there is room."""
    return context.batch_size or (64 if context.device == "cpu" else 256)


def num_workers(num_images: int) -> int:
    """Loader processes for a number of images."""
    return 0 if num_images <= _IN_MEMORY else min(os.cpu_count() or 1, 8)


def _write_whole(path: Path, write: Callable[[Path], None]) -> None:
    """Writes by way of a temporary sibling: a killed process leaves the whole file or none."""
    temporary = path.with_name(f".{path.name}.partial")
    write(temporary)
    temporary.replace(path)
