"""The 63 published runs of masked image modelling whose validation loss and transfer are both known.

Source: the model hub of github.com/microsoft/Swin-Transformer (MODELHUB.md at commit f82860b, "SimMIM Pretrained
Swin-V2 Models"), which accompanies Xie et al., On Data Scaling in Masked Image Modeling (arXiv:2206.04664, CVPR 2023).
SimMIM on SwinV2 at 192 pixels, batch 2048, one run per cell; the validation loss is on ImageNet-1K's validation images,
the accuracy is fine-tuned top-1 on ImageNet-1K. Parameters are the released ones (millions, encoder alone). Images of a
subset are its share of 1,281,167; those of ImageNet-22K are rounded. No torch here.
"""

import csv
from dataclasses import dataclass
from importlib import resources

__all__ = ["BATCH_SIZE", "PublishedRun", "published_runs"]

BATCH_SIZE = 2048
"""Images per step of every published run."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishedRun:
    """One published run."""

    model: str
    """S, B, L, H or g."""
    num_parameters: float
    """Of the encoder."""
    data: str
    """ImageNet-1K, a share of it, or ImageNet-22K."""
    num_images: int
    """Images of the training set."""
    steps: int
    """Optimiser updates."""
    val_loss: float
    """Pre-training loss on ImageNet-1K's validation images."""
    top1: float
    """Fine-tuned accuracy on ImageNet-1K in percent."""

    @property
    def epochs(self) -> float:
        """Passes over the training images."""
        return self.steps * BATCH_SIZE / self.num_images


def published_runs() -> tuple[PublishedRun, ...]:
    """All 63, by model, data and length."""
    text = (resources.files("unveil_pretrain.planning") / "published_runs.csv").read_text(encoding="utf-8")
    return tuple(
        PublishedRun(
            model=row["model"],
            num_parameters=float(row["million_parameters"]) * 1e6,
            data=row["data"],
            num_images=int(row["num_images"]),
            steps=int(row["steps"]),
            val_loss=float(row["val_loss"]),
            top1=float(row["top1"]),
        )
        for row in csv.DictReader(text.splitlines())
    )
