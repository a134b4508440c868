"""Numbers that are none, memory that is not there: named, written down, and gone on from."""

import errno
import json
import shutil

import pytest
from run_folders import differences, unreadable

EVERY = ("--steps", "4", "--validate-every", "4", "--checkpoint-every", "2", "--gap-images", "0", "--loggers")


@pytest.fixture(scope="module")
def straight(pretrain_server, pretrain_words, tmp_path_factory):
    run = tmp_path_factory.mktemp("straight") / "run"
    assert pretrain_server.run("fault_children:pretrain", pretrain_words("mim", run, *EVERY), {}).code == 0
    return run


@pytest.fixture(scope="module")
def sample(shards):
    """A sample of step 2, counted from 0, that no earlier step has."""
    from unveil_pretrain.data import ShardDataset
    from unveil_pretrain.data.order import step_indices

    data = ShardDataset(shards[0])
    seen = [set(step_indices(len(data), 6, step, seed=0)[1].tolist()) for step in range(3)]
    return int(data.sample_ids[min(seen[2] - seen[0] - seen[1])])


@pytest.mark.parametrize(
    ("where", "step", "what"),
    [
        ("pixels", 2, "loss"),
        pytest.param("loss", 2, "loss", marks=pytest.mark.slow),
        pytest.param("gradient", 2, "gradient norm", marks=pytest.mark.slow),
        pytest.param("weights", 2, "loss", marks=pytest.mark.slow),
        ("optimiser", 3, "loss"),
    ],
)
def test_pretrain_stops_writes_it_down_and_replays_it(
    straight, sample, pretrain_server, pretrain_words, tmp_path, where, step, what
):
    run, fault = tmp_path / "run", {"nan": where, "sample": sample}
    words = pretrain_words("mim", run, *EVERY)
    ended = pretrain_server.run("fault_children:pretrain", words, fault)
    assert ended.code == 2, ended.err
    assert "Traceback" not in ended.err
    last = ended.err.strip().splitlines()[-1]
    assert f"the {what} is not finite at step {step} " in last
    assert f"pretrain replay {run}" in last
    assert "the last good checkpoint is" in last
    failure = json.loads((run / "failure.json").read_text())
    assert (failure["step"], failure["what"]) == (step, what)
    assert unreadable(run) == []
    # What is wrong with the data or the program is wrong again; wrong weights were kept.
    again = fault if where in ("pixels", "loss", "gradient") else {}
    told = pretrain_server.run("fault_children:pretrain", ["replay", str(run), "--device", "cpu"], again)
    assert told.code == 1, told.err
    assert "not finite" in told.out
    # Repaired, the run goes on from its last good checkpoint.
    assert pretrain_server.run("fault_children:pretrain", words, {}).code == 0
    for name in ("failure.json", "failure.safetensors"):
        (run / name).unlink()
    assert differences(run, straight) == []


@pytest.mark.slow
def test_a_failure_that_cannot_be_written_is_told(sample, pretrain_server, pretrain_words, tmp_path):
    """A full disk while failure.safetensors and failure.json are written: one line; the run is as it was."""
    nan = {"nan": "loss", "sample": sample}
    first, run, tally = tmp_path / "first", tmp_path / "run", tmp_path / "tally"
    counted = {"both": [{"count": str(tally), "below": str(first)}, nan]}
    assert pretrain_server.run("fault_children:pretrain", pretrain_words("mim", first, *EVERY), counted).code == 2
    names = tally.read_text().splitlines()
    (number,) = [number for number, name in enumerate(names) if name == f"tensors {first / 'failure.safetensors'}"]
    refused = {"both": [{"refuse": number, "code": errno.ENOSPC, "below": str(run)}, nan]}
    ended = pretrain_server.run("fault_children:pretrain", pretrain_words("mim", run, *EVERY), refused)
    assert ended.code == 2
    assert "Traceback" not in ended.err
    assert f"pretrain: error: cannot write {run / 'failure.json'} (No space left on device)" in ended.err
    assert unreadable(run) == []


def test_pretrain_without_memory_says_what_would_help(straight, pretrain_server, pretrain_words, tmp_path):
    run = tmp_path / "run"
    words = pretrain_words("mim", run, *EVERY)
    ended = pretrain_server.run("fault_children:pretrain", words, {"no_memory": "pretrain"})
    assert ended.code == 2, ended.err
    assert "Traceback" not in ended.err
    assert "step 0 ran out of memory on cpu with 6 samples at once" in ended.err
    assert pretrain_server.run("fault_children:pretrain", words, {}).code == 0
    assert differences(run, straight) == []


def test_evalharness_records_a_task_without_memory_and_does_the_others(harness_server, harness_words, tmp_path):
    from unveil_evalharness.results import latest, read_rows

    out = tmp_path / "out"
    words = harness_words("knn,zs_retrieval", out)
    ended = harness_server.run("fault_children:evalharness", words, {"no_memory": "evalharness"})
    assert ended.code == 1, ended.err
    assert "Traceback" not in ended.err
    rows = read_rows(out / "results.jsonl")
    assert {(row.task, row.status) for row in rows} == {("knn", "failed"), ("zs_retrieval", "ok")}
    (reason,) = {row.error for row in rows if row.status == "failed"}
    assert "out of memory even with 1 image(s) per pass" in reason
    again = harness_server.run("fault_children:evalharness", words, {})
    assert again.code == 0, again.err
    assert {row.status for row in latest(read_rows(out / "results.jsonl"))} == {"ok"}
    assert list((out / "work").iterdir()) == []


def test_a_checkpoint_that_is_no_number_is_refused(harness_server, subjects, eval_data, tmp_path):
    """Its hashes are right: a run that diverged wrote it so."""
    import hashlib

    import torch
    from safetensors.torch import load_file, save_file

    spoilt = shutil.copytree(subjects["mae"], tmp_path / "step_00000010")
    tensors = load_file(spoilt / "encoder.safetensors")
    next(iter(tensors.values())).fill_(torch.nan)
    save_file(tensors, spoilt / "encoder.safetensors")
    manifest = json.loads((spoilt / "manifest.json").read_text())
    manifest["files"]["encoder.safetensors"] = hashlib.sha256((spoilt / "encoder.safetensors").read_bytes()).hexdigest()
    (spoilt / "manifest.json").write_text(json.dumps(manifest))
    words = ["run", "--ckpt", str(spoilt), "--data-root", str(eval_data), "--output-path", str(tmp_path / "out")]
    ended = harness_server.run("fault_children:evalharness", [*words, "--tasks", "knn", "--device", "cpu"], {})
    assert ended.code == 2
    assert "NaN or infinite values" in ended.err
    assert "Traceback" not in ended.err
