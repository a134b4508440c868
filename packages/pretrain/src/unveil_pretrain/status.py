"""What `pretrain status` says of a run, as plain values and as words. No torch here.

A run may be working while its files are read: a row that is half-written counts once it is whole.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from unveil_pretrain.alarm import FALSE_ALARM_RATE, WHAT_A_RISE_MEANS
from unveil_pretrain.charts import chart
from unveil_pretrain.comparison import compare_losses
from unveil_pretrain.cost import read_cost
from unveil_pretrain.history import RunHistory, read_history
from unveil_pretrain.row_checks import is_number
from unveil_pretrain.val_table import read_losses, table_path

__all__ = ["curves_csv", "status_of", "words_of"]

_MOST_POINTS = 1000
# What a row of val.jsonl holds besides the views of an objective.
_MAIN = (
    "step", "samples_seen", "epochs", "loss", "standard_error", "num_images", "train_loss", "train_standard_error",
    "train_num_images", "gap", "gap_standard_error", "num_masks", "alarm", "passport",
)  # fmt: skip


def status_of(path: Path, *, price_per_hour: float | None = None) -> dict[str, Any]:
    """Everything about the run in `path` as JSON values.

    Args:
        path: The folder of a run.
        price_per_hour: Price of one device for an hour.

    Raises:
        OutputError: the folder holds no run, or a file of it cannot be read.
        DataError: the losses of a validation cannot be read.
    """
    history = read_history(path)
    cost = read_cost(path, price_per_hour=price_per_hour, without_damaged=True)
    # A null of a column is no value of it, as a column that is not there.
    metrics = {name: value for name, value in _last(history.metrics).items() if value is not None}
    rows = history.validations
    alarms = [row["alarm"] for row in rows if row.get("alarm")]
    last = history.last_checkpoint
    return {
        "run": str(path),
        "state": history.state,
        "alive": history.alive,
        "objective": history.config["objective"]["name"],
        "encoder": history.config["encoder"],
        "step": history.step,
        "steps": history.config["steps"],
        "samples_seen": metrics.get("samples_seen", 0),
        "epochs": metrics.get("epoch", 0.0),
        "loss": metrics.get("loss"),
        "learning_rate": metrics.get("lr"),
        "validation": dict(rows[-1]) if rows else None,
        "lowest": _lowest(rows),
        "change": _change(history),
        "first_alarm": alarms[0] if alarms else None,
        "num_alarms": len(alarms),
        "cost": asdict(cost),
        "num_skipped": history.num_skipped,
        "num_spikes": history.num_spikes,
        "retries": _retries(history),
        "damaged": list(history.damaged),
        "failure": None if history.failure is None else {name: history.failure.get(name) for name in ("step", "what")},
        "last_checkpoint": None if last is None else str(last),
        "curve": [{name: row.get(name) for name in ("step", "loss", "standard_error", "train_loss")} for row in rows],
    }


def words_of(status: Mapping[str, Any]) -> list[str]:
    """The same for a person: a few lines and a chart."""
    done = status["step"] / status["steps"]
    lines = [
        f"{status['run']}: {status['objective']} on {status['encoder']}, {_state(status)}",
        f"  progress    step {status['step']:,} of {status['steps']:,} ({done:.0%}), {status['epochs']:.4g} epochs "
        "over the data",
    ]
    row = status["validation"]
    if row is None:
        lines.append("  validation  none yet")
    else:
        lines += [*_validation(status, row), *_alarm(status)]
    lines += _speed_and_cost(status["cost"])
    lines.append(f"  trouble     {status['num_skipped']} samples skipped, {status['num_spikes']} loss spikes")
    lines.append(f"  reads       {_reads(status['retries'])}")
    if status["damaged"]:
        first, num = status["damaged"][0], len(status["damaged"])
        lines.append(f"  damaged     {num:,} line{'s' if num > 1 else ''} of its logs left out: {first}")
    lines.append(f"  checkpoint  {status['last_checkpoint'] or 'none yet'}")
    curve = status["curve"][:: 1 + len(status["curve"]) // _MOST_POINTS]
    drawn = {
        "train": [(point["step"], point["train_loss"]) for point in curve if point["train_loss"] is not None],
        "validation": [(point["step"], point["loss"]) for point in curve],
    }
    if len(curve) > 1:
        lines += ["", "  losses under the same frozen masks: v validation, t training images", *chart(drawn)]
    return lines


def curves_csv(path: Path) -> str:
    """The validation curve with everything that val.jsonl holds of numbers, as CSV with a header."""
    rows = read_history(path).validations
    names = list(
        dict.fromkeys(name for row in rows for name, value in row.items() if name not in ("alarm", "passport"))
    )
    lines = [",".join([*names, "alarm", "passport"])]
    for row in rows:
        values = ["" if row.get(name) is None else repr(row[name]) for name in names]
        lines.append(",".join([*values, str(int(bool(row.get("alarm")))), str(row.get("passport", ""))]))
    return "\n".join(lines) + "\n"


def _last(rows: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    return rows[-1] if rows else {}


def _retries(history: RunHistory) -> dict[str, int]:
    """Reads that failed and were tried again, by cause, the most frequent first."""
    total: Counter[str] = Counter()
    for row in history.reads:
        causes = row.get("retries")
        if isinstance(causes, dict):
            total.update({cause: count for cause, count in causes.items() if is_number(count, whole=True)})
    return dict(total.most_common())


def _reads(retries: Mapping[str, int]) -> str:
    if not retries:
        return "none had to be tried again"
    return f"{sum(retries.values()):,} tried again: {', '.join(f'{cause} {num:,}' for cause, num in retries.items())}"


def _lowest(rows: Any) -> dict[str, Any] | None:
    best = min(rows, key=lambda row: row["loss"], default=None)
    return None if best is None else {name: best[name] for name in ("step", "loss", "standard_error")}


def _change(history: RunHistory) -> dict[str, Any] | None:
    """The last validation against the one before, paired, where the tables of both are there."""
    steps = [row["step"] for row in history.validations[-2:]]
    if len(steps) < 2 or not all(table_path(history.path, step).exists() for step in steps):
        return None
    before, now = (read_losses(history.path, step) for step in steps)
    return {"since_step": steps[0], **asdict(compare_losses(before, now))} if len(now.values) > 1 else None


def _state(status: Mapping[str, Any]) -> str:
    match status["state"]:
        case "failed":
            failure = status["failure"]
            return f"failed at step {failure['step']}: the {failure['what']} was not finite"
        case "stopped":
            begin = "from its start" if status["last_checkpoint"] is None else "from its last checkpoint"
            process = "no process is at work" if status["alive"] is False else "whether a process lives is not known"
            return f"stopped ({process}); the same command continues {begin}"
        case state:
            return state


def _validation(status: Mapping[str, Any], row: Mapping[str, Any]) -> list[str]:
    lowest, change = status["lowest"], status["change"]
    masks = 1 if row.get("num_masks") is None else row["num_masks"]
    lines = [
        f"  validation  {row['loss']:.4f} ± {row['standard_error']:.2g} at step {row['step']:,} "
        f"({row['num_images']:,} images, {masks} mask{'s' if masks > 1 else ''} each); lowest {lowest['loss']:.4f} at "
        f"step {lowest['step']:,}"
    ]
    if change is not None:
        lines.append(
            f"  change      {change['difference']:+.5f} ± {change['standard_error']:.2g} since step "
            f"{change['since_step']:,}, paired: {change['low']:+.5f} to {change['high']:+.5f} "
            f"({change['confidence']:.0%}); unpaired ± {change['unpaired_standard_error']:.2g}"
        )
    if row.get("train_loss") is not None:
        lines.append(
            f"  training    {row['train_loss']:.4f} ± {row['train_standard_error']:.2g} on "
            f"{row['train_num_images']:,} training images: gap {row['gap']:+.4f} ± {row['gap_standard_error']:.2g}"
        )
    return [*lines, *_further(row)]


def _further(row: Mapping[str, Any]) -> list[str]:
    """Other views with their gap to the loss, and scores over the whole set."""
    lines = []
    for name, value in row.items():
        error = row.get(f"{name}_standard_error", row.get(f"{name.removesuffix('_loss')}_standard_error"))
        if name in _MAIN or name.endswith(("_standard_error", "_gap")) or not isinstance(value, int | float):
            continue
        view = name.removesuffix("_loss")
        above = row.get(f"{view}_gap")
        gap = ""
        if above is not None:
            gap = f"; the loss exceeds it by {above:+.4f} ± {row[f'{view}_gap_standard_error']:.2g}, paired"
        lines.append(f"  {view:11s} {value:.4f}" + ("" if error is None else f" ± {error:.2g}") + gap)
    return lines


def _alarm(status: Mapping[str, Any]) -> list[str]:
    first = status["first_alarm"]
    if first is None:
        return [f"  alarm       none (at most {FALSE_ALARM_RATE:.0%} of runs raise it falsely)"]
    return [
        f"  alarm       OVER-FITTING since step {first['since_step']:,}: at step {first['step']:,} the validation loss "
        f"had risen by {first['rise']:.4g} ± {first['standard_error']:.2g} "
        f"(false in at most {first['false_alarm_rate']:.0%} of runs)",
        f"              {WHAT_A_RISE_MEANS}",
    ]


def _speed_and_cost(cost: Mapping[str, Any]) -> list[str]:
    rate, mfu, left = cost["samples_per_second"], cost["mfu"], cost["seconds_left"]
    speed = "unknown before the second step" if rate is None else f"{rate:,.4g} samples/s"
    used = f"unknown ({cost['why_no_mfu']})" if mfu is None else f"{mfu:.1%}"
    operations = "operations unknown" if cost["flops"] is None else f"{cost['flops']:.3g} FLOPs"
    paid = "" if cost["price"] is None else f", price {cost['price']:,.2f}"
    return [
        f"  speed       {speed}, MFU {used}, time left {'unknown' if left is None else _duration(left)}",
        f"  cost        {cost['device_seconds'] / 3600:.4g} device-hours, {operations}{paid}",
    ]


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if seconds < 60:
        return f"{seconds:.0f} s"
    days, hours = divmod(minutes // 60, 24)
    return f"{days} d {hours} h" if days else f"{hours} h {minutes % 60:02d} min"
