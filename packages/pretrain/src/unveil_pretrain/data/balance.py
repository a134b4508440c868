"""Nested, class-balanced subsets: each class in proportion, each smaller subset inside every larger one.

The rule. Within a class of n samples, rank them by seeded noise of their ids: 0 … n − 1. Number the classes from 0 to
C − 1, in an order that the seed draws too, and give class r the offset u = (r + 1/2) / C. The sample of rank j stands
at the place (j + u) / n between 0 and 1, and the subset of fraction f holds all samples whose place is below f. So a
class contributes ⌈f·n − u⌉ samples, always less than one from its exact share f·n; subsets are nested because places
do not depend on f; and since the offsets are spread evenly, roundings cancel over the classes, so that the total is
near f times all.

Places depend on keys, classes and the seed, not on the order in which the samples are stored. Everything is computed
with fractions, not floating-point numbers: 0.1 means one tenth.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from unveil_pretrain.data.samples import sample_id_of
from unveil_pretrain.data.streams import BALANCE_STREAM, SUBSET_STREAM, words
from unveil_pretrain.errors import ConfigError

__all__ = ["Balance", "balance_of", "balanced_subsets", "exact_fraction"]

_EXPONENT_DIGITS = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Balance:
    """How a subset is spread over the classes."""

    num_classes: int
    """Classes of the whole data."""
    num_absent: int
    """Classes of which the subset has nothing."""
    fewest: int
    """Samples of the rarest class in the subset, absent ones aside."""
    most: int
    """Samples of the most frequent class in the subset."""
    largest_deviation: Fraction
    """The largest distance of a class's count from its exact share; below 1."""


def balanced_subsets(
    labels: Sequence[str], sample_ids: np.ndarray, fractions: Sequence[Fraction], *, seed: int
) -> list[list[int]]:
    """Indices of the samples of each fraction, ascending.

    Args:
        labels: The class of each sample; equal labels throughout for data without classes.
        sample_ids: int64 [n], no two equal.
        fractions: Each above 0 and at most 1.
        seed: Draws the ranking within classes and the order of classes.

    Raises:
        ConfigError: a fraction is outside of that, or so small that its subset is empty.
    """
    for fraction in fractions:
        if not 0 < fraction <= 1:
            raise ConfigError(f"fraction {float(fraction):g}; give numbers above 0 and at most 1, as in 0.1 0.2 0.5 1")
    places = _places(labels, sample_ids, seed=seed)
    subsets = [[index for index, place in enumerate(places) if place < fraction] for fraction in fractions]
    for fraction, subset in zip(fractions, subsets, strict=True):
        if not subset:
            raise ConfigError(f"a fraction of {float(fraction):g} of {len(labels)} samples is empty; give a larger one")
    return subsets


def balance_of(labels: Sequence[str], subset: Sequence[int], fraction: Fraction) -> Balance:
    """Counts of the classes in a subset that should hold this fraction of each."""
    whole = _counts(labels)
    inside = _counts([labels[index] for index in subset])
    return Balance(
        num_classes=len(whole),
        num_absent=len(whole) - len(inside),
        fewest=min(inside.values(), default=0),
        most=max(inside.values(), default=0),
        largest_deviation=max(abs(inside.get(name, 0) - fraction * count) for name, count in whole.items()),
    )


def exact_fraction(written: str) -> Fraction:
    """What a person wrote: "0.1" is one tenth; ConfigError if it is no number or its exponent has over two digits."""
    try:
        # Exact numbers have all their digits: 1e1000000000 would take hours.
        if len(written.lower().partition("e")[2].strip().lstrip("+-")) > _EXPONENT_DIGITS:
            raise ValueError("its exponent is too large")
        return Fraction(written)
    except (ValueError, ZeroDivisionError) as error:
        raise ConfigError(f"fraction {written!r} is no number; give for example 0.1 or 1/8") from error


def _places(labels: Sequence[str], sample_ids: np.ndarray, *, seed: int) -> list[Fraction]:
    scores = words(seed, 0, sample_ids, SUBSET_STREAM)
    members: dict[str, list[int]] = {}
    for index, label in enumerate(labels):
        members.setdefault(label, []).append(index)
    names = sorted(members)
    class_ids = np.array([sample_id_of(name) for name in names], dtype=np.int64)
    order = np.argsort(words(seed, 0, class_ids, BALANCE_STREAM), kind="stable")
    places = [Fraction(0)] * len(labels)
    for rank, number in enumerate(order.tolist()):
        offset = Fraction(2 * rank + 1, 2 * len(names))
        ranked = sorted(members[names[number]], key=lambda index: (int(scores[index]), int(sample_ids[index])))
        for position, index in enumerate(ranked):
            places[index] = (position + offset) / len(ranked)
    return places


def _counts(labels: Sequence[str]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for label in labels:
        counts[label] = counts.get(label, 0) + 1
    return counts
