"""One metric on two sides: the difference, its error with the seeds' share, an interval, tests and the effect size.

Errors add up from two sources. *Items*: the evaluation set could have been another; paired outcomes remove what both
sides share, clusters keep the captions of one image together. *Seeds*: a trained task, or the pre-training, run again
gives another value; the variance between runs, pooled over both sides, is ``s² (1/R_a + 1/R_b)``. The two are added and
their degrees of freedom joined by Welch and Satterthwaite. The noise of single items between runs is in both, so that
the sum is an upper bound. With one run on each side nothing is known about seeds, and a caution says so.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy import stats

from unveil_evalharness.compare import binary, paired
from unveil_evalharness.compare.measured import Measured, check_comparable
from unveil_evalharness.compare.pairing import PairedItems, PairedTables, Tables, pair
from unveil_evalharness.compare.resampled import bootstrap_metric
from unveil_evalharness.errors import NotComparableError

__all__ = ["NUM_RESAMPLES", "Contrast", "Settings", "contrast"]

NUM_RESAMPLES = 10_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """How to compare."""

    num_resamples: int = NUM_RESAMPLES
    """Bootstrap resamples and random sign flips."""
    num_metric_resamples: int = 400
    """Resamples of metrics that are no mean over items, each of which is computed anew."""
    seed: int = 0
    confidence: float = 0.95
    """Of the two-sided interval."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Contrast:
    """Second side minus first, turned so that a positive `gain` is better."""

    metric: str
    task: str
    main: bool
    unit: str
    higher_is_better: bool
    before: float
    after: float
    gain: float
    n: int
    """Items."""
    num_clusters: int
    runs: tuple[int, int]
    paired: bool
    why_unpaired: str
    test: str
    p_value: float
    """Two-sided."""
    p_worse: float
    """One-sided: that an equally good second side would do so badly."""
    sampling_error: float | None
    """Of the gain, from the items; None where it is not known."""
    seed_error: float | None
    """Of the gain, from the runs; None with one run on each side."""
    standard_error: float
    degrees_of_freedom: float
    low: float
    high: float
    """Two-sided interval of the gain."""
    interval: str
    """How the interval was made."""
    effect_size: float | None
    effect: str
    discordant: tuple[int, int] | None
    """Items gained and lost, where outcomes are 0 or 1, each its own cluster, without noise of seeds."""
    bounded: bool
    """Whether outcomes lie between 0 and 1."""
    cautions: tuple[str, ...]

    def lower_bound(self, alpha: float) -> float:
        """One-sided lower confidence bound of the gain at level ``1 - alpha``.

        Tango's score bound for paired 0/1 outcomes, else a t bound. Outcomes between 0 and 1 that hardly ever change
        prove less than their spread suggests: their bound is never closer than that of no change at all among so
        many clusters, ``z² / (m + z²)``.
        """
        if self.discordant is not None:
            return binary.tango_bound(*self.discordant, self.n, confidence=1 - alpha)
        bound = self.gain - _quantile(alpha, self.degrees_of_freedom) * self.standard_error
        if self.bounded and self.paired:
            z = float(stats.norm.isf(alpha))
            bound = min(bound, self.gain - z * z / (self.num_clusters + z * z))
        return bound


@dataclass(frozen=True, kw_only=True, slots=True)
class _Sampling:
    """What the items say, before the seeds are heard."""

    n: int
    num_clusters: int
    why_unpaired: str
    test: str
    p_value: float | None
    p_worse: float | None
    error: float | None
    interval: tuple[float, float] | None
    interval_name: str
    effect_size: float | None
    effect: str
    discordant: tuple[int, int] | None = None
    bounded: bool = False


def contrast(a: Measured, b: Measured, *, settings: Settings, tables: Tables | None = None) -> Contrast:
    """Compares two measurements of one metric, paired where outcomes of single items are there.

    Args:
        a: the first side, also called baseline.
        b: the second side, also called candidate.
        settings: resamples, seed, confidence.
        tables: tables of outcomes that were read before.

    Raises:
        NotComparableError: protocol, data, limit or items differ, or nothing says how sure the values are.
    """
    check_comparable(a, b)
    sign = 1.0 if a.higher_is_better else -1.0
    matched = pair(a, b, Tables() if tables is None else tables)
    if isinstance(matched, PairedItems):
        items = _from_items(matched, sign, settings)
    elif isinstance(matched, PairedTables):
        items = _from_tables(matched, sign, settings)
    else:
        items = _unpaired(a, b, matched)
    return _with_seeds(a, b, sign * (b.mean - a.mean), items, settings)


