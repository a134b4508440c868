"""The figure of the MIM study: a column per width, validation above, training images below, a line per fraction."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from study.mim_report import Series

__all__ = ["draw"]

# Okabe and Ito's colours, which are told apart with every kind of colour vision.
_COLOURS = ("#D55E00", "#E69F00", "#56B4E9", "#0072B2", "#009E73", "#CC79A7")


def draw(series: Sequence[Series], file: Path) -> None:
    """Write the figure of the first seed as PNG or SVG, by the file's suffix."""
    first = [one for one in series if one.seed == min(other.seed for other in series)]
    encoders = list(dict.fromkeys(one.encoder for one in first))
    figure = Figure(figsize=(3.4 * len(encoders), 5.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, len(encoders), sharex=True, sharey="row", squeeze=False)
    for column, encoder in enumerate(encoders):
        of_encoder = [one for one in first if one.encoder == encoder]
        for one, colour in zip(of_encoder, _COLOURS, strict=False):
            steps = [point.steps for point in one.points]
            label = f"{one.fraction:.0%}" + (" (turns up)" if one.over_fitted else "")
            axes[0, column].errorbar(
                steps,
                [point.loss for point in one.points],
                yerr=[point.standard_error for point in one.points],
                color=colour, marker="s" if one.over_fitted else "o", label=label, capsize=2,
            )  # fmt: skip
            axes[1, column].plot(steps, [point.train_loss for point in one.points], color=colour, marker="o")
        axes[0, column].set_title(encoder)
        axes[0, column].legend(fontsize=7, title="training images", title_fontsize=7)
        axes[1, column].set_xlabel("optimiser steps of the run")
        axes[1, column].set_xscale("log", base=2)
        axes[1, column].set_xticks(steps, [str(value) for value in steps])
    axes[0, 0].set_ylabel("validation loss ± standard error")
    axes[1, 0].set_ylabel("loss on training images")
    figure.savefig(file, dpi=120)
