"""Colours, markers and saving of figures; no pyplot, so that no global state is touched.

Okabe and Ito's palette is told apart under the common colour-vision deficiencies; its dark-background variant keeps the
hues and lifts the two dark ones. Colour always comes with a second cue (marker, legend order, printed label).
"""

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from unveil_backbones.terminal import visible

from unveil_evalharness.plot import NUM_SCALE_COLOURS

__all__ = [
    "DARK",
    "LIGHT",
    "MARKERS",
    "Theme",
    "colour_of",
    "darkened",
    "new_figure",
    "plain",
    "plain_lines",
    "png_bytes",
    "scale_colours",
    "style_axes",
    "svg_bytes",
    "theme_css",
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


def colour_of(theme: Theme, name: str) -> str:
    """The colour behind a name of `unveil_evalharness.plot.colour_names`, as ``#rrggbb``."""
    if name in ("muted", "ink"):
        return theme.muted if name == "muted" else theme.ink
    kind, index = name[0], int(name[1:])
    return theme.series[index] if kind == "c" else scale_colours(theme)[index]


def scale_colours(theme: Theme) -> list[str]:
    """Steps of the part of cividis that the paper shows, for more series than the palette has colours."""
    first, last = (0.0, 0.85) if theme is LIGHT else (0.2, 1.0)
    scale = matplotlib.colormaps["cividis"]
    return [to_hex(scale(first + (last - first) * step / (NUM_SCALE_COLOURS - 1))) for step in range(NUM_SCALE_COLOURS)]


def theme_css() -> str:
    """The colours as custom properties: light, dark where the reader's system is dark or the page was switched."""

    def block(theme: Theme) -> str:
        colours = {"paper": theme.paper, "ink": theme.ink, "muted": theme.muted, "grid": theme.grid}
        colours |= {f"c{index}": colour for index, colour in enumerate(theme.series)}
        colours |= {f"q{index}": colour for index, colour in enumerate(scale_colours(theme))}
        return "".join(f"--{name}:{colour};" for name, colour in colours.items())

    names = ["muted", "ink", *(f"c{index}" for index in range(len(LIGHT.series)))]
    names += [f"q{index}" for index in range(NUM_SCALE_COLOURS)]
    used = "".join(f".{name}{{--k:var(--{name})}}" for name in names)
    dark = f"{{color-scheme:dark;{block(DARK)}}}"
    return (
        f":root{{color-scheme:light;{block(LIGHT)}}}\n"
        f"@media screen and (prefers-color-scheme:dark){{:root:not([data-theme=light]){dark}}}\n"
        f"@media screen{{:root[data-theme=dark]{dark}}}\n{used}\n"
    )


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
    r"""User text for a figure: ``$`` must not start matplotlib's math mode, nor a control break the file."""
    return visible(" ".join(text.split())).replace("\\", "\\\\").replace("$", r"\$")


def plain_lines(lines: Sequence[str]) -> str:
    """Several lines of user text."""
    return "\n".join(plain(line) for line in lines)


def svg_bytes(figure: Figure) -> bytes:
    """The figure as SVG with outlined text, equal bytes for equal content."""
    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "unveil", "svg.fonttype": "path"}):
        FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None, "Creator": None})
    return buffer.getvalue()


def darkened(svg: bytes) -> bytes:
    """A figure drawn in `LIGHT` with the colours of `DARK`: every colour of a figure is one of its theme."""
    pairs = [(LIGHT.paper, DARK.paper), (LIGHT.ink, DARK.ink), (LIGHT.muted, DARK.muted), (LIGHT.grid, DARK.grid)]
    pairs += zip(LIGHT.series, DARK.series, strict=True)
    pairs += zip(scale_colours(LIGHT), scale_colours(DARK), strict=True)
    swapped = dict(pairs)
    return re.sub(rb"#[0-9a-f]{6}", lambda found: swapped.get(found[0].decode(), found[0].decode()).encode(), svg)


def png_bytes(figure: Figure) -> bytes:
    """The figure as PNG."""
    buffer = io.BytesIO()
    figure.set_dpi(_DPI)
    FigureCanvasAgg(figure).print_png(buffer, metadata={"Software": None})
    return buffer.getvalue()
