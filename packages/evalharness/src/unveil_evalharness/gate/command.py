"""``evalharness gate``: is a candidate worse than a baseline?

Exit status: 0 ok, 1 regressed, 2 undecided, 3 not comparable, 4 bad input, 70 the gate itself broke (so that a crash is
never taken for a regression).
"""

import contextlib
import sys
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from unveil_backbones.places import is_file
from unveil_backbones.terminal import ReaderGone
from unveil_backbones.whole_files import write_whole

from unveil_evalharness.compare.difference import NUM_RESAMPLES, Settings
from unveil_evalharness.compare.sides import Side, read_side, read_sides
from unveil_evalharness.errors import HarnessError, OutputError, UsageError
from unveil_evalharness.gate.baseline import Baseline, read_baseline
from unveil_evalharness.gate.decide import GateReport, gate
from unveil_evalharness.gate.junit import as_junit
from unveil_evalharness.gate.policy import read_policy
from unveil_evalharness.gate.ratios import read_ratios
from unveil_evalharness.gate.render import as_json, as_markdown, as_text

__all__ = ["GateOptions", "main", "open_baseline"]

BROKEN = 70
"""EX_SOFTWARE of sysexits.h."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GateOptions:
    """Decide whether a candidate is worse than a baseline by more than the margins of a policy.

    Exit status: 0 ok, 1 regressed, 2 undecided (what would decide is said), 3 not comparable, 4 bad input. A baseline
    never moves by itself; see gate init, gate promote and gate show.
    """

    baseline: str
    """File of `gate init`, or an output folder of `evalharness run` (FOLDER or FOLDER:CHECKPOINT)."""
    candidate: tuple[str, ...]
    """Output folder, or FOLDER:CHECKPOINT; several separated by commas are runs of one candidate."""
    policy: Path
    """Policy file (TOML) with margins and error rates."""
    ratios: tuple[Path, ...] = ()
    """JSON reports of benchmarks/, or lists of {name, ratio, quartiles}, for [speed] and [memory] of the policy."""
    junit: Path | None = None
    """Write JUnit XML there."""
    markdown: Path | None = None
    """Add Markdown to the end of that file, such as a job's summary."""
    num_resamples: int = NUM_RESAMPLES
    """Bootstrap resamples and random sign flips."""
    seed: int = 0
    """Seed of the resampling."""
    json: bool = False
    """Print JSON instead of text."""

    def __post_init__(self) -> None:
        """Refuses values no gate can have."""
        if self.num_resamples < 100:
            raise UsageError(f"--num-resamples must be at least 100, got {self.num_resamples}")
        if self.seed < 0:
            raise UsageError(f"--seed must not be negative, got {self.seed}")


def main(options: GateOptions) -> int:
    """Prints and writes the report; returns the exit status.

    Raises:
        HarnessError: bad input; the command line turns it into one line and exit status 4.
    """
    try:
        report = _decide(options)
        _write(options, report)
        print_report(as_json(report) if options.json else as_text(report))
    except (HarnessError, OSError):
        raise
    except Exception:
        traceback.print_exc()
        sys.stderr.write("evalharness: error: the gate itself broke; this says nothing about the candidate\n")
        return BROKEN
    return report.exit_code


def print_report(text: str) -> None:
    """To stdout; a reader that has gone (head) does not change the exit status, which is the verdict."""
    with contextlib.suppress(ReaderGone):
        sys.stdout.write(text + "\n")
        sys.stdout.flush()


def open_baseline(text: str) -> Baseline | Side:
    """A pinned baseline, or an output folder.

    Raises:
        HarnessError: neither can be read.
    """
    path = Path(text)
    if is_file(path) or path.suffix == ".toml":
        return read_baseline(path)
    return read_side(text)


def _decide(options: GateOptions) -> GateReport:
    policy = read_policy(options.policy)
    return gate(
        open_baseline(options.baseline),
        read_sides(options.candidate),
        policy,
        ratios=read_ratios(options.ratios),
        settings=Settings(
            num_resamples=options.num_resamples,
            num_metric_resamples=min(400, options.num_resamples),
            seed=options.seed,
            confidence=1 - 2 * policy.alpha,
        ),
    )


def _write(options: GateOptions, report: GateReport) -> None:
    if options.junit is not None:
        with _refusals(options.junit) as path:
            write_whole(path, as_junit(report))
    if options.markdown is not None:
        with _refusals(options.markdown) as path, path.open("a", encoding="utf-8") as file:
            file.write(as_markdown(report))


@contextlib.contextmanager
def _refusals(path: Path) -> Iterator[Path]:
    """Has the file's folder, and what the file system refuses as an error of ours.

    Raises:
        OutputError: the folder or the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield path
    except OSError as error:
        reason = error.strerror or error
        raise OutputError(f"cannot write {path}: {reason}; free some space or give another place") from error
