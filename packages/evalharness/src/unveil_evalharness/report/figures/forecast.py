"""Forecasts beside what was measured: each with its interval, and what remains."""

from collections.abc import Sequence
from dataclasses import dataclass

from unveil_evalharness.correlate.words import number
from unveil_evalharness.plot import Figure, KeyEntry, Panel, Series, colour_names

__all__ = ["Forecasted", "forecast_figure"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Forecasted:
    """One run forecast from others."""

    label: str
    group: str
    """What was left out when this run was forecast, such as its model."""
    loss: float
    measured: float
    """NaN where it is not known."""
    forecast: float
    low: float
    high: float


def forecast_figure(
    runs: Sequence[Forecasted], *, name: str, metric: str, level: float, digits: int = 3
) -> Figure | None:
    """Measured against forecast with its interval on the line of equality, and the residuals over the loss.

    None without a run that has both numbers.
    """
    known = [run for run in runs if run.measured == run.measured]
    if not known:
        return None
    groups = list(dict.fromkeys(run.group for run in known))
    colours = dict(zip(groups, colour_names(len(groups)), strict=True))
    ends = (min(min(run.low, run.measured) for run in known), max(max(run.high, run.measured) for run in known))
    inside = sum(run.low <= run.measured <= run.high for run in known)
    by_value = [Series(style="dotted", x=ends, y=ends)]
    by_loss: list[Series] = []
    for index, group in enumerate(groups):
        members = [run for run in known if run.group == group]
        tips = tuple(_tip(run, metric, level, digits) for run in members)
        looks = {"colour": colours[group], "marker": index % 7 if len(groups) <= 7 else 0}
        by_value.append(
            Series(
                style="points",
                x=tuple(run.measured for run in members),
                y=tuple(run.forecast for run in members),
                low=tuple(run.low for run in members),
                high=tuple(run.high for run in members),
                tips=tips,
                colour=looks["colour"],
                marker=looks["marker"],
            )
        )
        by_loss.append(
            Series(
                style="points",
                x=tuple(run.loss for run in members),
                y=tuple(run.measured - run.forecast for run in members),
                tips=tips,
                colour=looks["colour"],
                marker=looks["marker"],
            )
        )
    covered = f"{inside} of {len(known)} measured values lie inside"
    words = f"{100 * level:.0f} % intervals; {covered}"
    return Figure(
        name=name,
        title=f"Forecasts of {metric}, each made without its own group",
        alternative=f"Forecast against measured {metric} with {words}",
        panels=(
            Panel(
                title="Forecast with interval",
                x_label=f"measured {metric}",
                y_label=f"forecast {metric}",
                series=tuple(by_value),
                subtitle=words,
            ),
            Panel(
                title="Residuals",
                x_label="validation loss",
                y_label="measured − forecast",
                series=tuple(by_loss),
                y_zero=True,
            ),
        ),
        key=(
            *(
                KeyEntry(label=group, colour=colours[group], marker=index % 7 if len(groups) <= 7 else 0)
                for index, group in enumerate(groups)
            ),
            KeyEntry(label="forecast = measured", style="dotted"),
        ),
    )


def _tip(run: Forecasted, metric: str, level: float, digits: int) -> str:
    return (
        f"{run.label}\nmeasured {metric} {number(run.measured, digits)}\nforecast {number(run.forecast, digits)}, "
        f"{100 * level:.0f} % interval {number(run.low, digits)} to {number(run.high, digits)}\n"
        f"validation loss {number(run.loss, 4)}"
    )
