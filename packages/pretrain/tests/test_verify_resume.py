"""Exact resume, proved by killed processes; and the proof, by differences that it has to find."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from unveil_pretrain import ResumeError
from unveil_pretrain.cli import main
from unveil_pretrain.commands import verify_resume
from unveil_pretrain.resume_proof import ResumeProof, compare_runs, prove_resume


@pytest.fixture(scope="module")
def proved(tmp_path_factory, simmim_config, shards):
    """SimMIM on SwinV2 with stochastic depth: 6 steps, killed in step 4 and while writing checkpoint 6."""
    folder = tmp_path_factory.mktemp("proof") / "runs"
    proof = prove_resume(
        simmim_config, folder=folder, train_data=shards[0], val_data=shards[1], num_steps=3, device="cpu"
    )
    return folder, proof


def test_a_killed_run_ends_with_the_same_bits(proved):
    folder, proof = proved
    assert proof.difference is None
    assert len(proof.compared) == 5
    seen = [json.loads(line) for line in (folder / "killed.seen.jsonl").read_text().splitlines()]
    # Step 4 ran before the first kill, 4 to 6 before the second, 4 to 6 to the end.
    assert [row["step"] for row in seen] == [1, 2, 3, 4, 4, 5, 6, 4, 5, 6]
    assert len({row["masks"] for row in seen}) == 6
    assert len({row["samples"] for row in seen}) == 6
    assert [entry.name for entry in (folder / "killed" / "checkpoints").iterdir() if entry.name.startswith(".")] == []


def edit_tensor(file, name):
    tensors = load_file(file)
    tensors[name].view(torch.int32).flatten()[0] += 1
    save_file(tensors, file)


def edit_row(file, number, **change):
    lines = file.read_text().splitlines()
    lines[number] = json.dumps({**json.loads(lines[number]), **change})
    file.write_text("\n".join(lines) + "\n")


PLANTED = {
    "last bit of a weight": (
        lambda runs: edit_tensor(
            runs / "killed/checkpoints/step_00000006/encoder.safetensors", "patch_embed.proj.bias"
        ),
        "encoder.safetensors: patch_embed.proj.bias differs",
    ),
    "a moment of the optimiser": (
        lambda runs: edit_tensor(
            runs / "killed/checkpoints/step_00000006/train_state/optimizer.safetensors", "exp_avg/mask_token"
        ),
        "optimizer.safetensors: exp_avg/mask_token differs",
    ),
    "a mask": (
        lambda runs: edit_row(runs / "killed.seen.jsonl", 4, masks="0"),
        "the batch of step 5: step is 5 without and 4 with kills",
    ),
    "the order": (
        lambda runs: edit_row(runs / "straight.seen.jsonl", 1, samples="0"),
        "the batch of step 2: samples is 0 without",
    ),
    "a metric": (lambda runs: edit_row(runs / "killed/metrics.jsonl", 4, loss=0.5), "metrics of step 5: loss is"),
    "a validation": (lambda runs: edit_row(runs / "killed/val.jsonl", 1, loss=0.5), "validation of step 6: loss is"),
    "a counter": (
        lambda runs: edit_row(runs / "killed/checkpoints/step_00000006/train_state/position.json", 0, tokens_seen=1),
        "position of step 6: tokens_seen is",
    ),
}


@pytest.mark.parametrize("what", PLANTED)
def test_planted_differences_are_named(proved, tmp_path, what):
    shutil.copytree(proved[0], tmp_path / "runs")
    assert compare_runs(tmp_path / "runs" / "straight", tmp_path / "runs" / "killed", step=6).difference is None
    plant, message = PLANTED[what]
    plant(tmp_path / "runs")
    difference = compare_runs(tmp_path / "runs" / "straight", tmp_path / "runs" / "killed", step=6).difference
    assert difference is not None
    assert message in difference


def test_a_run_that_fails_by_itself_is_no_proof(simmim_config, tmp_path, shards):
    with pytest.raises(ResumeError, match="ended with code 2 and not 0"):
        prove_resume(
            replace(simmim_config, encoder="vit_nothing"), folder=tmp_path / "runs", train_data=shards[0],
            val_data=shards[1], num_steps=2, device="cpu",
        )  # fmt: skip


def test_the_command_says_what_is_equal_or_what_differs(monkeypatch, tmp_path, shards, capsys):
    asked = []

    def answer(found):
        def prove(config, **named):
            asked.append((config, named))
            return found

        return prove

    arguments = ["verify-resume", "tiny_mae", "--train-data", shards[0], "--val-data", shards[1], "--steps", "4"]
    monkeypatch.setattr(verify_resume, "prove_resume", answer(ResumeProof(("weights",), None)))
    main([*arguments, "--image-size", "32", "32"])
    assert capsys.readouterr().out.splitlines() == [
        "equal: weights", "8 steps at once and with two kills (SIGKILL) end with the same bits",
    ]  # fmt: skip
    assert asked[0][1]["num_steps"] == 4
    assert asked[0][0].image_size == (32, 32)
    monkeypatch.setattr(verify_resume, "prove_resume", answer(ResumeProof(("order",), "metrics of step 2: ...")))
    with pytest.raises(SystemExit) as caught:
        main(["verify-resume", "tiny_flip", *arguments[2:]])
    assert caught.value.code == 1
    assert "DIFFERENT: metrics of step 2" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main([*arguments, "--folder", str(Path(tmp_path))])
    assert "exists" in capsys.readouterr().err
