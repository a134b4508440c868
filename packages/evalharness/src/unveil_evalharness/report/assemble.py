"""Puts the report of evaluated checkpoints together, section by section."""

from collections.abc import Sequence

from unveil_evalharness.correlate.correlation import Correlation
from unveil_evalharness.report.content import Content, Section
from unveil_evalharness.report.figures.study import study_figures
from unveil_evalharness.report.lookup import Lookup
from unveil_evalharness.report.sections.answers import answers, count
from unveil_evalharness.report.sections.cost import cost
from unveil_evalharness.report.sections.exhibits import exhibits
from unveil_evalharness.report.sections.forecasts import forecasts_of_evidence
from unveil_evalharness.report.sections.provenance import provenance
from unveil_evalharness.report.sections.studies import correlation_section
from unveil_evalharness.report.tables import overview_table, problem_table, task_table

__all__ = ["assemble"]


def assemble(lookup: Lookup, correlation: Correlation, comparisons: Sequence[Section] = ()) -> Content:
    """Everything the report says about these results, with comparisons made elsewhere after the figures."""
    measured = {column.task for column in lookup.columns}
    problems = problem_table(lookup)
    pictures, outcomes = exhibits(lookup)
    sections = (
        Section(key="figures", title="Figures", figures=study_figures(lookup, correlation)),
        *comparisons,
        correlation_section(correlation),
        forecasts_of_evidence(lookup.evidence, correlation),
        Section(
            key="metrics",
            title="Every metric, by task",
            tables=tuple(task_table(lookup, task) for task in lookup.tasks if task in measured),
        ),
        pictures,
        outcomes,
        cost(lookup),
        Section(key="problems", title="Failed and not applicable", tables=() if problems is None else (problems,)),
        provenance(lookup),
    )
    title = f"Evaluation of {count(len(lookup.checkpoints), 'checkpoint')} on {count(len(lookup.tasks), 'task')}"
    return Content(
        title=title,
        answers=(*(answer for section in comparisons for answer in section.answers), *answers(lookup, correlation)),
        overview=overview_table(lookup),
        sections=tuple(section for section in sections if not section.is_empty),
    )
