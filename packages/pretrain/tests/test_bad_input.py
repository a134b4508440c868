"""Bad input gives one clear line and a non-zero exit, and leaves earlier results as they were."""

import errno
import io
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from unveil_backbones import CheckpointError, load
from unveil_pretrain import ConfigError, DataError, DivergedError, OutputError, ResumeError, loop, scoring, train
from unveil_pretrain.cli import main
from unveil_pretrain.data import ShardDataset
from unveil_pretrain.errors import ONE_PROCESS


def run(config, out, shards):
    return train(
        config, out=out, train_data=shards[0], val_data=shards[1], device="cpu", progress=False, log=lambda _: None
    )


def line(capsys, *arguments, code=2):
    """The one line on stderr that a failing command ends with."""
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    assert caught.value.code == code
    error = capsys.readouterr().err.splitlines()
    assert error[-1].startswith("pretrain: error: ")
    assert sum(text.startswith("pretrain: error: ") for text in error) == 1
    assert not any("Traceback" in text for text in error)
    return error[-1]


def test_missing_shards(capsys, shards, tmp_path):
    message = line(
        capsys,
        "mim",
        "tiny_simmim",
        "--out",
        tmp_path / "run",
        "--train-data",
        tmp_path / "no.tar",
        "--val-data",
        shards[1],
    )
    assert str(tmp_path / "no.tar") in message
    assert not (tmp_path / "run").exists()


def test_a_truncated_shard(capsys, shards, tmp_path):
    damaged = tmp_path / "damaged.tar"
    damaged.write_bytes(Path(shards[0]).read_bytes()[:5000])
    message = line(
        capsys, "mim", "tiny_simmim", "--out", tmp_path / "run", "--train-data", damaged, "--val-data", shards[1]
    )
    assert "damaged.tar" in message


def test_a_corrupt_jpeg_names_its_shard_and_key_and_keeps_the_checkpoint(
    simmim_config, shards, shard_writer, tmp_path, monkeypatch
):
    good = ShardDataset(shards[0])
    files = {key: good.read(index) for index, key in enumerate(good.keys)}
    files["000017"]["jpg"] = b"\xff\xd8" + bytes(len(files["000017"]["jpg"]) - 2)
    path = shard_writer(tmp_path / "bad.tar", files)
    config = replace(simmim_config, steps=10, checkpoint_every=1, gap_images=0)
    with pytest.raises(DataError, match=r"bad\.tar: 000017"):
        run(config, tmp_path / "run", (path, shards[1]))
    checkpoints = sorted((tmp_path / "run" / "checkpoints").glob("step_*"))
    assert all(load(checkpoint).manifest.step > 0 for checkpoint in checkpoints)


def test_flip_on_images_without_captions(capsys, shards, shard_writer, tmp_path):
    good = ShardDataset(shards[0])
    images = shard_writer(
        tmp_path / "images.tar", {key: {"jpg": good.read(index)["jpg"]} for index, key in enumerate(good.keys)}
    )
    message = line(
        capsys, "flip", "tiny_flip", "--out", tmp_path / "run", "--train-data", images, "--val-data", shards[1]
    )
    assert "caption" in message
    assert "images.tar" in message


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (("--num-unique", 99), "num_unique is 99"),
        (("--steps", 0), "steps is 0"),
        (("--encoder", "resnet50"), "resnet50"),
        (("--image-size", 60, 64), "60"),
        (("--mask-ratio", 1.5), "mask_ratio is 1.5"),
        (("--mask-unit", 20), "mask_unit is 20"),
        (("--base-lr", "nan"), "base_lr is nan"),
        (("--seed", 1_000_003), "val_mask_seed"),
    ],
)
def test_settings_that_cannot_work(capsys, shards, tmp_path, flags, expected):
    message = line(
        capsys, "mim", "tiny_simmim", "--out", tmp_path / "run", "--train-data", shards[0], "--val-data", shards[1],
        "--device", "cpu", *flags,
    )  # fmt: skip
    assert expected in message


