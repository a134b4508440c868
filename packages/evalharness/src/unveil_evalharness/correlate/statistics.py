"""One metric against the validation loss: coefficients with intervals, or a named refusal.

Three intervals each. *Percentile* and *BCa* bootstrap treat the points as independent draws; *grouped* resamples whole
groups (training runs, or models), because points of one group are not independent. Above `LARGE` points the bootstrap
is replaced by what it converges to, the infinitesimal jackknife (`unveil_evalharness.statistics.influence`).
"""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unveil_evalharness.statistics.coefficients import COEFFICIENTS, coefficients, coefficients_of_counts, pearson
from unveil_evalharness.statistics.influence import influences, standard_errors
from unveil_evalharness.statistics.intervals import Interval, bca_interval, normal_interval, percentile_interval
from unveil_evalharness.statistics.ranks import midranks
from unveil_evalharness.statistics.resampling import draw_counts, draw_group_counts, leave_out_counts

__all__ = [
    "LARGE",
    "LOSS_STEP",
    "MIN_GROUPS",
    "MIN_POINTS",
    "Estimate",
    "Refusal",
    "Statistics",
    "estimates",
    "refusal",
    "summarise",
]

MIN_POINTS = 5
"""With four points even a perfect order happens by chance in 1 of 12 tables (both directions): too often to report."""

MIN_GROUPS = 5
"""With fewer groups, resampling them tells nothing; as many as the points that a coefficient needs."""

LOSS_STEP = 0.01
"""The slope is given per this much validation loss, about the distance between neighbouring published runs."""

_LEAST_SPREAD = 1e-90
"""Values that are closer together count as equal: the cube of a slope over less is beyond what floats hold."""

LARGE = 400
"""Above this many points the bootstrap costs seconds and differs from its limit by less than its own noise."""

_MAX_ELEMENTS = 4_000_000  # elements of one [r, n] work array; bounds the memory at about 200 MB
_EXACT_PERMUTATION_POINTS = 7  # 7! = 5040 orders are enumerated; beyond that they are sampled
_NUM_PERMUTATIONS = 9_999

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]
Groups = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """A coefficient on the given points and its intervals.

    ``low`` and ``high`` are those of the percentile bootstrap; they are None when fewer than half of the resamples have
    a defined coefficient.
    """

    value: float
    low: float | None
    high: float | None
    bca: Interval | None = None
    """Bias-corrected and accelerated bootstrap."""
    grouped: Interval | None = None
    """Bootstrap of whole groups; None when no groups were given, every point is its own, or groups are few."""
    few_groups: bool = False
    """Whether the points are of fewer than `MIN_GROUPS` groups."""

    @property
    def best(self) -> Interval | None:
        """The interval to quote: the grouped one where there is one, else the percentile one; none of few groups."""
        if self.grouped is not None or self.few_groups:
            return self.grouped
        return None if self.low is None or self.high is None else Interval(low=self.low, high=self.high)


