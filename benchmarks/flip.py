"""FLIP's whole training step, its loss and its memory, against open_clip and against our own unmasked step.

    python -m benchmarks.flip --batch 4 --json figures.json

Rows: ``step`` (both towers and the loss, with the weights and patches of open_clip), ``loss`` (8,192 pairs), ``own``
(our masked step over our unmasked one, against the share of FLOPs), ``memory`` (peaks of fresh processes).
"""

import argparse
import sys

import torch
from torch.nn.functional import normalize
from unveil_backbones import ensure_torchvision
from unveil_pretrain.contrastive import info_nce

from benchmarks._clip import RATIOS, ideal_ratio, own_rows, peer_rows
from benchmarks._compare import Absent, Candidate, Comparison, UnequalOutputsError, compare, turn
from benchmarks._device import matmul_peak, open_device
from benchmarks._flip_memory import peak_of
from benchmarks._report import Report, add_arguments, settings_of
from benchmarks._steps import Work, forget

__all__ = ["main"]

_ROWS = ("step", "loss", "own", "memory")
_WIDTH = 512
_LOSS_BAR = 1.5


def main(arguments: list[str] | None = None) -> int:
    """Run the rows that are asked for; return 0, or 1 if outputs were unequal."""
    chosen = _parser().parse_args(arguments)
    ensure_torchvision()
    device = open_device(chosen.device, chosen.threads)
    on_cpu = device.torch.type == "cpu"
    work = Work(
        device=device,
        batch=chosen.batch or (4 if on_cpu else 128),
        # This step is compared in float32 on a CPU, with or without instructions for bfloat16.
        autocast=chosen.dtype == "bf16" if chosen.dtype else not on_cpu,
        compile=chosen.compile,
        quick=chosen.quick,
    )
    # On a CPU other processes share the clock, and this share of the peak would say little.
    peak = None
    if not on_cpu:
        with turn(chosen.turn):
            peak = matmul_peak(device, torch.bfloat16 if work.autocast else torch.float32)
    report = Report(device.name, headline=device.headline, threads=chosen.threads, peak=peak, path=chosen.json)
    settings = settings_of(chosen)
    print(
        f"batch {work.batch}, products in {'bfloat16' if work.autocast else 'float32'}, quick {work.quick}", flush=True
    )
    try:
        if "step" in chosen.only:
            for comparison in peer_rows(work, chosen.ratios):
                report.add(compare(comparison, settings, device.clock))
                forget(work)
        if "loss" in chosen.only:
            report.add(compare(_loss_row(work, 256 if work.quick else chosen.global_batch), settings, device.clock))
        if "own" in chosen.only:
            for ratio, comparison in own_rows(work):
                outcome = compare(comparison, settings, device.clock)
                report.add(outcome)
                forget(work)
                spread = outcome.ratios[0].cpu if on_cpu else outcome.ratios[0].wall
                ideal = ideal_ratio(work, ratio)
                report.note(
                    f"{ratio:.0%} dropped: {spread.median:.2f}x of an ideal {ideal:.2f}x by FLOPs: the step takes "
                    f"{ideal / spread.median:.2f} of the ideal time"
                )
        if "memory" in chosen.only:
            _memory(report, work, chosen.global_batch)
    except UnequalOutputsError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _loss_row(work: Work, batch: int) -> Comparison:
    """Forward and backward of the contrastive loss over a global batch in one process."""
    generator = torch.Generator().manual_seed(0)
    place = work.device.torch
    images, texts = (
        normalize(torch.randn(batch, _WIDTH, generator=generator), dim=1).to(place).requires_grad_() for _ in range(2)
    )
    scale = torch.tensor(14.0, device=place, requires_grad=True)
    inputs = (images, texts, scale)

    def ours() -> tuple[torch.Tensor, ...]:
        loss = info_nce(images, texts, scale).mean()
        return (loss.detach(), *torch.autograd.grad(loss, inputs))

    title = f"InfoNCE of a global batch of {batch:,}, width {_WIDTH}, forward and backward"
    mine = Candidate(name="ours", run=ours)
    try:
        from open_clip.loss import ClipLoss
    except ImportError as error:
        missing = Absent(name="open_clip", reason=f"{error}; pip install open_clip_torch")
        return Comparison(title=title, ours=mine, peers=[missing], differences=dict, tolerance=0.0)
    criterion = ClipLoss()

    def theirs() -> tuple[torch.Tensor, ...]:
        loss = criterion(images, texts, scale)
        return (loss.detach(), *torch.autograd.grad(loss, inputs))

    def differences() -> dict[str, float]:
        pairs = zip(ours(), theirs(), strict=True)
        return {"open_clip": max(float((a - b).abs().max() / b.abs().max()) for a, b in pairs)}

    return Comparison(
        title=title, ours=mine, peers=[Candidate(name="open_clip", run=theirs)], differences=differences,
        tolerance=1e-4, bars={"open_clip": _LOSS_BAR},
    )  # fmt: skip


def _memory(report: Report, work: Work, global_batch: int) -> None:
    """Peaks of fresh processes: the loss against open_clip's, and the step at three masks with growing batches."""
    size = 512 if work.quick else global_batch
    extra = {}
    for who in ("ours", "open_clip"):
        before, peak = peak_of("loss", who, str(size), str(_WIDTH), device=work.device.torch.type)
        extra[who] = peak - before
        report.note(f"loss of {size:,} pairs, {who}: {(peak - before) / 2**20:,.0f} MiB above its inputs")
    report.note(f"loss of {size:,} pairs: open_clip needs {extra['open_clip'] / max(1, extra['ours']):.1f}x the memory")
    name, first = ("flip_b16", 1) if work.quick else ("flip_l16", work.batch)
    unmasked = 0
    for ratio, multiple in ((0.0, 1), (0.5, 2), (0.75, 4)):
        words = ("step", name, str(ratio), str(first * multiple))
        before, peak = peak_of(*words, device=work.device.torch.type)
        unmasked = unmasked or peak
        report.note(
            f"{name}, {ratio:.0%} dropped, batch {first * multiple}: peak {peak / 2**20:,.0f} MiB "
            f"({peak / unmasked:.2f} of unmasked), {(peak - before) / 2**20:,.0f} MiB above weights and inputs"
        )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.flip", description=__doc__)
    add_arguments(parser)
    parser.add_argument("--only", nargs="+", choices=_ROWS, default=list(_ROWS), help="rows to run")
    parser.add_argument("--batch", type=int, default=None, help="pairs per step (4 on a CPU, 128 on a GPU)")
    parser.add_argument("--global-batch", type=int, default=8192, help="pairs of the loss")
    parser.add_argument("--ratios", type=float, nargs="+", choices=RATIOS, default=RATIOS, help="dropped, of row step")
    parser.add_argument("--dtype", choices=("bf16", "fp32"), default=None, help="fp32 on a CPU unless given")
    parser.add_argument("--compile", choices=("none", "blocks", "whole"), default="none", help="torch.compile, both")
    parser.add_argument("--quick", action="store_true", help="tiny models: shows that it runs, measures nothing")
    return parser


if __name__ == "__main__":
    sys.exit(main())
