"""Two validations of the same images, compared image by image.

Most of the spread of a validation loss is between images: some are hard for every checkpoint. In the difference of two
checkpoints on the same image under the same masks it cancels, so that 0.001 can be told from 0 where the standard
errors of the two means overlap widely. No torch here.
"""

import math
from dataclasses import dataclass

import numpy as np

from unveil_pretrain.errors import ConfigError, DataError
from unveil_pretrain.student import student_quantile, student_tail
from unveil_pretrain.val_table import ImageLosses

__all__ = ["MIN_GROUPS", "PairedDifference", "compare_losses", "independent_values", "mean_and_error"]

MIN_GROUPS = 10
"""Images that share negatives are not independent: with so many pools or more, standard errors are over pools. Fewer
pools say too little of their spread, and images then count as independent."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PairedDifference:
    """How the loss of `b` differs from that of `a` over the same images."""

    difference: float
    """Mean of b − a; negative where b is better."""
    standard_error: float
    """Of that mean, from the differences of the images."""
    low: float
    """Lower end of the interval."""
    high: float
    """Upper end of the interval."""
    confidence: float
    """How often such intervals hold the true difference."""
    p_value: float
    """Two-sided, of no difference."""
    unpaired_standard_error: float
    """What the two standard errors alone would give: √(se(a)² + se(b)²)."""
    correlation: float
    """Of the losses of an image in a and b; NaN where one of them is constant."""
    num_images: int
    """Images compared."""


def compare_losses(a: ImageLosses, b: ImageLosses, *, confidence: float = 0.95) -> PairedDifference:
    """The difference b − a, its standard error and its interval, from the differences of the images.

    The interval is Student's, over images or over negative pools (`MIN_GROUPS`); it says what other validation images
    would give, and nothing about another seed of training.

    Raises:
        DataError: passports or images differ; the first difference is named.
        ConfigError: the confidence is not in (0, 1), or there is one image.
    """
    _check_comparable(a, b)
    if not 0.0 < confidence < 1.0:
        raise ConfigError(f"confidence is {confidence}; give a number between 0 and 1, for example 0.95")
    if len(a.values) < 2:
        raise ConfigError("one image says nothing about a spread; give at least two validation images")
    difference, error, degrees = mean_and_error(b.values - a.values, a.groups)
    reach = error * student_quantile((1.0 - confidence) / 2.0, degrees)
    errors = [mean_and_error(one.values, one.groups)[1] for one in (a, b)]
    return PairedDifference(
        difference=difference,
        standard_error=error,
        low=difference - reach,
        high=difference + reach,
        confidence=confidence,
        p_value=_two_sided(difference, error, degrees),
        unpaired_standard_error=math.hypot(*errors),
        correlation=_correlation(a.values, b.values),
        num_images=len(a.values),
    )


def mean_and_error(values: np.ndarray, groups: np.ndarray) -> tuple[float, float, int]:
    """Mean of values [n], its standard error (0 for one value), and the degrees of freedom of that error."""
    independent = independent_values(values, groups)
    num = len(independent)
    spread = float(independent.std(ddof=1)) if num > 1 else 0.0
    return float(values.mean()), spread / math.sqrt(num), max(1, num - 1)


def independent_values(values: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """The values [n], or the means of their groups [g] where groups are pools and `MIN_GROUPS` or more."""
    _, index, counts = np.unique(groups, return_inverse=True, return_counts=True)
    if len(counts) == len(values) or len(counts) < MIN_GROUPS:
        return values
    return np.bincount(index, weights=values) / counts


def _check_comparable(a: ImageLosses, b: ImageLosses) -> None:
    if a.passport is not None and b.passport is not None:
        field = a.passport.first_difference(b.passport)
        if field is not None:
            raise DataError(f"the two losses have different passports, first in {field}; they cannot be compared")
    if a.keys != b.keys or not np.array_equal(a.sample_ids, b.sample_ids):
        pairs = zip(a.keys, b.keys, strict=False)
        where = next((f"{here!r} and {there!r}" for here, there in pairs if here != there), "their number or ids")
        raise DataError(f"the two losses are of different images ({where}); score the same images for both")


def _two_sided(difference: float, error: float, degrees: int) -> float:
    if error == 0.0:
        return 1.0 if difference == 0.0 else 0.0
    return min(1.0, 2.0 * student_tail(abs(difference) / error, degrees))


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    if a.std() == 0.0 or b.std() == 0.0:
        return math.nan
    return float(np.corrcoef(a, b)[0, 1])
