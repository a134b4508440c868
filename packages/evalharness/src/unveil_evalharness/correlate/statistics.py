"""Rank and linear association of two columns, with seeded percentile-bootstrap intervals.

A bootstrap resample of ``n`` points is a vector of ``n`` counts that sum to ``n`` (how often each point was drawn).
Written with counts, every coefficient of all resamples comes out of a few matrix products, without a loop over them:

- Pearson and the slope are weighted moments;
- Spearman is Pearson on mid-ranks, and the mid-ranks within a resample are ``counts @ M`` with ``M[i, j] = 1`` where
  ``x_i < x_j`` and ``0.5`` where they tie (a constant shift of the usual ranks, which a correlation does not see);
- Kendall's tau-b is a ratio of quadratic forms ``c' S c`` in the pairwise sign matrices (Kendall 1945, ties as tau-b).

Shapes: ``n`` points, ``r`` resamples. The point estimates are the same formulas with every count 1; the tests hold them
against scipy's.
"""

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

__all__ = ["MIN_POINTS", "Estimate", "Refusal", "Statistics", "refusal", "summarise"]

MIN_POINTS = 5
"""With four points even a perfect order happens by chance in 1 of 12 tables (both directions): too often to report."""

LOSS_STEP = 0.01
"""The slope is given per this much validation loss, about the distance between neighbouring published runs."""

_MAX_ELEMENTS = 4_000_000  # elements of one [r, n] work array; bounds the memory at about 200 MB
_EXACT_PERMUTATION_POINTS = 7  # 7! = 5040 orders are enumerated; beyond that they are sampled
_NUM_PERMUTATIONS = 9_999

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """A coefficient on the given points and its percentile-bootstrap interval.

    ``low`` and ``high`` are None when fewer than half of the resamples have a defined coefficient.
    """

    value: float
    low: float | None
    high: float | None


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


def summarise(x: Vector, y: Vector, *, num_resamples: int, seed: int, confidence: float = 0.95) -> Statistics:
    """Pearson, Spearman, Kendall and the slope of ``y`` on ``x``, each with a percentile-bootstrap interval.

    The interval treats the points as independent draws. The result does not depend on the order of the points: they are
    sorted before resampling.

    Args:
        x: validation losses, [n].
        y: metric values, [n].
        num_resamples: bootstrap resamples; 2000 settle the second decimal of an interval's end.
        seed: of the resampling, so that a report can be made again bit by bit.
        confidence: level of the intervals, for example 0.95.

    Raises:
        ValueError: the points are refused (see `refusal`), the columns differ in length, or an option is out of range.
    """
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if x.shape != y.shape or x.ndim != 1:
        raise ValueError(f"got columns of shapes {x.shape} and {y.shape}; give two vectors of one length")
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ValueError("got a value that is not finite; drop such points, and say so, before correlating")
    if num_resamples < 1 or not 0.0 < confidence < 1.0:
        raise ValueError(f"got num_resamples={num_resamples}, confidence={confidence}; need >= 1 and between 0 and 1")
    refused = refusal(x, y)
    if refused is not None:
        raise ValueError(refused.text)

    order = np.lexsort((y, x))
    x, y = x[order], y[order]
    table = _Pairwise.of(x, y)
    unit = np.array([1.0, 1.0, 1.0, LOSS_STEP * np.ptp(y) / np.ptp(x)])
    scaled_x, scaled_y = (x - x.mean()) / np.ptp(x), (y - y.mean()) / np.ptp(y)  # squares of tiny values would vanish
    points = _coefficients(scaled_x, scaled_y, table, np.ones((1, len(x))))[0] * unit
    resampled, num_degenerate = _bootstrap(scaled_x, scaled_y, table, num_resamples=num_resamples, seed=seed)
    resampled *= unit
    pearson, spearman, kendall, slope = (
        _estimate(float(point), column, num_resamples, confidence)
        for point, column in zip(points, resampled.T, strict=True)
    )
    return Statistics(
        n=len(x),
        pearson=pearson,
        spearman=spearman,
        kendall=kendall,
        slope=slope,
        permutation_p_value=_permutation_p_value(x, y, seed=seed),
        num_resamples=num_resamples,
        num_degenerate=num_degenerate,
        confidence=confidence,
    )


def _is_constant(values: Vector) -> bool:
    """True when the values differ by rounding only (a mean over seeds may be off in the last bits)."""
    return bool(np.ptp(values) <= 1e-12 * np.abs(values).max())


def _estimate(value: float, resampled: Vector, num_resamples: int, confidence: float) -> Estimate:
    if 2 * len(resampled) < num_resamples:
        return Estimate(value=value, low=None, high=None)
    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile(resampled, [tail, 1.0 - tail])
    return Estimate(value=value, low=float(low), high=float(high))


@dataclass(frozen=True, kw_only=True, slots=True)
class _Pairwise:
    """What rank coefficients need to know of each pair of points, [n, n] each; the same for all resamples."""

    below_x: Matrix
    below_y: Matrix
    sign_x: Matrix
    sign_y: Matrix

    @classmethod
    def of(cls, x: Vector, y: Vector) -> "_Pairwise":
        below_x, below_y = _precedence(x), _precedence(y)
        return cls(below_x=below_x, below_y=below_y, sign_x=below_x - below_x.T, sign_y=below_y - below_y.T)


