"""One table out of the figures of several benchmarks."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, TextIO

from benchmarks._compare import Spread

__all__ = ["Row", "rows_of", "write_table"]

_HEADINGS = ("line", "work", "peer", "ours is faster", "bar", "max difference", "MFU", "peak MiB")


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One peer in one line of work, or why there is no figure."""

    line: str
    state: Literal["measured", "absent", "stopped", "broken"]
    work: str = ""
    """What was done, with its size."""
    peer: str = ""
    ratio: Spread | None = None
    """Peer's time over ours: median and quartiles over the rounds; CPU time on a CPU, wall time on a GPU."""
    bar: float | None = None
    difference: float | None = None
    """Largest difference of the outputs, which were compared before anything was timed."""
    utilisation: float | None = None
    """Ours: operations over time over the speed of a large product in the same run."""
    peak_bytes: int | None = None
    """Ours, on a GPU."""
    why: str = ""

    def to_json(self) -> dict[str, Any]:
        """Everything as plain values."""
        return asdict(self)


def rows_of(line: str, figures: Mapping[str, Any]) -> list[Row]:
    """The rows of one benchmark, from what `Report.write` has written.

    Args:
        line: Name of the line.
        figures: The contents of the JSON file.
    """
    rows: list[Row] = []
    peak = figures["environment"].get("peak_tflops")
    for outcome in figures["outcomes"]:
        ours = outcome["timings"][0]
        rows += [
            Row(
                line=line,
                state="measured",
                work=outcome["title"],
                peer=ratio["peer"],
                ratio=Spread(**ratio[figures["headline"]]),
                bar=ratio["bar"],
                difference=ratio["difference"],
                utilisation=_utilisation(ours, peak),
                peak_bytes=ours["peak_bytes"],
            )
            for ratio in outcome["ratios"]
        ]
        rows += [
            Row(line=line, state="absent", work=outcome["title"], peer=absent["name"], why=absent["reason"])
            for absent in outcome["absent"]
        ]
    return rows or [Row(line=line, state="absent", why="; ".join(figures["notes"]) or "it measured nothing")]


def write_table(rows: Sequence[Row], out: TextIO) -> None:
    """Write the rows as a Markdown table, and below it why figures are missing."""
    cells = [list(_HEADINGS), *([*_figures(row)] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(_HEADINGS))]
    cells.insert(1, ["-" * width for width in widths])
    for row in cells:
        out.write("| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |\n")
    for row in rows:
        if row.state != "measured":
            out.write(f"{row.line}{', ' + row.peer if row.peer else ''}: {row.state.upper()} ({row.why})\n")


def _figures(row: Row) -> Sequence[str]:
    if row.ratio is None:
        return (row.line, row.work, row.peer, row.state, "", "", "", "")
    reached = "" if row.bar is None else f"{row.bar:g} {'reached' if row.ratio.median >= row.bar else 'MISSED'}"
    return (
        row.line,
        row.work,
        row.peer,
        f"{row.ratio.median:.2f}× ({row.ratio.low:.2f} to {row.ratio.high:.2f})",
        reached,
        "" if row.difference is None else f"{row.difference:.1e}",
        "" if row.utilisation is None else f"{row.utilisation:.0%}",
        "" if row.peak_bytes is None else f"{row.peak_bytes / 2**20:.0f}",
    )


def _utilisation(timing: Mapping[str, Any], peak_tflops: float | None) -> float | None:
    if timing["flops"] is None or not peak_tflops:
        return None
    return timing["flops"] / Spread.of(timing["wall"]).median / (peak_tflops * 1e12)