def _from_items(items: PairedItems, sign: float, settings: Settings) -> _Sampling:
    differences = sign * (items.after - items.before)
    clusters = paired.cluster(differences, items.clusters)
    resampled = paired.bootstrap_means(clusters, num_resamples=settings.num_resamples, seed=settings.seed)
    tail = (1 - settings.confidence) / 2
    low, high = np.quantile(resampled, [tail, 1 - tail])
    outcomes = np.concatenate([items.before, items.after])
    is_binary = bool(np.isin(outcomes, (0.0, 1.0)).all())
    gains, losses = int((differences > 0).sum()), int((differences < 0).sum())
    if is_binary and clusters.singletons:
        test, discordant = "McNemar, exact mid-p", (gains, losses)
        p_value, p_worse = binary.mcnemar_mid_p(gains, losses), binary.mcnemar_worse(gains, losses)
    else:
        flips = paired.sign_flip(
            clusters.totals, num_flips=settings.num_resamples, seed=settings.seed, scale=1 if is_binary else 12
        )
        test = f"sign flips{' of clusters' if not clusters.singletons else ''}{', exact' if flips.exact else ''}"
        p_value, p_worse, discordant = flips.two_sided, flips.worse, None
    size, effect = _effect(items, differences, is_binary, sign)
    return _Sampling(
        n=len(differences),
        num_clusters=clusters.num,
        why_unpaired="",
        test=test,
        p_value=p_value,
        p_worse=p_worse,
        error=paired.standard_error(clusters),
        interval=(float(low), float(high)),
        interval_name=f"paired bootstrap{' of clusters' if not clusters.singletons else ''}, percentile",
        effect_size=size,
        effect=effect,
        discordant=discordant,
        bounded=bool((outcomes >= 0).all() and (outcomes <= 1).all()),
    )


def _effect(items: PairedItems, differences: np.ndarray, is_binary: bool, sign: float) -> tuple[float | None, str]:
    if is_binary:
        return sign * binary.cohens_h(float(items.before.mean()), float(items.after.mean())), "Cohen's h"
    deviation = float(np.std(differences, ddof=1)) if len(differences) > 1 else 0.0
    return (float(differences.mean()) / deviation if deviation > 0 else None), "Cohen's d of the differences"


def _from_tables(tables: PairedTables, sign: float, settings: Settings) -> _Sampling:
    resampled = sign * bootstrap_metric(tables, num_resamples=settings.num_metric_resamples, seed=settings.seed)
    tail = (1 - settings.confidence) / 2
    low, high = np.quantile(resampled, [tail, 1 - tail])
    n = tables.before[0].height
    return _Sampling(
        n=n,
        num_clusters=n,
        why_unpaired="",
        test="normal, by the bootstrap's error",
        p_value=None,
        p_worse=None,
        error=float(np.std(resampled, ddof=1)),
        interval=(float(low), float(high)),
        interval_name="paired bootstrap of the metric, percentile",
        effect_size=None,
        effect="",
    )


def _unpaired(a: Measured, b: Measured, why: str) -> _Sampling:
    errors = [[error for error in one.standard_errors if error is not None] for one in (a, b)]
    complete = all(len(own) == len(one.values) for own, one in zip(errors, (a, b), strict=True))
    # Runs of one side share their items: averaging them does not make the items' error smaller.
    error = math.sqrt(sum(float(np.mean(np.square(own))) for own in errors)) if complete else None
    return _Sampling(
        n=a.n,
        num_clusters=a.n,
        why_unpaired=why,
        test="normal, unpaired",
        p_value=None,
        p_worse=None,
        error=error,
        interval=None,
        interval_name="standard errors, unpaired",
        effect_size=None,
        effect="",
    )


