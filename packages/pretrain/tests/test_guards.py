"""Guards of a run: failed steps can be replayed, memory, spikes, unreadable samples, locks, full disks."""

import json
import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from unveil_backbones import load
from unveil_pretrain import DataError, DivergedError, OutputError, ResumeError, loop, train
from unveil_pretrain.cli import main
from unveil_pretrain.config import config_to_json
from unveil_pretrain.data import ShardDataset
from unveil_pretrain.data.order import step_indices
from unveil_pretrain.errors import MemoryLimitError
from unveil_pretrain.memory_guard import is_out_of_memory, largest_fit
from unveil_pretrain.objectives.mae import MAE
from unveil_pretrain.record import RunFolder
from unveil_pretrain.replay import replay
from unveil_pretrain.spikes import SpikeDetector


def run(config, out, shards):
    lines = []
    train(config, out=out, train_data=shards[0], val_data=shards[1], device="cpu", progress=False, log=lines.append,
          loggers=())  # fmt: skip
    return "\n".join(lines)


def rows(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_a_failed_step_can_be_computed_again(mae_config, shards, tmp_path, monkeypatch, capsys):
    """Step 2 holds a sample whose loss is NaN: the replay finds it with the weights of step 2, and its module."""
    config, out = replace(mae_config, gap_images=0), tmp_path / "run"
    data = ShardDataset(shards[0])
    bad = int(data.sample_ids[step_indices(24, 5, 2, seed=config.seed)[1][3]])
    forward = MAE.forward

    def poisoned(self, inputs, *, seed):
        spoilt = torch.where((inputs.sample_ids == bad)[:, None, None, None], torch.nan, inputs.images)
        return forward(self, replace(inputs, images=spoilt), seed=seed)

    with monkeypatch.context() as patch:
        patch.setattr(MAE, "forward", poisoned)
        with pytest.raises(DivergedError, match=rf"step 2 \(samples {bad};.*pretrain replay {out}"):
            run(config, out, shards)
        found = replay(out, device=torch.device("cpu"))
        assert (found.step, found.exact, found.failed_again) == (2, True, True)
        assert [sample_id for sample_id, loss in found.losses.items() if loss != loss] == [bad]
        assert found.first_module is not None
        assert len(found.gradients) > 0
        with pytest.raises(SystemExit) as caught:
            main(["replay", str(out), "--device", "cpu"])
        assert caught.value.code == 1
        assert f"sample {bad}: loss nan  <- not finite" in capsys.readouterr().out
    healthy = replay(out, device=torch.device("cpu"))
    assert not healthy.failed_again
    # The losses of the others are those that were written down: same weights, crops and masks.
    failure = json.loads((out / "failure.json").read_text())
    for sample_id, loss in zip(failure["sample_ids"], failure["losses"], strict=True):
        assert loss is None or healthy.losses[sample_id] == pytest.approx(loss, rel=1e-6)
    (out / "failure.safetensors").write_bytes(b"short")
    with pytest.raises(ResumeError, match=r"failure\.safetensors cannot be read.*remove it"):
        replay(out, device=torch.device("cpu"))
    (out / "failure.json").unlink()
    with pytest.raises(ResumeError, match="no step of this run failed"):
        replay(out, device=torch.device("cpu"))


def test_out_of_memory_says_what_would_fit(mae_config, shards, tmp_path, monkeypatch):
    forward = MAE.forward

    def greedy(self, inputs, *, seed):
        if self.training and len(inputs.sample_ids) > 4:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp:119] . DefaultCPUAllocator: can't allocate memory")
        return forward(self, inputs, seed=seed)

    monkeypatch.setattr(MAE, "forward", greedy)
    with pytest.raises(MemoryLimitError, match=r"step 0 .* with 5 samples at once; .* give --micro-batch-size 4"):
        run(mae_config, tmp_path / "run", shards)
    monkeypatch.setattr(MAE, "forward", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run(mae_config, tmp_path / "run", shards)


def test_the_line_through_two_measurements():
    assert largest_fit((2, 120.0), (6, 160.0), 200.0) == 10
    assert largest_fit((2, 120.0), (6, 160.0), 105.0) == 0
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(torch.cuda.OutOfMemoryError("CUDA out of memory"))
    assert not is_out_of_memory(RuntimeError("shapes do not fit"))


def test_spikes_are_told_from_noise():
    draw = random.Random(0)
    detector = SpikeDetector()
    losses = [1.0 + 0.05 * draw.gauss(0, 1) for _ in range(300)]
    assert not any(detector.is_spike(loss) for loss in losses)
    assert detector.is_spike(2.0)
    assert not detector.is_spike(1.1)
    assert not any(SpikeDetector().is_spike(loss) for loss in (1.0, 50.0, 1.0))
    # Twenty losses 1, 2, ..., 20: median 10.5, MAD 5.
    known = SpikeDetector(float(loss) for loss in range(1, 21))
    assert known.threshold() == pytest.approx(10.5 + 8 * 1.4826 * 5)


def test_a_spike_is_written_down_with_its_samples(mae_config, shards, tmp_path, monkeypatch):
    real = loop.train_step

    def leaping(run, position, batch):
        metrics = real(run, position, batch)
        return replace(metrics, loss=99.0) if position.step == 21 else metrics

    monkeypatch.setattr(loop, "train_step", leaping)
    config = replace(mae_config, steps=23, validate_every=23, gap_images=0, base_lr=1e-6)
    run(config, tmp_path / "run", shards)
    (spike,) = rows(tmp_path / "run" / "spikes.jsonl")
    assert (spike["step"], spike["loss"]) == (22, 99.0)
    assert 0.0 < spike["threshold"] < 99.0
    data = ShardDataset(shards[0])
    assert spike["sample_ids"] == data.sample_ids[step_indices(24, 5, 21, seed=config.seed)[1]].tolist()


def test_unreadable_samples_are_replaced_up_to_the_limit(mae_config, shards, shard_writer, tmp_path):
    good = ShardDataset(shards[0])
    files = {key: good.read(index) for index, key in enumerate(good.keys)}
    files["000017"]["jpg"] = b"\xff\xd8" + bytes(len(files["000017"]["jpg"]) - 2)
    damaged = (shard_writer(tmp_path / "bad.tar", files), shards[1])
    # Two epochs: the sample is met twice.
    config = replace(mae_config, steps=10, validate_every=10, gap_images=0)
    log = run(replace(config, max_bad_samples=2), tmp_path / "two", damaged)
    assert "2 unreadable samples were replaced" in log
    assert ["000017" in row["what"] for row in rows(tmp_path / "two" / "skipped.jsonl")] == [True, True]
    with pytest.raises(DataError, match=r"2 unreadable samples by step \d+, max_bad_samples is 1 .*000017.*audit"):
        run(replace(config, max_bad_samples=1), tmp_path / "one", damaged)
    with pytest.raises(DataError, match="000017"):
        run(config, tmp_path / "none", damaged)


def test_two_processes_do_not_share_a_folder(mae_config, shards, tmp_path):
    run(replace(mae_config, steps=1), tmp_path / "run", shards)
    with RunFolder(tmp_path / "run").locked(), pytest.raises(OutputError, match="another process is running in"):
        run(replace(mae_config, steps=1), tmp_path / "run", shards)
    assert "is finished" in run(replace(mae_config, steps=1), tmp_path / "run", shards)


FULL = """
import json, resource, signal, sys
from pathlib import Path
from unveil_pretrain import loop
from unveil_pretrain.stored_config import config_from_json

out, train_data, val_data, config = sys.argv[1:]
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
save = loop.save_checkpoint

def save_on_full_disk(run, position):
    if position.step > 2:
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
    save(run, position)

loop.save_checkpoint = save_on_full_disk
try:
    loop.train(config_from_json(json.loads(config)), out=Path(out), train_data=train_data, val_data=val_data,
               device="cpu", progress=False, log=lambda line: None, loggers=())
except ValueError as error:
    print(type(error).__name__, error)
"""


def test_a_file_system_that_takes_no_more_leaves_the_earlier_checkpoint(mae_config, shards, tmp_path, in_processes):
    """A real limit on the size of files, which the second checkpoint meets."""
    config = replace(mae_config, checkpoint_every=2)
    (said,) = in_processes(1, FULL, tmp_path / "run", *shards, json.dumps(config_to_json(config)))
    assert said.startswith("CheckpointWriteError")
    assert [entry.name for entry in (tmp_path / "run" / "checkpoints").iterdir()] == ["step_00000002"]
    assert load(tmp_path / "run").manifest.step == 2
    run(config, tmp_path / "run", shards)
    assert np.isfinite(load(tmp_path / "run").manifest.val[-1].loss)
    assert load(tmp_path / "run").manifest.step == 4
