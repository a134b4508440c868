"""All benchmarks against peers as one table: `make bench` on a CPU, `make bench-gpu` on one GPU.

    OMP_NUM_THREADS=1 python -m benchmarks [--images DIR] [--mae CLONE] [--swin CLONE] [--json FILE]
    python -m benchmarks --device cuda

Every line is one benchmark in a process of its own, with fewer or smaller rows than the module measures by itself;
``docs/benchmarks.md`` holds those. On a GPU the lines compile side by side and take times one after the other. A line
that is stopped at its limit, fails, or has no peer here says so. The exit code is 0 unless outputs were unequal or a
benchmark broke; a missed bar is a figure, not a failure.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from benchmarks._lines import MOST_SECONDS, Line, cpu_lines, gpu_lines
from benchmarks._photographs import write_photographs
from benchmarks._table import Row, rows_of, write_table

__all__ = ["main"]

_GPU_LANES = 3  # lines at a time: what they hold fits into 80 GB, and each has some cores to compile with


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the lines and print the table; 1 if one of them broke."""
    chosen = _parser().parse_args(arguments)
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        if chosen.device == "cpu":
            lines = cpu_lines(_photographs(chosen.images, place), mae=chosen.mae, swin=chosen.swin)
        else:
            lines = gpu_lines(mae=chosen.mae, swin=chosen.swin)
        lines = [line for line in lines if not chosen.only or any(word in line.name for word in chosen.only)]
        files = [place / f"{number}.json" for number in range(len(lines))]
        # On a GPU most of the time is the compiler's, which needs cores; times are taken one line after the other.
        turn, lanes = (None, 1) if chosen.device == "cpu" else (place / "turn", _GPU_LANES)
        environment = dict(os.environ) if lanes == 1 else _shared_compilers(lanes)

        def run(line: Line, file: Path) -> list[Row]:
            left = max(0.0, MOST_SECONDS[chosen.device] - (time.monotonic() - start))
            return measure(replace(line, limit=min(line.limit, left)), file, chosen.rounds, turn, environment)

        with ThreadPoolExecutor(lanes) as pool:
            found = pool.map(run, lines, files)
            rows: list[Row] = []
            for of_line in found:
                rows += of_line
                _keep(rows, chosen.json)
    write_table(rows, sys.stdout)
    print(f"{(time.monotonic() - start) / 60:.1f} minutes, {chosen.rounds} rounds a line")
    return int(any(row.state == "broken" for row in rows))


def measure(
    line: Line, figures: Path, rounds: int, turn: Path | None = None, environment: Mapping[str, str] | None = None
) -> list[Row]:
    """Run one line in a process of its own; its rows, or one that says why there are none.

    Args:
        line: What to measure.
        figures: Where the benchmark writes them.
        rounds: Interleaved rounds.
        turn: File that is locked while times are taken, for lines that run at the same time.
        environment: Variables of the process; this one's without.
    """
    command = [
        sys.executable, "-m", f"benchmarks.{line.module}", *line.options, "--rounds", str(rounds),
        "--json", str(figures), *(() if turn is None else ("--turn", str(turn))),
    ]  # fmt: skip
    print(f"{line.name} ...", file=sys.stderr, flush=True)
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=line.limit, check=False, env=environment)
    except subprocess.TimeoutExpired:
        measured = [row for row in _rows_in(line, figures) if row.state == "measured"]
        return [*measured, Row(line=line.name, state="stopped", why=f"not finished after {line.limit:.0f} s")]
    if done.returncode or not figures.is_file():
        last = (done.stderr.strip() or done.stdout.strip() or "it said nothing").splitlines()[-1]
        return [Row(line=line.name, state="broken", why=f"exit code {done.returncode}: {last}")]
    return _rows_in(line, figures)


def _rows_in(line: Line, figures: Path) -> list[Row]:
    return rows_of(line.name, json.loads(figures.read_text(encoding="utf-8"))) if figures.is_file() else []


def _shared_compilers(lanes: int) -> dict[str, str]:
    """Variables by which each line starts its share of compiling processes: by itself, each starts one for a core."""
    return os.environ | {"TORCHINDUCTOR_COMPILE_THREADS": str(max(1, (os.cpu_count() or 1) // lanes))}


def _keep(rows: Sequence[Row], file: Path | None) -> None:
    """Write what there is so far: a run that is stopped has not measured for nothing."""
    if file is not None:
        file.write_text(json.dumps([row.to_json() for row in rows], indent=1) + "\n", encoding="utf-8")


def _photographs(given: Path | None, place: Path) -> Path:
    return given if given is not None else write_photographs(place / "drawn")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="which table")
    parser.add_argument("--rounds", type=int, default=9, help="interleaved rounds of every line")
    parser.add_argument("--images", type=Path, default=None, metavar="DIR", help="JPEG photographs; drawn ones without")
    parser.add_argument("--mae", type=Path, default=None, metavar="PATH", help="clone of the MAE reference")
    parser.add_argument("--swin", type=Path, default=None, metavar="PATH", help="clone of the SwinV2 SimMIM reference")
    parser.add_argument("--only", nargs="+", default=[], metavar="WORD", help="lines whose names hold one of these")
    parser.add_argument("--json", type=Path, default=None, metavar="FILE", help="write every row there")
    return parser


if __name__ == "__main__":
    sys.exit(main())
