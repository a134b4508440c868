"""``python -m unveil_backbones``: what it prints, its exit codes, and one line per error."""

import json
import subprocess
import sys
from typing import get_args

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from unveil_backbones import cli, convert, inspect, verify
from unveil_backbones._files import file_sha256
from unveil_backbones.conversion.layouts import LAYOUTS
from unveil_backbones.conversion.outgoing import WRITABLE
from unveil_backbones.converting import ForeignFormat, TargetFormat


@pytest.fixture
def foreign(tmp_path):
    model = VisionTransformer(img_size=32, patch_size=8, embed_dim=64, depth=2, num_heads=1, num_classes=3)
    torch.save({"model": model.state_dict(), "epoch": 3}, tmp_path / "vit.pth")
    return tmp_path / "vit.pth"


def ran(capsys, *arguments) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of one command."""
    try:
        code = cli.main([str(argument) for argument in arguments])
    except SystemExit as stop:
        code = stop.code
    said = capsys.readouterr()
    return code, said.out, said.err


def facts(text: str) -> dict[str, str]:
    return dict(line.split(None, 1) if " " in line.strip() else (line.strip(), "") for line in text.splitlines())


def test_inspect_says_what_a_checkpoint_of_ours_is(capsys, saved):
    for path in (saved, saved.parent.parent):  # and what a run is: its newest checkpoint
        code, out, err = ran(capsys, "inspect", path)
        assert (code, err) == (0, "")
        shown = facts(out)
        assert shown["path"] == str(saved)
        assert shown["format"] == "unveil"
        assert shown["label"] == "simmim vit_tiny u=64 s=200"
        assert shown["samples_seen"] == "1600"
        assert "loss=0.5" in shown["validation"]
        assert "train_state/optimiser.bin" in shown["files"]
    code, out, _ = ran(capsys, "inspect", saved, "--json")
    assert code == 0
    assert json.loads(out) == inspect(saved).to_json()


def test_inspect_says_what_a_foreign_file_is(capsys, foreign, tmp_path):
    code, out, err = ran(capsys, "inspect", foreign)
    assert (code, err) == (0, "")
    shown = facts(out)
    assert (shown["format"], shown["entry"], shown["types"]) == ("timm", "model", "float32")
    assert shown["tensors_dropped"] == "the classifier=2"
    assert shown["sha256"] == file_sha256(foreign)
    record = json.loads(ran(capsys, "inspect", foreign, "--json")[1])
    assert record["num_tensors"] == record["tensors_used"] + 2
    torch.save({"anything.weight": torch.zeros(3)}, tmp_path / "other.pth")
    code, out, _ = ran(capsys, "inspect", tmp_path / "other.pth")
    assert code == 0
    assert facts(out)["format"] == "unknown"
    assert "of no known format" in facts(out)["problem"]


def test_inspect_shows_nothing_where_nobody_knows(foreign, tmp_path):
    convert(foreign, tmp_path / "ours")
    found = inspect(tmp_path / "ours").to_json()
    assert found["step"] is None
    assert found["realised_ratio"] is None
    assert found["origin"]["source"] == "vit.pth"
    assert found["label"] == "unknown vit of vit.pth"


def test_convert_prints_coverage_and_the_place(capsys, foreign, tmp_path):
    code, out, err = ran(capsys, "convert", foreign, tmp_path / "ours", "--from", "timm", "--num-heads", 1)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == "vit.pth (timm): 30 of 32 tensors used, 2 dropped"
    assert lines[1] == "  2 dropped: the classifier"
    assert lines[-1] == f"{tmp_path / 'ours'} (unveil)"
    code, out, _ = ran(capsys, "convert", tmp_path / "ours", tmp_path / "hf", "--to", "huggingface")
    assert (code, out) == (0, f"{tmp_path / 'hf'} (huggingface)\n")
    assert {file.name for file in (tmp_path / "hf").iterdir()} == {
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
    }


def test_convert_says_what_has_no_place(capsys, saved, tmp_path):
    _, out, _ = ran(capsys, "convert", saved, tmp_path / "timm", "--to", "timm")
    assert out.splitlines()[0] == "1 tensors have no place in timm: objective.weight ..."


def test_details_of_a_foreign_model_are_flags(capsys, foreign, tmp_path):
    flags = ["--image-size", 32, 32, "--norm-epsilon", 1e-5, "--activation", "quick_gelu", "--pooling", "mean_all"]
    colours = ["--mean", 0.1, 0.2, 0.3, "--std", 0.4, 0.5, 0.6]
    code, _, err = ran(capsys, "convert", foreign, tmp_path / "ours", *flags, *colours)
    assert (code, err) == (0, "")
    found = inspect(tmp_path / "ours").facts
    config = found["encoder_config"]
    assert (config["norm_epsilon"], config["activation"], config["pooling"]) == (1e-5, "quick_gelu", "mean_all")
    assert found["preprocessing"]["mean"] == [0.1, 0.2, 0.3]
    assert found["preprocessing"]["std"] == [0.4, 0.5, 0.6]


def test_verify_passes_good_ones(capsys, saved, saved_pair, foreign):
    for path in (saved, saved_pair[0]):
        code, out, err = ran(capsys, "verify", path)
        assert (code, err) == (0, "")
        assert out.splitlines()[-1] == f"{path}: good"
        assert "ok       weights: names, shapes, types, all finite" in out
    assert "text tower and projections" in out
    assert "tokenizer: readable" in out
    code, out, _ = ran(capsys, "verify", foreign, "--json")
    assert code == 0
    assert json.loads(out)["ok"] is True
    assert "30 of 32 tensors used" in out


def test_verify_takes_details_of_a_foreign_file(capsys, foreign):
    code, out, _ = ran(capsys, "verify", foreign, "--from", "timm", "--num-heads", 2, "--pooling", "mean")
    assert code == 0
    assert "assumed num_heads = 2" in out
    code, out, _ = ran(capsys, "verify", foreign, "--from", "simmim")
    assert code == 1
    assert "a Swin Transformer here has four stages" in out


@pytest.mark.parametrize("name", ["encoder.safetensors", "heads.safetensors", "train_state/optimiser.bin"])
def test_verify_finds_a_changed_byte_in_every_file(capsys, saved, name):
    content = bytearray((saved / name).read_bytes())
    content[-1] ^= 1
    (saved / name).write_bytes(content)
    code, out, _ = ran(capsys, "verify", saved)
    assert code == 1
    assert f"{name} has SHA-256" in out
    assert out.splitlines()[-1].endswith(": not good")


def test_verify_finds_everything_that_is_wrong_not_only_the_first(capsys, saved):
    (saved / "heads.safetensors").unlink()
    (saved / "train_state" / "optimiser.bin").write_bytes(b"other")
    (saved / "stranger.bin").write_bytes(b"")
    code, out, _ = ran(capsys, "verify", saved)
    assert code == 1
    problems = [line for line in out.splitlines() if line.startswith("problem")]
    assert len(problems) == 3
    assert "stranger.bin" in problems[2]
    (saved / "manifest.json").write_text("{")
    assert verify(saved).problems[0].startswith(str(saved / "manifest.json"))


def test_verify_finds_a_broken_tokenizer(capsys, saved_pair):
    path, _, _ = saved_pair
    (path / "tokenizer.json").write_text("{}")
    record = json.loads((path / "manifest.json").read_text())
    record["files"]["tokenizer.json"] = file_sha256(path / "tokenizer.json")
    (path / "manifest.json").write_text(json.dumps(record))
    code, out, _ = ran(capsys, "verify", path)
    assert code == 1
    assert "tokenizer" in out.splitlines()[-2]


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["explain"],
        ["inspect"],
        ["inspect", "nowhere"],
        ["verify", "nowhere"],
        ["convert", "nowhere", "out"],
        ["convert", "{foreign}", "out", "--from", "keras"],
        ["convert", "{foreign}", "out", "--to", "mae"],
        ["convert", "{foreign}", "{foreign}"],
        ["convert", "{foreign}", "out", "--num-heads", "-3"],
        ["convert", "{foreign}", "out", "--num-heads", "many"],
        ["convert", "{foreign}", "out", "--window", "0"],
        ["convert", "{foreign}", "out", "--image-size", "33", "32"],
        ["convert", "{foreign}", "out", "--image-size", "-8", "32"],
        ["convert", "{foreign}", "out", "--norm-epsilon", "-1"],
        ["convert", "{foreign}", "out", "--std", "0", "1", "1"],
        ["convert", "{foreign}", "out", "--mean", "nan", "1", "1"],
        ["convert", "{foreign}", "out", "--arch", "vit_b16"],
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(capsys, foreign, tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    code, out, err = ran(capsys, *(argument.format(foreign=foreign) for argument in arguments))
    assert code == 2
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("unveil_backbones: error: ")
    assert not (tmp_path / "out").exists()


def test_the_module_runs():
    helped = subprocess.run(
        [sys.executable, "-m", "unveil_backbones", "--help"], capture_output=True, text=True, check=True
    )
    assert all(word in helped.stdout for word in ("inspect", "convert", "verify"))


def test_the_command_knows_what_the_functions_know():
    """The parser names formats without importing torch; they have to be the real ones."""
    assert set(cli._FOREIGN) == set(LAYOUTS)
    assert set(cli._TARGETS) == {"unveil", *WRITABLE}
    assert set(get_args(ForeignFormat)) == set(LAYOUTS)
    assert set(get_args(TargetFormat)) == set(cli._TARGETS)
