"""A training step of sparse SimMIM against one of SimMIM, both ours, in the same run.

    python -m benchmarks.sparse_simmim --model swinv2_b --batch 4 --threads 1 --dtype fp32

The two are different objectives: the ratio says what leaving hidden windows out is worth, not that losses agree. What
is compared before timing is what has to agree: with all units visible, the sparse encoder's tokens are the dense one's.
"""

import argparse
import sys
from typing import cast

import torch
from torch import Tensor, nn
from unveil_backbones import SwinEncoder, create
from unveil_backbones.swin_sparse import encode_units
from unveil_pretrain.objectives.base import BuildContext, Inputs, Objective, ObjectiveConfig
from unveil_pretrain.objectives.simmim import SimMIMConfig
from unveil_pretrain.objectives.sparse_simmim import SparseSimMIMConfig

from benchmarks._compare import Comparison, UnequalOutputsError, compare
from benchmarks._device import open_device
from benchmarks._report import Report, add_arguments, settings_of
from benchmarks._steps import Work, candidate, scramble

__all__ = ["main"]

_BAR = 2.0
_TOLERANCE = 1e-3  # tokens of up to about 5 after 24 blocks in float32


def main(arguments: list[str] | None = None) -> int:
    """Run both ratios; return 0, or 1 if the encoders disagree."""
    chosen = _parser().parse_args(arguments)
    device = open_device(chosen.device, chosen.threads)
    work = Work(device=device, batch=chosen.batch, autocast=chosen.dtype == "bf16")
    report = Report(device.name, headline=device.headline, threads=chosen.threads, path=chosen.json)
    precision = "bfloat16 (autocast)" if work.autocast else "float32"
    print(f"{chosen.model}, batch {work.batch}, products in {precision}", flush=True)
    try:
        for ratio in chosen.ratios:
            report.add(compare(_row(work, chosen.model, ratio, chosen.window), settings_of(chosen), device.clock))
            sys.stdout.flush()
    except UnequalOutputsError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


class _Step(nn.Module):
    """An objective on fixed sample ids, masks drawn in every step."""

    def __init__(self, objective: Objective) -> None:
        super().__init__()
        self.objective = objective

    def forward(self, images: Tensor) -> Tensor:
        ids = torch.arange(len(images), device=images.device)
        return self.objective(Inputs(images, ids, torch.zeros_like(ids), None), seed=0).per_sample.mean()


def _row(work: Work, model: str, ratio: float, window: int) -> Comparison:
    sparse, dense = (
        _step(config, model, work)
        for config in (
            SparseSimMIMConfig(mask_ratio=ratio, target_window=window),
            SimMIMConfig(mask_ratio=ratio, target_window=window),
        )
    )
    side = sparse.objective.encoder.spec.config["image_size"][0]  # pyright: ignore[reportIndexIssue, reportArgumentType]
    images = work.images(cast(int, side))
    return Comparison(
        title=f"{model} at {side}, {ratio:.0%} hidden, target window {window}, batch {work.batch}; other objective",
        ours=candidate("sparse_simmim", sparse, images, work),
        peers=[candidate("simmim", dense, images, work)],
        differences=lambda: {"simmim": _apart(sparse.objective.encoder, images[: work.check_batch])},
        tolerance=_TOLERANCE,
        bars={"simmim": _BAR},
    )


def _step(config: ObjectiveConfig, model: str, work: Work) -> _Step:
    torch.manual_seed(0)
    encoder = create(model)
    height, width = cast(SwinEncoder, encoder).config.image_size
    objective = config.build(
        BuildContext(encoder=encoder, image_size=(height, width), captions=lambda _: [], tokenizer_json=None)
    )
    scramble(objective)
    return _Step(objective.to(work.device.torch))


@torch.no_grad()
def _apart(encoder: nn.Module, images: Tensor) -> float:
    """Largest difference between the dense encoder's tokens and the sparse one's of all units."""
    swin = cast(SwinEncoder, encoder)
    num = (images.shape[2] // swin.stride) * (images.shape[3] // swin.stride)
    units = torch.arange(num, device=images.device).expand(len(images), -1)
    dense = swin.encode(swin.embed(images), swin.grid(images.shape[2], images.shape[3]))
    return (encode_units(swin, images, units, side=swin.stride) - dense).abs().max().item()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sparse_simmim", description=__doc__)
    add_arguments(parser)
    parser.add_argument("--model", default="swinv2_b", help="a swinv2 encoder")
    parser.add_argument("--batch", type=int, default=4, help="images per step")
    parser.add_argument("--ratios", type=float, nargs="+", default=[0.6, 0.75], help="shares of hidden units")
    parser.add_argument("--window", type=int, default=47, help="side of the target's window; 0 for raw pixels")
    parser.add_argument("--dtype", choices=("bf16", "fp32"), default="fp32", help="precision of products")
    return parser


if __name__ == "__main__":
    sys.exit(main())
