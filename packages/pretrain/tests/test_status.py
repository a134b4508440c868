"""`pretrain status`: what the files of a run say, also while they are being written."""

import fcntl
import json
import subprocess
import sys

import numpy as np
import pytest
from unveil_backbones.manifest import Passport
from unveil_pretrain import OutputError
from unveil_pretrain.charts import chart
from unveil_pretrain.cli import main
from unveil_pretrain.history import read_history, read_rows
from unveil_pretrain.status import curves_csv, status_of, words_of
from unveil_pretrain.val_table import ViewTable, write_table

STEPS = 8


def append(file, *rows):
    with file.open("a") as stream:
        stream.writelines(json.dumps(row) + "\n" for row in rows)


def metrics(step):
    return {
        "step": step, "samples_seen": 16 * step, "epoch": 16 * step / 64, "unique_samples": 64, "loss": 1.0 / step,
        "lr": 0.001, "grad_norm": 1.0, "samples_per_second": 32.0, "tokens_seen": 64 * step, "seconds": 0.5 * step,
    }  # fmt: skip


def validation(step, loss, **more):
    return {
        "step": step, "samples_seen": 16 * step, "epochs": step / 4, "loss": loss, "standard_error": 0.02,
        "num_images": 12, "train_loss": loss - 0.1, "train_standard_error": 0.03, "train_num_images": 6, "gap": 0.1,
        "gap_standard_error": 0.036, "num_masks": 2, "alarm": None, "passport": "abc", **more,
    }  # fmt: skip


@pytest.fixture
def just_started(tmp_path):
    """A folder as `RunFolder.claim` makes it."""
    config = {"steps": STEPS, "batch_size": 16, "encoder": "vit_tiny", "objective": {"name": "mae"}}
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text(json.dumps({"identity": {"config": config}}))
    return tmp_path / "run"


@pytest.fixture
def running(just_started):
    """Six steps, two validations with their tables, a checkpoint, what went wrong on the way."""
    append(just_started / "metrics.jsonl", *(metrics(step) for step in range(1, 7)))
    losses = {3: np.linspace(0.4, 0.6, 12), 6: np.linspace(0.4, 0.6, 12) - 0.001 + np.tile([1e-4, -1e-4], 6)}
    card = Passport(
        objective="mae", target_normalisation="patch", reduction="hidden_patches", mask={}, realised_ratio=0.75,
        mask_seed=5, mask_epoch=0, image_size=(32, 32), crop="center1.0", images_hash="a", negative_pool=0,
        dtype="float32",
    )  # fmt: skip
    for step, values in losses.items():
        one = ViewTable(
            split="val", keys=[f"{index:02d}" for index in range(12)], sample_ids=np.arange(12), groups=np.arange(12),
            views={"loss": values},
        )  # fmt: skip
        write_table(just_started, step, [one], card)
        append(just_started / "val.jsonl", validation(step, float(values.mean())))
    append(just_started / "spikes.jsonl", {"step": 4, "loss": 9.0})
    append(just_started / "skipped.jsonl", {"step": 2, "what": "broken"}, {"step": 5, "what": "broken"})
    checkpoint(just_started, 3)
    return just_started


def checkpoint(run, step):
    folder = run / "checkpoints" / f"step_{step:08d}"
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text("{}")


def test_a_run_on_its_way(running, capsys):
    main(["status", str(running)])
    said = capsys.readouterr().out
    assert "mae on vit_tiny, stopped (no process is at work); the same command continues from its last" in said
    assert "step 6 of 8 (75%), 1.5 epochs over the data" in said
    assert "0.4990 ± 0.02 at step 6 (12 images, 2 masks each); lowest 0.4990 at step 6" in said
    assert "-0.00100 ± 3e-05 since step 3, paired: -0.00107 to -0.00093 (95%); unpaired ± 0.027" in said
    assert "0.3990 ± 0.03 on 6 training images: gap +0.1000 ± 0.036" in said
    assert "alarm       none (at most 5% of runs raise it falsely)" in said
    assert "32 samples/s, MFU unknown (the run has no cost.jsonl), time left 1 s" in said
    assert "2 samples skipped, 1 loss spikes" in said
    assert "step_00000003" in said


