"""``evalharness predict``: a run's downstream score before it is measured, and whether it needs measuring.

Exit status: 0 done, 2 bad input, 3 when the run and the known runs are not comparable.
"""

import dataclasses
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unveil_backbones.errors import CheckpointError
from unveil_backbones.manifest import read_manifest
from unveil_backbones.places import is_there
from unveil_backbones.whole_files import write_whole

from unveil_evalharness.correlate.evidence import read_evidence
from unveil_evalharness.errors import CheckpointInputError, NotComparableError, OutputError, UsageError, one_line
from unveil_evalharness.predict.decision import Decision, decide
from unveil_evalharness.predict.early import forecast_early
from unveil_evalharness.predict.forecast import Forecast, forecast
from unveil_evalharness.predict.known import (
    KnownRuns,
    Query,
    known_from_evidence,
    known_from_table,
    query_from_manifest,
)

if TYPE_CHECKING:
    from unveil_evalharness.plot import Figure

__all__ = ["PredictOptions", "main"]

NOT_COMPARABLE = 3
_FEWEST_RESAMPLES = 20
_PUBLISHED_UNIT = "percent"


@dataclass(frozen=True, kw_only=True, slots=True)
class PredictOptions:
    """Forecast what a run will score downstream from runs that are known, and say whether to measure it."""

    run: str | None = None
    """A checkpoint or run folder, or the name of a known run, which is then left out of those learnt from. Left out:
    only the scaling law and its figures."""
    task: str = "imagenet_ft"
    """Task (its main metric) or metric."""
    known: tuple[Path, ...] = ()
    """Output folders of `evalharness run` to learn from, separated by commas."""
    published: str = ""
    """A published table to learn from instead: xie2023."""
    at_steps: int | None = None
    """Forecast for this length, later than the run's last loss."""
    level: float = 0.9
    """Share of intervals that shall hold the truth."""
    margin: float | None = None
    """The smallest difference that matters, in the metric's unit: with it the answer ends in skip or run."""
    threshold: float | None = None
    """A value to reach: when the interval lies on one side of it, measuring can be skipped."""
    figures: Path | None = None
    """Also write figures here, as SVG and PNG: the forecast, the scaling law, the over-fitting boundary."""
    num_resamples: int = 100
    """Bootstrap resamples behind the bands of the scaling law."""
    json: bool = False
    """Print everything as JSON."""

    def __post_init__(self) -> None:
        """Refuses values no forecast can have."""
        if bool(self.known) == bool(self.published):
            raise UsageError("give either --known OUT[,OUT] or --published NAME: the runs to learn from")
        if not 0.5 <= self.level < 1:
            raise UsageError(f"--level must be at least 0.5 and below 1, got {self.level}")
        if self.num_resamples < _FEWEST_RESAMPLES:
            raise UsageError(f"--num-resamples must be at least {_FEWEST_RESAMPLES}, got {self.num_resamples}")
        if self.run is None and self.figures is None:
            raise UsageError("nothing to do: name a --run to forecast, or a folder for --figures of the scaling law")
        if self.at_steps is not None and self.at_steps < 1:
            raise UsageError(f"--at-steps must be at least 1, got {self.at_steps}")


def main(options: PredictOptions) -> int:
    """Prints the forecast and returns the exit status.

    Raises:
        HarnessError: bad input; the command line turns it into one line and exit status 2.
    """
    known = _known(options)
    try:
        one, measured = (None, None) if options.run is None else _forecast(options, options.run, known)
    except NotComparableError as error:
        sys.stderr.write(f"evalharness: error: {error}\n")
        return NOT_COMPARABLE
    decision = None if one is None else decide(one, margin=options.margin, threshold=options.threshold)
    drawn = [] if options.figures is None else _figures(options, known, one)
    written = [] if options.figures is None else _write(options.figures, drawn)
    record: dict[str, Any] = {
        "forecast": None if one is None else dataclasses.asdict(one),
        "measured": measured,
        "decision": None if decision is None else dataclasses.asdict(decision),
        "figures": [str(path) for path in written],
    }
    if options.json:
        sys.stdout.write(json.dumps(record, indent=2, allow_nan=False, ensure_ascii=False) + "\n")
    else:
        lines = [] if one is None else _words(one, measured, decision)
        lines += [f"{figure.title}. {note}" for figure in drawn for note in figure.notes]
        sys.stdout.write("\n".join([*lines, *(f"figure: {path}" for path in written)]) + "\n")
    return 0


