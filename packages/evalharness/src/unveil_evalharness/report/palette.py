"""Colours, markers and saving of figures; no pyplot, so that no global state is touched.

Okabe and Ito's palette is told apart under the common colour-vision deficiencies; its dark-background variant keeps the
hues and lifts the two dark ones. Colour always comes with a second cue (marker, legend order, printed label).
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

__all__ = [
    "DARK",
    "LIGHT",
    "MARKERS",
    "Theme",
    "colours",
    "new_figure",
    "plain",
    "plain_lines",
    "png_bytes",
    "style_axes",
    "svg_bytes",
]

MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_DPI = 160


@dataclass(frozen=True, kw_only=True, slots=True)
class Theme:
    """What differs between a light and a dark page."""

    paper: str
    ink: str
    muted: str
    grid: str
    series: tuple[str, ...]


LIGHT = Theme(
    paper="#ffffff",
    ink="#1f2328",
    muted="#59636e",
    grid="#e3e6ea",
    series=("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"),
)
DARK = Theme(
    paper="#161b22",
    ink="#e6e9ed",
    muted="#9aa4af",
    grid="#2f3640",
    series=("#56b4e9", "#e8793a", "#2cc295", "#dd9cc0", "#f0c04a", "#9fd3f2"),
)


def colours(theme: Theme, count: int) -> list[str]:
    """`count` colours that can be told apart; beyond the palette, steps of the part of cividis that the paper shows."""
    if count <= len(theme.series):
        return list(theme.series[:count])
    first, last = (0.0, 0.85) if theme is LIGHT else (0.2, 1.0)
    scale = matplotlib.colormaps["cividis"]
    return [to_hex(scale(first + (last - first) * index / (count - 1))) for index in range(count)]


def new_figure(
    theme: Theme, num_panels: int, *, num_columns: int, panel_size: tuple[float, float]
) -> tuple[Figure, Sequence[Axes]]:
    """A figure of equal panels, row by row; `panel_size` is width and height in inches."""
    columns = min(num_columns, num_panels)
    rows = -(-num_panels // columns)
    width, height = panel_size
    figure = Figure(figsize=(columns * width + 0.4, rows * height + 0.6), facecolor=theme.paper, layout="constrained")
    axes = [figure.add_subplot(rows, columns, index + 1) for index in range(num_panels)]
    for panel in axes:
        style_axes(panel, theme)
    return figure, axes


def style_axes(axes: Axes, theme: Theme) -> None:
    """Quiet axes: no box, a light grid, text in the page's ink."""
    axes.set_facecolor(theme.paper)
    axes.grid(visible=True, color=theme.grid, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=theme.muted, labelcolor=theme.ink, labelsize=9)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(theme.muted)


def plain(text: str) -> str:
    r"""User text for a figure: ``$`` must not start matplotlib's math mode, and a line break must not break a title."""
    return " ".join(text.split()).replace("\\", "\\\\").replace("$", r"\$")


def plain_lines(lines: Sequence[str]) -> str:
    """Several lines of user text."""
    return "\n".join(plain(line) for line in lines)


def svg_bytes(figure: Figure) -> bytes:
    """The figure as SVG with outlined text, equal bytes for equal content."""
    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "unveil", "svg.fonttype": "path"}):
        FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None, "Creator": None})
    return buffer.getvalue()


def png_bytes(figure: Figure) -> bytes:
    """The figure as PNG."""
    buffer = io.BytesIO()
    figure.set_dpi(_DPI)
    FigureCanvasAgg(figure).print_png(buffer, metadata={"Software": None})
    return buffer.getvalue()
