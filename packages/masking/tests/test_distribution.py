"""Masks without rectangles against independent references: all subsets alike, SimMIM's construction, weighted draws.

Chi-squared has the mean of its degrees of freedom; "5 deviations" is passed by chance with probability below 1e-6 on
each side. Seeds are fixed. Each check is shown to fail on a changed strategy.
"""

import itertools
import math

import numpy as np
import pytest
from unveil_masking import (
    BlockMask,
    FrameMask,
    Grid,
    GridMask,
    GuidedMask,
    RandomMask,
    RatioRange,
    SplitMask,
    TubeMask,
    UnitMask,
)


def deviations(observed: np.ndarray, expected: np.ndarray) -> float:
    """How far chi-squared is above its mean, in standard deviations (Wilson and Hilferty)."""
    freedom = len(expected) - 1
    chi_squared = ((observed - expected) ** 2 / expected).sum()
    return float(((chi_squared / freedom) ** (1 / 3) - 1 + 2 / (9 * freedom)) / math.sqrt(2 / (9 * freedom)))


def subsets_of(mask: np.ndarray, num_hidden: int) -> np.ndarray:
    """How often each subset of `num_hidden` columns was the hidden one, in lexicographic order."""
    names = mask @ (1 << np.arange(mask.shape[1]))
    subsets = itertools.combinations(range(mask.shape[1]), num_hidden)
    return np.array([(names == sum(1 << column for column in subset)).sum() for subset in subsets])


IDS = np.arange(20_000)


@pytest.mark.parametrize(
    ("strategy", "grid", "columns", "num_hidden"),
    [
        (RandomMask(0.5), Grid(2, 3), slice(None), 3),
        (RandomMask(0.5, share="clip"), Grid(2, 3, 2), slice(6, 12), 3),
        (UnitMask(2, 0.5), Grid(4, 6), [0, 2, 4, 12, 14, 16], 3),
        (SplitMask(), Grid(1, 7), slice(None), 3),
        (TubeMask(0.7), Grid(2, 3, 2), slice(0, 6), 4),
        (FrameMask(0.6), Grid(1, 2, 6), slice(0, 12, 2), 3),
        (RatioRange(RandomMask(0), 0.4, 0.4), Grid(1, 6), slice(None), 2),
        (BlockMask(0.5, min_block=16, exact=True), Grid(2, 3), slice(None), 3),  # no block fits
    ],
    ids=str,
)
def test_every_subset_of_units_is_hidden_equally_often(strategy, grid, columns, num_hidden):
    observed = subsets_of(strategy.sample(grid, IDS, seed=0).mask[:, columns], num_hidden)
    assert observed.sum() == len(IDS)
    assert deviations(observed, np.full(len(observed), len(IDS) / len(observed))) < 5


def test_the_check_of_subsets_can_fail():
    mask = RandomMask(0.5).sample(Grid(2, 3), IDS, seed=0).mask.copy()
    mask[:500] = mask[0]
    assert deviations(subsets_of(mask, 3), np.full(20, len(IDS) / 20)) > 5


def simmim(units: int, unit: int, ratio: float, draw: np.random.Generator) -> np.ndarray:
    """SimMIM's construction: the first of a permutation of all units are hidden, and each unit becomes its tokens."""
    chosen = draw.permutation(units * units)[: math.ceil(units * units * ratio)]
    mask = np.zeros(units * units, dtype=bool)
    mask[chosen] = True
    return mask.reshape(units, units).repeat(unit, 0).repeat(unit, 1).reshape(-1)


def test_unit_masks_are_those_of_simmim():
    """6 × 6 units of 8 × 8 tokens: how often each unit and each pair is hidden, ours and the reference's, 4,000 each.

    A difference of two frequencies has a standard deviation below 0.0112 (units: 0.0109); the largest of 630 pairs
    passes 5 of them with probability below 4e-4.
    """
    draw = np.random.default_rng(0)
    theirs = np.stack([simmim(6, 8, 0.6, draw) for _ in range(4000)])
    ours = UnitMask(8, 0.6).sample(Grid(48, 48), np.arange(4000), seed=0).mask
    corners = (8 * np.arange(6)[:, None] * 48 + 8 * np.arange(6)).ravel()
    for masks in (ours, theirs):
        by_unit = masks.reshape(-1, 6, 8, 6, 8)
        assert (by_unit == by_unit[:, :, :1, :, :1]).all()
    a, b = (masks[:, corners].astype(float) for masks in (ours, theirs))
    assert (a.sum(1) == 22).all()
    assert (b.sum(1) == 22).all()
    together = np.abs(a.T @ a - b.T @ b) / 4000
    assert together.max() < 5 * 0.0112
    changed = UnitMask(8, 0.5).sample(Grid(48, 48), np.arange(4000), seed=0).mask[:, corners].astype(float)
    assert np.abs(changed.T @ changed - b.T @ b).max() / 4000 > 5 * 0.0112


