"""The road end to end through the command lines, in a miniature: scenes → MIM and FLIP → four tasks → report."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

pytestmark = pytest.mark.mm

TASKS = {"imagenet_ft", "coco_det", "ade20k_seg", "zs_retrieval"}


@dataclass(frozen=True, kw_only=True)
class Road:
    """Folders of one finished miniature run."""

    data: Path
    simmim: Path
    flip: Path
    results: Path


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    line = [sys.executable, "-m", *(str(argument) for argument in arguments)]
    return subprocess.run(line, capture_output=True, text=True, env=environment, check=False)


def succeed(*arguments: object) -> str:
    process = command(*arguments)
    assert process.returncode == 0, process.stdout + process.stderr
    return process.stdout


def shards(folder: Path, split: str) -> str:
    return "::".join(str(path) for path in sorted(folder.glob(f"{split}-*.tar")))


def pretrain_command(kind: str, recipe: str, out: Path, shard_folder: Path, *more: object) -> tuple[object, ...]:
    return (
        "unveil_pretrain", kind, recipe, "--out", out, "--train-data", shards(shard_folder, "train"),
        "--val-data", shards(shard_folder, "val"), "--steps", 4, "--batch-size", 16, *more,
    )  # fmt: skip


@pytest.fixture(scope="module")
def road(tmp_path_factory: pytest.TempPathFactory) -> Road:
    root = tmp_path_factory.mktemp("road")
    folders = Road(data=root / "data", simmim=root / "simmim", flip=root / "flip", results=root / "eval")
    sizes = ("--num-train", 64, "--num-val", 100, "--num-classification-train", 60, "--num-classification-val", 40,
             "--num-detection-train", 16, "--num-detection-val", 8,
             "--num-segmentation-train", 16, "--num-segmentation-val", 8)  # fmt: skip
    succeed("unveil_pretrain", "scenes", "--out", folders.data, *sizes)
    succeed(*pretrain_command("mim", "tiny_simmim", folders.simmim, folders.data / "shards" / "images"))
    succeed(*pretrain_command("flip", "tiny_flip", folders.flip, folders.data / "shards" / "pairs"))
    return folders


def evaluate(road: Road, *more: object) -> list[subprocess.CompletedProcess[str]]:
    """FLIP on all four tasks; SimMIM on the cheap one and on the one that does not apply to it."""
    common = ("--suite", "quick", "--data-root", road.data, "--output-path", road.results, "--limit", 8, *more)
    return [
        command("unveil_evalharness", "run", "--ckpt", road.flip, *common),
        command("unveil_evalharness", "run", "--ckpt", road.simmim, "--tasks", "imagenet_ft,zs_retrieval", *common),
    ]


@pytest.fixture(scope="module")
def evaluated(road: Road) -> Road:
    for process in evaluate(road):
        assert process.returncode == 0, process.stdout + process.stderr
    return road


def rows(road: Road) -> list[dict[str, object]]:
    return [json.loads(line) for line in (road.results / "results.jsonl").read_text().splitlines()]


def test_every_task_of_every_checkpoint_is_recorded(evaluated: Road) -> None:
    outcome = {(row["label"], row["task"]): row["status"] for row in rows(evaluated)}
    labels = {label for label, _ in outcome}
    assert len(labels) == 2
    assert {task for _, task in outcome} == TASKS
    statuses = sorted(str(status) for status in outcome.values())
    assert statuses == ["not_applicable"] + ["ok"] * 5  # SimMIM has no text tower


def test_limited_rows_say_so_and_carry_provenance(evaluated: Road) -> None:
    for row in rows(evaluated):
        if row["status"] != "ok":
            continue
        assert row["limited"] is True
        assert row["baseline"] is not None, row["metric"]
        assert 0 <= float(str(row["value"])) <= 1
        assert row["checkpoint_sha256"]
        assert row["data_hash"]
        assert row["protocol"]


def test_trained_tasks_loaded_every_encoder_tensor(evaluated: Road) -> None:
    coverage = [
        row["load_coverage"] for row in rows(evaluated) if row["status"] == "ok" and row["task"] != "zs_retrieval"
    ]
    assert coverage
    assert set(coverage) == {1.0}


def test_second_run_repeats_nothing(evaluated: Road) -> None:
    before = (evaluated.results / "results.jsonl").read_bytes()
    for process in evaluate(evaluated, "--json"):
        assert process.returncode == 0, process.stderr
        json.loads(process.stdout)
    assert (evaluated.results / "results.jsonl").read_bytes() == before


def test_finished_pretraining_is_not_repeated(road: Road) -> None:
    metrics = (road.simmim / "metrics.jsonl").read_bytes()
    succeed(*pretrain_command("mim", "tiny_simmim", road.simmim, road.data / "shards" / "images"))
    assert (road.simmim / "metrics.jsonl").read_bytes() == metrics


def test_report_is_one_offline_page(evaluated: Road, tmp_path: Path) -> None:
    succeed("unveil_evalharness", "report", evaluated.results, "--output", tmp_path / "report")
    page = (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    assert "imagenet_ft.acc1" in page
    assert 'src="http' not in page
    assert 'href="http' not in page


def test_correlation_of_two_checkpoints_is_refused(evaluated: Road) -> None:
    process = command("unveil_evalharness", "correlate", evaluated.results)
    assert process.returncode == 3, process.stdout + process.stderr
    assert "Traceback" not in process.stderr