def test_the_same_as_json(running, capsys):
    main(["status", str(running), str(running), "--json", "--price-per-hour", "3600"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    status = json.loads(lines[0])
    assert (status["state"], status["step"], status["steps"]) == ("stopped", 6, 8)
    assert status["change"]["difference"] == pytest.approx(-0.001)
    assert status["change"]["high"] < 0.0
    assert status["cost"]["device_seconds"] == 3.0
    assert status["cost"]["price"] == 3.0
    assert status["cost"]["seconds_left"] == 1.0
    assert [point["step"] for point in status["curve"]] == [3, 6]
    assert (status["num_skipped"], status["num_spikes"], status["num_alarms"]) == (2, 1, 0)


def test_the_curves_as_csv(running, capsys):
    main(["status", str(running), "--csv"])
    header, first, second = capsys.readouterr().out.splitlines()
    assert header.startswith("step,samples_seen,epochs,loss,standard_error")
    assert len(header.split(",")) == len(first.split(",")) == len(second.split(","))
    assert first.split(",")[0] == "3"
    assert curves_csv(running).count("\n") == 3


def test_half_written_lines_are_not_there_yet(running):
    for name in ("metrics.jsonl", "val.jsonl"):
        with (running / name).open("a") as stream:
            stream.write('{"step": 7, "lo')
    status = status_of(running)
    assert status["step"] == 6
    assert len(status["curve"]) == 2


def test_a_run_that_has_just_started(just_started):
    status = status_of(just_started)
    words = "\n".join(words_of(status))
    assert status["state"] == "stopped"
    assert "stopped (no process is at work); the same command continues from its start" in words
    assert "step 0 of 8 (0%)" in words
    assert "validation  none yet" in words
    assert "unknown before the second step" in words
    assert "checkpoint  none yet" in words


HOLD = """
import fcntl, sys
stream = open(sys.argv[1], "a")
fcntl.lockf(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
print("held", flush=True)
sys.stdin.read()
"""


def test_a_process_at_work_is_seen_by_its_lock(running, just_started):
    lock = running / ".lock"
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    assert status_of(running)["state"] == "running"
    assert status_of(running)["alive"] is True
    (running / "metrics.jsonl").unlink()
    assert status_of(running)["state"] == "starting"
    process.kill()
    process.communicate()
    assert status_of(running)["alive"] is False
    with lock.open("a") as stream:  # looking leaves no lock behind
        fcntl.lockf(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_finished_run(running):
    checkpoint(running, 8)
    (running / "checkpoints" / "step_00000009").mkdir()  # without a manifest: no checkpoint
    assert status_of(running)["state"] == "finished"
    assert read_history(running).last_checkpoint == running / "checkpoints" / "step_00000008"


def test_a_failed_run(running):
    (running / "failure.json").write_text(json.dumps({"step": 6, "what": "gradient norm", "sample_ids": [1]}))
    status = status_of(running)
    assert status["state"] == "failed"
    assert "failed at step 6: the gradient norm was not finite" in "\n".join(words_of(status))
    append(running / "metrics.jsonl", metrics(7))  # it went on since
    assert status_of(running)["state"] == "stopped"


def test_an_alarm_is_shown_with_what_it_means(running):
    alarm = {
        "step": 6, "since_step": 3, "num_validations": 5, "rise": 0.0123, "standard_error": 0.001, "p_value": 1e-6,
        "level": 1e-4, "false_alarm_rate": 0.05,
    }  # fmt: skip
    append(running / "val.jsonl", validation(7, 0.6, alarm=alarm))
    status = status_of(running)
    words = "\n".join(words_of(status))
    assert status["first_alarm"] == alarm
    assert "OVER-FITTING since step 3: at step 6 the validation loss had risen by 0.0123 ± 0.001" in words
    assert "28 of the 28 steps" in words
    assert "7 of the 14" in words


def test_views_and_scores_are_shown_with_the_gap_to_the_loss(running):
    more = {
        "unmasked_loss": 0.3, "unmasked_standard_error": 0.01, "unmasked_gap": 0.2,
        "unmasked_gap_standard_error": 0.005, "image_recall_1": 0.25, "image_recall_1_standard_error": 0.1,
    }  # fmt: skip
    append(running / "val.jsonl", validation(7, 0.5, **more))
    words = "\n".join(words_of(status_of(running)))
    assert "unmasked    0.3000 ± 0.01; the loss exceeds it by +0.2000 ± 0.005, paired" in words
    assert "image_recall_1 0.2500 ± 0.1" in words


def test_folders_that_are_no_runs_are_refused_in_one_line(tmp_path, just_started, capsys):
    with pytest.raises(OutputError, match=r"holds no run: there is no run\.json in it; give the --out of a run"):
        read_history(tmp_path)
    with pytest.raises(OutputError, match="is no folder"):
        read_history(tmp_path / "missing")
    (just_started / "run.json").write_text('{"identity": {}}')
    with pytest.raises(OutputError, match="cannot be read as the record of a run"):
        read_history(just_started)
    (just_started / "run.json").write_text('{"identity": {"config": {"steps": "many"}}}')
    with pytest.raises(OutputError, match="names no number of steps"):
        read_history(just_started)
    with pytest.raises(SystemExit) as caught:
        main(["status"])
    assert caught.value.code == 2
    assert "give the --out of one or several" in capsys.readouterr().err


def test_damaged_rows_are_named(tmp_path):
    file = tmp_path / "val.jsonl"
    assert read_rows(file) == []
    whole = '{"step": 1, "loss": 2.0, "standard_error": 0.1, "num_images": 3}\n'
    file.write_text(f"{whole}no\n")
    with pytest.raises(OutputError, match=r"val.jsonl, line 2 is not JSON"):
        read_rows(file)
    file.write_text("[1]\n")
    with pytest.raises(OutputError, match="line 1 is no JSON object"):
        read_rows(file)
    for changed, problem in (
        (('"step": 1', '"step": "x"'), "has step 'x', which is no whole number; restore the file or remove the line"),
        (("2.0", "NaN"), "has loss nan, which is no number"),
        (('"num_images"', '"num_imagez"'), "lacks num_images"),
    ):
        file.write_text(whole.replace(*changed))
        with pytest.raises(OutputError, match=f"line 1 {problem}"):
            read_rows(file)


def test_damaged_lines_of_a_log_are_left_out_and_said(running, capsys):
    whole = status_of(running)
    assert whole["damaged"] == []
    for name in ("metrics.jsonl", "spikes.jsonl"):
        with (running / name).open("ab") as stream:
            stream.write(b"\0\0\n")
    found = status_of(running)
    assert [line.partition(" is")[0] for line in found["damaged"]] == [
        f"{running}/metrics.jsonl, line 7", f"{running}/spikes.jsonl, line 2"
    ]  # fmt: skip
    assert {**found, "damaged": []} == whole
    main(["status", str(running)])
    assert "  damaged     2 lines of its logs left out: " in capsys.readouterr().out


def test_status_loads_no_torch(running):
    code = (
        "import sys\nfrom unveil_pretrain.cli import main\n"
        f"main(['status', {str(running)!r}])\n"
        "print([name for name in ('torch', 'timm', 'tensorboard') if name in sys.modules])"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.splitlines()[-1] == "[]"


def test_a_chart_by_hand():
    assert chart({"train": [(0, 1.0), (10, 0.0)], "val": [(0, 1.0), (5, 0.5)]}, width=11, height=3) == [
        "1 │v",
        "  │     v",
        "0 │          t",
        "  └───────────",
        "   0        10",
    ]
    assert chart({"val": []}) == []
    flat = chart({"val": [(3, 2.0), (3, float("nan"))]}, width=4, height=3)
    assert flat[1] == "  │v"
