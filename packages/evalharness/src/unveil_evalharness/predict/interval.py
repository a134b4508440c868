"""How wide an interval must be to hold the truth as often as it says, when runs come in groups.

The half-width is learnt from errors on groups that were left out whole, since runs of one model (or of one model and
data set) err together. With enough groups it is the split-conformal quantile in which every group weighs the same and
one more group, as far off as may be, stands for the one asked about; it assumes nothing but that groups are
exchangeable (hierarchical conformal prediction: Lee, Barber and Willett 2023, arXiv 2306.06342). That needs
``1 / (1 - level)`` groups. With fewer, it is Student's quantile of one degree of freedom less than there are groups,
times the root of the groups' mean squared error, which assumes that group errors are about normal.

Axes: ``r`` runs.
"""

from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import stats

from unveil_evalharness.predict.linear import fit_linear, leave_group_out_errors

__all__ = ["Method", "half_width", "held_out_hits", "method_for"]

Method = Literal["conformal", "t"]


def method_for(num_groups: int, level: float) -> Method:
    """``conformal`` where there are groups enough for a finite quantile at this level, else ``t``."""
    return "conformal" if num_groups * (1 - level) >= 1 - 1e-9 else "t"


def half_width(errors: Float[np.ndarray, " r"], groups: Int[np.ndarray, " r"], *, level: float) -> float:
    """Half-width of a two-sided interval for a run of a group that has not been seen.

    Args:
        errors: of runs whose group was left out of the fit.
        groups: group of each run.
        level: share of intervals that shall hold the truth, such as 0.9.
    """
    names, counts = np.unique(groups, return_counts=True)
    if method_for(len(names), level) == "t":
        squares = [float(np.mean(errors[groups == name] ** 2)) for name in names]
        return float(stats.t.ppf((1 + level) / 2, len(names) - 1) * np.sqrt(np.mean(squares)))
    sizes = np.abs(errors)
    order = np.argsort(sizes)
    weights = 1.0 / (counts[np.searchsorted(names, groups)] * (len(names) + 1))
    reached = np.cumsum(weights[order])
    first = int(np.searchsorted(reached, level - 1e-12))
    return float(sizes[order][min(first, len(sizes) - 1)])


def held_out_hits(
    features: Float[np.ndarray, "r f"],
    values: Float[np.ndarray, " r"],
    groups: Int[np.ndarray, " r"],
    *,
    level: float,
) -> Bool[np.ndarray, " r"]:
    """Whether each run lies in the interval made without its group: fit, errors and half-width from the others only."""
    hits = np.empty(len(values), dtype=bool)
    for group in np.unique(groups):
        inside = groups == group
        rest = features[~inside], values[~inside], groups[~inside]
        width = half_width(leave_group_out_errors(*rest), rest[2], level=level)
        hits[inside] = np.abs(values[inside] - fit_linear(rest[0], rest[1])(features[inside])) <= width
    return hits
