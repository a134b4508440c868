"""Integer logarithms and Gumbel noise: against `math.log`, against the distribution, and on both libraries."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from unveil_masking import noise
from unveil_masking._fixed_point import FRACTION_BITS, gumbel, log

UNIT = 2.0**-FRACTION_BITS
# Rounding of the table may lift the result a little: 0.0058 units at 92963, the most in 536,000 numbers up to 2^33.
ABOVE = 0.01


def log_error(number: int) -> float:
    """How far the fixed-point logarithm is below the true one."""
    return math.log(number) - int(log(np.array([number]))[0]) * UNIT


@given(number=st.integers(1, 2**33))
def test_log_is_below_the_logarithm_by_two_units_at_most(number):
    assert -UNIT * ABOVE <= log_error(number) <= 2 * UNIT


@given(number=st.integers(2**33, 2**53 - 1))
def test_log_of_large_numbers(number):
    assert -UNIT * ABOVE <= log_error(number) <= 2 * UNIT


def test_log_at_and_around_powers_of_two_and_never_decreasing():
    numbers = sorted({2**e + step for e in range(2, 50) for step in (-1, 0, 1)} | {1, 2, 3})
    values = log(np.array(numbers))
    assert max(abs(log_error(number)) for number in numbers) <= 2 * UNIT
    assert (np.diff(values) >= 0).all()
    assert log(np.array([1])) == 0
    around = log(np.arange(6074000999 - 2000, 6074000999 + 2000))  # where the reduction changes sides
    assert (np.diff(around) >= 0).all()


def reference_gumbel(words: np.ndarray) -> np.ndarray:
    """−ln(−ln u) in floating point, with u as documented."""
    return -np.log(-np.log1p(-(words + 0.5) / 2**32))


def gumbel_error(words: np.ndarray) -> np.ndarray:
    return np.abs(gumbel(words) * UNIT - reference_gumbel(words))


def test_gumbel_follows_its_formula():
    """Within 2⁻¹⁸; for the largest of 2¹⁸ values, whose exponential variate has few bits left, within 0.02."""
    words = noise(3, 0, np.arange(64), np.arange(4096)).ravel()
    words = np.concatenate([words, [2**32 - 1, 2**32 - 2, 2**31, 2**31 - 1]])
    assert gumbel_error(words[words >= 2**14]).max() < 2.0**-18
    assert gumbel_error(np.arange(2**14)).max() < 0.02
    assert (np.diff(gumbel(np.arange(2**14))) <= 0).all()


def kolmogorov_smirnov(values: np.ndarray) -> float:
    """Largest distance of the empirical distribution from exp(−exp(−x))."""
    ordered = np.sort(values)
    return float(np.abs(np.exp(-np.exp(-ordered)) - (np.arange(len(ordered)) + 0.5) / len(ordered)).max())


def test_gumbel_is_gumbel():
    """2¹⁸ values: the distance exceeds 2.2 / 2⁹ = 0.0043 with probability 1.3e-4. Shifted noise fails."""
    values = gumbel(noise(11, 0, np.arange(512), np.arange(512))).ravel() * UNIT
    assert kolmogorov_smirnov(values) < 0.0043
    assert kolmogorov_smirnov(values + 0.02) > 0.0043
    assert kolmogorov_smirnov(values * 1.02) > 0.0043


@given(numbers=st.lists(st.integers(1, 2**53 - 1), min_size=1, max_size=50), seed=st.integers(0, 99))
def test_bit_identical_on_torch(numbers, seed):
    torch = pytest.importorskip("torch")
    given_numbers, words = np.array(numbers), noise(seed, 0, np.arange(3), np.arange(9))
    np.testing.assert_array_equal(log(torch.tensor(given_numbers)).numpy(), log(given_numbers))
    np.testing.assert_array_equal(gumbel(torch.tensor(words)).numpy(), gumbel(words))
