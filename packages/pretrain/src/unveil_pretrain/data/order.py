"""Which samples step s sees: a stateless permutation per epoch, so that a run can restart at any step.

The permutation of {0, ..., n-1} is a Feistel network over an even number of bits that holds n, walked along its cycles
until the value falls below n (Black and Rogaway, "Ciphers with arbitrary finite domains", 2002). Any single position
is computed without building the permutation: no state to save, no memory that grows with n.
"""

from typing import Final

import numpy as np

from unveil_pretrain.data.streams import ORDER_STREAM, words
from unveil_pretrain.errors import ConfigError

__all__ = ["permuted", "step_indices"]

# Four rounds suffice when the halves are wide (Luby and Rackoff, 1988); those of small data sets are a few bits wide,
# where more rounds are needed and cost nothing.
_ROUNDS: Final = 8


def permuted(num_samples: int, positions: np.ndarray, epochs: np.ndarray, *, seed: int) -> np.ndarray:
    """Sample index at each position of its epoch's permutation.

    Args:
        num_samples: n, the number of samples; positive.
        positions: int64 [b], each in [0, n).
        epochs: int64 [b], the epoch whose permutation each position refers to.
        seed: Seed of the run.

    Returns:
        int64 [b]; for a fixed epoch, positions 0..n-1 give each of 0..n-1 once.
    """
    half_bits = max(2, ((num_samples - 1).bit_length() + 1) // 2)
    if num_samples == 1:
        return np.zeros_like(positions)
    values = _feistel(positions, epochs, half_bits, seed)
    outside = np.flatnonzero(values >= num_samples)
    while outside.size:
        values[outside] = _feistel(values[outside], epochs[outside], half_bits, seed)
        outside = outside[values[outside] >= num_samples]
    return values


def step_indices(num_samples: int, batch_size: int, step: int, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Epochs (int64 [b]) and sample indices (int64 [b]) of one step's batch.

    The permutations of successive epochs are laid end to end and cut into batches: batches run across epoch borders,
    every sample is seen once per epoch, and the sequence of samples does not depend on the batch size.

    Raises:
        ConfigError: a size is not positive or the step is negative.
    """
    if num_samples < 1 or batch_size < 1 or step < 0:
        raise ConfigError(
            f"num_samples={num_samples}, batch_size={batch_size}, step={step}: "
            "the sizes must be at least 1 and the step at least 0"
        )
    ranks = np.arange(step * batch_size, (step + 1) * batch_size, dtype=np.int64)
    epochs, positions = np.divmod(ranks, num_samples)
    return epochs, permuted(num_samples, positions, epochs, seed=seed)


def _feistel(values: np.ndarray, epochs: np.ndarray, half_bits: int, seed: int) -> np.ndarray:
    """One pass of the keyed network over integers of 2·half_bits bits; int64 [b] in and out, a bijection per epoch."""
    low_mask = (1 << half_bits) - 1
    left, right = values >> half_bits, values & low_mask
    for index in range(ORDER_STREAM, ORDER_STREAM + _ROUNDS):
        mixed = words(seed, epochs, right, index) & low_mask
        left, right = right, left ^ mixed
    return (left << half_bits) | right