def _known(options: PredictOptions) -> KnownRuns:
    if options.published:
        from unveil_evalharness.published import read_published

        metric = options.task if "." in options.task else f"{options.task}.acc1"
        table = read_published(options.published)
        return known_from_table(table, metric=metric, unit=_PUBLISHED_UNIT, origin=options.published)
    return known_from_evidence(read_evidence(options.known), metric=options.task)


def _forecast(options: PredictOptions, name: str, known: KnownRuns) -> tuple[Forecast, float | None]:
    query = _query(name, known)
    index = next((number for number, run in enumerate(known.runs) if run == query), None)
    if options.at_steps is not None:
        # Longer runs of the same pair would give the answer away.
        rest = known.keep([run.pair != query.pair for run in known.runs])
        later = [i for i, run in enumerate(known.runs) if run.pair == query.pair and run.steps == options.at_steps]
        measured = float(known.values[later[0]]) if later else None
        return forecast_early(rest, query, at_steps=options.at_steps, level=options.level), measured
    rest = known.keep([number != index for number in range(len(known))])
    return forecast(rest, query, level=options.level), None if index is None else float(known.values[index])


def _query(name: str, known: KnownRuns) -> Query:
    path = Path(name)
    if not is_there(path):
        return known.find(name)
    try:
        return query_from_manifest(read_manifest(path))
    except (CheckpointError, OSError) as error:
        raise CheckpointInputError(f"--run: {one_line(error)}") from error


def _words(one: Forecast, measured: float | None, decision: Decision | None) -> list[str]:
    calibration = one.calibration
    level = f"{calibration.level:.0%}".replace("%", " %")
    at = f" at {one.at_steps:,} steps, from its loss at {one.steps:,}" if one.at_steps != one.steps else ""
    lines = [
        f"{one.label}{at}: {one.metric} {one.value:.3f} [{one.low:.3f}, {one.high:.3f}] ({one.unit}, {level} interval)",
        f"- From {', '.join(one.features)} of {one.num_runs} runs of {one.origin}.",
        f"- Leaving out each of {calibration.num_groups} groups by {calibration.groups} in turn, "
        f"{calibration.coverage:.1%} of the intervals held the truth; mean absolute error "
        f"{calibration.mean_absolute_error:.3f}.",
        "- Nearest: "
        + "; ".join(f"{near.label} (loss {near.loss:.4f}, {near.value:.3f})" for near in one.neighbours)
        + ".",
    ]
    if one.extrapolates:
        lines.append(f"- EXTRAPOLATION: {'; '.join(one.extrapolates)}; the interval is not tested out there.")
    if one.rises:
        lines.append("- Its validation loss has been lower before: a warning, not a measurement (see correlate).")
    if measured is not None:
        side = "inside" if one.low <= measured <= one.high else "OUTSIDE of"
        lines.append(f"- Measured: {measured:.3f}, {side} the interval (it was left out of the fit).")
    if decision is not None:
        lines.append(f"- Decision: {decision.action} the fine-tuning: {decision.reason}.")
    return lines


def _figures(options: PredictOptions, known: KnownRuns, one: Forecast | None) -> "list[Figure]":
    from unveil_evalharness.predict import figures
    from unveil_evalharness.predict.law import bootstrap_laws, fit_law, law_data

    data = law_data(known)
    law = fit_law(data)
    resampled = bootstrap_laws(data, law, num_resamples=options.num_resamples)
    drawn = [figures.law_figure(known, law, resampled, level=options.level)]
    if data.over_fits:
        drawn.append(figures.boundary_figure(known, law, resampled, level=options.level))
    if one is not None:
        drawn.append(figures.forecast_figure(known, one))
    return drawn


def _write(folder: Path, drawn: "Sequence[Figure]") -> list[Path]:
    from unveil_evalharness.report.papers import paper_files

    written = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for figure in drawn:
            files = paper_files(figure)
            for suffix, content in ((".svg", files.svg), (".png", files.png)):
                written.append(folder / f"{figure.name}{suffix}")
                write_whole(written[-1], content)
    except OSError as error:
        raise OutputError(
            f"cannot write --figures {folder}: {error.strerror or error}; choose another folder"
        ) from error
    return written
