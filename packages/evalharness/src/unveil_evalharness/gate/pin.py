"""Writing a baseline: the text, and the outcomes beside it in compact form."""

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unveil_backbones.whole_files import remove_unfinished, write_whole

from unveil_evalharness.compare.measured import Measured
from unveil_evalharness.compare.outcomes import metric_function, read_samples
from unveil_evalharness.errors import OutputError
from unveil_evalharness.gate.baseline import SCHEMA_VERSION, SHORT, Baseline, samples_folder

if TYPE_CHECKING:
    import polars

__all__ = ["condition_text", "write_baseline"]

_HEAD = """\
# A baseline of `evalharness gate`. It moves only by `evalharness gate promote`; change nothing by hand.
"""


def write_baseline(baseline: Baseline, *, keep_samples: bool = True) -> None:
    """Writes the text and the outcomes; outcomes that no metric names any more are removed.

    Args:
        baseline: what to write, with `samples` where they lie now.
        keep_samples: also store the outcomes; without them comparisons are unpaired.

    Raises:
        OutputError: a file cannot be written.
        NotComparableError: the outcomes of a run cannot be read.
    """
    folder = samples_folder(baseline.path)
    hashes: dict[Path, str] = {}
    contents: dict[str, bytes] = {}
    for one in baseline.measured:
        for path in one.samples:
            if keep_samples and path is not None and path not in hashes:
                content = _compact(path, one.task)
                if content is not None:
                    hashes[path] = hashlib.sha256(content).hexdigest()
                    contents[hashes[path]] = content
    try:
        for left in (baseline.path.parent, *([folder] if folder.is_dir() else [])):
            left.mkdir(parents=True, exist_ok=True)
            remove_unfinished(left)
        for sha, content in contents.items():
            folder.mkdir(exist_ok=True)
            write_whole(folder / f"{sha[:SHORT]}.parquet", content)
        write_whole(baseline.path, _text(baseline, hashes).encode("utf-8"))
        wanted = {f"{sha[:SHORT]}.parquet" for sha in contents}
        for file in folder.glob("*.parquet"):
            if file.name not in wanted:
                file.unlink()
    except OSError as error:
        raise OutputError(f"cannot write {baseline.path}: {error.strerror or error}") from error


def _compact(path: Path, task: str) -> bytes | None:
    """The columns that comparisons need, compressed; everything where the task has a function of its own."""
    import polars

    samples = read_samples(path)
    if samples is None:
        return None
    if metric_function(task) is None:
        kept = ("key", "image", "image_key", "file_name", "cluster", "direction")
        samples = samples.select(
            name for name, kind in samples.schema.items() if name in kept or kind.is_numeric() or kind == polars.Boolean
        )
    return _parquet(samples)


def _parquet(samples: "polars.DataFrame") -> bytes:
    buffer = io.BytesIO()
    samples.write_parquet(buffer, compression="zstd", compression_level=19)
    return buffer.getvalue()


def condition_text(one: Measured) -> str:
    """Under which a mean is one quantity."""
    return f"version {one.task_version}, protocol {one.protocol}, data {one.data_hash}"


def _text(baseline: Baseline, hashes: Mapping[Path, str]) -> str:
    measured = sorted(baseline.measured, key=lambda one: one.metric)
    lines = [_HEAD, f"schema_version = {SCHEMA_VERSION}", f"hardware = {_value(measured[0].hardware)}"]
    for one in measured:
        lines += ["", f"[metrics.{_value(one.metric)}]", *_metric_lines(one, hashes)]
    shas = {sha for one in measured for sha in one.checkpoints}
    for title, table in (("checkpoints", shas), ("outcomes", set(hashes.values()))):
        lines += ["", f"[{title}]", *(f"{_value(sha[:SHORT])} = {_value(sha)}" for sha in sorted(table))]
    for (kind, name), ratio in sorted(baseline.ratios.items()):
        lines += ["", f"[{kind}.{_value(name)}]"]
        lines += [f"{key} = {_value(value)}" for key, value in _ratio_fields(ratio)]
    lines += ["", "[versions]"]
    lines += [f"{_value(name)} = {_value(version)}" for name, version in measured[0].versions]
    for promotion in baseline.promotions:
        lines += ["", "[[promotions]]"]
        for key in ("when", "by", "reason", "checkpoints"):
            lines.append(f"{key} = {_value(getattr(promotion, key))}")
        lines.append("[promotions.metrics]")
        for (name, mean), (_, condition) in zip(promotion.means, promotion.conditions, strict=True):
            lines.append(f"{_value(name)} = {{ mean = {_value(mean)}, condition = {_value(condition)} }}")
    return "\n".join(lines) + "\n"


def _ratio_fields(ratio: Any) -> list[tuple[str, float]]:
    return [("median", ratio.median), ("low", ratio.low), ("high", ratio.high)]


def _metric_lines(one: Measured, hashes: Mapping[Path, str]) -> list[str]:
    samples = [hashes.get(path, "")[:SHORT] if path is not None else "" for path in one.samples]
    errors = ["unknown" if error is None else error for error in one.standard_errors]
    spread = "one run" if one.spread is None else one.spread
    fields: list[tuple[str, Any]] = [
        ("mean", one.mean),
        ("spread", spread),
        ("n", one.n),
        ("values", one.values),
        ("standard_errors", errors),
        ("seeds", one.seeds),
        ("checkpoints", [sha[:SHORT] for sha in one.checkpoints]),
        ("samples", samples),
        ("task", one.task),
        ("task_version", one.task_version),
        ("suite", one.suite),
        ("protocol", one.protocol),
        ("data_hash", one.data_hash),
        ("higher_is_better", one.higher_is_better),
        ("unit", one.unit),
        ("main", one.main),
    ]
    return [f"{key} = {_value(value)}" for key, value in fields]


def _value(value: str | int | float | bool | Sequence[Any]) -> str:
    """One TOML value; JSON's strings and numbers are TOML's too."""
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_value(item) for item in value) + "]"
    text = json.dumps(value, allow_nan=False, ensure_ascii=False)
    # JSON leaves this control character as it is, which TOML forbids.
    return text.replace("\x7f", "\\u007f")
