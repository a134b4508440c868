"""The study as a list of commands, each of which continues where it was stopped.

Nothing here trains or computes: every stage is a line that a user could type, and what it leaves behind says whether it
is finished.
"""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from unveil_pretrain.planning.plans import Cell, Plan

from study.layout import pairs_of
from study.mim_plan import study_plan
from study.profiles import Profile

__all__ = ["Stage", "flip_cells", "mim_checkpoints", "plan_of", "stages_of", "write_plan"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    """One command of the study."""

    name: str
    words: Callable[[], tuple[str, ...]]
    """The command; made when its turn comes, since later ones name what earlier ones have written."""
    log: Path
    """Where what it prints is kept."""
    output: Path | None = None
    """Where its standard output alone is kept, for those whose output is a result."""


def plan_of(profile: Profile) -> Plan:
    """The cells of the MIM grid."""
    return study_plan(
        profile.num_images,
        encoders=profile.encoders,
        base_lrs=profile.base_lrs,
        steps=profile.steps,
        image_size=profile.image_size,
        batch_size=profile.batch_size,
    )


def stages_of(profile: Profile, root: Path, out: Path) -> list[Stage]:
    """All stages in their order.

    Args:
        profile: How large.
        root: The data root.
        out: Folder of the study; holds plan.json and the shards of the MIM grid already.
    """
    limit = ("--limit", str(profile.limit)) if profile.limit else ()
    return [
        _stage("MIM grid: pre-training", out, "mim", lambda: _sweep(profile, root, out)),
        _stage("MIM grid: fine-tuning", out, "finetune", lambda: _evaluate(
            profile, root, out / "finetune", mim_checkpoints(plan_of(profile), out), "imagenet_ft",
            ("--seeds", ",".join(map(str, profile.seeds)), *limit),
        )),
        _stage("MIM grid: detection and segmentation", out, "dense", lambda: _evaluate(
            profile, root, out / "dense", mim_checkpoints(plan_of(profile), out), "coco_det,ade20k_seg", limit,
        )),
        _stage("FLIP grid", out, "flip", lambda: _ablation(profile, root, out)),
        _stage("FLIP grid: retrieval by the harness", out, "retrieval", lambda: _evaluate(
            profile, root, out / "retrieval", flip_cells(out), "zs_retrieval", limit,
        )),
        *_analyses(out),
    ]  # fmt: skip


def mim_checkpoints(plan: Plan, out: Path) -> list[Path]:
    """Run folders of the MIM grid that have a checkpoint, in the order of the plan."""
    return [folder for cell in plan.cells if (folder := _run(out, cell)).joinpath("checkpoints").is_dir()]


def flip_cells(out: Path) -> list[Path]:
    """Run folders of the FLIP grid that have a checkpoint."""
    return sorted(folder.parent for folder in (out / "flip" / "cells").glob("*/checkpoints"))


def _stage(name: str, out: Path, log: str, words: Callable[[], tuple[str, ...]]) -> Stage:
    return Stage(name=name, words=words, log=out / "logs" / f"{log}.log")


def _run(out: Path, cell: Cell) -> Path:
    return out / "mim" / "cells" / cell.name


def _sweep(profile: Profile, root: Path, out: Path) -> tuple[str, ...]:
    val = next(path for path in (root / "imagenet" / "val.zip", root / "imagenet" / "val") if path.exists())
    return _pretrain(
        "sweep", str(out / "plan.json"), "--out", str(out / "mim"), "--jobs", str(profile.lanes),
        "--train-data", str(out / "data" / "shards"), "--val-data", str(val),
    )  # fmt: skip


def _evaluate(
    profile: Profile, root: Path, output: Path, runs: list[Path], tasks: str, more: tuple[str, ...]
) -> tuple[str, ...]:
    return _evalharness(
        "run", "--ckpt", ",".join(map(str, runs)), "--data-root", str(root), "--output-path", str(output),
        "--tasks", tasks, "--suite", profile.suite, "--device", profile.device, "--devices", str(profile.lanes),
        "--no-progress", *more,
    )  # fmt: skip


def _ablation(profile: Profile, root: Path, out: Path) -> tuple[str, ...]:
    train, val = pairs_of(root)
    pool = 4 if profile.limit else 100
    return _pretrain(
        "flip-ablation", "tiny_flip", "--out", str(out / "flip"), "--train-data", train, "--val-data", val,
        "--steps", str(profile.flip_steps), "--batch-size", str(profile.flip_batch_size),
        "--warmup-steps", str(max(1, profile.flip_steps // 15)), "--validate-every", str(profile.flip_steps),
        "--gap-images", "0", "--negative-pool", str(pool), "--variants", "tuned", "resize",
        "--seeds", *map(str, profile.flip_seeds), "--calibration-steps", "4" if profile.limit else "12",
        "--device", profile.device,
    )  # fmt: skip


def _analyses(out: Path) -> list[Stage]:
    """Verdicts per task, and the report."""
    names = {"correlate": ("finetune", "dense"), "correlate-flip": ("retrieval",)}
    found = []
    for name, folders in names.items():
        given = [str(out / folder) for folder in folders]
        log = out / "logs" / f"{name}.log"
        found.append(
            Stage(
                name=f"{name}: verdicts",
                words=lambda given=given, name=name: _evalharness(
                    "correlate", *given, "--json", "--figure", str(out / f"{name}.png")
                ),
                log=log,
                output=out / f"{name}.json",
            )
        )
        found.append(
            Stage(
                name=f"{name}: in words",
                words=lambda given=given: _evalharness("correlate", *given),
                log=log,
                output=out / f"{name}.txt",
            )
        )
    every = [str(out / folder) for folder in ("finetune", "dense", "retrieval")]
    report = Stage(
        name="report",
        words=lambda: _evalharness("report", *every, "--output", str(out / "report")),
        log=out / "logs" / "report.log",
    )
    return [*found, report]


def write_plan(profile: Profile, out: Path) -> None:
    """Write plan.json for the sweep."""
    (out / "plan.json").write_text(plan_of(profile).to_json(), encoding="utf-8")
    (out / "profile.json").write_text(json.dumps({"profile": profile.name}) + "\n", encoding="utf-8")


def _pretrain(*words: str) -> tuple[str, ...]:
    return (sys.executable, "-m", "unveil_pretrain", *words)


def _evalharness(*words: str) -> tuple[str, ...]:
    return (sys.executable, "-m", "unveil_evalharness", *words)
