"""The over-fitting alarm: has the validation loss risen since some validation, and is it more than noise?

At every validation, and for several candidate change points before it, a line is fitted to the losses since then. Its
slope is compared with two kinds of noise at once:

- of the run: validations scatter about the line, since training moves the weights about; from the residuals.
- of the images: other validation images would give another slope; from the slopes of single images, which are paired,
  since every validation scores the same images under the same masks. This is the noise that is the same from one
  validation to the next, and that residuals cannot show.

The alarm is raised when Student's tail probability of slope / √(se² of the run + se² of the images) is below the stated
rate divided by the number of all tests that a whole run makes. By the union bound, at most that share of runs raises
it falsely, where "falsely" means: the expected loss never rises, and scatters normally about its course, neighbouring
validations being correlated by at most a half. For a falling loss the share is smaller still: its slope is negative and
its residuals are larger. Tests simulate all of this, and that the bound breaks where it should. No torch here.

Whether a rise matters is another question: see `WHAT_A_RISE_MEANS`.

Shapes: t validations, n independent images (or pools).
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Final

import numpy as np

from unveil_pretrain.errors import ConfigError
from unveil_pretrain.student import student_tail

__all__ = [
    "FALSE_ALARM_RATE", "MIN_IMAGES", "WHAT_A_RISE_MEANS", "WINDOWS", "Alarm", "detect_rise", "num_tests",
]  # fmt: skip

FALSE_ALARM_RATE: Final = 0.05
"""Share of runs whose expected loss never rises that raise the alarm at any time, at most."""
WINDOWS: Final = (5, 6, 8, 12, 16, 24, 32, 48, 64)
"""Numbers of validations, the present one included, since a candidate change point."""
CORRELATION: Final = 0.4
"""Assumed between neighbouring validations, falling off geometrically; by simulation the bound then holds up to 0.5."""
MIN_IMAGES: Final = 10
"""Independent images (or pools) without which there is no noise of the images to speak of, and no alarm."""
WHAT_A_RISE_MEANS: Final = (
    "In the published table of 63 SimMIM runs (Xie et al., arXiv:2206.04664), accuracy after fine-tuning rose at all "
    "28 of the 28 steps to longer training at which the validation loss fell, and at 7 of the 14 at which it rose: a "
    "falling loss has always meant better transfer, a rising one is a coin toss. Evaluate before you stop."
)
"""What is known of the consequences."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Alarm:
    """A rise that noise does not explain."""

    step: int
    """The validation that raised the alarm."""
    since_step: int
    """The validation from which on the loss has risen, by the strongest of the tests."""
    num_validations: int
    """Validations from there to here."""
    rise: float
    """How much the fitted line rises from there to here."""
    standard_error: float
    """Of that rise: both kinds of noise."""
    p_value: float
    """Of this test alone."""
    level: float
    """What the p-value had to be below: the rate over the number of tests in a whole run."""
    false_alarm_rate: float
    """Share of runs without a rise that raise the alarm at any time, at most."""

    def to_json(self) -> dict[str, int | float]:
        """Plain values, by the names of the fields."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, int | float]) -> "Alarm":
        """Read what `to_json` wrote; TypeError where it is something else."""
        return cls(**values)  # pyright: ignore[reportArgumentType]


def num_tests(num_validations: int) -> int:
    """Tests that a run with so many validations makes in all."""
    return sum(max(0, num_validations - window + 1) for window in WINDOWS)


def detect_rise(
    steps: Sequence[int], values: np.ndarray, *, num_validations: int, rate: float = FALSE_ALARM_RATE
) -> Alarm | None:
    """The alarm of the last of some validations, or None.

    Args:
        steps: Steps [t] of the validations so far, rising; only the last 64 are looked at.
        values: Losses [t, n] of the same independent images (or pools) in each of them.
        num_validations: Validations that the whole run will have.
        rate: The share of runs that may raise a false alarm.

    Raises:
        ConfigError: the rate is not in (0, 0.5], or there are more validations than the whole run has.
    """
    if not 0.0 < rate <= 0.5:
        raise ConfigError(f"the false-alarm rate is {rate}; give a number in (0, 0.5], for example 0.05")
    if len(steps) > num_validations:
        raise ConfigError(f"there are {len(steps)} validations of {num_validations}; give the number of the whole run")
    if values.shape[1] < MIN_IMAGES or len(steps) < WINDOWS[0]:
        return None
    level = rate / num_tests(num_validations)
    windows = [window for window in WINDOWS if window <= len(steps)]
    lines = [_line(np.array(steps[-window:], dtype=np.float64), values[-window:]) for window in windows]
    p_values = [_p_value(float(rise), float(error), degrees) for rise, error, degrees in lines]
    best = min(range(len(lines)), key=lambda index: (p_values[index], -index))  # of equals the longest
    rise, error, p_value = float(lines[best][0]), float(lines[best][1]), p_values[best]
    if p_value >= level:
        return None
    return Alarm(
        step=steps[-1],
        since_step=steps[-windows[best]],
        num_validations=windows[best],
        rise=rise,
        standard_error=error,
        p_value=p_value,
        level=level,
        false_alarm_rate=rate,
    )


def _line(steps: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """Rise of the fitted line over a window of losses [..., t, n], its standard error, and the degrees of freedom."""
    centred = (steps - steps.mean()) / (steps[-1] - steps[0])
    weights = centred / (centred @ centred)  # of the losses in the rise
    means = values.mean(axis=-1)
    rise = means @ weights
    residuals = means - means.mean(axis=-1, keepdims=True) - rise[..., None] * centred
    factor, degrees = _scatter(tuple(np.round(centred, 9).tolist()), CORRELATION)
    of_images = (weights @ values).var(axis=-1, ddof=1) / values.shape[-1]
    return rise, np.sqrt(factor * (residuals**2).sum(axis=-1) + of_images), degrees


def _p_value(rise: float, error: float, degrees: int) -> float:
    if error == 0.0:
        return 0.0 if rise > 0.0 else 1.0
    return student_tail(rise / error, degrees)


@lru_cache(maxsize=256)
def _scatter(centred: tuple[float, ...], neighbours: float) -> tuple[float, int]:
    """From the sum of squared residuals to the variance of the rise, were neighbours so correlated.

    The residuals then are smaller than the scatter, and the rise varies more than for independent validations; degrees
    of freedom are Satterthwaite's (Box 1954, Annals of Mathematical Statistics 25(2), theorem 3.1), rounded down.

    Args:
        centred: Steps [t] of a window, centred, over its length.
        neighbours: Correlation of neighbouring validations.
    """
    line = np.array(centred)
    weights, lags = line / (line @ line), np.arange(len(line))
    correlation = neighbours ** np.abs(lags[:, None] - lags[None, :])
    design = np.stack([np.ones(len(line)), line], axis=1)
    left = np.eye(len(line)) - design @ np.linalg.pinv(design)  # takes values to residuals
    seen = left @ correlation
    scale = float(np.trace(seen))
    return float(weights @ correlation @ weights) / scale, max(1, int(scale**2 / float((seen * seen.T).sum()) + 1e-9))
