"""The difference of two cells over the same images, with an interval by resampling images.

Most of the spread of a score is between images, and cancels when two checkpoints are compared image by image. With
several seeds the values of an image are averaged over them first. The interval says what other validation images would
give; only more seeds say what another training run would give, and the words below say so.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from unveil_pretrain.errors import ConfigError

__all__ = ["Difference", "compare", "in_words"]

_DRAWS: Final = 2000
_CONFIDENCE: Final = 0.95
_AT_ONCE: Final = 2**22


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """Mean of b − a over images, its standard error and its interval."""

    value: float
    standard_error: float
    low: float
    high: float
    num_images: int

    @property
    def told(self) -> bool:
        """Whether the interval leaves 0 out."""
        return self.low > 0.0 or self.high < 0.0


def compare(a: np.ndarray, b: np.ndarray, *, seed: int = 0) -> Difference:
    """Mean of b − a [n], standard error, and the 95 % percentile interval of 2,000 resamplings of the images.

    Raises:
        ConfigError: the images differ in number, or there are fewer than two.
    """
    if a.shape != b.shape or len(a) < 2:
        raise ConfigError(f"{len(a)} and {len(b)} images cannot be paired; score both on the same two or more images")
    differences = b - a
    generator = np.random.default_rng(seed)
    means: list[np.ndarray] = []
    step = max(1, _AT_ONCE // len(a))
    for start in range(0, _DRAWS, step):
        chosen = generator.integers(len(a), size=(min(step, _DRAWS - start), len(a)))
        means.append(differences[chosen].mean(axis=1))
    low, high = np.quantile(np.concatenate(means), [(1 - _CONFIDENCE) / 2, (1 + _CONFIDENCE) / 2])
    error = float(differences.std(ddof=1) / np.sqrt(len(a)))
    return Difference(
        value=float(differences.mean()), standard_error=error, low=float(low), high=float(high), num_images=len(a)
    )


def in_words(difference: Difference, *, higher_is_better: bool) -> str:
    """Whether b is better, worse, or not to be told from a."""
    if not difference.told:
        return "no difference can be told"
    return "better" if (difference.value > 0.0) == higher_is_better else "worse"
