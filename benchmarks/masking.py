"""Sampling masks against the generators people use today.

    OMP_NUM_THREADS=1 python -m benchmarks.masking --simmim CLONE --beit CLONE --json figures.json

Peers: timm and open_clip as installed; the generators of SimMIM and BEiT from clones, whose paths are given, or written
from their papers' definitions. ``docs/benchmarks.md`` says what every column means.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks._compare import Comparison, UnequalOutputsError, compare
from benchmarks._device import Device, open_device
from benchmarks._masking_rows import Sizes, block_row, linear_rows, noise_row, random_row, simmim_rows
from benchmarks._masking_step import step_row
from benchmarks._report import Report, add_arguments, settings_of

__all__ = ["main"]

_ROWS = ("simmim", "random", "block", "linear", "step")
_LEAST_SECONDS = 0.2


def main(arguments: list[str] | None = None) -> int:
    """Run the rows that are asked for; return 0, or 1 if outputs were unequal, or 2 if a clone is not there."""
    chosen = _parser().parse_args(arguments)
    device = open_device(chosen.device, chosen.threads)
    report = Report(device.name, headline=device.headline, threads=chosen.threads, path=chosen.json)
    settings = settings_of(chosen, least_seconds=0.0 if chosen.quick else _LEAST_SECONDS)
    try:
        for comparison in _comparisons(chosen, device):
            report.add(compare(comparison, settings, device.clock))
            sys.stdout.flush()
    except UnequalOutputsError as error:
        print(error, file=sys.stderr)
        return 1
    except FileNotFoundError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def _comparisons(chosen: argparse.Namespace, device: Device) -> Iterator[Comparison]:
    sizes = Sizes(batch=chosen.batch or (64 if chosen.quick else 2048), device=device.torch)
    if "simmim" in chosen.only:
        yield from simmim_rows(sizes, chosen.simmim)
        yield noise_row(sizes)
    if "random" in chosen.only:
        yield random_row(sizes)
    if "block" in chosen.only:
        yield block_row(sizes, chosen.beit)
    if "linear" in chosen.only:
        yield from linear_rows(sizes)
    if "step" in chosen.only:
        images = chosen.images or (2 if device.torch.type == "cpu" else 256)
        yield step_row(device, images, compiled=chosen.compile, quick=chosen.quick)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.masking", description=__doc__)
    add_arguments(parser)
    parser.add_argument("--only", nargs="+", choices=_ROWS, default=list(_ROWS), help="rows to run")
    parser.add_argument("--batch", type=int, default=None, help="samples per draw at 14 × 14 (2048)")
    parser.add_argument("--images", type=int, default=None, help="images of the training step (2 on a CPU, else 256)")
    parser.add_argument("--simmim", type=Path, default=None, metavar="PATH", help="clone of SimMIM")
    parser.add_argument("--beit", type=Path, default=None, metavar="PATH", help="clone of unilm, which holds BEiT")
    parser.add_argument("--compile", action="store_true", help="torch.compile mask and gather in the row of the step")
    parser.add_argument("--quick", action="store_true", help="small batches: shows that it runs, measures nothing")
    return parser


if __name__ == "__main__":
    sys.exit(main())