@dataclass(frozen=True, kw_only=True, slots=True)
class Statistics:
    """Association of a metric with the validation loss on ``n`` points."""

    n: int
    pearson: Estimate
    spearman: Estimate
    kendall: Estimate
    slope: Estimate
    """Change of the metric, in its own unit, per +0.01 validation loss (ordinary least squares)."""
    permutation_p_value: float
    """Two-sided share of random orders with a Spearman at least this far from zero (exact up to seven points)."""
    num_resamples: int
    num_degenerate: int
    """Resamples that drew a constant column; they have no coefficient and are left out of the intervals."""
    confidence: float
    num_groups: int | None = None
    """Groups that the points are of, which the grouped intervals resample if they are not few."""
    method: str = "bootstrap"
    """Or "infinitesimal jackknife"."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Refusal:
    """Why no coefficient is given: a stable ``reason`` for programs and a sentence for people."""

    reason: str
    text: str


def refusal(x: Vector, y: Vector) -> Refusal | None:
    """Name what makes a correlation of these points meaningless, or None when it may be computed.

    Args:
        x: validation losses, [n], finite.
        y: metric values, [n], finite.
    """
    if len(x) < MIN_POINTS:
        noun = "checkpoint" if len(x) == 1 else "checkpoints"
        text = f"{len(x)} {noun}, at least {MIN_POINTS} are needed; evaluate more with the same loss and protocol"
        return Refusal(reason="too_few_points", text=text)
    if _is_constant(x):
        text = f"all {len(x)} checkpoints have the same validation loss {x[0]:.6g}; there is nothing to rank by"
        return Refusal(reason="constant_loss", text=text)
    if _is_constant(y):
        text = f"all {len(y)} checkpoints have the same value {y[0]:.6g}; there is nothing to rank"
        return Refusal(reason="constant_metric", text=text)
    return None


def summarise(
    x: Vector,
    y: Vector,
    *,
    num_resamples: int,
    seed: int,
    confidence: float = 0.95,
    groups: Groups | None = None,
) -> Statistics:
    """Pearson, Spearman, Kendall and the slope of ``y`` on ``x``, each with its intervals.

    The result does not depend on the order of the points: they are sorted before resampling.

    Args:
        x: validation losses, [n].
        y: metric values, [n].
        num_resamples: bootstrap resamples; 2000 settle the second decimal of an interval's end.
        seed: of the resampling, so that a report can be made again bit by bit.
        confidence: level of the intervals, for example 0.95.
        groups: which points are not independent of each other, any integers, [n].

    Raises:
        ValueError: the points are refused (see `refusal`), the columns differ in length, or an option is out of range.
    """
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    _check(x, y, num_resamples, confidence)
    x, y, labels = _in_order(x, y, groups)
    found, num_degenerate = _estimates(x, y, labels, num_resamples, seed, confidence, in_full=True)
    pearson_, spearman, kendall, slope = found
    return Statistics(
        n=len(x),
        pearson=pearson_,
        spearman=spearman,
        kendall=kendall,
        slope=slope,
        permutation_p_value=_permutation_p_value(x, y, seed=seed),
        num_resamples=num_resamples,
        num_degenerate=num_degenerate,
        confidence=confidence,
        num_groups=None if labels is None else int(labels.max()) + 1,
        method="infinitesimal jackknife" if len(x) > LARGE else "bootstrap",
    )


def estimates(
    x: Vector,
    y: Vector,
    *,
    num_resamples: int,
    seed: int,
    confidence: float = 0.95,
    groups: Groups | None = None,
) -> dict[str, Estimate]:
    """The coefficients of `summarise` by name with one interval each: grouped where there are groups, else percentile.

    Args and errors are those of `summarise`; this is several times faster.
    """
    _check(x, y, num_resamples, confidence)
    x, y, labels = _in_order(x, y, groups)
    found, _ = _estimates(x, y, labels, num_resamples, seed, confidence, in_full=False)
    return dict(zip(COEFFICIENTS, found, strict=True))


def _in_order(x: Vector, y: Vector, groups: Groups | None) -> tuple[Vector, Vector, Groups | None]:
    order = np.lexsort((y, x) if groups is None else (groups, y, x))
    return x[order], y[order], None if groups is None else _labels(np.asarray(groups)[order])


def _estimates(
    x: Vector, y: Vector, labels: Groups | None, num_resamples: int, seed: int, confidence: float, *, in_full: bool
) -> tuple[list[Estimate], int]:
    unit = np.array([1.0, 1.0, 1.0, LOSS_STEP * np.ptp(y) / np.ptp(x)])
    a, b = (x - x.mean()) / np.ptp(x), (y - y.mean()) / np.ptp(y)  # squares of tiny values would vanish
    if len(x) > LARGE:
        return _limits(a, b, labels, unit, confidence), 0
    return _bootstraps(a, b, labels, unit, num_resamples, seed, confidence, in_full=in_full)


def _check(x: Vector, y: Vector, num_resamples: int, confidence: float) -> None:
    if x.shape != y.shape or x.ndim != 1:
        raise ValueError(f"got columns of shapes {x.shape} and {y.shape}; give two vectors of one length")
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ValueError("got a value that is not finite; drop such points, and say so, before correlating")
    if num_resamples < 1 or not 0.0 < confidence < 1.0:
        raise ValueError(f"got num_resamples={num_resamples}, confidence={confidence}; need >= 1 and between 0 and 1")
    refused = refusal(x, y)
    if refused is not None:
        raise ValueError(refused.text)


def _labels(groups: Groups) -> Groups | None:
    """Groups as integers from 0; None when there is one group only, or every point is its own."""
    names, labels = np.unique(groups, return_inverse=True)
    return None if len(names) in (1, len(groups)) else labels


def _are_few(labels: Groups | None) -> bool:
    return labels is not None and int(labels.max()) + 1 < MIN_GROUPS


def _is_constant(values: Vector) -> bool:
    """True when the values differ by rounding only (a mean over seeds may be off in the last bits)."""
    return bool(np.ptp(values) <= max(1e-12 * np.abs(values).max(), _LEAST_SPREAD))


def _bootstraps(
    x: Vector,
    y: Vector,
    labels: Groups | None,
    unit: Vector,
    num_resamples: int,
    seed: int,
    confidence: float,
    *,
    in_full: bool,
) -> tuple[list[Estimate], int]:
    points = coefficients_of_counts(x, y, np.ones((1, len(x))))[0] * unit
    alone = left_out = together = None
    if in_full or labels is None:
        generator = np.random.default_rng(seed)
        alone = _in_chunks(x, y, num_resamples, lambda rows: draw_counts(generator, rows, len(x))) * unit
    if in_full:
        left_out = coefficients_of_counts(x, y, leave_out_counts(np.arange(len(x)))) * unit
    few = _are_few(labels)
    if labels is not None and not few:
        again = np.random.default_rng(seed)
        together = _in_chunks(x, y, num_resamples, lambda rows: draw_group_counts(again, rows, labels)) * unit
    found: list[Estimate] = []
    for column, value in enumerate(points.tolist()):
        plain = None if alone is None else percentile_interval(alone[:, column], confidence)
        bca = None
        if alone is not None and left_out is not None:
            bca = bca_interval(value, alone[:, column], left_out[:, column], confidence)
        found.append(
            Estimate(
                value=value,
                low=None if plain is None else plain.low,
                high=None if plain is None else plain.high,
                bca=bca,
                grouped=None if together is None else percentile_interval(together[:, column], confidence),
                few_groups=few,
            )
        )
    return found, 0 if alone is None else int(np.isnan(alone[:, 0]).sum())


def _in_chunks(x: Vector, y: Vector, num_resamples: int, draw: Callable[[int], Matrix]) -> Matrix:
    chunk = max(1, _MAX_ELEMENTS // len(x))
    starts = range(0, num_resamples, chunk)
    return np.concatenate([coefficients_of_counts(x, y, draw(min(chunk, num_resamples - start))) for start in starts])


def _limits(x: Vector, y: Vector, labels: Groups | None, unit: Vector, confidence: float) -> list[Estimate]:
    influence = influences(x, y)
    alone = standard_errors(influence) * unit
    few = _are_few(labels)
    together = None if labels is None or few else standard_errors(influence, labels) * unit
    estimates: list[Estimate] = []
    for column, value in enumerate((coefficients(x, y) * unit).tolist()):
        plain = normal_interval(value, float(alone[column]), confidence)
        grouped = None if together is None else normal_interval(value, float(together[column]), confidence)
        estimates.append(Estimate(value=value, low=plain.low, high=plain.high, grouped=grouped, few_groups=few))
    return estimates


def _permutation_p_value(x: Vector, y: Vector, *, seed: int) -> float:
    """Two-sided permutation test of Spearman's coefficient.

    Exact by enumeration up to seven points, by 9,999 random orders up to `LARGE`, by its normal limit beyond.
    """
    n = len(x)
    ranks_x, ranks_y = midranks(x) - (n + 1) / 2.0, midranks(y) - (n + 1) / 2.0
    if n > LARGE:
        return math.erfc(abs(pearson(ranks_x, ranks_y)) * math.sqrt((n - 1) / 2.0))
    observed = abs(float(ranks_x @ ranks_y)) - 1e-9  # the sums are multiples of 1/4; the margin only absorbs rounding
    if n <= _EXACT_PERMUTATION_POINTS:
        orders = np.array(list(itertools.permutations(ranks_y)))
        return float((np.abs(orders @ ranks_x) >= observed).mean())
    orders = np.random.default_rng(seed).permuted(np.tile(ranks_y, (_NUM_PERMUTATIONS, 1)), axis=1)
    return (int((np.abs(orders @ ranks_x) >= observed).sum()) + 1) / (_NUM_PERMUTATIONS + 1)
