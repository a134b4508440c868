"""What a comparison could find: its power, the smallest drop it would notice, and what would make it decide.

Normal theory throughout: with error e of the gain, tests at level alpha tell "unchanged" from "a margin worse" with
probability `power` each when ``e (z_alpha + z_power) <= margin``.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy import stats

from unveil_evalharness.compare.difference import Contrast

__all__ = ["Plan", "plan"]

_MOST_RUNS = 200


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """Power of one comparison against one margin."""

    power: float
    """Chance that an unchanged second side is shown to stay within the margin."""
    detectable: float
    """The drop that is noticed with the wanted power."""
    items: int
    """Items that would give the wanted power, with as many runs as there are; 0 where no number would."""
    runs: int
    """Runs on each side that would, with as many items as there are; 0 where no number up to 200 would."""
    both: tuple[int, int]
    """Items and runs that together would, each with half of the variance; used where neither does alone."""

    @property
    def words(self) -> str:
        """What would decide."""
        ways = [f"{self.items} items"] if self.items else []
        ways += [f"{self.runs} runs (seeds) on each side"] if self.runs else []
        return " or ".join(ways) if ways else f"{self.both[0]} items with {self.both[1]} runs (seeds) on each side"


def plan(contrast: Contrast, *, margin: float, alpha: float, power: float) -> Plan:
    """Power and what would decide.

    Args:
        contrast: the comparison at hand.
        margin: the tolerated loss, above 0.
        alpha: level of each one-sided test.
        power: wanted chance of a decision.
    """
    z_alpha, z_power = float(stats.norm.isf(alpha)), float(stats.norm.ppf(power))
    # The bound's own distance, so that 0/1 outcomes that hardly change do not look certain.
    items = contrast.sampling_error or 0.0
    seeds = contrast.seed_error or 0.0
    whole = (contrast.gain - contrast.lower_bound(alpha)) / z_alpha
    if seeds == 0.0:
        items = whole
    target = margin / (z_alpha + z_power)
    half = target / math.sqrt(2)
    return Plan(
        power=float(stats.norm.cdf(margin / whole - z_alpha)) if whole > 0 else 1.0,
        detectable=(z_alpha + z_power) * whole,
        items=_items(contrast.n, items, seeds, target),
        runs=_runs(contrast, items, margin, alpha, power) if seeds > 0 else 0,
        both=(_items(contrast.n, items, 0.0, half), _runs_for(contrast, half)),
    )


def _items(n: int, items: float, seeds: float, target: float) -> int:
    """The error over items falls with the root of their number."""
    room = target**2 - seeds**2
    return max(2, math.ceil(n * items**2 / room)) if room > 0 else 0


def _variance(contrast: Contrast) -> float:
    """Between the runs of a side."""
    return (contrast.seed_error or 0.0) ** 2 / (1 / contrast.runs[0] + 1 / contrast.runs[1])


def _runs_for(contrast: Contrast, target: float) -> int:
    return max(2, math.ceil(2 * _variance(contrast) / target**2))


def _runs(contrast: Contrast, items: float, margin: float, alpha: float, power: float) -> int:
    """The variance between runs falls with their number, and is known better; items stay as they are."""
    runs = np.arange(2, _MOST_RUNS + 1)
    seeds = _variance(contrast) * 2 / runs
    freedom = (seeds + items**2) ** 2 / (seeds**2 / (2 * runs - 2))
    reach = stats.t.isf(alpha, freedom) + stats.t.ppf(power, freedom)
    enough = np.sqrt(seeds + items**2) * reach <= margin
    return int(runs[enough.argmax()]) if enough.any() else 0
