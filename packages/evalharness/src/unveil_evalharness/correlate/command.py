"""``evalharness correlate OUT[,OUT] | TABLE | --published NAME``: a table, words and a verdict on stdout, or JSON.

Exit status: 0 when at least one metric has a correlation, 2 on bad input, 3 when nothing can be compared.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from unveil_evalharness.correlate.correlation import NUM_RESAMPLES, Correlation, correlate_points
from unveil_evalharness.correlate.evidence import split_paths
from unveil_evalharness.correlate.load import load
from unveil_evalharness.correlate.render import render
from unveil_evalharness.correlate.table import Roles
from unveil_evalharness.errors import NotComparableError, UsageError

__all__ = ["CorrelateOptions", "main"]

NOTHING_TO_COMPARE = 3
_FEW_STRATA = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class CorrelateOptions:
    """Relate the validation loss of checkpoints to what they score downstream, and say whether it may be trusted."""

    results: Positional[tuple[str, ...]] = ()
    """Output folders of `evalharness run`, or one table (.csv, .parquet, .jsonl), or a sweep's summary.csv and folders;
    several may be separated by commas or spaces."""
    published: str = ""
    """A published set in place of results: xie2023 (63 runs, loss and top-1) or flip2023 (zero-shot and transfer)."""
    x: str = ""
    """Column of a table to judge by, or a task or metric (val_loss, knn) whose results stand in for the manifests'
    losses."""
    y: tuple[str, ...] = ()
    """Columns of a table to be judged, separated by commas; metrics where it has the columns metric and value."""
    group: tuple[str, ...] = ()
    """Column that says which runs are of one model (model); further ones make further strata."""
    control: tuple[str, ...] = ()
    """Columns that could explain the value; log_NAME takes the logarithm. log_params,log_steps where they are known."""
    cluster: str = ""
    """Column of points that are not independent, resampled together; the first group, or the training run."""
    x_higher_is_better: bool = False
    """A higher x promises more, as an accuracy does and a loss does not."""
    y_lower_is_better: bool = False
    """A lower value is the better one, in a table that has no column higher_is_better."""
    metric: tuple[str, ...] = ()
    """Metrics (imagenet_ft.acc1) or tasks (imagenet_ft) to show, separated by commas; all when left out."""
    num_resamples: int = NUM_RESAMPLES
    """Bootstrap resamples behind each interval."""
    seed: int = 0
    """Seed of the resampling."""
    joint: bool = False
    """Insist on one correlation per metric over all checkpoints; refused when their losses or protocols differ."""
    details: bool = False
    """Show the whole study of each metric; always on for one or two metrics."""
    figure: Path | None = None
    """Draw the runs of the first metric into this file (.svg, .png or .pdf)."""
    json: bool = False
    """Print everything, with the points, as JSON."""

    def __post_init__(self) -> None:
        """Refuses values no correlation can have."""
        if self.num_resamples < 100:
            raise UsageError(f"--num-resamples must be at least 100 to hold a 95 % interval, got {self.num_resamples}")
        if self.seed < 0:
            raise UsageError(f"--seed must not be negative, got {self.seed}")
        if self.figure is not None and self.figure.suffix not in (".svg", ".png", ".pdf"):
            raise UsageError(f"--figure must end in .svg, .png or .pdf, got {self.figure}")


def main(options: CorrelateOptions) -> int:
    """Prints the correlation and returns the exit status.

    Raises:
        HarnessError: bad input; the command line turns it into one line and exit status 2.
    """
    try:
        correlation = _correlation(options)
    except NotComparableError as error:
        sys.stderr.write(f"evalharness: error: {error}\n")
        return NOTHING_TO_COMPARE
    num_ok = sum(stratum.status == "ok" for stratum in correlation.strata)
    text = correlation.to_json() if options.json else render(correlation, in_full=_in_full(options, num_ok))
    sys.stdout.write(text + "\n")
    if not num_ok:
        reason = (
            "no metric has enough comparable checkpoints"
            if correlation.strata
            else "no checkpoint has both a loss and a value"
        )
        sys.stderr.write(f"evalharness: error: {reason}; see the reasons on stdout\n")
        return NOTHING_TO_COMPARE
    if options.figure is not None:
        from unveil_evalharness.correlate.figure import draw

        draw(next(stratum for stratum in correlation.strata if stratum.status == "ok"), options.figure)
        sys.stderr.write(f"evalharness: drew {options.figure}\n")
    return 0


def _in_full(options: CorrelateOptions, num_ok: int) -> bool:
    return options.details or num_ok <= _FEW_STRATA


def _correlation(options: CorrelateOptions) -> Correlation:
    roles = Roles(
        x=options.x,
        y=options.y,
        group=options.group,
        control=options.control,
        cluster=options.cluster,
        lower_x_is_better=not options.x_higher_is_better,
        higher_y_is_better=not options.y_lower_is_better,
    )
    paths = () if options.published and not options.results else split_paths(options.results)
    source = load(paths, published=options.published, roles=roles)
    return correlate_points(
        source.points,
        outputs=source.outputs,
        metrics=[piece.strip() for text in options.metric for piece in text.split(",") if piece.strip()],
        num_resamples=options.num_resamples,
        seed=options.seed,
        joint=options.joint,
    )
