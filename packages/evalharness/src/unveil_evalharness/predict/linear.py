"""Least squares on a few standardised columns, and its errors when whole groups are left out; numpy only.

Axes: ``r`` runs, ``f`` features (the constant not among them), ``g`` groups.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

__all__ = ["LinearFit", "fit_linear", "leave_group_out_errors"]


@dataclass(frozen=True, kw_only=True, slots=True)
class LinearFit:
    """``value = intercept + coefficients · (features - centre) / spread``."""

    centre: Float[np.ndarray, " f"]
    spread: Float[np.ndarray, " f"]
    """Standard deviation of each column; 1 for a column that is constant, whose coefficient is 0."""
    intercept: float
    coefficients: Float[np.ndarray, " f"]
    whitener: Float[np.ndarray, "f f"]
    """Inverse of the standardised columns' mean square, for `distance`."""

    def standardised(self, features: Float[np.ndarray, "r f"]) -> Float[np.ndarray, "r f"]:
        """Columns with mean 0 and spread 1 over the runs of the fit."""
        return (features - self.centre) / self.spread

    def __call__(self, features: Float[np.ndarray, "r f"]) -> Float[np.ndarray, " r"]:
        """Fitted values."""
        return self.intercept + self.standardised(features) @ self.coefficients

    def distance(self, features: Float[np.ndarray, "r f"]) -> Float[np.ndarray, " r"]:
        """Mahalanobis distance from the centre of the runs of the fit."""
        columns = self.standardised(features)
        return np.sqrt(np.maximum(np.einsum("rf,fg,rg->r", columns, self.whitener, columns), 0.0))


def fit_linear(features: Float[np.ndarray, "r f"], values: Float[np.ndarray, " r"]) -> LinearFit:
    """Ordinary least squares; of columns that say the same, the shortest solution is taken (pseudo-inverse)."""
    centre = features.mean(axis=0)
    spread = features.std(axis=0)
    spread = np.where(spread > 1e-12 * np.maximum(1.0, np.abs(centre)), spread, 1.0)
    columns = (features - centre) / spread
    intercept = float(values.mean())
    coefficients, *_ = np.linalg.lstsq(columns, values - intercept, rcond=1e-10)
    whitener = np.linalg.pinv(columns.T @ columns / len(columns), rcond=1e-10, hermitian=True)
    return LinearFit(centre=centre, spread=spread, intercept=intercept, coefficients=coefficients, whitener=whitener)


def leave_group_out_errors(
    features: Float[np.ndarray, "r f"], values: Float[np.ndarray, " r"], groups: Int[np.ndarray, " r"]
) -> Float[np.ndarray, " r"]:
    """Value minus forecast for every run, forecast by a fit to the runs of all other groups."""
    errors = np.empty_like(values)
    for group in np.unique(groups):
        inside = groups == group
        errors[inside] = values[inside] - fit_linear(features[~inside], values[~inside])(features[inside])
    return errors
