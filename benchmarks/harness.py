"""Time of the harness's training and evaluation loop over the bare mmdet and mmseg loop.

    OMP_NUM_THREADS=1 python -m benchmarks.harness --coco PACK/nuclei_coco --ade20k PACK/stanford_bg_ade_layout

Both sides train the quick suite's model on the same data for the same number of steps and evaluate it on the same
images. The bar is 1 / 1.03: the harness may cost 3 % more. ``docs/benchmarks.md`` says what every column means.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks._compare import Candidate, Clock, Comparison, UnequalOutputsError, compare
from benchmarks._device import open_device
from benchmarks._harness_loops import Maker, bare_loop, detection, first_loss, harness_loop, segmentation
from benchmarks._report import Report, add_arguments, settings_of

__all__ = ["main"]

_BAR = round(1 / 1.03, 3)


def main(arguments: list[str] | None = None) -> int:
    """Run the rows that are asked for; return 0, or 1 if the models were unequal, or 2 if no data are named."""
    chosen = _parser().parse_args(arguments)
    if chosen.coco is None and chosen.ade20k is None:
        print(
            "name data: --coco FOLDER (COCO's layout), --ade20k FOLDER (SceneParsing's layout), or both",
            file=sys.stderr,
        )
        return 2
    device = open_device("cpu", chosen.threads)
    report = Report(device.name, headline="cpu", threads=chosen.threads, path=chosen.json)
    try:
        with tempfile.TemporaryDirectory() as place:
            for comparison in _comparisons(chosen, Path(place)):
                outcome = compare(comparison, settings_of(chosen), Clock())
                report.add(outcome)
                report.note(f"the harness takes {1 / outcome.ratios[0].cpu.median:.3f} of the bare loop's CPU time")
                sys.stdout.flush()
    except UnequalOutputsError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _comparisons(chosen: argparse.Namespace, place: Path) -> Iterator[Comparison]:
    sizes = {"steps": chosen.steps, "val_images": chosen.val_images}
    if chosen.coco is not None:
        (place / "coco").symlink_to(chosen.coco.resolve(), target_is_directory=True)
        yield _row(f"Mask R-CNN, {chosen.coco.name}", "bare mmdet", detection(place, **sizes), chosen)
    if chosen.ade20k is not None:
        (place / "ade20k").symlink_to(chosen.ade20k.resolve(), target_is_directory=True)
        yield _row(f"UPerNet, {chosen.ade20k.name}", "bare mmseg", segmentation(place, **sizes), chosen)


def _row(title: str, peer: str, make: Maker, chosen: argparse.Namespace) -> Comparison:
    return Comparison(
        title=f"{title}: {chosen.steps} steps of the quick suite and {chosen.val_images} images evaluated",
        ours=Candidate(name="harness", run=lambda: harness_loop(make)),
        peers=[Candidate(name=peer, run=lambda: bare_loop(make))],
        # Both loops get their model from `make`; a model that depends on more than the seed would not be the same one.
        differences=lambda: {peer: abs(first_loss(make) - first_loss(make))},
        tolerance=0.0,
        bars={peer: _BAR},
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="benchmarks.harness", description=__doc__)
    add_arguments(parser)
    parser.add_argument("--coco", type=Path, default=None, help="a folder in COCO's layout")
    parser.add_argument("--ade20k", type=Path, default=None, help="a folder in ADE20K's SceneParsing layout")
    parser.add_argument("--steps", type=int, default=20, help="optimiser steps of one run")
    parser.add_argument("--val-images", type=int, default=10, help="images that one run evaluates")
    return parser


if __name__ == "__main__":
    sys.exit(main())
