"""Philox4x32-10, the counter-based generator of Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3" (SC 2011).

Four 32-bit counter words and two 32-bit key words go in, four 32-bit words come out. The words are carried in int64
arrays, because PyTorch has no unsigned 32-bit arithmetic. No product overflows: both multipliers exceed 2³¹, so
`M = m + 2³²` with a negative `m`, and for a word `x`

    high(M·x) = ((m·x) >> 32) + x        low(M·x) = (m·x) & 0xFFFFFFFF

with an arithmetic shift and |m·x| < 2⁶³. Hence NumPy, torch on CPU and torch on CUDA give the same bits.
"""

from typing import Any

__all__ = ["philox4x32"]

_WORD = 0xFFFFFFFF
_ROUNDS = 10
_MULTIPLIERS = (0xD2511F53 - 2**32, 0xCD9E8D57 - 2**32)
_WEYL = (0x9E3779B9, 0xBB67AE85)  # golden ratio and sqrt(3) − 1: the key steps of the paper


def philox4x32(counter: tuple[Any, Any, Any, Any], key: tuple[int, int]) -> tuple[Any, Any, Any, Any]:
    """One block of four words per counter.

    Args:
        counter: four int64 arrays with values in [0, 2³²) that broadcast together.
        key: two integers in [0, 2³²).

    Returns:
        Four int64 arrays of the broadcast shape with values in [0, 2³²).
    """
    first, second, third, fourth = counter
    for turn in range(_ROUNDS):
        key_first, key_second = ((key[i] + turn * _WEYL[i]) & _WORD for i in range(2))
        product, other = first * _MULTIPLIERS[0], third * _MULTIPLIERS[1]
        first, second, third, fourth = (
            ((other >> 32) + third) ^ second ^ key_first,
            other & _WORD,
            ((product >> 32) + first) ^ fourth ^ key_second,
            product & _WORD,
        )
    return first, second, third, fourth
