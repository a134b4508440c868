"""One sentence that says whether these checkpoints may be chosen by their validation loss, and across what not."""

from unveil_evalharness.correlate.correlation import Stratum
from unveil_evalharness.correlate.words import interval_text, named, number
from unveil_evalharness.report.content import Answer

__all__ = ["stratum_answer"]


def stratum_answer(about: str, stratum: Stratum, *, lead: str = "", noun: str = "checkpoints") -> Answer:
    """The verdict first, then the sentence behind it and what limits it.

    Args:
        about: what the answer stands under: the task.
        stratum: one metric over what may be compared.
        lead: what sets this set of checkpoints apart from others of the task.
        noun: what the points are.
    """
    if stratum.statistics is None or stratum.verdict is None:
        return Answer(task=about, text=lead + stratum.answer, cautions=stratum.cautions)
    verdict = stratum.verdict
    return Answer(
        task=about,
        text=f"{lead}{_ranks(stratum, noun)}{_offsets(stratum)}.",
        cautions=(stratum.answer, verdict.text, *stratum.cautions),
        verdict=verdict.code,
        tone="good" if verdict.code == "usable" else "warn" if verdict.code == "usable one-sided" else "bad",
    )


def _ranks(stratum: Stratum, noun: str) -> str:
    column, statistics, verdict = stratum.column, stratum.statistics, stratum.verdict
    assert statistics is not None
    assert verdict is not None
    spearman = f"Spearman {number(statistics.spearman.value)} {interval_text(statistics.spearman.best)}"
    subject = named(column.x)
    subject = subject[0].upper() + subject[1:] if subject.startswith("the ") else subject
    if verdict.code == "not usable":
        return f"{subject} is not fit for choosing among these {statistics.n} {noun} by {column.metric} ({spearman})"
    better, worse = ("falling", "rising") if column.lower_x_is_better else ("rising", "falling")
    side = f"; a {better} one is informative, a {worse} one is not" if verdict.code == "usable one-sided" else ""
    return f"{subject} ranks these {statistics.n} {noun} with {spearman} on {column.metric}{side}"


def _offsets(stratum: Stratum) -> str:
    """Data sources whose losses are shifted against each other beyond doubt."""
    found = stratum.study.offsets if stratum.study is not None else ()
    shifted = [
        one
        for one in found
        if one.offset.interval is not None and (one.offset.interval.low > 0 or one.offset.interval.high < 0)
    ]
    if not shifted:
        return ""
    first = shifted[0]
    sign = "+" if first.offset.value > 0 else ""
    return (
        f"; do not use it across data sources (at equal {stratum.column.metric}, {first.source} lies "
        f"{sign}{number(first.offset.value, 4)} from {first.reference})"
    )
