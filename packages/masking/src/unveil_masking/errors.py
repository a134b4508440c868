"""The errors of this package.

```
MaskingError (ValueError)
├── GridError         the token grid is impossible
├── RatioError        the ratio is impossible, or hides every token of this grid
├── UnitError         the mask unit does not tile the grid
├── CountError        an operation needs equal counts, and this strategy hides unequal numbers of tokens
├── ScoreError        scores, ranks or frequencies do not fit the tokens
├── KeyArrayError     seed, epoch, sample_ids or index cannot key the noise
└── TokenShapeError   tokens, fill or mask do not fit the partition
```

Every message says what was given, what is allowed, and what to do next.
"""

__all__ = [
    "CountError",
    "GridError",
    "KeyArrayError",
    "MaskingError",
    "RatioError",
    "ScoreError",
    "TokenShapeError",
    "UnitError",
]


class MaskingError(ValueError):
    """Base of all errors raised by `unveil_masking`."""


class GridError(MaskingError):
    """The token grid is impossible."""


class RatioError(MaskingError):
    """The mask ratio is impossible, or hides every token of the given grid."""


class UnitError(MaskingError):
    """The mask unit does not tile the given grid."""


class CountError(MaskingError):
    """An operation needs the same number of kept tokens in every sample, and the samples of this partition differ."""


class ScoreError(MaskingError):
    """Scores, ranks or frequencies do not fit the tokens they are to order."""


class KeyArrayError(MaskingError):
    """`seed`, `epoch`, `sample_ids` or `index` cannot key the noise."""


class TokenShapeError(MaskingError):
    """Tokens, fill or mask do not fit the partition."""
