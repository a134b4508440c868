"""p-values over several tasks: Holm's and Benjamini and Hochberg's corrections."""

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
from jaxtyping import Float

__all__ = ["RULES", "Rule", "adjust", "benjamini_hochberg", "holm"]

Rule = Literal["holm", "bh", "none"]
RULES: tuple[Rule, ...] = get_args(Rule)


def holm(p_values: Sequence[float]) -> Float[np.ndarray, " k"]:
    """Adjusted p-values that bound the chance of a single false alarm among all (Holm 1979), in the order given."""
    p, order, k = _sorted(p_values)
    stepped = np.maximum.accumulate((k - np.arange(k)) * p[order])
    return _unsorted(np.minimum(stepped, 1.0), order)


def benjamini_hochberg(p_values: Sequence[float]) -> Float[np.ndarray, " k"]:
    """Adjusted p-values that bound the expected share of false ones among the alarms (Benjamini, Hochberg 1995)."""
    p, order, k = _sorted(p_values)
    stepped = np.minimum.accumulate((p[order] * k / (1 + np.arange(k)))[::-1])[::-1]
    return _unsorted(np.minimum(stepped, 1.0), order)


def adjust(p_values: Sequence[float], rule: Rule) -> Float[np.ndarray, " k"]:
    """Adjusted p-values by a rule; ``none`` leaves them as they are."""
    match rule:
        case "holm":
            return holm(p_values)
        case "bh":
            return benjamini_hochberg(p_values)
        case "none":
            return np.asarray(p_values, dtype=np.float64)


def _sorted(p_values: Sequence[float]) -> tuple[np.ndarray, np.ndarray, int]:
    p = np.asarray(p_values, dtype=np.float64)
    return p, np.argsort(p, kind="stable"), len(p)


def _unsorted(values: np.ndarray, order: np.ndarray) -> np.ndarray:
    result = np.empty_like(values)
    result[order] = values
    return result
