"""Loss spikes: losses far above what the steps before had, by a robust threshold.

A step is a spike if its loss lies above median + 8 · 1.4826 · MAD of up to 100 losses before it, of which there have to
be 20. 1.4826 · MAD is the standard deviation of a normal distribution (Rousseeuw and Croux, 1993), and neither median
nor MAD is moved by the spikes themselves.
"""

import statistics
from collections import deque
from collections.abc import Iterable
from typing import Final

__all__ = ["SpikeDetector"]

_WINDOW: Final = 100
_FEWEST: Final = 20
_DEVIATIONS: Final = 8.0
# Of the median: losses that are equal to the last digits have a MAD of zero, and any change would be a spike.
_SMALLEST: Final = 1e-3


class SpikeDetector:
    """Looks at the losses of a run one by one."""

    def __init__(self, before: Iterable[float] = ()) -> None:
        """Begin with the losses of the steps before, if a run continues."""
        self._losses = deque(before, maxlen=_WINDOW)

    def threshold(self) -> float | None:
        """The largest loss that is no spike now; None while too few are known."""
        if len(self._losses) < _FEWEST:
            return None
        median = statistics.median(self._losses)
        deviation = 1.4826 * statistics.median(abs(loss - median) for loss in self._losses)
        return median + _DEVIATIONS * max(deviation, _SMALLEST * abs(median))

    def is_spike(self, loss: float) -> bool:
        """Whether this step's loss is one; it is remembered for the next."""
        limit = self.threshold()
        self._losses.append(loss)
        return limit is not None and loss > limit
