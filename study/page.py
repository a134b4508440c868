"""The study's page: what the grids gave, table by table, from the files that the stages left.

Numbers only, each with its interval or standard error; what they mean is written by hand in docs/study/.
"""

import json
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from unveil_evalharness.published import read_published

from study.mim_figure import draw
from study.mim_report import Series, markdown, read_series
from study.profiles import Profile
from study.stages import plan_of

__all__ = ["write_page"]

_PUBLISHED = "xie2023"


def write_page(profile: Profile, out: Path, *, seconds: float) -> Path:
    """Write OUT/README.md and the curves; gives the page.

    Args:
        profile: How large the study was.
        out: Its folder.
        seconds: Of this invocation, which may have found stages finished.
    """
    series = read_series(plan_of(profile).cells, out / "mim")
    if series:
        draw(series, out / "curves.png")
    parts = [
        f"# Study, profile {profile.name}",
        _circumstances(profile, seconds),
        "## MIM grid: validation loss",
        markdown(series) if series else "No run has finished.\n",
        _over_fitted(series),
        "![validation and training loss by length](curves.png)" if series else "",
        "## Does the validation loss tell the downstream results?",
        _verdicts(out / "correlate.json"),
        _against_published(out / "correlate.json"),
        "## FLIP grid",
        _tables(out / "flip" / "tables.md"),
        "## FLIP grid: does the contrastive loss tell retrieval?",
        _verdicts(out / "correlate-flip.json"),
    ]
    page = out / "README.md"
    page.write_text("\n\n".join(part for part in parts if part) + "\n", encoding="utf-8")
    return page


def _circumstances(profile: Profile, seconds: float) -> str:
    day = datetime.now(UTC).strftime("%Y-%m-%d")
    return (
        f"{day}, {platform.machine()} with {profile.lanes} processes on {profile.device}, Python "
        f"{platform.python_version()}, PyTorch {version('torch')}. MAE at {profile.image_size} pixels, batch "
        f"{profile.batch_size}, {profile.num_images:,} training images; one pre-training seed, fine-tuning seeds "
        f"{', '.join(map(str, profile.seeds))}; this invocation took {seconds / 60:.1f} minutes."
    )


def _over_fitted(series: Sequence[Series]) -> str:
    if not series:
        return ""
    found = [one for one in series if one.over_fitted]
    shares = ", ".join(f"{one.encoder} at {one.fraction:.0%}" for one in found) or "none"
    return f"Validation loss turns up within {len(found)} of {len(series)} series ({shares})."


def _verdicts(file: Path) -> str:
    """A row per main metric: coefficients with intervals, verdict, coverage of forecasts."""
    strata = _main_strata(file)
    if not strata:
        return "Not correlated: " + ("no metric was measured on enough runs." if file.is_file() else "not run yet.")
    head = ["metric", "n", "Pearson", "Spearman", "verdict", "forecast error", "coverage of 95 %"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for stratum in strata:
        statistics, metric = stratum["statistics"], stratum["column"]["metric"]
        if statistics is None:
            lines.append(f"| {metric} | | | | refused: {stratum['refusal']['text']} | | |")
            continue
        error, coverage = _forecast(stratum)
        cells = [
            metric, str(statistics["n"]), _estimate(statistics["pearson"]), _estimate(statistics["spearman"]),
            (stratum["verdict"] or {}).get("code", ""), error, coverage,
        ]  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    answers = [f"- {stratum['answer']}" for stratum in strata if stratum["answer"] and not stratum["refusal"]]
    return "\n\n".join(["\n".join(lines), *(["\n".join(answers)] if answers else [])])


def _against_published(file: Path) -> str:
    """Ours beside the 63 published runs, in the statistics that do not depend on scale."""
    runs = read_published(_PUBLISHED)
    ours = [stratum for stratum in _main_strata(file) if (stratum["study"] or {}).get("steps")]
    lines = [
        f"Steps to a longer run of the same model and data, beside the {len(runs)} published runs "
        f"(`evalharness correlate --published {_PUBLISHED}`):",
        "",
        "| metric | loss fell: gained | loss rose: gained |",
        "|---|---|---|",
    ]
    for stratum in ours:
        steps = stratum["study"]["steps"]
        lines.append(f"| {stratum['column']['metric']} | {_gained(steps['falling'])} | {_gained(steps['rising'])} |")
    return "\n".join(lines) if ours else ""


def _main_strata(file: Path) -> list[Mapping[str, Any]]:
    if not file.is_file():
        return []
    found = json.loads(file.read_text(encoding="utf-8"))
    return [stratum for stratum in found["strata"] if stratum["column"]["main"]]


def _forecast(stratum: Mapping[str, Any]) -> tuple[str, str]:
    """Of the line through the loss, groups left out."""
    forecasts = (stratum["study"] or {}).get("forecasts") or []
    for forecast in forecasts:
        if forecast["model"] == "linear" and forecast["known"] == ["x"]:
            low, high = forecast["coverage_interval"]["low"], forecast["coverage_interval"]["high"]
            return (
                f"{forecast['mean_absolute_error']:.3g} ({forecast['left_out']} left out)",
                f"{forecast['coverage']:.0%} [{low:.0%}, {high:.0%}]",
            )
    return "", ""


def _estimate(estimate: Mapping[str, Any]) -> str:
    if estimate["low"] is None:
        return f"{estimate['value']:+.2f}"
    return f"{estimate['value']:+.2f} [{estimate['low']:+.2f}, {estimate['high']:+.2f}]"


def _gained(steps: Mapping[str, Any]) -> str:
    if not steps["num_steps"]:
        return "no such step"
    low, high = steps["gained"]["low"], steps["gained"]["high"]
    return f"{steps['num_gained']} of {steps['num_steps']} [{low:.0%}, {high:.0%}]"


def _tables(file: Path) -> str:
    return file.read_text(encoding="utf-8").strip() if file.is_file() else "Not run yet."
