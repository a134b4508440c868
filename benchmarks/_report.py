"""What a benchmark prints and writes: the environment, a table per comparison, a JSON file of everything."""

import argparse
import importlib.metadata
import json
import platform
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from benchmarks._compare import FEWEST_ROUNDS, Absent, Outcome, Settings, Spread, Timing

__all__ = ["Report", "add_arguments", "settings_of", "utilisation"]

_PACKAGES = ("torch", "timm", "open_clip_torch", "numpy", "unveil-backbones", "unveil-masking")


def add_arguments(parser: argparse.ArgumentParser, *, rounds: int = FEWEST_ROUNDS) -> None:
    """Add the options that every benchmark has."""
    parser.add_argument("--rounds", type=int, default=rounds, help=f"interleaved rounds; {FEWEST_ROUNDS} for a result")
    parser.add_argument("--warm-up", type=int, default=1, help="rounds that are not counted")
    parser.add_argument("--threads", type=int, default=1, help="threads of the CPU")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--json", type=Path, default=None, metavar="FILE", help="write every figure there")
    parser.add_argument(
        "--turn", type=Path, default=None, metavar="FILE", help="lock it while times are taken: one benchmark at a time"
    )


def settings_of(arguments: argparse.Namespace, *, least_seconds: float = 0.0) -> Settings:
    """Return the settings that the options of ``add_arguments`` ask for."""
    return Settings(
        rounds=arguments.rounds, warm_up=arguments.warm_up, least_seconds=least_seconds, turn=arguments.turn
    )


def utilisation(timing: Timing, peak: float | None) -> float | None:
    """Return MFU: FLOP of one call / median wall seconds / peak FLOP/s; None where one of them is unknown."""
    if timing.flops is None or not peak:
        return None
    return timing.flops / Spread.of(timing.wall).median / peak


class Report:
    """Prints outcomes as they come and remembers them for the JSON file."""

    def __init__(
        self, device: str, *, headline: str, threads: int, peak: float | None = None, path: Path | None = None
    ) -> None:
        """Print the environment.

        Args:
            device: The processor's name.
            headline: "cpu" or "wall": the time whose ratio is compared with the bar.
            threads: Threads of the CPU.
            peak: FLOP/s of a large product in this run, for the utilisation.
            path: A JSON file of every figure so far, so that a run that is stopped has not measured for nothing.
        """
        self.headline = headline
        self.peak = peak
        self._path = path
        self.environment: dict[str, str | int | float | None] = {
            "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
            "device": device,
            "threads": threads,
            "python": platform.python_version(),
            **{name: _version(name) for name in _PACKAGES},
            "peak_tflops": None if peak is None else peak / 1e12,
        }
        self.outcomes: list[Outcome] = []
        self.notes: list[str] = []
        print("  ".join(f"{key} {_short(value)}" for key, value in self.environment.items()))
        self._write()

    def add(self, outcome: Outcome) -> None:
        """Print one comparison and remember it."""
        self.outcomes.append(outcome)
        self._write()
        print(f"\n{outcome.title}")
        if outcome.rounds < FEWEST_ROUNDS:
            print(f"  only {outcome.rounds} rounds: a trial, not a result ({FEWEST_ROUNDS} are needed)")
        ratios = {ratio.peer: ratio for ratio in outcome.ratios}
        rows = [["", "ms cpu", "ms wall", "ours is faster (cpu)", "(wall)", "bar", "max diff", "MFU", "peak MiB"]]
        for timing in outcome.timings:
            ratio = ratios.get(timing.name)
            rows.append(
                [
                    timing.name,
                    f"{Spread.of(timing.cpu).median * 1e3:.2f}",
                    f"{Spread.of(timing.wall).median * 1e3:.2f}",
                    _spread(ratio.cpu) if ratio else "",
                    _spread(ratio.wall) if ratio else "",
                    self._bar(outcome, timing.name),
                    f"{ratio.difference:.1e}" if ratio else "",
                    _percent(utilisation(timing, self.peak)),
                    "" if timing.peak_bytes is None else f"{timing.peak_bytes / 2**20:.0f}",
                ]
            )
        _print_table(rows)
        for peer in outcome.absent:
            self.absent(peer)

    def absent(self, peer: Absent) -> None:
        """Say that a peer was not measured."""
        print(f"  {peer.name}: ABSENT ({peer.reason})")

    def note(self, line: str) -> None:
        """Print a derived figure and keep it for the JSON file."""
        self.notes.append(line)
        self._write()
        print(f"  {line}")

    def _write(self) -> None:
        if self._path is None:
            return
        value = {
            "environment": self.environment,
            "headline": self.headline,
            "outcomes": [asdict(outcome) for outcome in self.outcomes],
            "notes": self.notes,
        }
        self._path.parent.mkdir(parents=True, exist_ok=True)
        whole = self._path.with_name(self._path.name + ".partial")
        whole.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
        whole.replace(self._path)

    def _bar(self, outcome: Outcome, name: str) -> str:
        for ratio in outcome.ratios:
            if ratio.peer == name and ratio.bar is not None:
                reached = (ratio.cpu if self.headline == "cpu" else ratio.wall).median >= ratio.bar
                return f"{ratio.bar:g} {'reached' if reached else 'MISSED'}"
        return ""


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "absent"


def _short(value: str | float | None) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _spread(spread: Spread) -> str:
    return f"{spread.median:.2f} ({spread.low:.2f} to {spread.high:.2f})"


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.0%}"


def _print_table(rows: Sequence[Sequence[str]]) -> None:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
