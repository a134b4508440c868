"""Paired differences of items that come in clusters: error, bootstrap, and the sign-flip test.

A cluster is what was drawn independently: an image, with all its captions. Everything here is a function of each
cluster's total difference and its number of items, and equal clusters are handled together: a resample of 50 000
images whose differences are -1, 0 or 1 is one draw of three counts.

Shape legend: n items, m clusters, u distinct clusters, r resamples.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, Num
from scipy import signal

__all__ = ["Clusters", "SignFlip", "bootstrap_means", "cluster", "sign_flip", "standard_error"]

_MAX_ELEMENTS = 4_000_000
_MAX_LATTICE = 2_000_000
_EXACT_CLUSTERS = 12
_ROUNDING = 1e-9


@dataclass(frozen=True, kw_only=True, slots=True)
class Clusters:
    """Totals of the differences within clusters."""

    totals: Float[np.ndarray, " m"]
    sizes: Num[np.ndarray, " m"]
    """Items in each cluster."""

    @property
    def num(self) -> int:
        """How many clusters there are."""
        return len(self.totals)

    @property
    def mean(self) -> float:
        """Mean difference over items."""
        return float(self.totals.sum() / self.sizes.sum())

    @property
    def singletons(self) -> bool:
        """Whether every cluster is one item."""
        return bool((self.sizes == 1).all())


@dataclass(frozen=True, kw_only=True, slots=True)
class SignFlip:
    """p-values of the hypothesis that the two sides could be swapped in any cluster."""

    two_sided: float
    worse: float
    """One-sided: that the total is so low."""
    exact: bool
    """Whether the whole distribution was computed rather than sampled."""


def cluster(differences: Float[np.ndarray, " n"], names: Sequence[str] | np.ndarray | None = None) -> Clusters:
    """Adds differences up within clusters; without names each item is its own."""
    if names is None:
        return Clusters(totals=differences, sizes=np.ones(len(differences), dtype=np.int64))
    _, index = np.unique(np.asarray(names), return_inverse=True)
    return Clusters(totals=np.bincount(index, weights=differences), sizes=np.bincount(index))


def standard_error(clusters: Clusters) -> float | None:
    """Cluster-robust standard error of the mean: linearised variance of a ratio of sums; None below two clusters.

    With one item per cluster it is ``std(ddof=1) / sqrt(n)``.
    """
    m = clusters.num
    if m < 2:
        return None
    residuals = clusters.totals - clusters.mean * clusters.sizes
    return float(np.sqrt(m / (m - 1) * np.sum(residuals**2)) / clusters.sizes.sum())


def bootstrap_means(clusters: Clusters, *, num_resamples: int, seed: int) -> Float[np.ndarray, " r"]:
    """Mean differences of resamples: whole clusters are drawn with replacement (Efron 1979; Field and Welsh 2007)."""
    distinct, counts = np.unique(
        np.column_stack([clusters.totals, clusters.sizes.astype(np.float64)]), axis=0, return_counts=True
    )
    generator = np.random.default_rng(seed)
    if len(distinct) > clusters.num // 2:
        # Hardly any are equal: drawing indices is quicker than drawing counts.
        return _bootstrap_by_index(clusters, generator, num_resamples)
    probabilities = counts / clusters.num
    means = np.empty(num_resamples)
    step = max(1, _MAX_ELEMENTS // len(distinct))
    for start in range(0, num_resamples, step):
        drawn = generator.multinomial(clusters.num, probabilities, size=min(step, num_resamples - start))
        sums = drawn @ distinct
        means[start : start + len(drawn)] = sums[:, 0] / sums[:, 1]
    return means


def _bootstrap_by_index(
    clusters: Clusters, generator: np.random.Generator, num_resamples: int
) -> Float[np.ndarray, " r"]:
    means = np.empty(num_resamples)
    step = max(1, _MAX_ELEMENTS // clusters.num)
    for start in range(0, num_resamples, step):
        drawn = generator.integers(0, clusters.num, size=(min(step, num_resamples - start), clusters.num))
        sizes = clusters.num if clusters.singletons else clusters.sizes[drawn].sum(axis=1)
        means[start : start + len(drawn)] = clusters.totals[drawn].sum(axis=1) / sizes
    return means


def sign_flip(totals: Float[np.ndarray, " m"], *, num_flips: int, seed: int, scale: int = 1) -> SignFlip:
    """Sign-flip permutation test of paired differences (Fisher 1935, section 21); exact under exchangeable sides.

    Exact when all totals are whole multiples of ``1 / scale`` (hits counted over `scale` runs), by convolution, or when
    at most 12 are not zero, by enumeration; else `num_flips` random flips, counted with the observed one.

    Args:
        totals: total difference per cluster.
        num_flips: random flips where the exact distribution is out of reach.
        seed: of the random flips.
        scale: what to multiply totals by to make them whole, where they are counts.
    """
    changed = totals[np.abs(totals) > _ROUNDING]
    if len(changed) == 0:
        return SignFlip(two_sided=1.0, worse=1.0, exact=True)
    whole = np.rint(changed * scale)
    if np.allclose(whole, changed * scale, atol=1e-6) and np.abs(whole).sum() <= _MAX_LATTICE:
        return _by_convolution(whole.astype(np.int64))
    if len(changed) <= _EXACT_CLUSTERS:
        flips = 1 - 2 * ((np.arange(2 ** len(changed))[:, None] >> np.arange(len(changed))) & 1)
        return _from_sums(flips @ changed, float(changed.sum()), exact=True)
    return _from_sums(_random_sums(changed, num_flips, seed), float(changed.sum()), exact=False)


def _by_convolution(whole: Int[np.ndarray, " m"]) -> SignFlip:
    """The exact distribution: k clusters of one magnitude a add ``a (2 Binomial(k, 1/2) - k)``."""
    from scipy import stats

    distribution = np.ones(1)
    magnitudes, counts = np.unique(np.abs(whole), return_counts=True)
    for magnitude, count in zip(magnitudes, counts, strict=True):
        spread = np.zeros(int(magnitude * count) + 1)
        spread[::magnitude] = stats.binom.pmf(np.arange(count + 1), count, 0.5)
        distribution = np.clip(signal.fftconvolve(distribution, spread), 0.0, None)
    # Entry j is the chance that the flipped total is 2 j - (sum of all magnitudes).
    lowest = int(np.abs(whole).sum())
    observed = int(whole.sum())
    worse = distribution[: (observed + lowest) // 2 + 1].sum()
    extreme = distribution[: (lowest - abs(observed)) // 2 + 1].sum()
    two_sided = 1.0 if observed == 0 else min(1.0, 2.0 * float(extreme))
    return SignFlip(two_sided=two_sided, worse=min(1.0, float(worse)), exact=True)


def _random_sums(changed: Float[np.ndarray, " m"], num_flips: int, seed: int) -> Float[np.ndarray, " r"]:
    generator = np.random.default_rng(seed)
    sums = np.empty(num_flips)
    step = max(1, _MAX_ELEMENTS // len(changed))
    for start in range(0, num_flips, step):
        rows = min(step, num_flips - start)
        bits = np.unpackbits(
            np.frombuffer(generator.bytes(rows * ((len(changed) + 7) // 8)), dtype=np.uint8).reshape(rows, -1), axis=1
        )[:, : len(changed)]
        sums[start : start + rows] = 2.0 * (bits.astype(np.float64) @ changed) - changed.sum()
    return sums


def _from_sums(sums: Float[np.ndarray, " r"], observed: float, *, exact: bool) -> SignFlip:
    slack = _ROUNDING * max(1.0, float(np.abs(sums).max()))
    extra = 0 if exact else 1
    worse = (np.count_nonzero(sums <= observed + slack) + extra) / (len(sums) + extra)
    two_sided = (np.count_nonzero(np.abs(sums) >= abs(observed) - slack) + extra) / (len(sums) + extra)
    return SignFlip(two_sided=float(two_sided), worse=float(worse), exact=exact)
