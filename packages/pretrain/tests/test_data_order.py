"""The order of samples: a permutation per epoch, free of batch size and of where a run starts."""

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from unveil_pretrain.data import step_indices
from unveil_pretrain.data.order import permuted
from unveil_pretrain.errors import ConfigError

SIZES = st.integers(1, 400)
SEEDS = st.integers(0, 2**64 - 1)


@settings(deadline=None, max_examples=60)
@given(num_samples=SIZES, epoch=st.integers(0, 2**31), seed=SEEDS)
def test_every_epoch_is_a_permutation(num_samples, epoch, seed):
    epochs = np.full(num_samples, epoch, dtype=np.int64)
    order = permuted(num_samples, np.arange(num_samples), epochs, seed=seed)
    assert sorted(order.tolist()) == list(range(num_samples))


@settings(deadline=None, max_examples=12)
@given(num_samples=st.integers(1, 40), batch_size=st.integers(1, 25), start=st.integers(0, 10), seed=SEEDS)
def test_the_sequence_depends_neither_on_batch_size_nor_on_start(num_samples, batch_size, start, seed):
    steps = [step_indices(num_samples, batch_size, step, seed=seed) for step in range(start, start + 3)]
    ranks = range(start * batch_size, (start + 3) * batch_size)
    one_by_one = [step_indices(num_samples, 1, rank, seed=seed) for rank in ranks]
    for part in (0, 1):
        expected = np.concatenate([single[part] for single in one_by_one])
        assert np.array_equal(np.concatenate([step[part] for step in steps]), expected)


def test_batches_run_across_epochs():
    epochs, indices = step_indices(5, 8, 1, seed=3)  # ranks 8 to 15 of a data set of five
    assert epochs.tolist() == [1, 1, 2, 2, 2, 2, 2, 3]
    assert sorted(indices[2:7].tolist()) == [0, 1, 2, 3, 4]


def test_epochs_and_seeds_give_different_orders():
    first = step_indices(100, 100, 0, seed=0)[1]
    assert not np.array_equal(first, step_indices(100, 100, 1, seed=0)[1])
    assert not np.array_equal(first, step_indices(100, 100, 0, seed=1)[1])


@pytest.mark.parametrize("num_samples", [3, 4, 5])
def test_small_permutations_are_all_equally_likely(num_samples):
    num_epochs, ways = 4000, math.factorial(num_samples)
    epochs = np.repeat(np.arange(num_epochs), num_samples)
    order = permuted(num_samples, np.tile(np.arange(num_samples), num_epochs), epochs, seed=1)
    counts = Counter(map(tuple, order.reshape(num_epochs, num_samples).tolist()))
    expected = num_epochs / ways
    chi_square = sum((counts[key] - expected) ** 2 for key in counts) / expected + expected * (ways - len(counts))
    assert chi_square < (ways - 1) + 5 * math.sqrt(2 * (ways - 1))  # mean and five standard deviations


@pytest.mark.parametrize(("num_samples", "batch_size", "step"), [(0, 1, 0), (1, 0, 0), (1, 1, -1)])
def test_impossible_numbers_are_refused(num_samples, batch_size, step):
    with pytest.raises(ConfigError, match="at least 1"):
        step_indices(num_samples, batch_size, step, seed=0)
