"""Whether a downstream run is worth its cost, given what the forecast says and how much a difference matters."""

from dataclasses import dataclass
from typing import Literal

from unveil_evalharness.errors import UsageError
from unveil_evalharness.predict.forecast import Forecast

__all__ = ["Decision", "decide"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Decision:
    """What to do, and why in one sentence."""

    action: Literal["skip", "run"]
    reason: str


def decide(forecast: Forecast, *, margin: float | None, threshold: float | None) -> Decision | None:
    """The rule, in this order; None when neither a margin nor a threshold is given.

    1. A run unlike all known ones: run. The interval was tested on runs like those known only.
    2. A loss that has risen: run. Known runs whose loss rose went either way (see `correlate`).
    3. The interval lies wholly on one side of `threshold`: skip, the answer is known.
    4. The interval's half-width is at most `margin`: skip, the fine-tuning would move nothing that matters.
    5. Else: run.

    Args:
        forecast: the forecast.
        margin: the smallest difference that matters, in the metric's unit.
        threshold: the value the run has to reach.

    Raises:
        UsageError: `margin` is not positive.
    """
    if margin is not None and not margin > 0:
        raise UsageError(f"--margin must be positive, got {margin}; it is the smallest difference that matters to you")
    if margin is None and threshold is None:
        return None
    if forecast.extrapolates:
        return Decision(action="run", reason=f"the run is unlike all known ones: {'; '.join(forecast.extrapolates)}")
    if forecast.rises:
        return Decision(
            action="run", reason="its validation loss has been lower before, and then loss and score may part"
        )
    if threshold is not None and not forecast.low <= threshold <= forecast.high:
        side = "above" if forecast.low > threshold else "below"
        return Decision(action="skip", reason=f"the whole interval lies {side} the threshold {threshold:g}")
    if margin is not None and forecast.half_width <= margin:
        return Decision(action="skip", reason=f"the interval is within ± {margin:g} of the forecast")
    if margin is None:
        return Decision(action="run", reason=f"the interval holds the threshold {threshold:g}")
    return Decision(
        action="run", reason=f"the interval is ± {forecast.half_width:.3g}, wider than the margin ± {margin:g}"
    )
