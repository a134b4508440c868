"""A plan in words: a table of its cells, what was dropped, and what the study will be able to say."""

from collections.abc import Iterable, Sequence

from unveil_pretrain.planning.forecast import Forecast
from unveil_pretrain.planning.interval import MIN_CELLS, fisher_interval, published_correlation, published_interval

__all__ = ["outlook", "table", "to_json"]

_SECONDS_PER_HOUR = 3600.0


def outlook(taken: Sequence[Forecast], dropped: Sequence[Forecast], *, num_seeds: int) -> list[str]:
    """What the chosen cells leave out, where they will over-fit, and how well they will know a correlation."""
    said: list[str] = []
    if dropped:
        names = ", ".join(forecast.cell.name for forecast in dropped[:4])
        more = f" and {len(dropped) - 4} more" if len(dropped) > 4 else ""
        said.append(
            f"{len(dropped)} of {len(taken) + len(dropped)} cells dropped, the most missed first: {names}{more}"
        )
    counts = {
        outcome: sum(forecast.verdict.outcome == outcome for forecast in taken)
        for outcome in ("over-fits", "near the boundary", "no over-fitting")
    }
    outside = sum(bool(forecast.verdict.outside) for forecast in taken)
    numbers = ", ".join(f"{count} {outcome}" for outcome, count in counts.items())
    said.append(
        f"over-fitting by the 63 published runs (arXiv:2206.04664): {numbers}"
        + (f"; {outside} of them outside of what was published, where this is an extrapolation" if outside else "")
    )
    return [*said, *_intervals(taken, num_seeds)]


def _intervals(taken: Sequence[Forecast], num_seeds: int) -> list[str]:
    """Expected intervals of the correlation between validation loss and transfer over distinct cells."""
    distinct = {(forecast.cell.recipe, *_where(forecast)) for forecast in taken}
    num_cells = len(distinct)
    if num_cells < MIN_CELLS:
        return [f"{num_cells} cells give no interval of a correlation; at least {MIN_CELLS} are needed"]
    said: list[str] = []
    for what, without in (("all 63 runs", False), ("the 36 whose loss fell all the way", True)):
        correlation = published_correlation(without_overfitting=without)
        fisher = fisher_interval(correlation, num_cells)
        drawn = published_interval(num_cells, without_overfitting=without)
        said.append(
            f"95 % interval of the correlation from {num_cells} cells, if it is {correlation:.3f} as over {what}: "
            f"[{fisher.low:.2f}, {fisher.high:.2f}], width {fisher.width:.2f} (Fisher's z); "
            f"[{drawn.low:.2f}, {drawn.high:.2f}], width {drawn.width:.2f} (drawn from them)"
        )
    said.append("cells of one model are not independent: whole models drawn again give wider intervals than both")
    if num_seeds > 1:
        said.append(f"{num_seeds} seeds measure the noise of a cell; they are no further cells of a correlation")
    return said


def table(taken: Sequence[Forecast], notes: Sequence[str], *, price: float) -> str:
    """The plan for people."""
    header = ["cell", "parameters", "images", "epochs", "operations", "hours", "over-fitting"]
    header += ["price"] if price else []
    lines = [header, *(_line(forecast, price) for forecast in taken)]
    total_hours = _total(forecast.seconds for forecast in taken)
    total_flops = _total(forecast.flops for forecast in taken)
    hours = None if total_hours is None else total_hours / _SECONDS_PER_HOUR
    lines.append(
        ["total", "", "", "", _shown(total_flops, ".3g"), _shown(hours, ".4g"), ""]
        + ([_shown(None if hours is None else hours * price, ".4g")] if price else [])
    )
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    text = [
        "  ".join(
            word.ljust(width) if header[column] in ("cell", "over-fitting") else word.rjust(width)
            for column, (word, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
    return "\n".join([*text, "", *(f"- {note}" for note in notes)]) + "\n"


def to_json(
    taken: Sequence[Forecast], dropped: Sequence[Forecast], notes: Sequence[str], *, price: float
) -> dict[str, object]:
    """The plan for programs; hours are those of one device."""
    return {
        "format_version": 1,
        "cells": [_record(forecast, price) for forecast in taken],
        "dropped": [_record(forecast, price) for forecast in dropped],
        "notes": list(notes),
    }


def _record(forecast: Forecast, price: float) -> dict[str, object]:
    hours = None if forecast.seconds is None else forecast.seconds / _SECONDS_PER_HOUR
    return {
        "name": forecast.cell.name,
        "recipe": forecast.cell.recipe,
        "encoder": forecast.config.encoder,
        "fraction": forecast.cell.fraction,
        "steps": forecast.cell.steps,
        "seed": forecast.cell.seed,
        "num_parameters": forecast.num_parameters,
        "num_images": forecast.num_images,
        "epochs": forecast.epochs,
        "flops": forecast.flops,
        "hours": hours,
        "speed": None if forecast.speed is None else forecast.speed.source,
        "price": None if hours is None or not price else hours * price,
        "over_fitting": forecast.verdict.outcome,
        "outside_of_what_was_published": list(forecast.verdict.outside),
        "epochs_without": forecast.verdict.highest_without,
        "epochs_with": forecast.verdict.lowest_with,
    }


def _line(forecast: Forecast, price: float) -> list[str]:
    hours = None if forecast.seconds is None else forecast.seconds / _SECONDS_PER_HOUR
    line = [
        forecast.cell.name,
        f"{forecast.num_parameters:,}",
        f"{forecast.num_images:,}",
        f"{forecast.epochs:,.4g}",
        _shown(forecast.flops, ".3g"),
        _shown(hours, ".4g"),
        forecast.verdict.words(),
    ]
    return line + ([_shown(None if hours is None else hours * price, ".4g")] if price else [])


def _where(forecast: Forecast) -> tuple[object, ...]:
    return (forecast.config.encoder, forecast.cell.fraction, forecast.cell.steps)


def _total(values: Iterable[float | None]) -> float | None:
    """The sum, if every value is known."""
    total = 0.0
    for value in values:
        if value is None:
            return None
        total += value
    return total


def _shown(value: float | None, style: str) -> str:
    return "unknown" if value is None else format(value, style)
