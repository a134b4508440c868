"""`pretrain audit DATA`: what is in some data, and what is wrong with it."""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import tyro
from unveil_backbones.redaction import redact_record
from unveil_backbones.whole_files import write_whole

from unveil_pretrain.commands.parsing import parse
from unveil_pretrain.data.audit import Audit, audit
from unveil_pretrain.data.retrying import ReadPolicy
from unveil_pretrain.errors import ConfigError, OutputError

__all__ = ["AuditCommand", "run"]


@dataclass(frozen=True, kw_only=True, slots=True)
class AuditCommand:
    """Look at shards or a folder of images. Exits with 0 if training can use all of it, else with 1."""

    data: tyro.conf.Positional[str]
    """Shards (path or fsspec URL with braces, globs and '::'), a folder of shards or of images, or a .zip."""
    num_workers: int = 0
    """Threads that read and decode; 0 for none besides the main one."""
    read_timeout: float = 60.0
    """Seconds that one try to read a sample may take."""
    read_tries: int = 5
    """Tries before a read has failed for good."""
    world_size: int = 8
    """Processes of the run, for the lines about feasibility."""
    workers_per_process: int = 4
    """Loader workers of each process, likewise."""
    batch_size: int = 2048
    """Images per update, likewise."""
    max_shown: int = 20
    """Findings of each kind that are printed; the JSON has all."""
    json: Path | None = None
    """Write everything there."""

    def __post_init__(self) -> None:
        positive = min(self.world_size, self.workers_per_process, self.batch_size)
        if positive < 1 or min(self.num_workers, self.max_shown) < 0:
            raise ConfigError(
                f"world_size={self.world_size}, workers_per_process={self.workers_per_process}, batch_size="
                f"{self.batch_size}, num_workers={self.num_workers}, max_shown={self.max_shown}; "
                "give at least 1, 1, 1, 0, 0"
            )


def run(given: Sequence[str]) -> int:
    """Print the report, and write it if asked to."""
    command = parse(AuditCommand, given, prog="pretrain audit")
    report = audit(
        command.data,
        num_workers=command.num_workers,
        policy=ReadPolicy(timeout=command.read_timeout, tries=command.read_tries),
        tell=lambda line: print(line, file=sys.stderr, flush=True),
    )
    feasibility = _feasibility(report, command)
    for line in [*_summary(report), *feasibility, *_findings(report, command.max_shown)]:
        print(line)
    print("all of it can be used" if not report.num_faults else f"{report.num_faults} faults")
    if command.json is not None:
        value = {**asdict(report), "num_faults": report.num_faults, "feasibility": feasibility}
        try:
            write_whole(command.json, json.dumps(redact_record(value), indent=1) + "\n")
        except OSError as error:
            raise OutputError(
                f"cannot write {command.json} ({error.strerror or error}); give another --json"
            ) from error
    return 1 if report.num_faults else 0


def _summary(report: Audit) -> list[str]:
    lines = [
        f"samples   {report.num_samples:,} in {report.num_shards:,} shards"
        if report.num_shards
        else f"samples   {report.num_samples:,} in a folder",
        f"readable  {report.num_readable:,}, {report.num_bytes / 1e6:,.1f} MB of images",
        f"skipped   {report.num_samples - report.num_readable:,} of them would be, each named below",
        f"reads     {_reads(report)}",
        f"index     {report.index}",
        f"content   {report.content_hash or 'unknown, since a shard is broken'}",
    ]
    if report.class_counts:
        counts = report.class_counts.values()
        lines.append(f"classes   {len(counts):,}, of {min(counts):,} to {max(counts):,} samples")
    else:
        lines.append("classes   none are named; subsets would be balanced over all samples as one class")
    if report.captions is not None:
        found, counts = report.captions, report.captions.counts
        lines.append(
            f"captions  {counts.shown:,}, {found.num_distinct:,} different; {len(found.missing):,} samples without one"
            f"; {counts.repaired:,} repaired, {counts.cleaned:,} cleaned, {counts.cut:,} cut, "
            f"{counts.dropped:,} dropped"
        )
        if found.missing:
            lines.append(f"          the first sample without one: {found.missing[0]}; --json FILE has all")
    return lines


def _reads(report: Audit) -> str:
    if not report.retries:
        return "none had to be tried again"
    causes = ", ".join(f"{cause} {count:,}" for cause, count in report.retries.items())
    return f"{sum(report.retries.values()):,} had to be tried again: {causes}"


def _feasibility(report: Audit, command: AuditCommand) -> list[str]:
    """Whether so many processes and workers can share the data, for this package's loader and for a sequential one."""
    epoch, batch, processes = report.num_readable, command.batch_size, command.world_size
    lines = [
        f"epoch     {epoch:,} samples = {epoch / batch:,.2f} updates of {batch:,}; the loader runs on across epochs "
        "and drops nothing"
    ]
    if batch % processes:
        lines.append(
            f"processes {batch:,} images cannot be dealt out equally to {processes}; choose another batch or number"
        )
    else:
        lines.append(f"processes {batch // processes:,} images of each update on each of {processes}")
    readers = processes * command.workers_per_process
    if report.num_shards:
        sizes = [size for size in report.samples_per_shard if size]
        uneven = f"shards of {min(sizes):,} to {max(sizes):,} samples" if sizes else "no shard"
        verdict = (
            f"{readers - len(sizes)} of {readers} readers would have none" if len(sizes) < readers
            else f"{len(sizes) // readers} to {-(-len(sizes) // readers)} for each of {readers}"
        )  # fmt: skip
        lines.append(
            f"readers   {uneven}; this package reads samples, any number of workers will do; a reader of whole shards "
            f"(webdataset) deals out shards: {verdict}"
        )
    return lines


def _findings(report: Audit, most: int) -> list[str]:
    lines: list[str] = []
    kinds = dict.fromkeys(finding.kind for finding in report.findings)
    for kind in kinds:
        found = [finding for finding in report.findings if finding.kind == kind]
        lines.append(f"{kind}: {len(found):,}" + ("" if found[0].is_fault else " (no fault)"))
        lines += [f"  {finding.where}: {finding.what}" for finding in found[:most]]
        if len(found) > most:
            lines.append(f"  and {len(found) - most:,} more; --json FILE has all")
    return lines
