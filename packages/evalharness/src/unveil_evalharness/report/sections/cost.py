"""What the numbers cost: evaluation time and memory, and the pre-training behind them."""

from unveil_evalharness.report.content import Section
from unveil_evalharness.report.lookup import Lookup
from unveil_evalharness.report.tables import Cell, Table
from unveil_evalharness.results import ResultRow

__all__ = ["bytes_text", "cost", "seconds_text"]

_UNITS = ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"))


def cost(lookup: Lookup) -> Section:
    """Seconds and peak memory per task and checkpoint, and the cost of each checkpoint."""
    tables = (_evaluation(lookup), _training(lookup))
    return Section(key="cost", title="Cost", tables=tuple(table for table in tables if table is not None))


def _evaluation(lookup: Lookup) -> Table | None:
    cells: dict[tuple[object, ...], ResultRow] = {}
    for row in lookup.evidence.rows:
        if row.status != "not_applicable":
            cells.setdefault((row.checkpoint_sha256, row.task, row.protocol, row.seed, row.limit), row)
    if not cells:
        return None
    rows = [
        (
            Cell(text=row.label),
            Cell(text=row.task),
            Cell(text=row.suite),
            Cell(text=row.hardware or "–"),
            Cell(text=str(row.seed), value=float(row.seed)),
            Cell(text=seconds_text(row.seconds), value=row.seconds),
            Cell(text=bytes_text(row.peak_memory), value=float(row.peak_memory) if row.peak_memory else None),
        )
        for row in cells.values()
    ]
    total = sum(row.seconds for row in cells.values())
    return Table(
        title="Evaluation",
        header=("checkpoint", "task", "suite", "hardware", "seed", "time", "peak memory"),
        rows=tuple(rows),
        num_text_columns=4,
        notes=(
            f"Together {seconds_text(total)} (evaluation time).",
            "Peak memory: of the device on a GPU, of the process on a CPU.",
        ),
    )


def _training(lookup: Lookup) -> Table | None:
    rows = []
    for sha256 in lookup.checkpoints:
        manifest = lookup.manifest(sha256)
        if manifest is None:
            continue
        flops = manifest.flops
        rows.append(
            (
                Cell(text=lookup.labels[sha256]),
                _count(manifest.num_parameters),
                _count(manifest.unique_samples),
                _count(manifest.samples_seen),
                _count(manifest.tokens_seen),
                Cell(text=seconds_text(manifest.device_seconds), value=manifest.device_seconds),
                Cell(text="–") if flops is None else Cell(text=_flops(flops), value=flops),
            )
        )
    if not rows:
        return None
    return Table(
        title="Pre-training",
        header=(
            "checkpoint",
            "encoder parameters",
            "different images",
            "samples seen",
            "tokens seen",
            "device-seconds",
            "FLOPs",
        ),
        rows=tuple(rows),
    )


def seconds_text(seconds: float) -> str:
    """``0.8 s``, ``12 s``, ``3 min 05 s``, ``2 h 10 min``."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600:,} h {whole % 3600 // 60:02d} min"


def bytes_text(count: int) -> str:
    """``1.4 GiB``; a dash where nothing was measured."""
    if not count:
        return "–"
    return f"{count / 2**30:.2f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"


def _count(number: int) -> Cell:
    return Cell(text=f"{number:,}", value=float(number))


def _flops(flops: float) -> str:
    return next((f"{flops / size:.3g} {unit}FLOP" for size, unit in _UNITS if flops >= size), f"{flops:.0f} FLOP")
