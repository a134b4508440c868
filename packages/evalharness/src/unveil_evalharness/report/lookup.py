"""The rows and manifests of a report, grouped once so that every table and figure finds its numbers directly."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from unveil_backbones.manifest import Manifest

from unveil_evalharness.correlate.correlation import Stratum
from unveil_evalharness.correlate.evidence import Evidence
from unveil_evalharness.correlate.join import Column, column_of
from unveil_evalharness.results import ResultRow

__all__ = ["Lookup", "column_title", "objective_title"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Lookup:
    """Rows by checkpoint and column; checkpoints are named by SHA-256."""

    evidence: Evidence
    checkpoints: tuple[str, ...]
    """By objective (the most frequent first), encoder, data size and length; those without a manifest come last."""
    columns: tuple[Column, ...]
    """Those with at least one value, in order of first appearance."""
    tasks: tuple[str, ...]
    cells: Mapping[tuple[str, Column], Sequence[ResultRow]]
    """The finished rows behind one number: one per seed."""
    by_task: Mapping[tuple[str, str], Sequence[ResultRow]]
    """All rows of one checkpoint and task, finished or not."""
    labels: Mapping[str, str]

    @classmethod
    def of(cls, evidence: Evidence) -> "Lookup":
        """Groups the rows."""
        cells: dict[tuple[str, Column], list[ResultRow]] = {}
        by_task: dict[tuple[str, str], list[ResultRow]] = {}
        labels: dict[str, str] = {}
        for row in evidence.rows:
            labels.setdefault(row.checkpoint_sha256, row.label)
            by_task.setdefault((row.checkpoint_sha256, row.task), []).append(row)
            if row.status == "ok":
                cells.setdefault((row.checkpoint_sha256, column_of(row)), []).append(row)
        return cls(
            evidence=evidence,
            checkpoints=_ordered(labels, evidence.manifests),
            columns=tuple(dict.fromkeys(column for _, column in cells)),
            tasks=tuple(dict.fromkeys(row.task for row in evidence.rows)),
            cells=cells,
            by_task=by_task,
            labels=labels,
        )

    def manifest(self, sha256: str) -> Manifest | None:
        """The checkpoint's manifest, or None when no copy was kept."""
        return self.evidence.manifests.get(sha256)

    def baselines(self, column: Column) -> list[float]:
        """The trivial baselines recorded in a column."""
        rows = [row for sha256 in self.checkpoints for row in self.cells.get((sha256, column), ())]
        return [row.baseline for row in rows if row.baseline is not None]


def column_title(column: Column, columns: Sequence[Column]) -> str:
    """The metric's name, and what sets this column apart from others of the same metric."""
    same = [other for other in columns if other.metric == column.metric]
    parts = []
    if column.limit is not None:
        parts.append(f"limited to {column.limit}")
    if len({other.protocol for other in same}) > 1:
        parts.append(f"protocol {column.protocol[:6]}")
    if len({other.data_hash for other in same}) > 1:
        parts.append(f"data {column.data_hash[:6]}")
    return f"{column.metric} ({', '.join(parts)})" if parts else column.metric


def objective_title(stratum: Stratum, strata: Sequence[Stratum]) -> str:
    """The objective of a stratum's losses, with the passport where another passport has the same objective."""
    objective = str(stratum.passport_fields["objective"])
    namesakes = {other.passport for other in strata if other.passport_fields["objective"] == objective}
    return objective if len(namesakes) == 1 else f"{objective} {stratum.passport[:6]}"


def _ordered(labels: Iterable[str], manifests: Mapping[str, Manifest]) -> tuple[str, ...]:
    """Checkpoints sorted: the objective with most of them first, then by encoder, data size and length."""
    sizes = Counter(manifest.objective for manifest in manifests.values())

    def key(sha256: str) -> tuple[int, str, str, int, int]:
        manifest = manifests.get(sha256)
        if manifest is None:
            return (1, "", "", 0, 0)
        objective = manifest.objective
        return (-sizes[objective], objective, manifest.encoder.name, manifest.unique_samples, manifest.step)

    return tuple(sorted(labels, key=key))
