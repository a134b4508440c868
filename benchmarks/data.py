"""Images per second of the data loader against webdataset's default pipeline.

    OMP_NUM_THREADS=1 python -m benchmarks.data --images PACK/imagenet1k_fullres PACK/caltech101/train --json FILE

The images of each folder are written into shards in a temporary folder, repeated until there are enough samples. Both
sides cut the same rectangles. ``docs/benchmarks.md`` says what every column means.
"""

import argparse
import io
import resource
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image
from unveil_pretrain.data import WorkerKind

from benchmarks._compare import Candidate, Clock, Comparison, UnequalOutputsError, compare
from benchmarks._data_peers import (
    Task,
    default_batches,
    default_view,
    levels,
    our_batches,
    our_dataset,
    write_shards,
)
from benchmarks._device import open_device
from benchmarks._report import Report, add_arguments, settings_of

__all__ = ["main"]

Differences = Callable[..., dict[str, float]]
"""From the names of peers to the largest mean difference of a view to theirs."""

_ROWS = ("view", "loader", "workers", "normalised")
_TOLERANCE = 0.5
"""Largest mean absolute difference of an image, in levels of 0 to 255."""


def main(arguments: list[str] | None = None) -> int:
    """Run the rows that are asked for; return 0, or 1 if views were unequal, or 2 if there are no images."""
    chosen = _parser().parse_args(arguments)
    device = open_device("cpu", chosen.threads)
    report = Report(device.name, headline="cpu", threads=chosen.threads, path=chosen.json)
    settings = settings_of(chosen)
    try:
        for folder in chosen.images:
            images = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))
            images = images[:: -(-len(images) // chosen.samples) or 1]
            if not images:
                print(f"{folder} holds no .jpg; name folders of photographs", file=sys.stderr)
                return 2
            with tempfile.TemporaryDirectory() as place:
                for comparison, note in _comparisons(chosen, folder, images, Path(place)):
                    report.add(compare(comparison, settings, Clock(cpu=_cpu_with_children)))
                    report.note(note)
                    sys.stdout.flush()
    except UnequalOutputsError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _comparisons(
    chosen: argparse.Namespace, folder: Path, images: list[Path], place: Path
) -> Iterator[tuple[Comparison, str]]:
    task = Task(
        shards=write_shards(place, images, num_samples=chosen.samples),
        size=chosen.size,
        scale=tuple(chosen.crop_scale),
        batch=chosen.batch,
        num_samples=chosen.samples // chosen.batch * chosen.batch,
    )
    size = sum(path.stat().st_size for path in images) / len(images) / 1e3
    name = f"{folder.parent.name}/{folder.name}"
    title = f"{name}: {len(images)} JPEG files of {size:.0f} kB, crops {task.scale} to {task.size}"
    largest, mean = _differences(task, len(images))
    note = (
        f"views differ by {mean:.4f} of 255 in the mean, at most {largest[0]:.3f} in the mean of one, "
        f"{largest[1]:.0f} in a pixel"
    )

    def differences(*peers: str) -> dict[str, float]:
        return dict.fromkeys(peers, largest[0])

    if "view" in chosen.only:
        yield _view_row(title, task, len(images), differences), note
    if "loader" in chosen.only:
        yield _loader_row(title, task, 0, differences), note
    if "workers" in chosen.only:
        yield _loader_row(title, task, chosen.num_workers, differences), note
    if "normalised" in chosen.only:
        yield _loader_row(f"{title}, ours normalised on this CPU", task, 0, differences, normalised=True), note


def _loader_row(
    title: str, task: Task, workers: int, differences: Differences, *, normalised: bool = False
) -> Comparison:
    """Shards to batches for the device, with so many workers on every side: ours in uint8, theirs in float32."""
    dataset = our_dataset(task)

    def ours(kind: WorkerKind) -> Candidate:
        name = f"ours, {kind}" if workers else "ours"
        return Candidate(name=name, run=lambda: _drain(our_batches(dataset, task, workers, kind, normalised)))

    default = Candidate(name="webdataset default", run=lambda: _drain(default_batches(task, workers)))
    return Comparison(
        title=f"{title}, {task.num_samples} samples in batches of {task.batch}, {workers} workers",
        ours=ours("threads"),
        peers=[default, ours("processes")] if workers else [default],
        differences=lambda: differences("webdataset default", "ours, processes"),
        tolerance=_TOLERANCE,
        bars={"webdataset default": 2.5},
    )


def _view_row(title: str, task: Task, num_images: int, differences: Differences) -> Comparison:
    """Bytes to a view, one image after the other: no shards, no batches."""
    dataset = our_dataset(task)
    samples = [(dataset.shards.read(index), dataset.shards.keys[index], index) for index in range(num_images)]

    def theirs() -> None:
        for files, key, _ in samples:
            default_view(_decoded(files["jpg"]), key, task)

    def ours() -> None:
        for files, _, index in samples:
            dataset.train_example_of(files, index, seed=0, epoch=0)

    return Comparison(
        title=f"{title}, bytes to views, {num_images} images",
        ours=Candidate(name="ours", run=ours),
        peers=[Candidate(name="Pillow, float32", run=theirs)],
        differences=lambda: differences("Pillow, float32"),
        tolerance=_TOLERANCE,
    )


def _differences(task: Task, num_images: int) -> tuple[tuple[float, float], float]:
    """Largest mean of a view and largest of a pixel, and the mean over all views, in levels of 0 to 255."""
    dataset = our_dataset(task)
    means, largest = [], 0.0
    for index in range(min(num_images, len(dataset))):
        theirs = levels(default_view(_decoded(dataset.shards.read(index)["jpg"]), dataset.shards.keys[index], task))
        ours = dataset.train_example(index, seed=0, epoch=0).image.numpy().astype(np.float32)
        difference = np.abs(theirs - ours)
        means.append(float(difference.mean()))
        largest = max(largest, float(difference.max()))
    return (max(means), largest), float(np.mean(means))


def _decoded(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data)).convert("RGB")


def _drain(batches: Iterable[object]) -> None:
    deque(batches, maxlen=0)


def _cpu_with_children() -> float:
    """Seconds of this process and of the workers that it has waited for."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.data", description=__doc__)
    add_arguments(parser)
    parser.add_argument("--only", nargs="+", choices=_ROWS, default=list(_ROWS), help="rows to run")
    parser.add_argument("--images", nargs="+", type=Path, required=True, metavar="DIR", help="folders of JPEG files")
    parser.add_argument("--samples", type=int, default=1000, help="samples in the shards")
    parser.add_argument("--batch", type=int, default=64, help="images per batch")
    parser.add_argument("--size", type=int, default=224, help="height and width of the crops")
    parser.add_argument("--crop-scale", nargs=2, type=float, default=(0.67, 1.0), help="least and largest area")
    parser.add_argument("--num-workers", type=int, default=2, help="workers in the last row")
    return parser


if __name__ == "__main__":
    sys.exit(main())
