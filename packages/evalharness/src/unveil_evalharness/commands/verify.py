"""``evalharness verify DIR``: whether the numbers in an output folder are still what they were."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from unveil_evalharness.errors import ResultsError, UnknownTaskError, UsageError
from unveil_evalharness.findings import Finding
from unveil_evalharness.results import latest, read_rows
from unveil_evalharness.task import Task
from unveil_evalharness.tasks import TASKS, load_task
from unveil_evalharness.verify.contents import check_files, check_metrics
from unveil_evalharness.verify.provenance import check_checkpoints, check_data_hashes, check_protocols

__all__ = ["VerifyOptions", "examine", "main"]


@dataclass(frozen=True, kw_only=True, slots=True)
class VerifyOptions:
    """Check an output folder: hashes of checkpoints, manifests, data and files, protocol fingerprints, metrics.

    Exit code 1 when something is not what it was; what cannot be looked at here is a warning.
    """

    folder: Annotated[Positional[Path], arg(metavar="FOLDER")]
    """Output folder of `evalharness run`."""
    data_root: Path | None = None
    """Also hash the data of the tasks again."""
    tasks: tuple[str, ...] = ()
    """Tasks of your own in it (package.module:ClassName), comma-separated: a name in a file alone imports nothing."""
    json: bool = False
    """Print the findings as JSON."""


def main(options: VerifyOptions) -> int:
    """Prints the findings; 1 when one of them is a problem, else 0.

    Raises:
        UsageError: there is no such output folder.
    """
    findings = examine(options)
    if options.json:
        print(json.dumps([asdict(finding) for finding in findings]))
    else:
        width = max(len(finding.subject) for finding in findings)
        print("\n".join(f"{finding.state:7}  {finding.subject:{width}}  {finding.detail}" for finding in findings))
    return 1 if any(finding.state == "problem" for finding in findings) else 0


def examine(options: VerifyOptions, *, load: Callable[[str], Task] | None = None) -> list[Finding]:
    """All findings: rows, checkpoints, protocols, data, files, metrics.

    Args:
        options: what to look at.
        load: gives the task of a name; by default those of the harness and of `options.tasks`.

    Raises:
        UsageError: there is no such output folder.
    """
    load = load or _named_by_user(options.tasks)
    results = options.folder / "results.jsonl"
    if not results.is_file():
        raise UsageError(f"{results} is not there; give the --output-path of an `evalharness run`")
    try:
        rows = read_rows(results)
    except ResultsError as error:
        return [Finding(subject="results.jsonl", state="problem", detail=str(error))]
    if not rows:
        detail = f"{results} holds no whole row; run the same `evalharness run` again"
        return [Finding(subject="results.jsonl", state="problem", detail=detail)]
    current = latest(rows, repeats=True)
    return [
        Finding(subject="results.jsonl", state="ok", detail=f"{len(rows)} rows, {len(current)} of them current"),
        *check_checkpoints(options.folder, current),
        *check_protocols(options.folder, current, load),
        *check_data_hashes(options.data_root, current, load),
        *check_files(options.folder, current),
        *check_metrics(options.folder, current),
    ]


def _named_by_user(own: tuple[str, ...]) -> Callable[[str], Task]:
    """`load_task` for the harness's tasks and those the user names: a result file must not choose what is imported."""

    def load(name: str) -> Task:
        if name not in TASKS and name not in own:
            raise UnknownTaskError(f"{name[:80]!r} is no task of the harness; import your own by --tasks")
        return load_task(name)

    return load
