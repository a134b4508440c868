"""How many different images a model needs so that its validation loss does not turn up by a given length."""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.optimize import root_scalar

from unveil_evalharness.predict.law import Law

__all__ = ["Boundary", "boundary", "images_needed"]

_HALVING = 2.0
_NUM_IMAGES = 60


@dataclass(frozen=True, kw_only=True, slots=True)
class Boundary:
    """Images needed by one model, by length."""

    params: float
    steps: Float[np.ndarray, " t"]
    images: Float[np.ndarray, " t"]
    """NaN where the loss rises with none, or with all, of the numbers of images looked at."""
    low: Float[np.ndarray, " t"]
    high: Float[np.ndarray, " t"]


def images_needed(law: Law, *, params: float, steps: float, lowest: float, highest: float) -> float:
    """The most images with which the loss at `steps` exceeds that at half as many steps.

    With more, the last doubling of the length still pays; with fewer, it over-fits. (With very few images the loss may
    have risen long before and stand still: that is over-fitted too, so the search comes from above.)

    Args:
        law: fitted with its over-fitting term.
        params: parameters of the model.
        steps: length.
        lowest: fewest images to look at.
        highest: most images to look at.

    Returns:
        NaN where the loss rises at `highest` too, or at no number of images.
    """

    def gains(logarithm: float) -> float:
        images = np.full(2, math.exp(logarithm))
        at, before = law(np.full(2, params), np.array([steps, steps / _HALVING]), images)
        return float(at - before)

    images = np.geomspace(highest, lowest, _NUM_IMAGES)
    many = np.full_like(images, params)
    at, before = (law(many, np.full_like(images, length), images) for length in (steps, steps / _HALVING))
    rises = at > before
    if rises[0] or not rises.any():
        return float("nan")
    first = int(np.argmax(rises))
    found = root_scalar(gains, bracket=(math.log(images[first]), math.log(images[first - 1])), xtol=1e-4)
    return math.exp(found.root)


def boundary(
    law: Law,
    resampled: list[Law],
    *,
    params: float,
    steps: Float[np.ndarray, " t"],
    lowest: float,
    highest: float,
    level: float,
) -> Boundary:
    """`images_needed` along a model's lengths, with a percentile band over resampled laws."""

    def along(one: Law) -> list[float]:
        return [images_needed(one, params=params, steps=float(s), lowest=lowest, highest=highest) for s in steps]

    drawn = np.array([along(one) for one in resampled])
    edges = (50 * (1 - level), 50 * (1 + level))
    enough = np.isfinite(drawn).mean(axis=0) >= level
    low, high = np.full((2, len(steps)), np.nan)
    if enough.any():
        low[enough], high[enough] = np.nanpercentile(drawn[:, enough], edges, axis=0)
    return Boundary(params=params, steps=steps, images=np.array(along(law)), low=low, high=high)
