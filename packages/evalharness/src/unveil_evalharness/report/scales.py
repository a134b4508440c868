"""Axes: where ticks go, how they are written, and where a value falls."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from unveil_evalharness.plot import Panel

__all__ = ["Scale", "tick_text", "x_ticks"]

_PADDING = 0.06
_ROOM, _MANY_TICKS, _FEW_TICKS = 36.0, 7, 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Scale:
    """Maps values from `low` to `high`, both finite, onto positions from `start` to `end`."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    @classmethod
    def around(cls, values: Sequence[float], start: float, end: float, *, log: bool = False) -> "Scale":
        """A scale with some air around `values`; what is not finite (on a log scale: not positive) is left out.

        With nothing left it runs from 0 to 1 (log: 1 to 10).
        """
        usable = [value for value in values if math.isfinite(value) and (value > 0 or not log)]
        if log:
            usable = [math.log10(value) for value in usable]
        low, high = (min(usable), max(usable)) if usable else (0.0, 1.0)
        margin = (high - low) * _PADDING or max(abs(low) * 0.05, 0.05)
        low, high = low - margin, high + margin
        if log:
            low, high = 10**low, 10**high
        return cls(low=low, high=high, start=start, end=end, log=log)

    def __call__(self, value: float) -> float:
        """The position of a value."""
        low, high, at = (
            (math.log10(v) for v in (self.low, self.high, value)) if self.log else (self.low, self.high, value)
        )
        return self.start + (at - low) / (high - low) * (self.end - self.start)

    def holds(self, value: float) -> bool:
        """Whether the value can be placed within the axis."""
        return math.isfinite(value) and self.low <= value <= self.high

    def ticks(self, wanted: int = 5) -> tuple[float, ...]:
        """Round values inside the axis: 1, 2 or 5 times a power of ten."""
        if self.log:
            exponents = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            for digits in ((1, 2, 5), (1, 3), (1,)):
                found = tuple(d * 10.0**e for e in exponents for d in digits if self.holds(d * 10.0**e))
                if 2 <= len(found) <= wanted + 2:
                    return found
            if len(found) > wanted:
                return found[:: -(-len(found) // wanted)]
        raw = (self.high - self.low) / wanted
        magnitude = 10.0 ** math.floor(math.log10(raw))
        multiples = (1, 2, 5, 10)
        chosen = next(i for i, m in enumerate(multiples) if m * magnitude >= raw * (1 - 1e-9))
        found = self._multiples_of(multiples[chosen] * magnitude)
        if len(found) < _FEW_TICKS and chosen:
            found = self._multiples_of(multiples[chosen - 1] * magnitude)
        return found

    def _multiples_of(self, step: float) -> tuple[float, ...]:
        numbers = range(math.ceil(self.low / step), math.floor(self.high / step) + 1)
        return tuple(n * step for n in numbers if self.holds(n * step))


def tick_text(value: float, step: float) -> str:
    """A tick's label, with as many decimals as `step` needs: ``0.45``, ``125k``, ``1.28M``; a true minus sign."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size and abs(step) >= size / 1000:
            text = f"{value / size:.3g}"
            return text.replace("-", "−") + unit
    decimals = max(0, -math.floor(math.log10(abs(step)) + 1e-9)) if step else 0
    text = f"{value:.{min(decimals, 8)}f}"
    return ("0" if float(text) == 0 else text).replace("-", "−")


def x_ticks(panel: Panel, x: Scale) -> tuple[float, ...]:
    """Ticks of the horizontal axis: on a logarithmic one the values themselves where they are few and well apart."""
    if panel.x_log:
        values = sorted({at for series in panel.series if series.style == "points" for at in series.x if at > 0})
        apart = all(x(after) - x(before) >= _ROOM for before, after in pairwise(values))
        if 2 <= len(values) <= _MANY_TICKS and apart:
            return tuple(values)
    return x.ticks(6)
