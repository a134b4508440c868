"""``evalharness gate init | promote | show``: the only ways in which a baseline begins and moves.

There is no ratchet: a better candidate does not raise the baseline, and nothing lowers it but a promotion with a
reason. Every promotion stays in the file's history.
"""

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg
from unveil_backbones.places import is_there
from unveil_backbones.whole_files import alone

from unveil_evalharness.compare.difference import Settings
from unveil_evalharness.compare.measured import Measured
from unveil_evalharness.compare.render import signed, text_table
from unveil_evalharness.compare.sides import Side, read_sides
from unveil_evalharness.errors import NotComparableError, OutputError, UsageError
from unveil_evalharness.gate.baseline import Baseline, Promotion, read_baseline
from unveil_evalharness.gate.decide import gate
from unveil_evalharness.gate.pin import condition_text, write_baseline
from unveil_evalharness.gate.policy import read_policy
from unveil_evalharness.gate.ratios import read_ratios

__all__ = ["InitOptions", "PromoteOptions", "ShowOptions", "main"]


@dataclass(frozen=True, kw_only=True, slots=True)
class InitOptions:
    """Pin a baseline from finished runs.

    Every metric is pinned with its mean, its spread over the runs (seeds) and the outcomes of single items.
    """

    baseline: Path
    """File to make; outcomes go into the folder NAME.samples beside it."""
    candidate: tuple[str, ...]
    """Output folder, or FOLDER:CHECKPOINT; several separated by commas are runs of one baseline."""
    reason: str
    """Why this is the baseline."""
    by: str = ""
    """Who pins it; git's user.name when left out."""
    policy: Path | None = None
    """Also hold the policy's min_runs."""
    ratios: tuple[Path, ...] = ()
    """Reports of speed and memory to pin too."""
    samples: bool = True
    """Keep the outcomes of single items; without them comparisons are unpaired and need far more items."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PromoteOptions(InitOptions):
    """Move a baseline to a candidate, with a reason; the history keeps what it was."""

    accept_regression: bool = False
    """Promote although --policy calls the candidate regressed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ShowOptions:
    """Show a baseline and its history."""

    baseline: Annotated[Positional[Path], arg(metavar="BASELINE")]
    """File of `gate init`."""
    json: bool = False
    """Print JSON."""


def main(options: InitOptions | PromoteOptions | ShowOptions) -> int:
    """Does what the options' class says; 0.

    Raises:
        HarnessError: bad input; the command line turns it into one line and exit status 4.
    """
    match options:
        case PromoteOptions():
            with _alone(options.baseline):
                _promote(options)
        case InitOptions():
            with _alone(options.baseline):
                _init(options)
        case ShowOptions():
            _show(options)
    return 0


@contextlib.contextmanager
def _alone(baseline: Path) -> Iterator[None]:
    """One writer of a baseline at a time: what a promotion read must not change before it writes."""
    try:
        baseline.parent.mkdir(parents=True, exist_ok=True)
        with alone(baseline.with_name(f".{baseline.name}.lock")) as mine:
            if not mine:
                raise OutputError(
                    f"another `evalharness gate` is writing {baseline}; wait for it and look at its result"
                )
            yield
    except OSError as error:
        raise OutputError(
            f"cannot write {baseline}: {error.strerror or error}; the earlier baseline is intact; choose a place you "
            "may write, on a disk with free space"
        ) from error


def _init(options: InitOptions) -> None:
    if is_there(options.baseline):
        raise UsageError(f"{options.baseline} exists; move it with `evalharness gate promote`, or remove it first")
    _pin(options, ())


def _promote(options: PromoteOptions) -> None:
    old = read_baseline(options.baseline)
    side = read_sides(options.candidate)
    missing = sorted(set(old.side.metrics) - set(side.metrics))
    if missing:
        raise UsageError(
            f"the candidate has no {', '.join(missing)}, which the baseline holds; evaluate it, or begin anew with "
            "`evalharness gate init`"
        )
    if options.policy is not None and not options.accept_regression:
        report = gate(old, side, read_policy(options.policy), ratios=old.ratios, settings=Settings())
        worse = [one.name for one in report.findings if one.status == "regressed"]
        if worse:
            raise UsageError(
                f"the candidate is worse than the baseline in {', '.join(worse)}; repair it, or give "
                "--accept-regression with the reason"
            )
    new = _pin(options, old.promotions, old)
    rows = [["metric", "was", "is", "change"]]
    before = {one.metric: one for one in old.measured}
    for one in new.measured:
        was = before.get(one.metric)
        if was is None or condition_text(was) != condition_text(one):
            rows.append([one.metric, "–" if was is None else "measured otherwise", f"{one.mean:.4f}", "–"])
        else:
            rows.append([one.metric, f"{was.mean:.4f}", f"{one.mean:.4f}", signed(one.mean - was.mean)])
    sys.stdout.write("\n".join(text_table(rows)) + "\n")


