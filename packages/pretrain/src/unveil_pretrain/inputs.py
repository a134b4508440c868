"""From a batch of bytes to the input of an encoder, on the device."""

import torch
from torch import Tensor

from unveil_pretrain.data import Batch
from unveil_pretrain.objectives.base import Inputs

__all__ = ["Normaliser"]


class Normaliser:
    """Move a batch to a device and normalise its pixels there: (x / 255 − mean) / std per channel."""

    def __init__(
        self, *, mean: tuple[float, float, float], std: tuple[float, float, float], device: torch.device
    ) -> None:
        """Prepare the constants; `mean` and `std` refer to pixels in [0, 1]."""
        self.device = device
        self._offset = _per_channel(mean, device) * 255.0
        self._scale = 1.0 / (_per_channel(std, device) * 255.0)

    def __call__(self, batch: Batch) -> Inputs:
        """The batch on the device; uint8 travels, a quarter of the bytes of float32."""
        images = batch.images.to(self.device, non_blocking=True).to(torch.float32)
        channels = (3,) + (1,) * (images.dim() - 2)  # images, or clips
        offset, scale = self._offset.reshape(channels), self._scale.reshape(channels)
        return Inputs(
            images=images.sub_(offset).mul_(scale),
            sample_ids=batch.sample_ids.to(self.device, non_blocking=True),
            epochs=batch.epochs.to(self.device, non_blocking=True),
            captions=batch.captions,
            all_captions=batch.all_captions,
        )


def _per_channel(values: tuple[float, float, float], device: torch.device) -> Tensor:
    return torch.tensor(values, device=device).reshape(3, 1, 1)
