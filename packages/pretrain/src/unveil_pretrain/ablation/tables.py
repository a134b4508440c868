"""The tables of an ablation, as text, Markdown and JSON: one for every question, never two questions in one."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from unveil_pretrain.ablation.cells import Shape
from unveil_pretrain.ablation.compare import Difference, compare, in_words
from unveil_pretrain.ablation.results import MEAN_RECALL, GroupScores
from unveil_pretrain.flip_scores import VIEWS
from unveil_pretrain.validate import summarise

__all__ = ["Table", "tables_of", "to_json", "to_markdown", "to_text"]

_LOSS = "contrastive_loss"


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """A title, columns, rows, and a sentence that says how to read it."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str
    records: tuple[Mapping[str, object], ...] = ()
    """The rows as numbers, for JSON."""


def tables_of(
    groups: Mapping[str, GroupScores],
    reference: Shape,
    flops: Mapping[Shape, float | None],
    seconds: Mapping[Shape, float],
) -> list[Table]:
    """Every table for which there are cells.

    Args:
        groups: Finished cells by name.
        reference: Shape of the reference.
        flops: Operations of a training sample over those of the reference, by shape.
        seconds: Measured seconds of a step, by shape.
    """
    if not groups:
        return []
    tables = [_scores(groups, reference, flops, seconds)]
    first = _reference(groups, reference)
    if first is not None:
        tables += _comparisons(groups, first)
    tables += _variants(groups)
    tables += _views(groups)
    return tables


def _reference(groups: Mapping[str, GroupScores], reference: Shape) -> GroupScores | None:
    for group in groups.values():
        cell = group.cell
        if cell.shape == reference and cell.budget == "samples" and cell.variant == "plain":
            return group
    return None


def _scores(
    groups: Mapping[str, GroupScores],
    reference: Shape,
    flops: Mapping[Shape, float | None],
    seconds: Mapping[Shape, float],
) -> Table:
    names = ("text_recall_1", "image_recall_1", "text_recall_5", "image_recall_5", MEAN_RECALL)
    first = _reference(groups, reference)
    rows, records = [], []
    for name, group in groups.items():
        run, share = group.runs[0], flops.get(group.cell.shape)
        time = _time(group, first, seconds)
        rows.append((
            name, str(run.batch_size), f"{run.steps:,}", f"{run.samples:,}", "?" if share is None else f"{share:.2f}×",
            f"{group.seconds:.0f} s", "?" if time is None else f"{time:.2f}×",
            *(_plus_minus(100 * group.values(score), 1) for score in names),
            _plus_minus(group.values(_LOSS), 3),
        ))  # fmt: skip
        values = {score: _record(group.values(score), group.spread(score)) for score in (*names, _LOSS)}
        records.append({
            "cell": name, "batch_size": run.batch_size, "steps": run.steps, "samples": run.samples,
            "seconds": group.seconds, "time": time, "flops": share, "seeds": len(group.runs), **values,
        })  # fmt: skip
    titles = ("text R@1", "image R@1", "text R@5", "image R@5", "mean of six")
    return Table(
        title="All cells: zero-shot retrieval of whole images (%), contrastive loss (nats)",
        columns=("cell", "batch", "steps", "samples", "FLOPs/sample", "training", "time", *titles, "loss"),
        rows=tuple(rows),
        note=(
            "± standard error over the validation images; it does not contain the spread between training seeds. time: "
            "steps × measured seconds of a step, over the reference's; training: seconds on the wall, busy or not."
        ),
        records=tuple(records),
    )


def _time(group: GroupScores, first: GroupScores | None, seconds: Mapping[Shape, float]) -> float | None:
    """Training time over the reference's: steps times the measured seconds of a step."""
    if first is None or group.cell.shape not in seconds or first.cell.shape not in seconds:
        return None
    ours, theirs = (one.runs[0].steps * seconds[one.cell.shape] for one in (group, first))
    return ours / theirs


def _comparisons(groups: Mapping[str, GroupScores], first: GroupScores) -> list[Table]:
    base = first.cell
    plain = [group for group in groups.values() if group.cell.variant == "plain" and group is not first]
    of_samples = [group for group in plain if group.cell.budget == "samples"]
    same = [group for group in of_samples if group.cell.shape.multiple == base.shape.multiple]
    other = [group for group in of_samples if group.cell.shape.multiple != base.shape.multiple]
    questions = [
        ("Equal batch, equal samples (table 1b, first row)", same),
        ("Equal samples, larger batch (tables 1a and 1b)", other),
        ("Equal time", [group for group in plain if group.cell.budget == "time"]),
    ]
    return [_against(f"{title}: against {base.group}", first, theirs) for title, theirs in questions if theirs]


def _variants(groups: Mapping[str, GroupScores]) -> list[Table]:
    """What each variant changes in the same cell (tables 1c, 1e, 1f)."""
    tables: list[Table] = []
    for variant in dict.fromkeys(group.cell.variant for group in groups.values() if group.cell.variant != "plain"):
        pairs = [
            (plain, group)
            for group in groups.values()
            for plain in groups.values()
            if group.cell.variant == variant
            and plain.cell.variant == "plain"
            and (plain.cell.shape, plain.cell.budget) == (group.cell.shape, group.cell.budget)
        ]
        rows, records = _rows(pairs)
        if rows:
            tables.append(_difference_table(f"What {variant} changes in the same cell", rows, records))
    return tables


