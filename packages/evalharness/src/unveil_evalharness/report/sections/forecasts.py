"""What runs were forecast to score before they were seen, the law of their losses, and where more data is needed."""

from collections.abc import Sequence

from unveil_evalharness.correlate.correlation import Correlation
from unveil_evalharness.correlate.evidence import Evidence
from unveil_evalharness.errors import HarnessError, ResultsError, one_line
from unveil_evalharness.plot import Figure
from unveil_evalharness.predict.figures import boundary_figure, law_figure
from unveil_evalharness.predict.forecast import forecast
from unveil_evalharness.predict.known import KnownRuns, known_from_evidence
from unveil_evalharness.predict.law import bootstrap_laws, fit_law, law_data
from unveil_evalharness.report.content import Section
from unveil_evalharness.report.figures.forecast import Forecasted, forecast_figure
from unveil_evalharness.report.tables import Cell, Table

__all__ = ["MAX_RUNS", "forecast_section", "forecasts_of_evidence"]

LEVEL = 0.9
MAX_RUNS = 400
"""Every run is forecast anew from all others; of more runs than this the report forecasts none."""
_FEWEST_MODELS = 4
_NUM_RESAMPLES = 30


def forecasts_of_evidence(evidence: Evidence, correlation: Correlation) -> Section:
    """Forecasts of each main metric of evaluated checkpoints; what cannot be forecast is said with its reason."""
    sizes: dict[str, int] = {}
    for stratum in correlation.strata:
        if stratum.column.main:
            sizes[stratum.column.metric] = sizes.get(stratum.column.metric, 0) + len(stratum.points)
    sets: list[KnownRuns] = []
    notes: list[str] = []
    for metric, size in sizes.items():
        if size > MAX_RUNS:
            notes.append(f"No forecast of {metric}: {size:,} runs are more than the {MAX_RUNS} forecast one by one.")
            continue
        try:
            sets.append(known_from_evidence(evidence, metric=metric))
        except HarnessError as error:
            notes.append(f"No forecast of {metric}: {one_line(error)}.")
    return forecast_section(sets, notes=notes)


def forecast_section(sets: Sequence[KnownRuns], *, notes: Sequence[str] = ()) -> Section:
    """Forecasts of known runs, each made without the runs of its own group, and the scaling law of the losses."""
    figures: list[Figure] = []
    tables: list[Table] = []
    said = list(notes)
    for known in sets:
        try:
            runs = _left_out(known)
        except HarnessError as error:
            said.append(f"No forecast of {known.metric}: {one_line(error)}.")
            continue
        name = f"forecast_{known.metric.replace('.', '_').replace('@', '_')}"
        figure = forecast_figure(runs, name=name, metric=known.metric, level=LEVEL)
        figures += [] if figure is None else [figure]
        tables.append(_table(known, runs))
    law, reason = _law(sets)
    figures += law
    said += [reason] if reason else []
    return Section(
        key="forecasts", title="Forecasts", paragraphs=tuple(said), figures=tuple(figures), folded=tuple(tables)
    )


def _left_out(known: KnownRuns) -> list[Forecasted]:
    """Every run forecast from the runs of all other groups: models, or model and data where models are few."""
    by_model = len({run.model for run in known.runs}) >= _FEWEST_MODELS
    found = []
    for index, run in enumerate(known.runs):
        group = run.model if by_model else run.pair
        rest = known.keep([(other.model if by_model else other.pair) != group for other in known.runs])
        if not len(rest):
            raise ResultsError(f"all {len(known)} known runs are of one group, and none is left to learn from")
        one = forecast(rest, run, level=LEVEL)
        found.append(
            Forecasted(
                label=run.label,
                group=run.model,
                loss=run.loss,
                measured=float(known.values[index]),
                forecast=one.value,
                low=one.low,
                high=one.high,
            )
        )
    return found


def _law(sets: Sequence[KnownRuns]) -> tuple[list[Figure], str]:
    """The law is of losses alone, so one set of runs is enough."""
    if not sets:
        return [], ""
    known = max(sets, key=len)
    try:
        data = law_data(known)
    except HarnessError as error:
        return [], f"No scaling law: {one_line(error)}."
    law = fit_law(data)
    resampled = bootstrap_laws(data, law, num_resamples=_NUM_RESAMPLES)
    drawn = [law_figure(known, law, resampled, level=LEVEL)]
    drawn += [boundary_figure(known, law, resampled, level=LEVEL)] if data.over_fits else []
    return drawn, ""


def _table(known: KnownRuns, runs: Sequence[Forecasted]) -> Table:
    rows = tuple(
        (
            Cell(text=run.label),
            Cell(text=f"{run.loss:.4f}", value=run.loss),
            Cell(text=f"{run.measured:.3f}", value=run.measured),
            Cell(text=f"{run.forecast:.3f}", value=run.forecast),
            Cell(text=f"[{run.low:.3f}, {run.high:.3f}]", value=run.low),
            Cell(text=f"{run.measured - run.forecast:+.3f}".replace("-", "−"), value=run.measured - run.forecast),
        )
        for run in runs
    )
    return Table(
        title=f"Forecasts of {known.metric}",
        header=("run", "validation loss", "measured", "forecast", f"{100 * LEVEL:.0f} % interval", "residual"),
        rows=rows,
    )
