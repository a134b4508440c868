"""Whole runs: records, checkpoints, and the same numbers after any interruption."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from unveil_backbones import SwinConfig, load, load_pair, read_manifest
from unveil_backbones.flops import encoder_cost
from unveil_pretrain import ResumeError, loop, train
from unveil_pretrain.record import RunFolder

# Python 3.12 and later say so when a process with threads (the progress bar's) forks its workers.
pytestmark = pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")


def run(config, out, shards, **more):
    lines = []
    path = train(
        config,
        out=out,
        train_data=shards[0],
        val_data=shards[1],
        device="cpu",
        progress=False,
        log=lines.append,
        **more,
    )
    return path, "\n".join(lines)


def interrupted(monkeypatch, config, out, shards, *, at):
    """A run that is stopped by Ctrl-C in the middle of step `at` (counted from 0)."""
    real = loop.train_step

    def stop(run, position, batch):
        if position.step == at:
            raise KeyboardInterrupt
        return real(run, position, batch)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "train_step", stop)
        with pytest.raises(KeyboardInterrupt):
            run(config, out, shards)


def rows(file, *, without=()):
    return [
        {name: value for name, value in json.loads(line).items() if name not in without}
        for line in file.read_text().splitlines()
    ]


def assert_same_run(one, two, step):
    clocks = ("seconds", "samples_per_second")
    assert (one / "val.jsonl").read_bytes() == (two / "val.jsonl").read_bytes()
    assert rows(one / "metrics.jsonl", without=clocks) == rows(two / "metrics.jsonl", without=clocks)
    for name in ("encoder.safetensors", "heads.safetensors", "train_state/optimizer.safetensors"):
        left, right = (load_file(folder / "checkpoints" / f"step_{step:08d}" / name) for folder in (one, two))
        assert left.keys() == right.keys()
        differing = [key for key in left if not torch.equal(left[key], right[key])]
        assert differing == [], name


@pytest.mark.parametrize("kind", ["simmim_config", "flip_config"])
def test_a_run_that_was_interrupted_ends_with_the_same_bits(kind, request, tmp_path, shards, monkeypatch):
    """2N steps against N steps, a stop after further steps that no checkpoint holds, and N steps."""
    config = request.getfixturevalue(kind)
    run(config, tmp_path / "straight", shards)
    interrupted(monkeypatch, config, tmp_path / "broken", shards, at=config.steps - 1)
    assert len(rows(tmp_path / "broken" / "metrics.jsonl")) == config.steps - 1
    _, log = run(config, tmp_path / "broken", shards)
    assert f"continuing at step {config.steps // 2}" in log
    assert_same_run(tmp_path / "straight", tmp_path / "broken", config.steps)


def test_a_run_that_was_interrupted_before_its_first_checkpoint_starts_again(
    simmim_config, tmp_path, shards, monkeypatch
):
    run(simmim_config, tmp_path / "straight", shards)
    interrupted(monkeypatch, simmim_config, tmp_path / "broken", shards, at=2)
    assert (tmp_path / "broken" / "val.jsonl").exists()
    run(simmim_config, tmp_path / "broken", shards)
    assert_same_run(tmp_path / "straight", tmp_path / "broken", 6)


def test_workers_do_not_change_the_result(mae_config, tmp_path, shards):
    run(mae_config, tmp_path / "none", shards)
    run(mae_config, tmp_path / "two", shards, num_workers=2)
    assert_same_run(tmp_path / "none", tmp_path / "two", 4)


@pytest.mark.slow
def test_a_killed_process_continues_with_the_same_bits(tmp_path, shards):
    """SIGKILL, at whatever moment it hits, and the same command."""
    command = [
        sys.executable, "-m", "unveil_pretrain", "mim", "tiny_mae", "--train-data", shards[0], "--val-data", shards[1],
        "--image-size", "32", "32", "--steps", "20", "--batch-size", "4", "--checkpoint-every", "4", "--device", "cpu",
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([*command, "--out", str(tmp_path / "straight")], check=True, capture_output=True, env=environment)
    broken = tmp_path / "broken"
    process = subprocess.Popen(
        [*command, "--out", str(broken)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment
    )
    deadline = time.monotonic() + 120
    while not (broken / "checkpoints" / "step_00000004").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (broken / "checkpoints" / "step_00000020").exists()
    subprocess.run([*command, "--out", str(broken)], check=True, capture_output=True, env=environment)
    assert_same_run(tmp_path / "straight", broken, 20)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, simmim_config, shards):
    out = tmp_path_factory.mktemp("finished") / "run"
    path, log = run(simmim_config, out, shards)
    return out, path, log


def test_what_a_run_leaves_behind(finished, simmim_config):
    out, path, log = finished
    assert "effective batch 5" in log
    assert f"learning rate {simmim_config.base_lr:g} × 5 / 512 = {simmim_config.lr:.3g}" in log
    assert "6 steps = 30 samples = 1.25 epochs over 24 unique samples" in log

    metrics = rows(out / "metrics.jsonl")
    assert [row["step"] for row in metrics] == [1, 2, 3, 4, 5, 6]
    assert metrics[-1]["samples_seen"] == 30
    assert metrics[-1]["epoch"] == 30 / 24
    assert metrics[-1]["unique_samples"] == 24
    assert metrics[-1]["tokens_seen"] == 30 * 64
    schedule = simmim_config.build_schedule()
    assert [row["lr"] for row in metrics] == [schedule(step) for step in range(6)]
    assert set(metrics[0]) == {
        "step", "samples_seen", "epoch", "unique_samples", "loss", "lr", "grad_norm", "samples_per_second",
        "tokens_seen", "seconds",
    }  # fmt: skip

    validations = rows(out / "val.jsonl")
    assert [row["step"] for row in validations] == [2, 3, 4, 6]  # every second step, and before each checkpoint
    assert validations[-1]["num_images"] == 10
    assert validations[-1]["train_num_images"] == 7

    settings = json.loads((out / "run.json").read_text())["identity"]["config"]
    assert settings["objective"] == {"name": "simmim", "mask_unit": 8, "mask_ratio": 0.6, "target_window": 5}
    assert settings["image_size"] == [32, 32]
    assert path == out / "checkpoints" / "step_00000006"


def test_the_checkpoint_tells_its_story(finished):
    out, path, _ = finished
    manifest = load(path).manifest
    assert manifest.label == "simmim swinv2_tiny u=24 s=6"
    assert (manifest.step, manifest.samples_seen, manifest.unique_samples) == (6, 30, 24)
    assert manifest.realised_ratio == 10 / 16
    # By the formula, where the run counts what PyTorch executes: 30 images, twice 3 operations for each multiply-add.
    assert manifest.flops == 30 * 6 * encoder_cost(SwinConfig.from_json(manifest.encoder.config)).multiply_adds
    assert manifest.mask == {"strategy": "unit", "ratio": 0.6, "unit": 2, "rounding": "ceil_hidden", "share": "sample"}
    assert [point.step for point in manifest.val] == [2, 3, 4, 6]
    assert manifest.val[-1].loss == rows(out / "val.jsonl")[-1]["loss"]
    assert manifest.passport is not None
    assert manifest.passport.hash == rows(out / "val.jsonl")[-1]["passport"]
    assert manifest.passport.target_normalisation == "window5"
    assert manifest.preprocessing.image_size == (32, 32)
    assert [point.step for point in read_manifest(out / "checkpoints" / "step_00000003").val] == [2, 3]


def test_the_newest_two_training_states_are_kept_and_all_weights(mae_config, tmp_path, shards):
    run(replace(mae_config, checkpoint_every=1, steps=3, gap_images=0), tmp_path / "run", shards)
    checkpoints = tmp_path / "run" / "checkpoints"
    assert sorted(entry.parent.name for entry in checkpoints.glob("*/train_state")) == [
        "step_00000002",
        "step_00000003",
    ]
    assert load(checkpoints / "step_00000001").manifest.step == 1


def test_a_finished_run_says_so_and_changes_nothing(finished, simmim_config, shards):
    out, path, _ = finished
    before = {file: file.stat().st_mtime_ns for file in out.rglob("*")}
    again, log = run(simmim_config, out, shards)
    assert again == path
    assert "is finished: step 6 of 6" in log
    assert {file: file.stat().st_mtime_ns for file in out.rglob("*")} == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 8}, "config.steps is 8 now and was 6"),
        ({"seed": 1, "base_lr": 2.0}, "config.seed is 1 now and was 0"),
        ({"num_unique": 9}, "config.num_unique is 9"),
    ],
)
def test_other_settings_in_the_same_folder_are_refused(finished, simmim_config, shards, change, message):
    with pytest.raises(ResumeError, match=message):
        run(replace(simmim_config, **change), finished[0], shards)


def test_other_settings_of_the_objective_are_named_with_their_path(finished, simmim_config, shards):
    changed = replace(simmim_config, objective=replace(simmim_config.objective, target_window=7))
    with pytest.raises(ResumeError, match=r"config\.objective\.target_window is 7 now and was 5"):
        run(changed, finished[0], shards)


def test_other_data_in_the_same_folder_is_refused_and_moved_data_is_not(finished, simmim_config, shards, tmp_path):
    with pytest.raises(ResumeError, match="train_data_hash"):
        run(simmim_config, finished[0], (shards[1], shards[1]))
    moved = tmp_path / "elsewhere.tar"
    moved.symlink_to(shards[0])
    run(simmim_config, finished[0], (str(moved), shards[1]))


def test_flip_leaves_a_pair_that_evaluation_can_load(tmp_path, flip_config, shards):
    path, _ = run(flip_config, tmp_path / "flip", shards)
    pair, tokenizer = load_pair(path)
    vectors = pair.encode_text(tokenizer(["a red field", "a blue field"]))
    assert vectors.shape == (2, 16)
    last = rows(tmp_path / "flip" / "val.jsonl")[-1]
    assert {"loss", "standard_error", "unmasked_loss", "unmasked_standard_error"} <= set(last)
    passport = read_manifest(path).passport
    assert passport is not None
    assert passport.negative_pool == 4
    assert read_manifest(path).realised_ratio == 0.5


def test_training_lowers_the_loss_on_one_small_batch(mae_config, tmp_path, shards):
    config = replace(mae_config, num_unique=5, steps=30, warmup_steps=3, base_lr=0.1, validate_every=30)
    run(config, tmp_path / "fit", shards)
    losses = [row["loss"] for row in rows(tmp_path / "fit" / "metrics.jsonl")]
    assert sum(losses[-5:]) / 5 < 0.85 * losses[0]


def test_the_callers_random_numbers_are_left_alone(mae_config, tmp_path, shards):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    run(replace(mae_config, steps=1), tmp_path / "run", shards)
    assert torch.equal(torch.rand(3), expected)


def test_rewinding_keeps_whole_lines_up_to_the_step(tmp_path):
    folder = RunFolder(tmp_path)
    for step in (1, 2, 3):
        folder.add_metrics({"step": step})
    with (tmp_path / "metrics.jsonl").open("a") as stream:
        stream.write('{"step": 4, "lo')
    assert folder.rewind(2) == []
    assert rows(tmp_path / "metrics.jsonl") == [{"step": 1}, {"step": 2}]
    (tmp_path / "val.jsonl").write_text("no json\n")
    with pytest.raises(ResumeError, match=r"val.jsonl, line 1 is not JSON"):
        folder.rewind(2)


def test_rewinding_leaves_out_damaged_lines_of_a_log_says_so_and_keeps_them(tmp_path):
    folder, damaged = RunFolder(tmp_path), b'{"step": 1, "loss": 2.0}\n{"step": \xff}\n{"step": 2}\n[3]\n'
    for number in (1, 2):
        (tmp_path / "metrics.jsonl").write_bytes(damaged)
        (said,) = folder.rewind(2)
        assert re.search(r"metrics\.jsonl, 2 of its lines \(.*line 2 is not JSON", said)
        assert said.endswith(f"the file as it was is metrics.jsonl.damaged{number}")
        assert (tmp_path / f"metrics.jsonl.damaged{number}").read_bytes() == damaged
        assert rows(tmp_path / "metrics.jsonl") == [{"step": 1, "loss": 2.0}, {"step": 2}]
    assert folder.losses() == [2.0]
