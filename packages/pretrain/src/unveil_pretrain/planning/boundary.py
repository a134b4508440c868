"""Which runs will over-fit, by the published ones.

A published run over-fits if its validation loss is higher than that of the run half as long on the same model and data.
Told by passes over the training images, every model has a boundary: above some number of passes all of its runs
over-fit, below some lower number none does, and between the two nothing was published. Both numbers fall as models
grow. Between the published sizes they are interpolated, log epochs over log parameters; beyond the smallest and the
largest model they are kept as they are, and said to be outside of what was published. No torch here.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import Literal

from unveil_pretrain.planning.published import PublishedRun, published_runs

__all__ = ["Boundary", "Verdict", "boundaries", "judge"]

Outcome = Literal["over-fits", "near the boundary", "no over-fitting"]

_SLACK = 1.05  # the published sizes and epochs are themselves rounded


@dataclass(frozen=True, kw_only=True, slots=True)
class Boundary:
    """Passes over the training images at which the runs of one model begin to over-fit."""

    model: str
    """S, B, L, H or g."""
    num_parameters: float
    """Of the encoder."""
    highest_without: float
    """The largest number of passes at which a longer run was still better than the shorter one."""
    lowest_with: float
    """The smallest number of passes at which it was worse."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """What the published runs say about a run."""

    outcome: Outcome
    """Whether its validation loss is expected to have turned up at its end."""
    highest_without: float
    """Passes up to which a model of this size did not over-fit."""
    lowest_with: float
    """Passes from which on it did."""
    outside: tuple[str, ...]
    """In what the run lies outside of what was published; the verdict is then an extrapolation."""

    def words(self) -> str:
        """One phrase for a table."""
        if not self.outside:
            return self.outcome
        return f"{self.outcome}? outside of what was published ({', '.join(self.outside)})"


def boundaries(runs: Sequence[PublishedRun] | None = None) -> tuple[Boundary, ...]:
    """The boundary of each published model, by size; of the runs given, or of all."""
    every = published_runs() if runs is None else runs
    found: list[Boundary] = []
    for model in dict.fromkeys(run.model for run in every):
        own = sorted((run for run in every if run.model == model), key=lambda run: (run.num_images, run.steps))
        fell: list[float] = []
        rose: list[float] = []
        for _, cell in groupby(own, key=lambda run: run.num_images):
            for shorter, longer in pairwise(cell):
                (rose if longer.val_loss > shorter.val_loss else fell).append(longer.epochs)
        found.append(
            Boundary(
                model=model, num_parameters=own[0].num_parameters, highest_without=max(fell), lowest_with=min(rose)
            )
        )
    return tuple(sorted(found, key=lambda boundary: boundary.num_parameters))


def judge(
    *,
    num_parameters: int,
    num_images: int,
    epochs: float,
    objective: str,
    encoder: str,
    image_size: tuple[int, int],
    known: Sequence[Boundary] | None = None,
) -> Verdict:
    """What the published runs say about a run.

    Args:
        num_parameters: Of its encoder.
        num_images: Training images.
        epochs: Passes over them.
        objective: Name of the objective; published is "simmim".
        encoder: Name of the encoder; published are SwinV2.
        image_size: Height and width in pixels; published is 192.
        known: Boundaries to go by; all published ones if None.
    """
    every = boundaries() if known is None else known
    low = _interpolate(every, num_parameters, lambda boundary: boundary.highest_without)
    high = _interpolate(every, num_parameters, lambda boundary: boundary.lowest_with)
    outcome: Outcome = "near the boundary"
    if epochs <= low * _SLACK:
        outcome = "no over-fitting"
    if epochs >= high / _SLACK:
        outcome = "over-fits"
    runs = published_runs()
    ranges = {
        "parameters": (num_parameters, [run.num_parameters for run in runs]),
        "images": (num_images, [run.num_images for run in runs]),
        "epochs": (epochs, [run.epochs for run in runs]),
    }
    outside = [
        name
        for name, (value, published) in ranges.items()
        if not min(published) / _SLACK <= value <= max(published) * _SLACK
    ]
    others = {
        "objective": objective != "simmim",
        "encoder": not encoder.startswith("swinv2"),
        "image size": image_size != (192, 192),
    }
    outside += [name for name, differs in others.items() if differs]
    return Verdict(outcome=outcome, highest_without=low, lowest_with=high, outside=tuple(outside))


def _interpolate(known: Sequence[Boundary], num_parameters: float, of: Callable[[Boundary], float]) -> float:
    """Log epochs over log parameters, constant beyond the ends."""
    if num_parameters <= known[0].num_parameters:
        return of(known[0])
    for left, right in pairwise(known):
        if num_parameters <= right.num_parameters:
            width = math.log(right.num_parameters / left.num_parameters)
            share = math.log(num_parameters / left.num_parameters) / width
            return math.exp((1 - share) * math.log(of(left)) + share * math.log(of(right)))
    return of(known[-1])
