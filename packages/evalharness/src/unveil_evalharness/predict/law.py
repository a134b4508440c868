"""A scaling law of the validation loss: L(N, T, D) for N parameters, T steps and D different training images.

With n, t, d the logarithms of N, T and D over their geometric means,

    L = E + A exp(-a n) + C exp(-b t) + O [other source] + M sigmoid(k + q n + p t - r d)

The first terms are the additive power laws of Hoffmann et al. 2022 (arXiv 2203.15556, equation 2), with steps in the
place of samples. The last is ours: what over-fitting adds, which grows with parameters and steps, falls with images,
and saturates, as the published losses of small data sets do (arXiv 2206.04664). It is left out where no loss rises.
``O`` is the offset of losses of runs on another source than the most frequent one (only where there are two).
"""

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from jaxtyping import Float, Int
from scipy.optimize import least_squares
from scipy.special import expit

from unveil_evalharness.errors import ResultsError
from unveil_evalharness.predict.known import KnownRuns

__all__ = ["Law", "LawData", "bootstrap_laws", "fit_law", "law_data"]

_NAMES = ("E", "log A", "log a", "log C", "log b", "O", "log M", "k", "q", "log p", "log r")
_NUM_PLAIN = 6
_RUNS_PER_PARAMETER = 2
_NUM_STARTS = 24
_SOFT = 0.002
"""Residual from which a run counts less than its square (soft L1): about the scatter of the published losses."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LawData:
    """Runs as the law sees them: logarithms over their means, and losses."""

    n: Float[np.ndarray, " r"]
    t: Float[np.ndarray, " r"]
    d: Float[np.ndarray, " r"]
    other: Float[np.ndarray, " r"]
    """1 for a run on another source than the most frequent one."""
    loss: Float[np.ndarray, " r"]
    pair: Int[np.ndarray, " r"]
    centre: tuple[float, float, float]
    """Geometric means of parameters, steps and images."""
    over_fits: bool
    """Whether any loss rises with length."""

    def keep(self, rows: Int[np.ndarray, " k"]) -> "LawData":
        """Some of the runs, in the given order, repetitions allowed."""
        return LawData(
            n=self.n[rows], t=self.t[rows], d=self.d[rows], other=self.other[rows], loss=self.loss[rows],
            pair=self.pair[rows], centre=self.centre, over_fits=self.over_fits,
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Law:
    """A fitted law."""

    parameters: Float[np.ndarray, " p"]
    centre: tuple[float, float, float]
    residual_deviation: float
    """Root mean square of the residuals, in loss."""

    def __call__(
        self, params: Float[np.ndarray, "*s"], steps: Float[np.ndarray, "*s"], images: Float[np.ndarray, "*s"]
    ) -> Float[np.ndarray, "*s"]:
        """Losses of runs on the most frequent source; arguments broadcast."""
        n, t, d = (
            np.log(np.asarray(value, dtype=np.float64) / centre)
            for value, centre in zip((params, steps, images), self.centre, strict=True)
        )
        return _loss(self.parameters, n, t, d, 0.0)

    def named(self) -> dict[str, float]:
        """The parameters by name."""
        return dict(zip(_NAMES, map(float, self.parameters), strict=False))


def law_data(known: KnownRuns) -> LawData:
    """The known runs as arrays.

    Raises:
        ResultsError: fewer than two runs for each parameter, or no variation in parameters or steps.
    """
    over_fits = any(run.rises for run in known.runs)
    needed = _RUNS_PER_PARAMETER * (len(_NAMES) if over_fits else _NUM_PLAIN)
    sizes = np.array([(run.params, run.steps, run.images) for run in known.runs], dtype=np.float64)
    if len(known) < needed or any(len(np.unique(sizes[:, column])) < 3 for column in (0, 1)):
        raise ResultsError(
            f"{len(known)} runs in {known.origin} do not carry a scaling law; {needed} runs of at least 3 model sizes "
            "and 3 lengths are needed"
        )
    logs = np.log(sizes)
    centre = logs.mean(axis=0)
    n, t, d = (logs - centre).T
    sources = [run.source for run in known.runs]
    main = max(dict.fromkeys(sources), key=sources.count)
    return LawData(
        n=n,
        t=t,
        d=d,
        other=np.array([float(source != main) for source in sources]),
        loss=np.array([run.loss for run in known.runs]),
        pair=np.unique(np.array([run.pair for run in known.runs]), return_inverse=True)[1],
        centre=(float(np.exp(centre[0])), float(np.exp(centre[1])), float(np.exp(centre[2]))),
        over_fits=over_fits,
    )


def fit_law(data: LawData, *, seed: int = 0) -> Law:
    """The law of least soft-L1 error over several starts."""
    spread = float(np.ptp(data.loss))
    base = np.array([data.loss.min(), np.log(spread), -1.5, np.log(spread), -1.5, 0.0])
    if data.over_fits:
        base = np.concatenate([base, [np.log(spread), -2.0, 0.5, 0.0, 0.0]])
    generator = np.random.default_rng(seed)
    starts = base + generator.normal(0.0, 0.5, (_NUM_STARTS, len(base))) * (np.arange(len(base)) > 0)
    fits = [_descend(data, start) for start in starts]
    return min(fits, key=lambda pair: pair[1])[0]


def bootstrap_laws(data: LawData, law: Law, *, num_resamples: int, seed: int = 0) -> list[Law]:
    """Laws fitted to resampled pairs of model and data (whole pairs, since their lengths err together)."""
    generator = np.random.default_rng(seed)
    members = [np.flatnonzero(data.pair == pair) for pair in range(int(data.pair.max()) + 1)]
    laws = []
    for _ in range(num_resamples):
        chosen = generator.integers(0, len(members), len(members))
        laws.append(_descend(data.keep(np.concatenate([members[pair] for pair in chosen])), law.parameters)[0])
    return laws


def _descend(data: LawData, start: Float[np.ndarray, " p"]) -> tuple[Law, float]:
    def residuals(parameters: Float[np.ndarray, " p"]) -> Float[np.ndarray, " r"]:
        return _loss(parameters, data.n, data.t, data.d, data.other) - data.loss

    low, high = np.full(len(start), -12.0), np.full(len(start), 12.0)
    low[[2, 4]], high[[2, 4]] = -4.0, 1.0  # exponents between 0.02 and 2.7: beyond, a term is a constant or a step

    def slopes(parameters: Float[np.ndarray, " p"]) -> Float[np.ndarray, "r p"]:
        return _slopes(parameters, data)

    found = least_squares(
        residuals,
        np.clip(start, low + 1e-6, high - 1e-6),
        jac=cast(Any, slopes),  # scipy's annotation knows only the names of difference schemes
        bounds=(low, high),
        x_scale="jac",
        loss="soft_l1",
        f_scale=_SOFT,
        ftol=1e-7,
        xtol=1e-7,
        max_nfev=200,
    )
    deviation = float(np.sqrt(np.mean(residuals(found.x) ** 2)))
    return Law(parameters=found.x, centre=data.centre, residual_deviation=deviation), float(found.cost)


def _loss(parameters: Float[np.ndarray, " p"], n: object, t: object, d: object, other: object) -> np.ndarray:
    n, t, d, other = (np.asarray(value, dtype=np.float64) for value in (n, t, d, other))
    floor, size, size_power, length, length_power, offset = parameters[:_NUM_PLAIN]
    loss = floor + np.exp(size - np.exp(size_power) * n) + np.exp(length - np.exp(length_power) * t) + offset * other
    if len(parameters) == _NUM_PLAIN:
        return loss
    height, start, by_size, by_length, by_images = parameters[_NUM_PLAIN:]
    return loss + np.exp(height) * expit(start + by_size * n + np.exp(by_length) * t - np.exp(by_images) * d)


def _slopes(parameters: Float[np.ndarray, " p"], data: LawData) -> Float[np.ndarray, "r p"]:
    """Derivatives of the losses by the parameters."""
    _, size, size_power, length, length_power, _ = parameters[:_NUM_PLAIN]
    by_model = np.exp(size - np.exp(size_power) * data.n)
    by_steps = np.exp(length - np.exp(length_power) * data.t)
    columns = [
        np.ones_like(data.n),
        by_model,
        -by_model * np.exp(size_power) * data.n,
        by_steps,
        -by_steps * np.exp(length_power) * data.t,
        data.other,
    ]
    if len(parameters) > _NUM_PLAIN:
        height, start, by_size, by_length, by_images = parameters[_NUM_PLAIN:]
        share = expit(start + by_size * data.n + np.exp(by_length) * data.t - np.exp(by_images) * data.d)
        added = np.exp(height) * share
        steep = added * (1 - share)
        columns += [
            added,
            steep,
            steep * data.n,
            steep * np.exp(by_length) * data.t,
            -steep * np.exp(by_images) * data.d,
        ]
    return np.stack(columns, axis=1)
