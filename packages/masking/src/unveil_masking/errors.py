"""The errors of this package.

```
MaskingError (ValueError)
├── GridError         the token grid is impossible
├── RatioError        the ratio is impossible, or hides every token of this grid
├── UnitError         the mask unit does not tile the grid
├── KeyArrayError     seed, epoch, sample_ids or index cannot key the noise
└── TokenShapeError   tokens, fill or mask do not fit the partition
```

Every message says what was given, what is allowed, and what to do next.
"""

__all__ = ["GridError", "KeyArrayError", "MaskingError", "RatioError", "TokenShapeError", "UnitError"]


class MaskingError(ValueError):
    """Base of all errors raised by `unveil_masking`."""


class GridError(MaskingError):
    """The token grid is impossible."""


class RatioError(MaskingError):
    """The mask ratio is impossible, or hides every token of the given grid."""


class UnitError(MaskingError):
    """The mask unit does not tile the given grid."""


class KeyArrayError(MaskingError):
    """`seed`, `epoch`, `sample_ids` or `index` cannot key the noise."""


class TokenShapeError(MaskingError):
    """Tokens, fill or mask do not fit the partition."""
