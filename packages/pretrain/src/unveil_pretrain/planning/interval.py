"""How well a study of n cells will know the correlation of validation loss and transfer.

Two answers, because neither is the truth. Fisher's z gives the interval of n independent cells from a bivariate normal
distribution (Fisher 1921); a correlation near -1 has a narrow one. Drawing n of the 63 published runs, with repetition,
shows how far the coefficient of a real study strays, curved relation, over-fitted runs and all. Cells of one model are
not independent: whole models drawn again give wider intervals than either. No torch here.
"""

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from unveil_pretrain.errors import PlanError
from unveil_pretrain.planning.published import published_runs

__all__ = ["MIN_CELLS", "Interval", "fisher_interval", "pearson", "published_correlation", "published_interval"]

MIN_CELLS = 4
"""Fisher's interval needs n - 3 to be positive."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Interval:
    """An interval of a correlation."""

    low: float
    high: float

    @property
    def width(self) -> float:
        """From end to end."""
        return self.high - self.low


def fisher_interval(correlation: float, num_cells: int, *, confidence: float = 0.95) -> Interval:
    """The interval that n cells give around an observed correlation.

    Args:
        correlation: The coefficient, inside (-1, 1).
        num_cells: n, at least 4.
        confidence: Level, inside (0, 1).

    Raises:
        PlanError: a value is outside its range.
    """
    if num_cells < MIN_CELLS or not -1.0 < correlation < 1.0 or not 0.0 < confidence < 1.0:
        raise PlanError(
            f"an interval of correlation {correlation} at {confidence} needs at least {MIN_CELLS} cells, a correlation "
            f"between -1 and 1 and a level between 0 and 1; there are {num_cells} cells"
        )
    reach = NormalDist().inv_cdf(0.5 + confidence / 2) / math.sqrt(num_cells - 3)
    centre = math.atanh(correlation)
    return Interval(low=math.tanh(centre - reach), high=math.tanh(centre + reach))


def published_interval(
    num_cells: int, *, without_overfitting: bool = False, confidence: float = 0.95, num_draws: int = 4000, seed: int = 0
) -> Interval:
    """Where the correlation lies when n of the published runs are drawn, with repetition.

    Args:
        num_cells: n.
        without_overfitting: Draw from models and data whose loss fell all the way.
        confidence: Share of the draws inside.
        num_draws: How often to draw.
        seed: Of the draws.

    Raises:
        PlanError: there are fewer than 4 cells.
    """
    if num_cells < MIN_CELLS:
        raise PlanError(f"{num_cells} cells have no interval; give at least {MIN_CELLS}")
    points = _points(without_overfitting=without_overfitting)
    drawn = np.random.default_rng(seed).integers(0, len(points), (num_draws, num_cells))
    with np.errstate(invalid="ignore"):  # one run drawn n times has no correlation
        found = pearson(points[drawn, 0], points[drawn, 1])
    low, high = np.nanquantile(found, [0.5 - confidence / 2, 0.5 + confidence / 2])
    return Interval(low=float(low), high=float(high))


def pearson(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Correlation along the last axis."""
    x, y = x - x.mean(axis=-1, keepdims=True), y - y.mean(axis=-1, keepdims=True)
    return (x * y).sum(-1) / np.sqrt((x * x).sum(-1) * (y * y).sum(-1))


def published_correlation(*, without_overfitting: bool = False) -> float:
    """Pearson's coefficient of the published runs."""
    points = _points(without_overfitting=without_overfitting)
    return float(pearson(points[:, 0], points[:, 1]))


def _points(*, without_overfitting: bool) -> np.ndarray:
    """Validation loss and accuracy of each run, [n, 2]."""
    runs = published_runs()
    cells: dict[tuple[str, str], list[float]] = {}
    for run in sorted(runs, key=lambda run: run.steps):
        cells.setdefault((run.model, run.data), []).append(run.val_loss)
    falling = {cell for cell, losses in cells.items() if losses == sorted(losses, reverse=True)}
    return np.array(
        [(run.val_loss, run.top1) for run in runs if not without_overfitting or (run.model, run.data) in falling]
    )
