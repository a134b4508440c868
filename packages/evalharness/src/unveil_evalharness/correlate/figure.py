"""The runs of one metric over their loss: a mark per model, open where over-fitted, the steps between lengths drawn."""

import io
from pathlib import Path
from typing import TYPE_CHECKING

from unveil_backbones.whole_files import write_whole

from unveil_evalharness.correlate.correlation import Stratum
from unveil_evalharness.correlate.words import interval_text, number
from unveil_evalharness.errors import OutputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw"]

_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000", "#8a8a8a")
"""Okabe and Ito's palette, told apart with any colour vision; marks differ too."""
_MARKS = ("o", "s", "^", "D", "v", "P", "X", "*")


def draw(stratum: Stratum, path: Path) -> None:
    """Writes the figure as SVG, PNG or PDF, by the ending of its name.

    Raises:
        OutputError: the file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.0, 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    panel = figure.add_subplot()
    _steps(panel, stratum)
    _marks(panel, stratum)
    panel.set_xlabel(stratum.column.x)
    panel.set_ylabel(stratum.column.metric + (f" ({stratum.column.unit})" if stratum.column.unit else ""))
    panel.set_title(_title(stratum), fontsize=9, loc="left")
    panel.spines[["top", "right"]].set_visible(False)
    panel.grid(visible=True, color="#e5e5e5", linewidth=0.6)
    panel.set_axisbelow(True)
    handles, _ = panel.get_legend_handles_labels()
    if len(handles) > 1:
        panel.legend(fontsize=8, frameon=False)
    try:
        drawn = io.BytesIO()
        metadata = {"Date": None} if path.suffix == ".svg" else None
        figure.savefig(drawn, format=path.suffix.removeprefix("."), dpi=150, metadata=metadata)
        write_whole(path, drawn.getvalue())
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}; choose another --figure") from error


def _title(stratum: Stratum) -> str:
    if stratum.statistics is None:
        return f"n = {len(stratum.points)}"
    spearman = stratum.statistics.spearman
    verdict = "" if stratum.verdict is None else f" – {stratum.verdict.code}"
    return f"Spearman {number(spearman.value)} {interval_text(spearman.best)}, n = {stratum.statistics.n}{verdict}"


def _steps(panel: "Axes", stratum: Stratum) -> None:
    """Grey lines from each run to the next longer one, dashed where the loss got worse."""
    if stratum.study is None or stratum.study.steps is None:
        return
    for step in stratum.study.steps.steps:
        ends = [stratum.points[step.shorter], stratum.points[step.longer]]
        style = "--" if step.change_x > 0 else "-"
        panel.plot(
            [point.loss for point in ends], [point.value for point in ends], style, color="#b0b0b0", linewidth=0.8
        )


def _marks(panel: "Axes", stratum: Stratum) -> None:
    models = list(dict.fromkeys(point.model for point in stratum.points))
    for index, model in enumerate(models):
        colour, mark = _COLOURS[index % len(_COLOURS)], _MARKS[index % len(_MARKS)]
        for overfitted in (False, True):
            members = [
                point for point in stratum.points if point.model == model and bool(point.overfitted) is overfitted
            ]
            if members:
                panel.scatter(
                    [point.loss for point in members],
                    [point.value for point in members],
                    marker=mark,
                    s=32,
                    facecolors="none" if overfitted else colour,
                    edgecolors=colour,
                    linewidths=1.2,
                    label="_" if overfitted or not model else model,
                )
    if any(point.overfitted for point in stratum.points):
        panel.scatter([], [], marker="o", s=32, facecolors="none", edgecolors="#555555", label="over-fitted (open)")
