"""How long the correlation study takes: its bootstrap, the published table, and 100,000 result rows.

    OMP_NUM_THREADS=1 python -m benchmarks.correlate

Seconds of processor and of clock. The bootstrap is timed against a loop over the resamples that calls scipy on each,
both on a hundredth of them; all coefficients are compared before. ``docs/benchmarks.md`` holds figures and bars.
"""

import argparse
import dataclasses
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from scipy import stats
from unveil_evalharness.published import read_published
from unveil_evalharness.results import ResultRow
from unveil_evalharness.statistics.coefficients import coefficients_of_counts
from unveil_evalharness.statistics.resampling import draw_counts

from benchmarks._compare import Candidate, Clock, Comparison, UnequalOutputsError, compare
from benchmarks._device import open_device
from benchmarks._report import Report, add_arguments, settings_of

__all__ = ["main"]

_ROWS = ("bootstrap", "published", "rows")
_NUM_RESAMPLES = 10_000
_NUM_SEEDS = 10
_NUM_METRICS = 10


def main(arguments: list[str] | None = None) -> int:
    """Run the rows that are asked for; return 0, or 1 if our coefficients are not scipy's."""
    chosen = _parser().parse_args(arguments)
    device = open_device("cpu", chosen.threads)
    report = Report(device.name, headline="cpu", threads=chosen.threads, path=chosen.json)
    try:
        if "bootstrap" in chosen.only:
            report.add(compare(_bootstrap(), settings_of(chosen, least_seconds=0.1), Clock()))
            report.note(_whole_bootstrap())
    except UnequalOutputsError as error:
        print(error, file=sys.stderr)
        return 1
    if "published" in chosen.only:
        _command("correlate --published xie2023", ["--published", "xie2023"])
    if "rows" in chosen.only:
        with tempfile.TemporaryDirectory() as folder:
            _write_results(Path(folder), chosen.rows)
            _command(f"correlate, {chosen.rows:,} rows", [folder])
    return 0


def _bootstrap() -> Comparison:
    """A hundredth of the resamples on both sides: scipy's loop over all of them takes the better part of a minute."""
    x, y, counts = _drawn(_NUM_RESAMPLES // 100)

    def by_scipy() -> np.ndarray:
        drawn = (np.repeat(np.arange(len(x)), row.astype(int)) for row in counts)
        return np.array(
            [
                (stats.pearsonr(x[i], y[i])[0], stats.spearmanr(x[i], y[i])[0], stats.kendalltau(x[i], y[i])[0])
                for i in drawn
            ]
        )

    def ours() -> np.ndarray:
        return coefficients_of_counts(x, y, counts)[:, :3]

    return Comparison(
        title=f"Pearson, Spearman and Kendall of {len(counts)} resamples of {len(x)} runs",
        ours=Candidate(name="ours", run=ours),
        peers=[Candidate(name="a loop over scipy", run=by_scipy)],
        differences=lambda: {"a loop over scipy": float(np.abs(by_scipy() - ours()).max())},
        tolerance=1e-9,
    )


def _whole_bootstrap() -> str:
    x, y, counts = _drawn(_NUM_RESAMPLES)
    start = time.process_time()
    coefficients_of_counts(x, y, counts)
    return f"{_NUM_RESAMPLES:,} resamples: {time.process_time() - start:.2f} s CPU"


def _drawn(num_resamples: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    runs = read_published("xie2023")
    x, y = runs["loss"].to_numpy(), runs["value"].to_numpy()
    return x, y, draw_counts(np.random.default_rng(0), num_resamples, len(x))


def _command(name: str, arguments: list[str], rounds: int = 5) -> None:
    """Median of whole processes, from start to end."""
    cpu: list[float] = []
    clock: list[float] = []
    for _ in range(rounds):
        before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        command = [sys.executable, "-m", "unveil_evalharness", "correlate", *arguments]
        subprocess.run(command, check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        clock.append(time.perf_counter() - start)
        cpu.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    print(f"{name}: {np.median(cpu):.2f} s CPU, {np.median(clock):.2f} s on the clock")


def _write_results(folder: Path, num_rows: int) -> None:
    """Checkpoints with manifests, each with ten metrics of ten seeds."""
    import hashlib

    from unveil_backbones.manifest import EncoderSpec, Manifest, Passport, Preprocessing, ValPoint

    passport = Passport(
        objective="simmim", target_normalisation="window47", reduction="hidden_pixels",
        mask={"strategy": "unit", "unit": 8, "ratio": 0.6, "rounding": "ceil_hidden"}, realised_ratio=0.609375,
        mask_seed=0, mask_epoch=0, image_size=(64, 64), crop="resize", images_hash="0" * 16, negative_pool=0,
        dtype="float32",
    )  # fmt: skip
    generator = np.random.default_rng(0)
    (folder / "manifests").mkdir()
    with (folder / "results.jsonl").open("w", encoding="utf-8") as file:
        for number in range(num_rows // (_NUM_METRICS * _NUM_SEEDS)):
            loss = float(0.4 + 0.1 * generator.random())
            manifest = Manifest(
                encoder=EncoderSpec("swinv2_tiny", {"width": 32}), preprocessing=Preprocessing(image_size=(64, 64)),
                objective="simmim", mask=passport.mask, realised_ratio=0.6, seed=0, step=100 + number,
                samples_seen=6400, unique_samples=2000, tokens_seen=10**6, device_seconds=30.0, data_hash="data",
                num_parameters=10**6, versions={}, created="2026-01-01T00:00:00+00:00", passport=passport,
                val=(ValPoint(step=100 + number, loss=loss, standard_error=0.004, num_images=400),),
            ).to_json()  # fmt: skip
            sha256 = hashlib.sha256(manifest.encode()).hexdigest()
            (folder / "manifests" / f"{sha256[:12]}.json").write_text(manifest, encoding="utf-8")
            for metric in range(_NUM_METRICS):
                row = ResultRow(
                    checkpoint=f"/runs/r{number}/checkpoints/step_1", checkpoint_sha256=sha256, label=f"r{number}",
                    task="imagenet_ft", task_version=1, suite="quick", protocol="0" * 16, status="ok",
                    metric=f"imagenet_ft.m{metric}", seed=0, data_hash="d" * 16, standard_error=0.01,
                    value=0.9 - loss + 0.02 * float(generator.standard_normal()),
                )  # fmt: skip
                record = dataclasses.asdict(row)
                for seed in range(_NUM_SEEDS):
                    file.write(json.dumps({**record, "seed": seed}) + "\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.correlate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_arguments(parser)
    parser.add_argument("--only", nargs="+", choices=_ROWS, default=list(_ROWS), help="rows to run")
    parser.add_argument("--rows", type=int, default=100_000, help="result rows of the last row")
    return parser


if __name__ == "__main__":
    sys.exit(main())
