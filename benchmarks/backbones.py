"""Training steps of SimMIM, FLIP and MAE against the libraries people use today.

    python -m benchmarks.backbones --mae CLONE --swin CLONE --json figures.json

Peers: timm and open_clip as installed; the reference implementations of MAE and SimMIM from clones, whose paths are
given. What is missing is reported as absent. ``docs/benchmarks.md`` says what every column means.
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import get_args

import torch
from unveil_backbones import ensure_torchvision

from benchmarks._compare import Comparison, Outcome, Settings, UnequalOutputsError, compare, turn
from benchmarks._device import Device, matmul_peak, open_device
from benchmarks._flip import RATIOS, flip_rows, ideal_title, own_speedup_row, work_title
from benchmarks._mae import mae_row
from benchmarks._report import Report, add_arguments, settings_of
from benchmarks._simmim import simmim_rows, target_row
from benchmarks._steps import Compile, Work, forget

__all__ = ["main"]

_ROWS = ("simmim", "target", "flip", "mae")


def main(arguments: list[str] | None = None) -> int:
    """Run the rows that are asked for; return 0, or 1 if outputs were unequal."""
    chosen = _parser().parse_args(arguments)
    ensure_torchvision()
    device = open_device(chosen.device, chosen.threads)
    work = _work(chosen, device)
    dtype = torch.bfloat16 if work.autocast else torch.float32
    peak = chosen.peak_tflops * 1e12 if chosen.peak_tflops else None
    if peak is None:
        with turn(chosen.turn):
            peak = matmul_peak(device, dtype)
    report = Report(device.name, headline=device.headline, threads=chosen.threads, peak=peak, path=chosen.json)
    run = _Run(report, settings_of(chosen), work)
    precision = "bfloat16 (autocast)" if work.autocast else "float32"
    print(f"batch {work.batch}, products in {precision}, compile {work.compile}, quick {work.quick}", flush=True)
    try:
        _rows(work, chosen, run)
    except UnequalOutputsError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


class _Run:
    """Compares, reports, and frees the memory of a row before the next one is built."""

    def __init__(self, report: Report, settings: Settings, work: Work) -> None:
        self.report = report
        self.settings = settings
        self.work = work

    def __call__(self, comparison: Comparison) -> Outcome:
        outcome = compare(comparison, self.settings, self.work.device.clock)
        self.report.add(outcome)
        sys.stdout.flush()
        forget(self.work)
        return outcome

    def quick_work(self, comparison: Comparison) -> Outcome:
        """Compare work of milliseconds: repeated for at least 0.1 s per round, after a first, cold call."""
        settings = replace(self.settings, warm_up=max(2, self.settings.warm_up), least_seconds=0.1)
        outcome = compare(comparison, settings, self.work.device.clock)
        self.report.add(outcome)
        return outcome


def _rows(work: Work, chosen: argparse.Namespace, run: _Run) -> None:
    if "target" in chosen.only:
        run.quick_work(target_row(work))
    if "simmim" in chosen.only:
        for comparison in simmim_rows(work, chosen.swin):
            run(comparison)
    if "flip" in chosen.only:
        for comparison in flip_rows(work, chosen.ratios):
            run(comparison)
        for ratio in chosen.ratios:
            outcome = run(own_speedup_row(work, ratio))
            spread = outcome.ratios[0].cpu if work.device.headline == "cpu" else outcome.ratios[0].wall
            run.report.note(ideal_title(work, ratio, spread.median))
            run.report.note(work_title(work, ratio))
    if "mae" in chosen.only:
        run(mae_row(work, chosen.mae))


def _work(chosen: argparse.Namespace, device: Device) -> Work:
    batch = chosen.batch or (4 if device.torch.type == "cpu" else 128)
    return Work(
        device=device,
        batch=batch,
        autocast=chosen.dtype == "bf16" if chosen.dtype else device.fast_bfloat16,
        compile=chosen.compile,
        compile_mode=chosen.compile_mode,
        attention=chosen.attention,
        quick=chosen.quick,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.backbones", description=__doc__)
    add_arguments(parser)
    parser.add_argument("--only", nargs="+", choices=_ROWS, default=list(_ROWS), help="rows to run")
    parser.add_argument("--batch", type=int, default=None, help="images per step (4 on a CPU, 128 on a GPU)")
    parser.add_argument(
        "--dtype", choices=("bf16", "fp32"), default=None, help="bf16 where there are instructions for it"
    )
    parser.add_argument("--compile", choices=get_args(Compile), default="none", help="torch.compile on both sides")
    parser.add_argument("--compile-mode", default="default", help="mode of torch.compile")
    parser.add_argument(
        "--attention", choices=("usual", "folded", "triton"), default="usual", help="of our SwinV2 on a GPU"
    )
    parser.add_argument(
        "--ratios", type=float, nargs="+", choices=RATIOS, default=RATIOS, help="dropped, of FLIP's rows"
    )
    parser.add_argument("--peak-tflops", type=float, default=None, help="for the utilisation, instead of measuring it")
    parser.add_argument("--mae", type=Path, default=None, metavar="PATH", help="clone of the MAE reference")
    parser.add_argument("--swin", type=Path, default=None, metavar="PATH", help="clone of the SwinV2 SimMIM reference")
    parser.add_argument("--quick", action="store_true", help="tiny models: shows that it runs, measures nothing")
    return parser


if __name__ == "__main__":
    sys.exit(main())