def test_cuda_without_cuda(capsys, shards, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    message = line(
        capsys, "mim", "tiny_mae", "--out", tmp_path / "run", "--train-data", shards[0], "--val-data", shards[1],
        "--device", "cuda",
    )  # fmt: skip
    assert "--device cpu" in message


def test_unknown_commands_and_recipes(capsys):
    assert "give one of mim, flip, " in line(capsys, "zzz")
    assert "there is no command 'mimm'; did you mean mim? It is one of mim, flip, " in line(capsys, "mimm")
    message = line(capsys, "mim", "tiny_simim")
    assert (
        "no recipe 'tiny_simim' (did you mean tiny_simmim, tiny_simmim_vit or tiny_sparse_simmim?); `pretrain ls` l"
        in message
    )
    assert len(message) < 250
    assert "no recipe 'zzz'; `pretrain ls` lists them" in line(capsys, "mim", "zzz")
    assert "tiny_flip is a recipe of `pretrain flip`; `pretrain ls`" in line(capsys, "mim", "tiny_flip")
    for given in ((), ("--steps", "3")):
        assert "pretrain flip needs a recipe before its flags, such as tiny_flip; `pre" in line(capsys, "flip", *given)
    assert "did you mean tiny_flip" in line(capsys, "plan", "--recipes", "tiny_flp")


@pytest.mark.parametrize(
    ("words", "pattern"),
    [
        ([f"d/train-{number:05d}.tar" for number in range(4)], "'d/train-{00000..00003}.tar'"),
        (["t9.tar", "t10.tar"], "'t{9..10}.tar'"),
        (["t0.tar", "t2.tar"], "'t*.tar'"),
        (["a.tar", "a.tar"], "'a.tar'"),
    ],
)
def test_shards_that_the_shell_expanded_are_to_be_quoted(capsys, words, pattern):
    message = line(capsys, "mim", "tiny_simmim", "--out", "o", "--train-data", *words, "--val-data", "v.tar")
    assert f"--train-data takes one word and got {len(words)}, {words[0]} to {words[-1]}; quote the braces" in message
    assert message.endswith(f"--train-data {pattern}")
    assert f"this command takes one word and got {len(words)}, " in line(capsys, "audit", *words)


def test_a_place_that_is_not_there_and_no_shard(capsys, shards, tmp_path):
    message = line(
        capsys, "mim", "tiny_simmim", "--out", tmp_path / "o", "--train-data", "nowhere", "--val-data", shards[1]
    )
    assert "there is no file or folder 'nowhere'; name shards, as in 'data/train-{00000..00003}.tar', a fol" in message


@pytest.mark.parametrize("flags", [("--steps", "many"), ("--bogus", "1"), ()])
def test_usage_errors_exit_with_2(capsys, flags):
    with pytest.raises(SystemExit) as caught:
        main(["mim", "tiny_simmim", *flags])
    assert caught.value.code == 2
    assert "Traceback" not in capsys.readouterr().err


def test_an_output_folder_that_is_a_file(capsys, shards, tmp_path):
    (tmp_path / "file").write_text("precious")
    message = line(
        capsys, "mim", "tiny_simmim", "--out", tmp_path / "file", "--train-data", shards[0], "--val-data", shards[1]
    )
    assert "file" in message
    assert (tmp_path / "file").read_text() == "precious"


def test_an_output_folder_with_other_things_in_it(simmim_config, shards, tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(OutputError, match=r"thesis\.tex"):
        run(simmim_config, tmp_path, shards)


def test_a_damaged_run_file(capsys, simmim_config, shards, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text("{")
    message = line(
        capsys, "mim", "tiny_simmim", "--out", tmp_path / "run", "--train-data", shards[0], "--val-data", shards[1]
    )
    assert "run.json cannot be read" in message


def refuse(*_, **__):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_while_saving_leaves_the_earlier_checkpoint(simmim_config, shards, tmp_path, monkeypatch):
    real = loop.save_checkpoint

    def full(run, position):
        with monkeypatch.context() as patch:
            if position.step > 3:
                patch.setattr("unveil_pretrain.checkpointing.save_train_state", refuse)
            real(run, position)

    monkeypatch.setattr(loop, "save_checkpoint", full)
    with pytest.raises(CheckpointError, match="No space left"):
        run(simmim_config, tmp_path / "run", shards)
    folder = tmp_path / "run" / "checkpoints"
    assert [entry.name for entry in folder.iterdir()] == ["step_00000003"]
    assert load(folder / "step_00000003").manifest.step == 3
    monkeypatch.undo()
    assert run(simmim_config, tmp_path / "run", shards).name == "step_00000006"


def test_a_full_disk_while_recording(simmim_config, shards, tmp_path, monkeypatch):
    class Full(io.StringIO):
        def write(self, _):
            refuse()

    run_file = loop.RunFolder.add_metrics

    def full(self, row):
        with monkeypatch.context() as patch:
            patch.setattr("pathlib.Path.open", lambda *_, **__: Full())
            run_file(self, row)

    monkeypatch.setattr(loop.RunFolder, "add_metrics", full)
    with pytest.raises(OutputError, match=r"metrics\.jsonl \(No space left"):
        run(simmim_config, tmp_path / "run", shards)


@pytest.mark.parametrize("where", ["loss", "gradient norm"])
def test_a_loss_that_is_no_number_stops_with_step_samples_and_checkpoint(
    where, simmim_config, shards, tmp_path, monkeypatch
):
    """The fifth step gives NaN: its samples are named, nothing is overwritten, the checkpoint of step 3 is there."""
    real = loop.train_step

    def poisoned(run, position, batch):
        if position.step != 4:
            return real(run, position, batch)
        with monkeypatch.context() as patch:
            forward = type(run.objective).forward

            def spoil(self, inputs, *, seed):
                output = forward(self, inputs, seed=seed)
                if where == "loss":
                    broken = torch.where(inputs.sample_ids == batch.sample_ids[1], torch.nan, output.per_sample)
                else:
                    broken = output.per_sample + (self.mask_token * 0.0).abs().sqrt().sum()  # value 0, slope 0 / 0
                return replace(output, per_sample=broken)

            patch.setattr(type(run.objective), "forward", spoil)
            return real(run, position, batch)

    monkeypatch.setattr(loop, "train_step", poisoned)
    with pytest.raises(DivergedError, match=rf"the {where} is not finite at step 4 .*step_00000003") as caught:
        run(simmim_config, tmp_path / "run", shards)
    failure = json.loads((tmp_path / "run" / "failure.json").read_text())
    assert failure["step"] == 4
    assert failure["last_checkpoint"] == "step_00000003"
    assert len(failure["sample_ids"]) == 5
    if where == "loss":
        assert f"samples {failure['sample_ids'][1]};" in str(caught.value)
        assert [value is None for value in failure["losses"]] == [False, True, False, False, False]
    monkeypatch.undo()
    assert load(tmp_path / "run").manifest.step == 3
    assert run(simmim_config, tmp_path / "run", shards).name == "step_00000006"


def test_a_validation_loss_that_is_no_number_is_no_traceback(simmim_config, shards, tmp_path, monkeypatch):
    real = scoring.evaluate

    def spoiled(*given, **named):
        found = real(*given, **named)
        return replace(found, losses={"loss": np.full(len(found.keys), np.nan)})

    monkeypatch.setattr(scoring, "evaluate", spoiled)
    with pytest.raises(DivergedError, match="validation loss is not finite at step 2; there is no checkpoint yet"):
        run(simmim_config, tmp_path / "run", shards)


def test_a_damaged_checkpoint_is_named_and_the_one_before_continues(mae_config, shards, tmp_path):
    config = replace(mae_config, checkpoint_every=1, steps=3, gap_images=0)
    last = run(config, tmp_path / "run", shards)
    whole = (last / "encoder.safetensors").read_bytes()
    (last / "encoder.safetensors").write_bytes(b"short")
    with pytest.raises(ResumeError, match=rf"damaged: .*encoder\.safetensors.*remove {last} and repeat"):
        run(config, tmp_path / "run", shards)
    shutil.rmtree(last)
    assert (run(config, tmp_path / "run", shards) / "encoder.safetensors").read_bytes() == whole
    shutil.rmtree(last)
    shutil.rmtree(last.with_name("step_00000002"))
    with pytest.raises(CheckpointError, match="train_state"):  # its training state was dropped with step 3
        run(config, tmp_path / "run", shards)


def test_configurations_are_checked_when_they_are_made(simmim_config):
    for change, message in (
        ({"clip_norm": 0.0}, "clip_norm"),
        ({"betas": (0.9, 1.2)}, "betas"),
        ({"weight_decay": -1.0}, "weight_decay"),
        ({"val_images": -1}, "val_images"),
    ):
        with pytest.raises(ConfigError, match=message):
            replace(simmim_config, **change)


@pytest.mark.parametrize(
    ("rank", "noted", "printed"), [("0", False, 1), ("1", False, 0), ("0", True, 1), ("1", True, 1)]
)
def test_of_several_processes_one_says_what_all_raise(rank, noted, printed, monkeypatch, capsys):
    error = ConfigError("a setting is wrong; give another")
    if noted:
        error.add_note(ONE_PROCESS)

    def fails(given):
        raise error

    monkeypatch.setattr("unveil_pretrain.commands.ls.run", fails)
    monkeypatch.setenv("LOCAL_RANK", rank)
    with pytest.raises(SystemExit) as caught:
        main(["ls"])
    assert caught.value.code == 2
    assert capsys.readouterr().err.count("pretrain: error: a setting is wrong") == printed
