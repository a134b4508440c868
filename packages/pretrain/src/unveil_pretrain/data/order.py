"""Which samples step s sees: a stateless permutation per epoch, so that a run can restart at any step.

The permutation of {0, ..., n-1} is a Feistel network on pairs (left mod rows, right mod columns) with rows·columns just
above n, walked along its cycles until the value falls below n (Black and Rogaway, "Ciphers with arbitrary finite
domains", 2002, methods 3 and 2). Any single position is computed without building the permutation: there is no state to
save and no memory that grows with n.
"""

import math
from typing import Final

import numpy as np

from unveil_pretrain.data.streams import ORDER_STREAM, words
from unveil_pretrain.errors import ConfigError

__all__ = ["permuted", "step_indices", "step_ranks"]

# Four rounds suffice when the halves are wide (Luby and Rackoff, 1988); those of small data sets are a few bits wide,
# where more rounds are needed and cost nothing.
_ROUNDS: Final = 12


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
    rows = math.isqrt(num_samples - 1) + 1
    columns = -(-num_samples // rows)
    values = _feistel(positions, epochs, rows, columns, seed)
    outside = np.flatnonzero(values >= num_samples)
    while outside.size:
        values[outside] = _feistel(values[outside], epochs[outside], rows, columns, seed)
        outside = outside[values[outside] >= num_samples]
    return values


def step_indices(num_samples: int, batch_size: int, step: int, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Epochs (int64 [b]) and sample indices (int64 [b]) of one step's batch; see `step_ranks`."""
    epochs, positions = step_ranks(num_samples, batch_size, step)
    return epochs, permuted(num_samples, positions, epochs, seed=seed)


def step_ranks(num_samples: int, batch_size: int, step: int) -> tuple[np.ndarray, np.ndarray]:
    """Epochs (int64 [b]) of one step's batch, and positions (int64 [b]) within their permutations.

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
    return np.divmod(ranks, num_samples)


def _feistel(values: np.ndarray, epochs: np.ndarray, rows: int, columns: int, seed: int) -> np.ndarray:
    """One pass of the keyed network over [0, rows·columns); int64 [b] in and out, a bijection for each epoch."""
    left, right = np.divmod(values, columns)
    for index in range(ORDER_STREAM, ORDER_STREAM + _ROUNDS, 2):
        left = (left + words(seed, epochs, right, index)) % rows
        right = (right + words(seed, epochs, left, index + 1)) % columns
    return left * columns + right