def _against(title: str, first: GroupScores, theirs: Sequence[GroupScores]) -> Table:
    rows, records = _rows([(first, group) for group in theirs])
    return _difference_table(title, rows, records)


def _difference_table(title: str, rows: Sequence[tuple[str, ...]], records: Sequence[Mapping[str, object]]) -> Table:
    return Table(
        title=title,
        columns=("cell", "mean recall", "95 % interval", "", "loss", "95 % interval", ""),
        rows=tuple(rows),
        note=(
            "Differences, paired over the validation images (bootstrap of the images); recall in points of %. "
            "Intervals hold for other images, not for other training seeds."
        ),
        records=tuple(records),
    )


def _rows(
    pairs: Sequence[tuple[GroupScores, GroupScores]],
) -> tuple[list[tuple[str, ...]], list[Mapping[str, object]]]:
    rows: list[tuple[str, ...]] = []
    records: list[Mapping[str, object]] = []
    for first, group in pairs:
        recall = compare(100 * first.values(MEAN_RECALL), 100 * group.values(MEAN_RECALL))
        loss = compare(first.values(_LOSS), group.values(_LOSS))
        rows.append((
            group.cell.group,
            f"{recall.value:+.1f}", _interval(recall, 1), in_words(recall, higher_is_better=True),
            f"{loss.value:+.3f}", _interval(loss, 3), in_words(loss, higher_is_better=False),
        ))  # fmt: skip
        records.append({
            "cell": group.cell.group, "against": first.cell.group,
            MEAN_RECALL: asdict(recall), _LOSS: asdict(loss),
        })  # fmt: skip
    return rows, records


def _views(groups: Mapping[str, GroupScores]) -> list[Table]:
    """Masked and ensemble against whole images (table 1d)."""
    rows, records = [], []
    for name, group in groups.items():
        seen = [view for view in VIEWS if group.has(view)]
        if len(seen) < 2:
            continue
        changes = {
            view: compare(100 * group.values(MEAN_RECALL), 100 * group.values(MEAN_RECALL, view))
            for view in seen
            if view != "full"
        }
        rows.append((
            name,
            *(_plus_minus(100 * group.values(MEAN_RECALL, view), 1) if view in seen else "" for view in VIEWS),
            *(f"{changes[v].value:+.1f} {_interval(changes[v], 1)}" if v in changes else "" for v in VIEWS[1:]),
        ))  # fmt: skip
        records.append({
            "cell": name,
            **{view: _record(group.values(MEAN_RECALL, view), None) for view in seen},
            "against_full": {view: asdict(change) for view, change in changes.items()},
        })  # fmt: skip
    if not rows:
        return []
    return [
        Table(
            title="How images are seen at inference (table 1d): mean of six recalls (%)",
            columns=("cell", *VIEWS, *(f"{view} − full" for view in VIEWS[1:])),
            rows=tuple(rows),
            note="± standard error; differences with their 95 % intervals, paired over the validation images.",
            records=tuple(records),
        )
    ]


def to_text(tables: Sequence[Table]) -> str:
    """Tables for a terminal."""
    parts: list[str] = []
    for table in tables:
        lines = [table.columns, *table.rows]
        widths = [max(len(line[column]) for line in lines) for column in range(len(table.columns))]
        padded = [
            "  ".join([line[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True))])
            for line in lines
        ]
        parts.append("\n".join([table.title, *(line.rstrip() for line in padded), table.note]))
    return "\n\n".join(parts)


def to_markdown(tables: Sequence[Table]) -> str:
    """Tables for a page."""
    parts: list[str] = []
    for table in tables:
        lines = [table.columns, ("---", *["---:"] * (len(table.columns) - 1)), *table.rows]
        body = "\n".join("| " + " | ".join(line) + " |" for line in lines)
        parts.append(f"**{table.title}**\n\n{body}\n\n{table.note}")
    return "\n\n".join(parts) + "\n"


def to_json(tables: Sequence[Table]) -> list[dict[str, object]]:
    """Tables as plain JSON values."""
    return [
        {"title": table.title, "note": table.note, "rows": [dict(row) for row in table.records]} for table in tables
    ]


def _plus_minus(values: np.ndarray, digits: int) -> str:
    score = summarise(values)
    return f"{score.loss:.{digits}f} ± {score.standard_error:.{digits}f}"


def _interval(difference: Difference, digits: int) -> str:
    return f"[{difference.low:+.{digits}f}, {difference.high:+.{digits}f}]"


def _record(values: np.ndarray, spread: float | None) -> dict[str, object]:
    score = summarise(values)
    return {
        "value": score.loss, "standard_error": score.standard_error, "num_images": score.num_images,
        "standard_deviation_over_seeds": spread,
    }  # fmt: skip