def _pin(options: InitOptions, history: Sequence[Promotion], old: Baseline | None = None) -> Baseline:
    if not options.reason.strip():
        raise UsageError("--reason is empty; say why this becomes the baseline")
    side = read_sides(options.candidate)
    measured = _whole(side)
    min_runs = 1 if options.policy is None else read_policy(options.policy).min_runs
    for one in measured:
        if len(one.values) < min_runs:
            raise UsageError(
                f"{one.metric} has {len(one.values)} run(s), the policy wants {min_runs}; use more --seeds"
            )
    promotion = Promotion(
        when=datetime.now(UTC).isoformat(timespec="seconds"),
        by=options.by or _git_user(),
        reason=options.reason.strip(),
        checkpoints=tuple(f"{side.name} {sha[:12]}" for sha in side.checkpoints),
        means=tuple((one.metric, one.mean) for one in measured),
        conditions=tuple((one.metric, condition_text(one)) for one in measured),
    )
    baseline = Baseline(
        path=options.baseline,
        measured=tuple(measured),
        promotions=(*history, promotion),
        ratios={**(old.ratios if old else {}), **read_ratios(options.ratios)},
    )
    write_baseline(baseline, keep_samples=options.samples)
    sys.stderr.write(f"baseline: {options.baseline}\n")
    return baseline


def _whole(side: Side) -> list[Measured]:
    """Every metric once, sorted; what was made with ``--limit`` is left out.

    Raises:
        NotComparableError: a metric was measured under several conditions, or with a limit only.
    """
    whole = [one for one in side.measured if one.limit is None]
    names = [one.metric for one in whole]
    for one in side.measured:
        if one.metric not in names:
            raise NotComparableError(
                f"{one.metric} was measured with --limit {one.limit} only, which is fit for a look; evaluate without it"
            )
        if names.count(one.metric) > 1:
            raise NotComparableError(
                f"{one.metric} was measured under several conditions (suites, task versions or data); "
                "pin each from an output folder of its own"
            )
    if not whole:
        raise NotComparableError(f"{side.name} has no finished metric to pin")
    return sorted(whole, key=lambda one: one.metric)


def _git_user() -> str:
    try:
        found = subprocess.run(["git", "config", "user.name"], capture_output=True, text=True, check=False)
    except OSError as error:
        raise UsageError("nobody to name as promoter: git is not there; give --by NAME") from error
    if not found.stdout.strip():
        raise UsageError("nobody to name as promoter: git has no user.name; give --by NAME")
    return found.stdout.strip()


def _show(options: ShowOptions) -> None:
    baseline = read_baseline(options.baseline)
    if options.json:
        sys.stdout.write(json.dumps(_record(baseline)) + "\n")
        return
    rows = [["metric", "mean", "spread", "runs", "n", "outcomes", "moved since first pinned"]]
    for one in baseline.measured:
        drift = baseline.drift(one.metric)
        kept = all(path is not None and path.is_file() for path in one.samples)
        rows.append(
            [
                one.metric,
                f"{one.mean:.4f}",
                "–" if one.spread is None else f"{one.spread:.4f}",
                str(len(one.values)),
                str(one.n),
                "kept" if kept else "not kept",
                "–" if drift is None else signed(drift),
            ]
        )
    lines = text_table(rows)
    for (kind, name), ratio in sorted(baseline.ratios.items()):
        lines.append(f"{kind}: {name}: {ratio.median:.3f} [{ratio.low:.3f}, {ratio.high:.3f}]")
    lines += ["", f"Promoted {baseline.age(datetime.now(UTC))} days ago. History, newest first:"]
    lines += [
        f"- {one.when} {one.by}: {one.reason} ({', '.join(one.checkpoints)})" for one in baseline.promotions[::-1]
    ]
    sys.stdout.write("\n".join(lines) + "\n")


def _record(baseline: Baseline) -> dict[str, object]:
    return {
        "path": str(baseline.path),
        "age_days": baseline.age(datetime.now(UTC)),
        "metrics": {
            one.metric: {"mean": one.mean, "spread": one.spread, "runs": len(one.values), "n": one.n}
            for one in baseline.measured
        },
        "promotions": [
            {"when": one.when, "by": one.by, "reason": one.reason, "means": dict(one.means)}
            for one in baseline.promotions
        ],
    }
