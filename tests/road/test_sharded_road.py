"""From shards of two processes to the harness: a checkpoint that only its run can read is exported and evaluated."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from unveil_backbones import checkpoint_sha256

SIZES = (
    "--num-train", "40", "--num-val", "100", "--num-classification-train", "40", "--num-classification-val", "20",
    "--num-detection-train", "2", "--num-detection-val", "20", "--num-segmentation-train", "0",
    "--num-segmentation-val", "0",
)  # fmt: skip
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}


def command(*words: object) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", *map(str, words)]
    return subprocess.run(line, capture_output=True, text=True, env=ENVIRONMENT, check=False)


def succeed(*words: object) -> str:
    process = command(*words)
    assert process.returncode == 0, process.stdout + process.stderr
    return process.stdout


@pytest.mark.slow
def test_an_exported_checkpoint_of_shards_goes_through_the_harness(tmp_path: Path) -> None:
    data, run, exported, results = (tmp_path / name for name in ("data", "run", "exported", "results"))
    succeed("unveil_pretrain", "scenes", "--out", data, *SIZES)
    pairs = data / "shards" / "pairs"
    succeed(
        "torch.distributed.run", "--standalone", "--nproc-per-node", 2, "-m", "unveil_pretrain", "flip", "tiny_flip",
        "--out", run, "--train-data", pairs / "train-00000.tar", "--val-data", pairs / "val-00000.tar",
        "--steps", 4, "--batch-size", 8, "--warmup-steps", 1, "--validate-every", 2, "--checkpoint-every", 2,
        "--gap-images", 0, "--device", "cpu", "--loggers", "--parallel", "fsdp", "--checkpoint-format", "sharded",
    )  # fmt: skip
    shards = run / "checkpoints" / "step_00000002"
    assert (shards / "weights").is_dir()
    evaluate = ("unveil_evalharness", "run", "--suite", "quick", "--tasks", "knn,zs_retrieval", "--data-root", data,
                "--output-path", results, "--limit", 20)  # fmt: skip
    refused = command(*evaluate, "--ckpt", shards)
    assert refused.returncode != 0
    assert "pretrain export" in refused.stderr + refused.stdout
    assert "Traceback" not in refused.stderr
    succeed("unveil_pretrain", "export", shards, "--out", exported)
    succeed(*evaluate, "--ckpt", exported)
    rows = [json.loads(line) for line in (results / "results.jsonl").read_text().splitlines()]
    done = [row for row in rows if row["status"] == "ok"]
    assert {row["task"] for row in done} == {"knn", "zs_retrieval"}
    assert all(0 <= row["value"] <= 1 for row in done)
    assert {row["checkpoint_sha256"] for row in done} == {checkpoint_sha256(exported)}