def _bootstrap(x: Vector, y: Vector, table: _Pairwise, *, num_resamples: int, seed: int) -> tuple[Matrix, int]:
    """Coefficients of the usable resamples, [usable r, 4], and the number of degenerate ones."""
    n = len(x)
    generator = np.random.default_rng(seed)
    chunk = max(1, _MAX_ELEMENTS // n)
    parts: list[Matrix] = []
    for start in range(0, num_resamples, chunk):
        counts = _draw_counts(generator, min(chunk, num_resamples - start), n)
        usable = ~(_constant_within(x, counts) | _constant_within(y, counts))
        parts.append(_coefficients(x, y, table, counts[usable]))
    coefficients = np.concatenate(parts)
    return coefficients, num_resamples - len(coefficients)


def _coefficients(x: Vector, y: Vector, table: _Pairwise, counts: Matrix) -> Matrix:
    """[r, 4]: Pearson, Spearman, Kendall and the slope of each resample."""
    pearson, slope = _weighted_pearson(x, y, counts)
    spearman, _ = _weighted_pearson(counts @ table.below_x, counts @ table.below_y, counts)
    return np.column_stack([pearson, spearman, _weighted_kendall(table, counts), slope])


def _draw_counts(generator: np.random.Generator, num_resamples: int, n: int) -> Matrix:
    """How often each of ``n`` points is drawn in each resample, [r, n]; every row sums to ``n``."""
    drawn = generator.integers(0, n, size=(num_resamples, n))
    drawn += np.arange(num_resamples)[:, None] * n
    return np.bincount(drawn.ravel(), minlength=num_resamples * n).reshape(num_resamples, n).astype(np.float64)


def _precedence(values: Vector) -> Matrix:
    """[n, n]: 1 where value i is below value j, 0.5 where they tie; ``counts @ this`` are a resample's mid-ranks."""
    return (values[:, None] < values[None, :]) + 0.5 * (values[:, None] == values[None, :])


def _constant_within(values: Vector, counts: Matrix) -> NDArray[np.bool_]:
    """[r]: True where a resample holds one distinct value only."""
    highest = np.where(counts > 0, values, -np.inf).max(axis=1)
    lowest = np.where(counts > 0, values, np.inf).min(axis=1)
    return highest == lowest


def _weighted_pearson(x: Vector | Matrix, y: Vector | Matrix, counts: Matrix) -> tuple[Vector, Vector]:
    """Pearson [r] and slope of y on x [r]; ``x``, ``y`` are [n] or [r, n]. Two passes: offsets do not cancel."""
    n = counts.shape[1]
    x = x - (counts * x).sum(axis=1, keepdims=True) / n
    y = y - (counts * y).sum(axis=1, keepdims=True) / n
    covariance = (counts * x * y).sum(axis=1)
    variance_x, variance_y = (counts * x * x).sum(axis=1), (counts * y * y).sum(axis=1)
    return np.clip(covariance / np.sqrt(variance_x) / np.sqrt(variance_y), -1.0, 1.0), covariance / variance_x


def _weighted_kendall(table: _Pairwise, counts: Matrix) -> Vector:
    """Kendall's tau-b [r]: concordant minus discordant pairs over the pairs untied in x and in y."""
    balance = ((counts @ (table.sign_x * table.sign_y)) * counts).sum(axis=1)
    untied_x = ((counts @ np.abs(table.sign_x)) * counts).sum(axis=1)
    untied_y = ((counts @ np.abs(table.sign_y)) * counts).sum(axis=1)
    return np.clip(balance / np.sqrt(untied_x) / np.sqrt(untied_y), -1.0, 1.0)


def _permutation_p_value(x: Vector, y: Vector, *, seed: int) -> float:
    """Two-sided permutation test of Spearman's coefficient; exact by enumeration up to seven points."""
    n = len(x)
    ranks_x, ranks_y = stats.rankdata(x) - (n + 1) / 2.0, stats.rankdata(y) - (n + 1) / 2.0
    observed = abs(float(ranks_x @ ranks_y)) - 1e-9  # the sums are multiples of 1/4; the margin only absorbs rounding
    if n <= _EXACT_PERMUTATION_POINTS:
        orders = np.array(list(itertools.permutations(ranks_y)))
        return float((np.abs(orders @ ranks_x) >= observed).mean())
    generator = np.random.default_rng(seed)
    num_extreme = 0
    chunk = max(1, _MAX_ELEMENTS // n)
    for start in range(0, _NUM_PERMUTATIONS, chunk):
        rows = min(chunk, _NUM_PERMUTATIONS - start)
        orders = generator.permuted(np.tile(ranks_y, (rows, 1)), axis=1)
        num_extreme += int((np.abs(orders @ ranks_x) >= observed).sum())
    return (num_extreme + 1) / (_NUM_PERMUTATIONS + 1)
