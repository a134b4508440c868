"""Where the points of `evalharness correlate` come from: output folders, tables, a sweep's summary, a published set."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from unveil_evalharness.correlate.cells import cells_of_rows, read_cells
from unveil_evalharness.correlate.evidence import Evidence, output_folder, read_evidence, read_manifests
from unveil_evalharness.correlate.join import LeftOut, Point, Points, join, join_cells
from unveil_evalharness.correlate.reader import SUFFIXES, read_table
from unveil_evalharness.correlate.statistics import MIN_POINTS
from unveil_evalharness.correlate.table import Roles, points_of_table
from unveil_evalharness.errors import ResultsError, UsageError
from unveil_evalharness.parsing import nearest

if TYPE_CHECKING:
    import polars

__all__ = ["LARGE_BYTES", "Source", "load"]

LARGE_BYTES = 2_000_000
"""Results above this many bytes are read at once; below, that would take longer."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """Points and what they were read from."""

    points: Points
    outputs: tuple[str, ...]


def load(paths: Sequence[Path], *, published: str, roles: Roles) -> Source:
    """Reads the points.

    Args:
        paths: output folders, a table, or a sweep's summary together with output folders.
        published: name of a published set; then there are no paths.
        roles: which columns or metrics play which part.

    Raises:
        UsageError: both or neither of paths and a published set, or tables mixed with something else.
        ResultsError: something cannot be read.
    """
    if bool(paths) == bool(published):
        raise UsageError("give output folders or tables, or --published NAME, and not both")
    if published:
        return _published(published, roles)
    tables = [path for path in paths if path.suffix.lower() in SUFFIXES and path.name != "results.jsonl"]
    folders = [path for path in paths if path not in tables]
    outputs = tuple(str(path) for path in paths)
    if not tables:
        points = _of_folders(folders, roles.x)
        return Source(points=_regrouped(points, roles), outputs=outputs)
    if len(tables) > 1:
        raise UsageError(f"give one table at a time, got {tables[0]} and {tables[1]}; put their rows into one file")
    table = read_table(tables[0])
    if folders:
        from unveil_evalharness.published.summary import read_summary

        table = _with_results(read_summary(tables[0]), read_evidence(folders))
        roles = replace(roles, x=roles.x or "loss")
    return Source(points=points_of_table(table, _of_long(table, roles), source=str(tables[0])), outputs=outputs)


def _of_folders(paths: Sequence[Path], x: str) -> Points:
    """Small files are read row by row; large ones at once, and row by row only if something is wrong with them."""
    folders = [output_folder(path) for path in paths]
    files = [folder / "results.jsonl" for folder in folders]
    is_large = sum(file.stat().st_size for file in files) > LARGE_BYTES
    cells = read_cells(files) if is_large and not x else None
    if cells is None:
        return join(read_evidence(paths, with_passports=bool(x)), x=x)
    return join_cells(cells, read_manifests(folders, [cell.sha256 for cell in cells]), x=x)


def _of_long(table: "polars.DataFrame", roles: Roles) -> Roles:
    """A long table with a loss needs no --x."""
    return replace(roles, x="loss") if not roles.x and {"metric", "value", "loss"} <= set(table.columns) else roles


def _published(name: str, roles: Roles) -> Source:
    import polars as pl

    from unveil_evalharness.published import UNITS, read_published

    table = read_published(name).with_columns(unit=pl.lit(UNITS.get(name, "")))
    if not roles.x:
        has_loss = table["loss"].null_count() < len(table)
        roles = replace(roles, x="loss") if has_loss else replace(roles, x="imagenet_zs.acc1", lower_x_is_better=False)
    points = points_of_table(table, roles, source=f"--published {name}", header_lines=1)
    few = [key for key, members in points.strata.items() if len(members) < MIN_POINTS]
    if not few or roles.y:
        return Source(points=points, outputs=(f"published {name}",))
    reason = f"fewer than {MIN_POINTS} runs each, name them with --y to see them refused one by one"
    return Source(
        points=Points(
            strata={key: members for key, members in points.strata.items() if key not in few},
            left_out=(*points.left_out, LeftOut(label=f"{len(few)} metrics", metric=name, reason=reason)),
            axes=points.axes,
        ),
        outputs=(f"published {name}",),
    )


def _with_results(summary: "polars.DataFrame", evidence: Evidence) -> "polars.DataFrame":
    """The cells of a sweep with one row per metric that was measured on their last checkpoints.

    Raises:
        ResultsError: not one checkpoint of the sweep has results.
    """
    import polars as pl

    records = [
        {
            "checkpoint_sha256": cell.sha256, "metric": cell.column.metric, "value": cell.value,
            "standard_error": cell.standard_error, "baseline": cell.baseline, "protocol": cell.column.protocol,
            "data_hash": cell.column.data_hash, "limit": cell.column.limit,
            "higher_is_better": cell.column.higher_is_better, "unit": cell.column.unit,
        }
        for cell in cells_of_rows(evidence.rows)
    ]  # fmt: skip
    measured = pl.DataFrame(records, infer_schema_length=None)
    joined = summary.drop("metric", "value").join(measured, on="checkpoint_sha256", how="inner", maintain_order="left")
    if not len(joined):
        raise ResultsError("no checkpoint of the sweep has results in these folders; evaluate them with --output-path")
    return joined


_GROUPS = {
    "model": lambda point: point.model, "data": lambda point: point.data, "run": lambda point: point.run,
    "setting": lambda point: point.setting,
}  # fmt: skip


def _regrouped(points: Points, roles: Roles) -> Points:
    """Points of output folders with other groups, clusters or controls than the usual ones, where any are asked for."""
    if not (roles.group or roles.cluster or roles.control):
        return points
    for name in (*roles.group, *((roles.cluster,) if roles.cluster else ())):
        if name not in _GROUPS:
            raise UsageError(f"output folders have no group {name!r}{nearest(name, list(_GROUPS))}")
    known = ("log_params", "log_steps")
    unknown = next((name for name in roles.control if name not in known), None)
    if unknown is not None:
        raise UsageError(f"output folders have no control {unknown!r}{nearest(unknown, known)}")

    def of(point: Point) -> Point:
        controls = {
            name: value
            for name, value in point.controls.items()
            if not roles.control or name.replace(" ", "_") in roles.control
        }
        return replace(
            point,
            model=_GROUPS[roles.group[0]](point) if roles.group else point.model,
            strata={name: _GROUPS[name](point) for name in roles.group[1:]},
            cluster=_GROUPS[roles.cluster](point) if roles.cluster else point.cluster,
            controls=controls,
        )

    return replace(
        points, strata={key: tuple(of(point) for point in members) for key, members in points.strata.items()}
    )
