"""Run a list of commands in a few lanes, one processor thread each, with one progress line per lane.

The commands are the same `pretrain` and `evalharness` lines a user types; nothing here knows what they do. Small models
on a CPU run faster as two single-threaded processes than as one process with two threads, hence the lanes.
"""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import BinaryIO

from tqdm import tqdm

__all__ = ["Cell", "CellFailure", "run_cells"]


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One command of the demo."""

    name: str
    """What the progress line calls it."""
    command: tuple[str, ...]
    """Program and arguments."""
    log: Path
    """Where everything the command prints is kept."""
    weight: float = 1.0
    """Expected share of the work; only the order and the progress bar depend on it."""


@dataclass(frozen=True, kw_only=True)
class CellFailure:
    """A command that did not exit with 0."""

    cell: Cell
    exit_code: int
    last_line: str


class _Screen:
    """One bar for the whole phase and one line per lane; plain lines where the output is no terminal."""

    def __init__(self, title: str, cells: Sequence[Cell], num_lanes: int) -> None:
        self._live = sys.stderr.isatty()
        self._total = tqdm(
            total=sum(cell.weight for cell in cells),
            desc=title,
            position=0,
            disable=not self._live,
            bar_format="{desc}: {percentage:3.0f}%|{bar:30}| {elapsed}<{remaining} {postfix}",
        )
        self._lanes = [
            tqdm(position=1 + lane, bar_format="{desc}", leave=False, disable=not self._live)
            for lane in range(num_lanes)
        ]
        self._title, self._num_cells, self._num_done = title, len(cells), 0
        self._lock = threading.Lock()

    def lane(self, lane: int, text: str) -> None:
        with self._lock:
            self._lanes[lane].set_description_str(f"  {text}"[:150])

    def done(self, cell: Cell, seconds: float, exit_code: int) -> None:
        with self._lock:
            self._num_done += 1
            self._total.update(cell.weight)
            self._total.set_postfix_str(f"{self._num_done}/{self._num_cells}")
            outcome = "" if exit_code == 0 else f" FAILED with exit code {exit_code}"
            if not self._live or exit_code:
                line = f"{self._title} {self._num_done}/{self._num_cells}: {cell.name} ({seconds:.0f} s){outcome}"
                tqdm.write(line, file=sys.stderr)

    def close(self) -> None:
        for bar in (*self._lanes, self._total):
            bar.close()


def _follow(stream: BinaryIO, log: BinaryIO, screen: _Screen, lane: int, name: str) -> str:
    """Copy a command's output to its log and show its last line; return the last non-empty line."""
    last, buffer = "", b""
    while chunk := os.read(stream.fileno(), 4096):
        log.write(chunk)
        log.flush()
        buffer += chunk.replace(b"\r", b"\n")
        *lines, buffer = buffer.split(b"\n")
        texts = [line.decode("utf-8", "replace").strip() for line in lines]
        last = next((text for text in reversed(texts) if text), last)
        screen.lane(lane, f"{name}: {last}")
    return buffer.decode("utf-8", "replace").strip() or last


def _run(cell: Cell, lane: int, screen: _Screen) -> CellFailure | None:
    cell.log.parent.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    screen.lane(lane, f"{cell.name}: starting")
    start = time.monotonic()
    with (
        cell.log.open("wb") as log,
        subprocess.Popen(cell.command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment) as process,
    ):
        if process.stdout is None:
            raise RuntimeError("the command was started without a pipe for its output")
        last = _follow(process.stdout, log, screen, lane, cell.name)
        exit_code = process.wait()
    screen.done(cell, time.monotonic() - start, exit_code)
    return None if exit_code == 0 else CellFailure(cell=cell, exit_code=exit_code, last_line=last)


def run_cells(title: str, cells: Sequence[Cell], *, num_lanes: int) -> list[CellFailure]:
    """Run every cell, longest first, at most `num_lanes` at a time; a failing one does not stop the others.

    Args:
        title: Heading of the progress bar.
        cells: The commands.
        num_lanes: How many run at the same time (≥ 1).

    Returns:
        The cells that exited with another code than 0.
    """
    screen = _Screen(title, cells, num_lanes)
    free: SimpleQueue[int] = SimpleQueue()
    for lane in range(num_lanes):
        free.put(lane)

    def work(cell: Cell) -> CellFailure | None:
        lane = free.get()
        try:
            return _run(cell, lane, screen)
        finally:
            screen.lane(lane, "")
            free.put(lane)

    try:
        with ThreadPoolExecutor(num_lanes) as pool:
            outcomes = list(pool.map(work, sorted(cells, key=lambda cell: -cell.weight)))
    finally:
        screen.close()
    return [failure for failure in outcomes if failure is not None]
