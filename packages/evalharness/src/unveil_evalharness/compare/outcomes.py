"""Outcomes of single items, read from the parquet files of a run, and how a metric follows from them.

How a metric follows from the table is found in this order:

1. `metric_from_samples(samples)` in the task's ``metrics.py``, where it gives this metric and no column does;
2. ranks: columns ``direction`` and ``rank`` give ``<direction>_recall@K``;
3. a column: of the metric's own name (``acc1@20``), else ``correct`` and ``correct5`` for ``acc1`` and ``acc5``,
   ``lbfgs_correct`` for ``lbfgs_acc1``.

Whatever was found must give the recorded value again, or it is not used: the harness then falls back on standard
errors and says so.
"""

import importlib.util
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float
from unveil_backbones.places import is_file

from unveil_evalharness.errors import NotComparableError
from unveil_evalharness.frames import read_parquet

if TYPE_CHECKING:
    import polars

__all__ = ["MetricFunction", "Outcomes", "mean_outcomes", "metric_function", "read_samples", "same_value"]

MetricFunction = Callable[["polars.DataFrame"], Mapping[str, float]]
"""From a table of items, possibly with repeated ones, to metrics by name."""

_TOLERANCE = 1e-6
_KEYS = ("key", "image", "file_name", "image_id", "image_key")
_ACCURACY = re.compile(r"(?P<prefix>(?:.*_)?)acc(?P<k>[15]?)(?P<rest>(?:[_@].*)?)")
_RECALL = re.compile(r"(?P<direction>.+)_recall@(?P<k>\d+)")


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcomes:
    """One number per item, whose mean is the metric."""

    keys: np.ndarray
    """Unique name of each item, sorted."""
    clusters: np.ndarray | None
    """What was drawn independently, such as the image of a caption; None where that is the item itself."""
    values: Float[np.ndarray, " n"]


def read_samples(path: Path) -> "polars.DataFrame | None":
    """The table of a run; None where the file is not there.

    Raises:
        NotComparableError: the file is damaged.
    """
    import polars

    if not is_file(path):
        return None
    try:
        return read_parquet(path)
    except (OSError, polars.exceptions.PolarsError) as error:
        raise NotComparableError(f"cannot read the outcomes {path}: {error}; evaluate again") from error


def key_column(samples: "polars.DataFrame") -> str | None:
    """The column that names items, where there is one."""
    return next((name for name in _KEYS if name in samples.columns), None)


def mean_outcomes(samples: "polars.DataFrame", metric: str) -> Outcomes | None:
    """The items' outcomes whose mean is the metric; None where the table has none.

    Raises:
        NotComparableError: the same key occurs twice.
    """
    import polars

    key = key_column(samples)
    if key is None:
        return None
    short = metric.partition(".")[2]
    if not short:  # a row of another program: ours name the task before the point
        return None
    recall = _RECALL.fullmatch(short)
    if recall and {"direction", "rank"} <= set(samples.columns):
        samples = samples.filter(polars.col("direction") == recall["direction"])
        values = samples["rank"].to_numpy() <= int(recall["k"])
    else:
        column = _column_of(short, set(samples.columns))
        if column not in samples.columns or not (samples[column].dtype.is_numeric() or _is_bool(samples, column)):
            return None
        samples = samples.filter(polars.col(column).is_not_null())
        values = samples[column].to_numpy()
    if samples.height == 0:
        return None
    keys = samples[key].cast(polars.String).to_numpy()
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    repeated = keys[1:] == keys[:-1]
    if repeated.any():
        raise NotComparableError(
            f"{metric}: the key {str(keys[1:][repeated][0])!r} occurs more than once among the outcomes; "
            "items cannot be paired"
        )
    return Outcomes(keys=keys, clusters=_clusters(samples, key, order), values=values[order].astype(np.float64))


def _column_of(short: str, columns: set[str]) -> str:
    """The column whose mean is the metric, by the metric's name without its task."""
    accuracy = _ACCURACY.fullmatch(short)
    if accuracy is None or short in columns:
        return short
    name = f"{accuracy['prefix']}{'correct5' if accuracy['k'] == '5' else 'correct'}"
    # `correct` stands for one setting only: where a table has columns of several, theirs count.
    several = any(other.startswith(f"{accuracy['prefix']}acc") for other in columns)
    return short if accuracy["rest"] and several else name


def _is_bool(samples: "polars.DataFrame", column: str) -> bool:
    import polars

    return samples[column].dtype == polars.Boolean


def _clusters(samples: "polars.DataFrame", key: str, order: np.ndarray) -> np.ndarray | None:
    """The image of each item, where the table names it beside the key and several items share one."""
    import polars

    for name in ("cluster", "image_key", "image"):
        if name in samples.columns and name != key:
            clusters = samples[name].cast(polars.String)
            return clusters.to_numpy()[order] if clusters.n_unique() < len(clusters) else None
    return None


def metric_function(task: str) -> MetricFunction | None:
    """`metric_from_samples` of a task, with full metric names; None where the task offers none."""
    if not task.isidentifier():  # it comes from a file, and is about to be looked for among modules
        return None
    name = f"unveil_evalharness.tasks.{task}.metrics"
    if importlib.util.find_spec(f"unveil_evalharness.tasks.{task}") is None or importlib.util.find_spec(name) is None:
        return None
    found: Callable[[Any], Any] | None = vars(import_module(name)).get("metric_from_samples")
    if found is None:
        return None

    def by_full_name(samples: "polars.DataFrame") -> Mapping[str, float]:
        given = found(samples)
        if not isinstance(given, Mapping):
            return {"": float(given)}
        return {key if key.startswith(f"{task}.") else f"{task}.{key}": float(value) for key, value in given.items()}

    return by_full_name


def same_value(recomputed: float, recorded: float) -> bool:
    """Whether outcomes give the recorded value again, up to rounding."""
    return abs(recomputed - recorded) <= _TOLERANCE * max(1.0, abs(recorded))
