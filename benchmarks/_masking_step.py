"""The share of masking in a training step: sampling and gathering over forward and backward of a ViT-B/16."""

import torch
from torch import Tensor
from unveil_backbones import create
from unveil_masking import Grid, RandomMask, take

from benchmarks._compare import Candidate, Comparison
from benchmarks._device import Device

__all__ = ["step_row"]

_SHARE = 0.01


def step_row(device: Device, batch: int, *, compiled: bool, quick: bool) -> Comparison:
    """Return mask and gather against two steps: of all tokens, and of the quarter that a mask of 75 % leaves.

    A step is forward and backward in bfloat16, without patch embedding and optimiser, both of which would make the
    share of masking smaller. The ratio is the step's time over that of masking; its bar is 100, which is one per cent.
    """
    torch.manual_seed(0)
    encoder = create("vit_tiny" if quick else "vit_b16").to(device.torch).train()
    side = 8 if quick else 14
    grid, strategy = Grid(side, side), RandomMask(0.75)
    tokens = torch.randn(batch, grid.num, encoder.width, device=device.torch, dtype=torch.bfloat16)
    ids = torch.arange(batch, device=device.torch)

    def mask_and_gather() -> Tensor:
        return take(tokens, strategy.sample(grid, ids, seed=0))

    ours = torch.compile(mask_and_gather, fullgraph=True) if compiled else mask_and_gather

    def step(of: Tensor) -> None:
        with torch.autocast(device.torch.type, torch.bfloat16):
            loss = encoder.encode(of, (side, side)).float().square().mean()
        loss.backward()
        encoder.zero_grad(set_to_none=True)

    kept = ours()
    names = f"step, all {grid.num} tokens", f"step, {kept.shape[1]} kept tokens"
    index = strategy.sample(grid, ids, seed=0).keep[..., None].expand(-1, -1, encoder.width)
    apart = (kept - tokens.gather(1, index)).abs().max().item()
    return Comparison(
        title=f"Mask and gather in a ViT step, {grid} tokens, width {encoder.width}, {batch} images, on {device.torch}",
        ours=Candidate(name="mask and gather, compiled" if compiled else "mask and gather", run=ours),
        peers=[
            Candidate(name=names[0], run=lambda: step(tokens)),
            Candidate(name=names[1], run=lambda: step(kept)),
        ],
        differences=lambda: dict.fromkeys(names, apart),
        tolerance=0.0,
        bars=dict.fromkeys(names, 1 / _SHARE),
    )