def _with_seeds(a: Measured, b: Measured, gain: float, items: _Sampling, settings: Settings) -> Contrast:
    seed_error, seed_freedom = _seed_error(a.values, b.values)
    if items.error is None and seed_error is None:
        raise NotComparableError(
            f"{a.metric} is not comparable: neither outcomes of single items, nor standard errors, nor several runs "
            "say how sure the values are; evaluate with more --seeds"
        )
    noisy = seed_error is not None and seed_error > 0
    error = math.hypot(items.error or 0.0, seed_error or 0.0)
    freedom = _joint_freedom(items, seed_error, seed_freedom)
    p_value, p_worse, test = items.p_value, items.p_worse, items.test
    low_high, how = items.interval, items.interval_name
    if noisy or p_value is None or p_worse is None or low_high is None:
        p_worse = _t_tail(gain, error, freedom)
        p_value = min(1.0, 2 * min(p_worse, _t_tail(-gain, error, freedom)))
        test = f"Welch's t over items and {len(a.values)} + {len(b.values)} runs" if noisy else test
        if noisy or low_high is None:
            half = _quantile((1 - settings.confidence) / 2, freedom) * error
            low_high = (gain - half, gain + half)
            how = "t, errors of items and runs" if noisy else how
    return Contrast(
        metric=a.metric,
        task=a.task,
        main=a.main,
        unit=a.unit,
        higher_is_better=a.higher_is_better,
        before=a.mean,
        after=b.mean,
        gain=gain,
        n=items.n,
        num_clusters=items.num_clusters,
        runs=(len(a.values), len(b.values)),
        paired=not items.why_unpaired,
        why_unpaired=items.why_unpaired,
        test=test,
        p_value=p_value,
        p_worse=p_worse,
        sampling_error=items.error,
        seed_error=seed_error,
        standard_error=error,
        degrees_of_freedom=freedom,
        low=low_high[0],
        high=low_high[1],
        interval=how,
        effect_size=items.effect_size,
        effect=items.effect,
        discordant=None if noisy else items.discordant,
        bounded=items.bounded,
        cautions=_cautions(a, b, items, seed_error),
    )


def _seed_error(a: tuple[float, ...], b: tuple[float, ...]) -> tuple[float | None, int]:
    """Error of the difference of means from the pooled variance between runs, and its degrees of freedom."""
    freedom = len(a) + len(b) - 2
    if freedom < 1:
        return None, 0
    squares = sum(float(np.sum((np.array(side) - np.mean(side)) ** 2)) for side in (a, b))
    return math.sqrt(squares / freedom * (1 / len(a) + 1 / len(b))), freedom


def _joint_freedom(items: _Sampling, seed_error: float | None, seed_freedom: int) -> float:
    parts = [(seed_error or 0.0, seed_freedom)]
    if items.error is not None and not items.why_unpaired:
        parts.append((items.error, items.num_clusters - 1))
    total = sum(error**2 for error, _ in parts) + (items.error or 0.0) ** 2 * bool(items.why_unpaired)
    weight = sum(error**4 / freedom for error, freedom in parts if error > 0)
    return total**2 / weight if weight > 0 else math.inf


def _t_tail(gain: float, error: float, freedom: float) -> float:
    """Chance of so low a gain, or a lower one, when there is none."""
    if error == 0:
        return 0.0 if gain < 0 else 1.0
    return float(stats.t.cdf(gain / error, freedom) if math.isfinite(freedom) else stats.norm.cdf(gain / error))


def _quantile(tail: float, freedom: float) -> float:
    return float(stats.t.isf(tail, freedom) if math.isfinite(freedom) else stats.norm.isf(tail))


def _cautions(a: Measured, b: Measured, items: _Sampling, seed_error: float | None) -> tuple[str, ...]:
    cautions: list[str] = []
    if items.why_unpaired:
        cautions.append(f"compared UNPAIRED, which needs far more items: {items.why_unpaired}")
    if seed_error is None:
        cautions.append("one run on each side: noise between seeds is not in the interval")
    if items.error is None:
        cautions.append("the error over items is not known: the interval holds noise between runs only")
    if set(a.checkpoints) & set(b.checkpoints):
        cautions.append("the same checkpoint is on both sides (A/A): what differs is noise")
    if a.limit is not None:
        cautions.append(f"made with --limit {a.limit}: fit for a look only")
    return tuple(cautions)
