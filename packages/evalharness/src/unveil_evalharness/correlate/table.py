"""Points from any table: a published set, a sweep's summary with its results, a CSV, Parquet or JSON-lines file.

A table is *long* when it has the columns ``metric`` and ``value`` (one row per run and metric), else *wide* (a column
per metric). Columns named as in `unveil_evalharness.published.COLUMNS` are understood; columns ``passport``,
``protocol``, ``data_hash`` and ``limit`` keep rows apart that must not share axes.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from unveil_evalharness.correlate.axis import Axis
from unveil_evalharness.correlate.join import Column, LeftOut, Point, Points, mark_overfitted
from unveil_evalharness.correlate.reader import Reader
from unveil_evalharness.correlate.statistics import MIN_GROUPS
from unveil_evalharness.errors import ResultsError
from unveil_evalharness.parsing import nearest

if TYPE_CHECKING:
    import polars

__all__ = ["Roles", "points_of_table"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Roles:
    """Which column plays which part."""

    x: str
    """Column of the horizontal axis; in a long table also one of its metrics."""
    y: tuple[str, ...] = ()
    """Columns (or metrics of a long table) of the vertical axis; all metrics of a long table when empty."""
    group: tuple[str, ...] = ()
    """The first is what models are here (left out of forecasts, taken away within), the others are further strata."""
    control: tuple[str, ...] = ()
    """Columns that could explain the value; ``log_NAME`` takes the logarithm of NAME."""
    cluster: str = ""
    """Points of one cluster are resampled together. When empty: the models, or the pairs of model and data where there
    are too few models to resample, or none where there are too few of those."""
    lower_x_is_better: bool = True
    higher_y_is_better: bool = True


def points_of_table(table: "polars.DataFrame", roles: Roles, *, source: str, header_lines: int = 1) -> Points:
    """One stratum per metric (and passport, protocol, data hash, limit, where the table tells them).

    A row without x or y is left out and said; text, NaN or infinity in a column of numbers is an error.

    Args:
        table: long or wide.
        roles: which column plays which part.
        source: what to call the table in messages.
        header_lines: lines of the file before its first row, to name rows as an editor counts them.

    Raises:
        ResultsError: a column is missing, or a cell is not a number; names the column and the row.
    """
    reader = Reader(table, source=source, first_line=header_lines + 1)
    is_long = {"metric", "value"} <= set(table.columns) and not set(roles.y) & set(table.columns)
    rows = _long_rows(reader, roles) if is_long else _wide_rows(reader, roles)
    strata: dict[tuple[Column, str], list[Point]] = {}
    axes: dict[str, Axis] = {}
    left_out: list[LeftOut] = []
    labels = reader.labels()
    columns, describe = _columns(reader, roles), _describer(reader, roles)
    for index, metric, x, y in rows:
        if x is None or y is None:
            missing = roles.x if x is None else metric
            left_out.append(
                LeftOut(label=labels[index], metric=metric, reason=f"row {reader.line(index)} has no {missing}")
            )
            continue
        column, axis = columns(index, metric)
        axes[axis.key] = axis
        strata.setdefault((column, axis.key), []).append(describe(index, x, y))
    return Points(
        strata={key: mark_overfitted(points) for key, points in strata.items()}, left_out=tuple(left_out), axes=axes
    )


_Row = tuple[int, str, float | None, float | None]


def _wide_rows(reader: Reader, roles: Roles) -> list[_Row]:
    if not roles.x or not roles.y:
        columns = ", ".join(reader.columns)
        raise ResultsError(f"{reader.source}: name its columns with --x and --y; it has {columns}")
    x = reader.numbers(roles.x)
    rows: list[_Row] = []
    for name in roles.y:
        rows += [(index, name, a, b) for index, (a, b) in enumerate(zip(x, reader.numbers(name), strict=True))]
    return rows


def _long_rows(reader: Reader, roles: Roles) -> list[_Row]:
    metrics, values, runs = reader.words("metric"), reader.numbers("value"), reader.words("run")
    known = list(dict.fromkeys(metrics))
    unknown = [name for name in roles.y if name not in known]
    if unknown:
        raise ResultsError(f"{reader.source} has no metric {unknown[0]!r}{nearest(unknown[0], known)}")
    if roles.x in reader.columns:
        x = reader.numbers(roles.x)
    elif roles.x in known:
        of_run = {run: value for run, metric, value in zip(runs, metrics, values, strict=True) if metric == roles.x}
        x = [of_run.get(run) for run in runs]
    else:
        raise ResultsError(f"{reader.source} has no column or metric {roles.x!r}{nearest(roles.x, known)}")
    wanted = set(roles.y) or set(known) - {roles.x}
    return [
        (index, metric, x[index], values[index]) for index, metric in enumerate(metrics) if metric in wanted and metric
    ]


def _columns(reader: Reader, roles: Roles) -> Callable[[int, str], tuple[Column, Axis]]:
    """A function from a row and its metric to what may share axes with it."""
    passports, units = reader.words_or("passport", ""), reader.words_or("unit", "")
    protocols, hashes = reader.words_or("protocol", ""), reader.words_or("data_hash", "")
    limits, higher = reader.words_or("limit", ""), reader.words_or("higher_is_better", str(roles.higher_y_is_better))
    name = "validation loss" if roles.x in ("loss", "val_loss") else roles.x

    @cache
    def of(metric: str, unit: str, protocol: str, data_hash: str, limit: str, up: str) -> Column:
        return Column(
            task=metric.partition(".")[0],
            metric=metric,
            main=True,
            unit=unit,
            higher_is_better=up.lower() != "false",
            protocol=protocol,
            data_hash=data_hash,
            limit=int(float(limit)) if limit else None,
            x=name,
            lower_x_is_better=roles.lower_x_is_better,
        )

    @cache
    def axis(passport: str) -> Axis:
        fields = {"objective": roles.x, "passport": passport}
        return Axis(key=passport or roles.x, name=name, fields=fields, lower_is_better=roles.lower_x_is_better)

    def columns(index: int, metric: str) -> tuple[Column, Axis]:
        column = of(metric, units[index], protocols[index], hashes[index], limits[index], higher[index])
        return column, axis(passports[index])

    return columns


def _describer(reader: Reader, roles: Roles) -> Callable[[int, float, float], Point]:
    """A function from a row and its x and y to its point; columns are read once."""
    model = reader.words(roles.group[0]) if roles.group else reader.words_or("model", "")
    data, origin, seeds = (reader.words_or(name, "") for name in ("data", "source", "seed"))
    runs, sha256 = reader.words_or("run", ""), reader.words_or("checkpoint_sha256", "")
    steps, images = reader.numbers_or_none("steps"), reader.numbers_or_none("num_images")
    errors, baselines = reader.numbers_or_none("standard_error"), reader.numbers_or_none("baseline")
    cluster = reader.words(roles.cluster) if roles.cluster else _clusters(model, data)
    strata = {name: reader.words(name) for name in roles.group[1:]}
    controls, labels = _controls(reader, roles), reader.labels()

    def describe(index: int, x: float, y: float) -> Point:
        setting = f"{model[index]} × {data[index]} × seed {seeds[index]}" if model[index] and data[index] else ""
        return Point(
            checkpoint_sha256=sha256[index],
            label=labels[index],
            run=runs[index] or labels[index],
            step=int(steps[index] or 0),
            unique_samples=int(images[index] or 0),
            loss=x,
            loss_standard_error=None,
            value=y,
            value_standard_error=errors[index],
            num_seeds=1,
            baseline=baselines[index],
            model=model[index],
            data=data[index],
            source=origin[index],
            setting=setting,
            cluster=cluster[index],
            controls={name: value for name, values in controls.items() if (value := values[index]) not in (None, "")},
            strata={name: values[index] for name, values in strata.items()},
        )

    return describe


def _clusters(model: list[str], data: list[str]) -> list[str]:
    pairs = [f"{one} × {other}" if one and other else "" for one, other in zip(model, data, strict=True)]
    for names in (model, pairs):
        if all(names) and MIN_GROUPS <= len(set(names)) < len(names):
            return names
    return [""] * len(model)


def _controls(reader: Reader, roles: Roles) -> dict[str, Sequence[Any]]:
    names = roles.control or [f"log_{name}" for name in ("params", "steps") if name in reader.columns]
    return {name.replace("log_", "log ", 1): _control(reader, name) for name in names}


def _control(reader: Reader, name: str) -> Sequence[Any]:
    if name in reader.columns or not name.startswith("log_"):
        words = reader.words(name)
        try:
            return [float(word) if word else None for word in words]
        except ValueError:
            return words
    inner = name.removeprefix("log_")
    values = reader.numbers(inner)
    for index, value in enumerate(values):
        if value is not None and value <= 0:
            raise ResultsError(
                f"{reader.source}, row {reader.line(index)}: {inner} is {value:g}, which has no logarithm"
            )
    return [None if value is None else math.log(value) for value in values]
