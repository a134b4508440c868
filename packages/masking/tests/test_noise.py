"""The noise: known answers, an independent implementation, and statistics with stated thresholds."""

import re
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


@given(count=st.integers(1, 70), epoch=words32)
def test_a_range_of_indices_is_the_same_noise(count, epoch):
    keys = ids(3, -1, 2**40)
    np.testing.assert_array_equal(noise_range(9, epoch, keys, count), noise(9, epoch, keys, np.arange(count)))


def test_epoch_may_differ_by_sample():
    together = noise(1, ids(4, 9), ids(7, 8), np.arange(5))
    np.testing.assert_array_equal(together[:1], noise(1, 4, ids(7), np.arange(5)))
    np.testing.assert_array_equal(together[1:], noise(1, 9, ids(8), np.arange(5)))


def test_noise_is_uniform_in_every_byte():
    """Chi-squared over 256 bins of each byte, 2**18 values: below 360, the 0.9999875 quantile at 255 degrees."""
    values = noise(0, 0, np.arange(1024), np.arange(256)).ravel()
    for shift in (0, 8, 16, 24):
        counts = np.bincount((values >> shift) & 0xFF, minlength=256)
        chi_squared = ((counts - 1024.0) ** 2 / 1024.0).sum()
        assert 160 < chi_squared < 360, (shift, chi_squared)


def changed_bits(key_name: str, bit: int) -> float:
    """Mean number of output bits that change when one bit of one key changes, over 4096 (sample, index) pairs."""
    keys = {"seed": 12345, "epoch": 3, "sample_id": np.arange(64, dtype=np.int64) * 7919, "index": np.arange(64)}
    before = noise(keys["seed"], keys["epoch"], keys["sample_id"], keys["index"])
    keys[key_name] = keys[key_name] ^ (1 << bit if bit < 63 else -(2**63))
    after = noise(keys["seed"], keys["epoch"], keys["sample_id"], keys["index"])
    differing = np.bitwise_xor(before, after).astype(np.uint64).view(np.uint8)
    return float(np.unpackbits(differing).sum() / before.size)


@pytest.mark.parametrize(
    ("key_name", "num_bits"), [("seed", 63), ("epoch", 32), ("sample_id", 64), ("index", 32)], ids=str
)
def test_every_key_bit_changes_half_of_the_output_bits(key_name, num_bits):
    """Avalanche: 16 of 32 bits on average; the mean of 4096 has standard deviation 0.044, the bound is 0.25."""
    means = [changed_bits(key_name, bit) for bit in range(num_bits)]
    assert max(abs(mean - 16.0) for mean in means) < 0.25


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