def test_every_phase_of_a_lattice_comes_equally_often():
    kept = ~GridMask(2).sample(Grid(4, 4), IDS, seed=1).mask
    observed = kept[:, [0, 1, 4, 5]].sum(0)
    assert observed.sum() == len(IDS)
    assert deviations(observed, np.full(4, len(IDS) / 4)) < 5


def successive(weights: np.ndarray, count: int) -> np.ndarray:
    """Probability of each subset when drawing one after the other without replacement, proportionally to weights."""
    chances = []
    for subset in itertools.combinations(range(len(weights)), count):
        chance = 0.0
        for order in itertools.permutations(subset):
            left, product = weights.sum(), 1.0
            for item in order:
                product *= weights[item] / left
                left -= weights[item]
            chance += product
        chances.append(chance)
    return np.array(chances)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_gumbel_masks_are_weighted_draws_without_replacement(temperature):
    logits = np.array([0.0, 1.0, -1.0, 0.5, 2.0, 0.0])
    scores = np.broadcast_to(logits, (len(IDS), 6))
    mask = GuidedMask(0.5, "gumbel", temperature).sample(Grid(2, 3), IDS, seed=2, scores=scores).mask
    expected = len(IDS) * successive(np.exp(logits / temperature), 3)
    assert deviations(subsets_of(mask, 3), expected) < 5
    other = GuidedMask(0.5, "gumbel", temperature * 1.3).sample(Grid(2, 3), IDS, seed=2, scores=scores).mask
    assert deviations(subsets_of(other, 3), expected) > 5


@pytest.mark.parametrize("choice", ["top", "gumbel"])
def test_equal_scores_are_a_random_mask(choice):
    mask = GuidedMask(0.5, choice).sample(Grid(2, 3), IDS, seed=3, scores=np.full((len(IDS), 6), 7.5)).mask
    assert deviations(subsets_of(mask, 3), np.full(20, len(IDS) / 20)) < 5


def test_easy_tokens_are_drawn_from_all_others():
    """Of 6 hidden of 12, 3 are the largest scores; the rest are any 3 of the other 9."""
    scores = np.broadcast_to(np.arange(12.0), (len(IDS), 12))
    mask = GuidedMask(0.5, easy=0.5).sample(Grid(3, 4), IDS, seed=4, scores=scores).mask
    assert mask[:, 9:].all()
    assert deviations(subsets_of(mask[:, :9], 3), np.full(84, len(IDS) / 84)) < 5


def kolmogorov_smirnov(values: np.ndarray) -> float:
    """Distance of the empirical distribution from the uniform one on [0, 1]."""
    ordered = np.sort(values)
    return float(np.abs(ordered - (np.arange(len(ordered)) + 0.5) / len(ordered)).max())


@pytest.mark.parametrize("spread", ["batch", "sample"])
@pytest.mark.parametrize("strategy", [RandomMask(0), BlockMask(exact=True)], ids=str)
def test_ratios_are_uniform_in_their_range(spread, strategy):
    """2,000 samples on 50 × 50 tokens: 0.05 is passed with probability 1e-4, and a range of 0.1 to 0.45 fails."""
    ids = np.arange(2000)
    grid = Grid(50, 50)
    for high, uniform in ((0.5, True), (0.45, False)):
        ratios = RatioRange(strategy, 0.1, high, spread).sample(grid, ids, seed=5).ratios
        assert (kolmogorov_smirnov((ratios - 0.1) / 0.4) < 0.05) == uniform


def test_ratios_of_a_batch_lie_one_in_each_equal_part_of_the_range():
    """DINOv2: of 64 samples the 32 masked ones divide [0.1, 0.5] evenly, whatever the ids; who gets which varies."""
    grid, places = Grid(100, 100), []
    for start in (0, 64, 10**12):
        counts = RatioRange(RandomMask(0), masked=0.5).sample(grid, start + np.arange(64), seed=6).mask.sum(1)
        masked = np.sort(counts[counts > 0])
        assert len(masked) == 32
        edges = 10_000 * (0.1 + 0.4 * np.arange(33) / 32)
        assert (masked >= np.floor(edges[:-1])).all()
        assert (masked <= edges[1:]).all()
        places.append(tuple(np.argsort(counts)))
    assert len(set(places)) == 3


def test_each_sample_is_masked_with_the_probability_asked_for():
    """20,000 samples: the share has a standard deviation of 0.0032; the bound is 0.016."""
    counts = RatioRange(RandomMask(0), spread="sample", masked=0.3).sample(Grid(4, 5), IDS, seed=7).mask.sum(1)
    assert abs((counts > 0).mean() - 0.3) < 0.016
