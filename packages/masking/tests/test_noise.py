"""The noise: known answers, an independent implementation, and statistics with stated thresholds."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from unveil_masking import KeyArrayError, MaskingError, noise
from unveil_masking._noise import noise_range
from unveil_masking._philox import philox4x32

WORD = 0xFFFFFFFF
README = Path(__file__).parents[1] / "README.md"
words32 = st.integers(0, WORD)

# Known answers of Random123 1.14 (kat_vectors, "philox4x32 10"): counter, key, result.
KNOWN_ANSWERS = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((WORD, WORD, WORD, WORD), (WORD, WORD), (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


def plain_philox(counter: tuple[int, ...], key: tuple[int, int]) -> tuple[int, ...]:
    """Philox4x32-10 on Python integers, straight from the paper: the oracle for the array version."""
    c, k = list(counter), list(key)
    for _ in range(10):
        left, right = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(right >> 32) ^ c[1] ^ k[0], right & WORD, (left >> 32) ^ c[3] ^ k[1], left & WORD]
        k = [(k[0] + 0x9E3779B9) & WORD, (k[1] + 0xBB67AE85) & WORD]
    return tuple(c)


def plain_noise(seed: int, epoch: int, sample_id: int, index: int) -> int:
    counter = (index >> 2, sample_id & WORD, (sample_id >> 32) & WORD, epoch & WORD)
    return plain_philox(counter, (seed & WORD, seed >> 32))[index & 3]


def ids(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int64)


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN_ANSWERS)
def test_philox_gives_the_known_answers_of_random123(counter, key, expected):
    given_words = tuple(ids(word) for word in counter)
    assert tuple(int(word[0]) for word in philox4x32(given_words, key)) == expected
    assert plain_philox(counter, key) == expected


@given(
    seed=st.integers(0, 2**64 - 1),
    epoch=words32,
    sample_id=st.integers(-(2**63), 2**63 - 1),
    index=words32,
)
def test_noise_equals_the_plain_integer_oracle(seed, epoch, sample_id, index):
    assert noise(seed, epoch, ids(sample_id), ids(index))[0, 0] == plain_noise(seed, epoch, sample_id, index)


def test_readme_test_vectors_are_what_the_code_gives():
    rows = re.findall(r"^\| (\d+) \| (\d+) \| (-?\d+) \| (\d+) \| `0x([0-9a-f]{8})` \|$", README.read_text(), re.M)
    assert len(rows) >= 6
    for *key, expected in rows:
        seed, epoch, sample_id, index = (int(value) for value in key)
        assert noise(seed, epoch, ids(sample_id), ids(index))[0, 0] == int(expected, 16), key


@given(count=st.integers(0, 70), first=st.integers(0, 20), epoch=words32)
def test_a_range_of_indices_is_the_same_noise(count, first, epoch):
    keys = ids(3, -1, 2**40)
    expected = noise(9, epoch, keys, np.arange(count) + 4 * first)
    np.testing.assert_array_equal(noise_range(9, epoch, keys, count, first=4 * first), expected)


@pytest.mark.parametrize(("batch", "count"), [(5000, 30), (3, 70_000), (1, 131_077)], ids=str)
def test_long_ranges_and_large_batches_are_the_same_noise(batch, count):
    """They are computed in pieces; the words around each piece's borders are compared with the plain definition."""
    keys, epochs = np.arange(batch) * 2**33 - 5, np.arange(batch) * 3
    words = noise_range(7, epochs, keys, count)
    for row in {0, batch // 2, batch - 1}:
        index = np.unique(np.concatenate([np.arange(9), np.arange(65_530, 65_542), np.arange(count - 9, count)]))
        index = index[index < count]
        expected = noise(7, epochs[row : row + 1], keys[row : row + 1], index)[0]
        np.testing.assert_array_equal(words[row, index], expected)


def test_epoch_may_differ_by_sample():
    together = noise(1, ids(4, 9), ids(7, 8), np.arange(5))
    np.testing.assert_array_equal(together[:1], noise(1, 4, ids(7), np.arange(5)))
    np.testing.assert_array_equal(together[1:], noise(1, 9, ids(8), np.arange(5)))


def chi_squared(cells: np.ndarray, num_cells: int) -> np.ndarray:
    """Chi-squared of each column of cell numbers [values, columns] against a uniform distribution over the cells."""
    flat = cells + num_cells * np.arange(cells.shape[1])
    counts = np.bincount(flat.ravel(), minlength=num_cells * cells.shape[1]).reshape(cells.shape[1], num_cells)
    expected = cells.shape[0] / num_cells
    return ((counts - expected) ** 2 / expected).sum(1)


def worst_deviation(cells: np.ndarray, num_cells: int) -> float:
    """The largest chi-squared of all columns, in standard deviations above or below its mean (Wilson and Hilferty)."""
    freedom = num_cells - 1
    normal = ((chi_squared(cells, num_cells) / freedom) ** (1 / 3) - 1 + 2 / (9 * freedom)) / np.sqrt(2 / (9 * freedom))
    return float(np.abs(normal).max())


DEVIATIONS = 5.0
"""Bound of `worst_deviation`: one of 2,000 columns passes it by chance with probability 0.001."""


def every_position(values: np.ndarray) -> float:
    """Uniformity per position: 256 cells of the first and of the last byte of each index, over samples."""
    return max(worst_deviation((values >> shift) & 0xFF, 256) for shift in (0, 24))


def every_pair(values: np.ndarray) -> float:
    """Independence of pairs: 16 × 16 cells of the first four bits of any two positions."""
    first, second = np.triu_indices(values.shape[1], 1)
    top = values >> 28
    return worst_deviation(top[:, first] * 16 + top[:, second], 256)


def test_every_position_is_uniform_and_every_pair_of_positions_independent():
    """8,192 samples: 196 positions of an image, and all 1,891 pairs of 62 positions."""
    samples = np.arange(8192)
    assert every_position(noise(0, 0, samples, np.arange(196))) < DEVIATIONS
    assert every_pair(noise(1, 5, samples, np.arange(62))) < DEVIATIONS


def test_every_pair_of_keys_is_independent():
    """The same for 62 neighbouring sample ids, epochs and seeds, over indices."""
    index, counts = np.arange(8192), np.arange(62)
    assert every_pair(noise(3, 0, counts, index).T) < DEVIATIONS
    assert every_pair(noise(3, counts, 0 * counts, index).T) < DEVIATIONS
    assert every_pair(np.concatenate([noise(seed, 0, ids(9), index) for seed in range(62)]).T) < DEVIATIONS


def multiplicative(samples: np.ndarray, index: np.ndarray) -> np.ndarray:
    """A hash that looks random and is not: Knuth's multiplier on sample + index."""
    return ((samples[:, None] * 31 + index) * 2654435761) & WORD


def test_the_checks_of_uniformity_and_independence_can_fail():
    samples, good = np.arange(8192), noise(0, 0, np.arange(8192), np.arange(62))
    assert every_pair(multiplicative(samples, np.arange(62))) > DEVIATIONS
    skewed = good.copy()
    skewed[:300, 40] |= 0xFF << 24
    assert every_position(skewed) > DEVIATIONS
    copied = good.copy()
    copied[:800, 50] = copied[:800, 3]
    assert every_pair(copied) > DEVIATIONS


def changed_bits(hash_of: Callable[..., np.ndarray], key_name: str, bit: int) -> np.ndarray:
    """How often each of 32 output bits changes when one bit of one key does, over 4096 (sample, index) pairs."""
    keys = {"seed": 12345, "epoch": 3, "sample_ids": np.arange(64) * 7919, "index": np.arange(64)}
    before = hash_of(**keys)
    keys[key_name] = keys[key_name] ^ (1 << bit if bit < 63 or key_name == "seed" else -(2**63))
    differing = np.bitwise_xor(before, hash_of(**keys)).ravel()
    return ((differing[:, None] >> np.arange(32)) & 1).mean(0)


@pytest.mark.parametrize(
    ("key_name", "num_bits"), [("seed", 64), ("epoch", 32), ("sample_ids", 64), ("index", 32)], ids=str
)
def test_every_key_bit_changes_half_of_the_output_bits(key_name, num_bits):
    """Avalanche: of each output bit one half, with a standard deviation of 0.0078; the bound is 0.045 (5.8 of them)."""
    assert max(np.abs(changed_bits(noise, key_name, bit) - 0.5).max() for bit in range(num_bits)) < 0.045


def test_the_check_of_avalanche_can_fail():
    def weak(seed, epoch, sample_ids, index):
        return multiplicative(sample_ids ^ seed, index ^ epoch)

    assert np.abs(changed_bits(weak, "sample_ids", 5) - 0.5).max() > 0.045


def test_neighbouring_samples_and_epochs_are_uncorrelated():
    """Correlation of 2**16 pairs has standard deviation 0.004; the bound is 0.02."""
    values = noise(5, 0, np.arange(513), np.arange(128)).astype(float)
    other_epoch = noise(5, 1, np.arange(513), np.arange(128)).astype(float)
    for left, right in ((values[:-1], values[1:]), (values, other_epoch), (values[:, :-1], values[:, 1:])):
        assert abs(np.corrcoef(left.ravel(), right.ravel())[0, 1]) < 0.02


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((-1, 0, ids(1), ids(0)), r"seed=-1 is not an int in \[0, 2\*\*64\)"),
        ((2**64, 0, ids(1), ids(0)), "seed=18446744073709551616"),
        ((0.5, 0, ids(1), ids(0)), "seed=0.5"),
        ((0, -1, ids(1), ids(0)), r"epoch=-1 is outside \[0, 2\*\*32\)"),
        ((0, 2**32, ids(1), ids(0)), "epoch=4294967296"),
        ((0, ids(1, 2), ids(1), ids(0)), r"epoch has shape \(2,\) but sample_ids \(1,\)"),
        ((0, 1.5, ids(1), ids(0)), "epoch .* is a float"),
        ((0, 0, [1, 2], ids(0)), "sample_ids is a list. Give a one-dimensional int64"),
        ((0, 0, np.array([0.5]), ids(0)), "sample_ids has dtype float64"),
        ((0, 0, np.array([True]), ids(0)), "sample_ids has dtype bool"),
        ((0, 0, np.zeros((2, 2), dtype=np.int64), ids(0)), r"shape \(2, 2\). Give one integer per sample"),
        ((0, 0, ids(1), 3), "index is a int"),
    ],
)
def test_bad_keys_are_named(arguments, message):
    with pytest.raises(KeyArrayError, match=message) as caught:
        noise(*arguments)
    assert isinstance(caught.value, MaskingError)
    assert isinstance(caught.value, ValueError)
