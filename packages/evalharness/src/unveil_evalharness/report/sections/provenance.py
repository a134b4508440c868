"""Where the numbers come from: checkpoints, protocols with their constants, passports, versions and hardware."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unveil_backbones.limits import parse_json
from unveil_backbones.manifest import Passport
from unveil_backbones.places import is_file

from unveil_evalharness.report.content import Section
from unveil_evalharness.report.lookup import Lookup
from unveil_evalharness.report.tables import Table, text_row

__all__ = ["provenance"]

_MANY_DIGITS = 12


def provenance(lookup: Lookup) -> Section:
    """Everything needed to check or repeat a number, folded."""
    tables = (_checkpoints(lookup), _measurements(lookup), *_constants(lookup), *_passports(lookup), _software(lookup))
    return Section(key="provenance", title="Provenance", folded=tables)


def _checkpoints(lookup: Lookup) -> Table:
    paths = {row.checkpoint_sha256: row.checkpoint for row in lookup.evidence.rows}
    rows = []
    for sha256 in lookup.checkpoints:
        manifest = lookup.manifest(sha256)
        facts = ("–",) * 4
        if manifest is not None:
            facts = (
                str(manifest.seed),
                manifest.data_hash[:_MANY_DIGITS],
                "–" if manifest.passport is None else manifest.passport.hash[:6],
                (manifest.git_commit or "–")[:_MANY_DIGITS],
            )
        rows.append(text_row(lookup.labels[sha256], sha256[:_MANY_DIGITS], paths[sha256], *facts))
    header = ("checkpoint", "sha256", "path", "seed", "training data", "passport", "commit")
    return Table(title="Checkpoints", header=header, rows=tuple(rows), num_text_columns=len(header))


def _measurements(lookup: Lookup) -> Table:
    keys = dict.fromkeys(
        (row.task, str(row.task_version), row.suite, row.protocol, row.data_hash or "–", _limit(row.limit))
        for row in lookup.evidence.rows
    )
    return Table(
        title="Protocols and data",
        header=("task", "version", "suite", "protocol fingerprint", "data hash", "limit"),
        rows=tuple(text_row(*key) for key in keys),
        num_text_columns=6,
        notes=("The fields behind each fingerprint are in protocols/ of the output folder.",),
    )


def _constants(lookup: Lookup) -> list[Table]:
    """The constants of each protocol, read from the copies that `evalharness run` keeps."""
    tables = []
    used = dict.fromkeys((row.task, row.suite, row.protocol) for row in lookup.evidence.rows)
    for task, suite, protocol in used:
        fields = _read_protocol(lookup, protocol)
        if fields:
            rows = tuple(text_row(name, _plain(value)) for name, value in fields.items())
            title = f"Constants of {task}, {suite} suite ({protocol[:6]})"
            tables.append(Table(title=title, header=("constant", "value"), rows=rows, num_text_columns=2))
    return tables


def _read_protocol(lookup: Lookup, protocol: str) -> Mapping[str, Any]:
    if not protocol.isalnum():  # a fingerprint is hexadecimal; anything else is no file name to open
        return {}
    for folder in lookup.evidence.outputs:
        path = Path(folder) / "protocols" / f"{protocol}.json"
        if is_file(path):
            try:
                content = parse_json(path.read_text(encoding="utf-8"))
            except (OSError, ValueError):
                return {"unreadable": f"{path.name} is damaged; `evalharness run` writes it anew"}
            return content.get("protocol", {}) if isinstance(content, dict) else {}
    return {}


def _passports(lookup: Lookup) -> list[Table]:
    """What each validation loss depends on; losses in different columns are never put on one axis."""
    passports: dict[str, Passport] = {}
    for sha256 in lookup.checkpoints:
        manifest = lookup.manifest(sha256)
        if manifest is not None and manifest.passport is not None:
            passports[manifest.passport.hash] = manifest.passport
    if not passports:
        return []
    records = [passport.to_json() for passport in passports.values()]
    names = dict.fromkeys(name for record in records for name in record)
    return [
        Table(
            title="Passports of the validation losses",
            header=("field", *(digest[:6] for digest in passports)),
            rows=tuple(text_row(name, *(_plain(record.get(name, "–")) for record in records)) for name in names),
            num_text_columns=1 + len(records),
        )
    ]


def _software(lookup: Lookup) -> Table:
    versions: dict[str, dict[str, None]] = {}
    for row in lookup.evidence.rows:
        for name, version in row.versions.items():
            versions.setdefault(name, {})[version] = None
    hardware = dict.fromkeys(row.hardware for row in lookup.evidence.rows if row.hardware)
    seeds = sorted({row.seed for row in lookup.evidence.rows})
    times = sorted(row.time for row in lookup.evidence.rows if row.time)
    facts = [
        ("output folders", ", ".join(lookup.evidence.outputs)),
        ("hardware", "; ".join(hardware) or "–"),
        ("evaluation seeds", ", ".join(map(str, seeds))),
        ("measured", f"{times[0]} to {times[-1]}" if times else "–"),
        *((name, ", ".join(found)) for name, found in sorted(versions.items())),
    ]
    rows = tuple(text_row(*fact) for fact in facts)
    return Table(title="Runs and software", header=("what", "value"), rows=rows, num_text_columns=2)


def _plain(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_plain(item)}" for key, item in value.items())
    return " × ".join(map(_plain, value)) if isinstance(value, list) else str(value)


def _limit(limit: int | None) -> str:
    return "all" if limit is None else f"limited to {limit}"
