"""Scoring while a run trains: what it records is the same after any interruption, and the alarm goes off once."""

import json
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch
from unveil_pretrain import compare_losses, loop, read_losses, scoring, train
from unveil_pretrain.alarm import WHAT_A_RISE_MEANS
from unveil_pretrain.record import RunFolder
from unveil_pretrain.run import assemble
from unveil_pretrain.scoring import record_validation
from unveil_pretrain.sources import open_data
from unveil_pretrain.train_state import Position
from unveil_pretrain.validate import Evaluation

# Python 3.12 and later say so when a process with threads forks its workers.
pytestmark = pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")


def run(config, out, shards):
    return train(
        config,
        out=out,
        train_data=shards[0],
        val_data=shards[1],
        device="cpu",
        progress=False,
        log=lambda line: None,
    )


@pytest.fixture(scope="module")
def straight(tmp_path_factory, simmim_config, shards):
    out = tmp_path_factory.mktemp("straight") / "run"
    run(simmim_config, out, shards)
    return out


def shown(out):
    """Steps and values that TensorBoard shows of the validation loss."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(out / "tensorboard"), purge_orphaned_data=True)
    events.Reload()
    return [(event.step, event.value) for event in events.Scalars("val/loss")]


def test_losses_of_images_and_curves_are_the_same_after_an_interruption(
    straight, simmim_config, tmp_path, shards, monkeypatch
):
    """Validations at 2, 3, 4 and 6, a checkpoint at 3, a stop in step 6: those of 4 are made again."""
    real = loop.train_step

    def stop(run, position, batch):
        if position.step == 5:
            raise KeyboardInterrupt
        return real(run, position, batch)

    broken = tmp_path / "broken"
    with monkeypatch.context() as patch:
        patch.setattr(loop, "train_step", stop)
        with pytest.raises(KeyboardInterrupt):
            run(simmim_config, broken, shards)
    tables = sorted((broken / "val").glob("step_*"))
    assert [file.stem for file in tables] == ["step_00000002", "step_00000003", "step_00000004"]
    (broken / "val" / ".step_00000005.parquet.tmp").write_bytes(b"half")
    tables[-1].write_bytes(b"as if the machine had failed while it was written")
    run(simmim_config, broken, shards)
    assert (broken / "val.jsonl").read_bytes() == (straight / "val.jsonl").read_bytes()
    assert sorted(file.name for file in (broken / "val").iterdir()) == sorted(
        file.name for file in (straight / "val").iterdir()
    )
    for file in (straight / "val").glob("*.parquet"):
        assert pl.read_parquet(file).equals(pl.read_parquet(broken / "val" / file.name)), file.name
    assert shown(broken) == shown(straight)
    assert [step for step, _ in shown(broken)] == [2, 3, 4, 6]


def test_two_checkpoints_of_a_real_run_are_told_apart_by_pairing(straight):
    """On ten images: the paired standard error is a fraction of the unpaired one."""
    found = compare_losses(read_losses(straight, 2), read_losses(straight, 6))
    assert found.num_images == 10
    assert found.correlation > 0.9
    assert found.standard_error < 0.5 * found.unpaired_standard_error


@pytest.fixture
def falling_then_rising(tmp_path, simmim_config, shards, monkeypatch):
    """A run of 20 validations whose losses are given: a fall over six validations, then a rise."""
    config = replace(simmim_config, steps=20, validate_every=1, checkpoint_every=0, gap_images=7)
    data = open_data(config, train_data=shards[0], val_data=shards[1])
    made, _ = assemble(config, data, RunFolder(tmp_path), None, device=torch.device("cpu"))
    course = np.concatenate([np.linspace(1.0, 0.5, 6), np.linspace(0.52, 0.8, 14)])
    per_image = np.random.default_rng(0).normal(0.0, 0.1, 10)
    now = {}

    def evaluate(objective, validation, normalise, *, bfloat16, world, set_scores=False):
        num = len(validation.samples)
        return Evaluation(
            keys=validation.samples.keys,
            sample_ids=validation.samples.sample_ids,
            groups=np.arange(num),
            losses={"loss": now["loss"] + per_image[:num]},
            set_scores={},
        )

    monkeypatch.setattr(scoring, "evaluate", evaluate)

    def score(step):
        now["loss"] = course[step - 1]
        record_validation(made, Position(step=step, samples_seen=5 * step))

    return score, tmp_path


def test_the_alarm_is_recorded_and_said_once(falling_then_rising, capsys):
    score, folder = falling_then_rising
    for step in range(1, 21):
        score(step)
    rows = [json.loads(line) for line in (folder / "val.jsonl").read_text().splitlines()]
    alarms = [row["alarm"] for row in rows if row["alarm"]]
    # A smooth rise from step 6 on is seen by the first window that lies in it whole.
    assert (alarms[0]["step"], alarms[0]["since_step"], alarms[0]["num_validations"]) == (10, 6, 5)
    assert len(alarms) > 3
    said = capsys.readouterr().err
    assert said.count("over-fitting alarm") == 1
    assert f"over-fitting alarm at step {alarms[0]['step']}, after {5 * alarms[0]['step'] / 24:.4g} epochs over" in said
    assert "at most 5% say this at any time" in said
    assert WHAT_A_RISE_MEANS in said


def test_no_alarm_while_the_loss_is_the_lowest_so_far(falling_then_rising, monkeypatch):
    """Then nothing can have risen, and the tables of earlier validations need not be read."""
    score, _ = falling_then_rising
    for step in range(1, 6):
        score(step)
    monkeypatch.setattr(scoring, "read_losses", lambda *_: pytest.fail("read"))
    score(6)
    with pytest.raises(pytest.fail.Exception):
        score(7)
