"""Checkpoints in the parts of several processes, damaged in every way; read by the run itself and by `export`."""

import json
import shutil
from pathlib import Path

import pytest
from damage import Case, command, problems_of
from good_files import sharded_config
from safetensors.torch import load_file
from unveil_pretrain import train
from unveil_pretrain.cli import main
from unveil_pretrain.errors import PretrainError

STEP = "run/checkpoints/step_00000002"
PART = "shard-00002-model-00001-of-00001.safetensors"
MANIFEST = "the one file that nothing inside the checkpoint hashes: its own hash is the checkpoint's name"


def part(file: str):
    def make(specimens, folder: Path) -> Path:
        folder.mkdir(exist_ok=True)
        shutil.copytree(specimens / "sharded" / "run", folder / "run")
        return folder / STEP / file

    return make


def sums(file: Path):
    return {name: float(tensor.double().sum()) for name, tensor in load_file(file).items()}


def continued(folder: Path):
    """The run goes on, on one process, from what two have written."""
    run = folder / "run"
    data = json.loads((run / "run.json").read_text())
    train(
        sharded_config(), out=run, train_data=data["train_data"], val_data=data["val_data"], device="cpu", loggers=(),
        progress=False, log=lambda line: None,
    )  # fmt: skip
    losses = [json.loads(line)["loss"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    return losses, sums(run / "checkpoints" / "step_00000004" / "encoder.safetensors")


def exported(folder: Path):
    out = folder / "out"
    shutil.rmtree(out, ignore_errors=True)
    command(main, "export", folder / "run", "--out", out)
    return sums(out / "encoder.safetensors"), sums(out / "heads.safetensors")


CASES = {
    "part of the weights": Case(make=part(f"weights/{PART}"), read=continued, flips=3),
    "part of the weights, by `export`": Case(make=part(f"weights/{PART}"), read=exported),
    "part of the optimiser": Case(make=part(f"train_state/{PART}"), read=continued, flips=3),
    "manifest.json of parts, by `export`": Case(make=part("manifest.json"), read=exported, unchecked=MANIFEST),
}


@pytest.mark.parametrize("name", CASES)
def test_damage_is_found_and_said(name, specimens, tmp_path):
    assert problems_of(CASES[name], specimens, tmp_path) == []


@pytest.mark.parametrize(("where", "read"), [("weights", exported), ("train_state", continued)])
def test_a_part_of_another_checkpoint_is_no_part_of_this_one(specimens, tmp_path, where, read):
    """Readers of parts take every file that lies in the folder."""
    file = part(f"{where}/{PART}")(specimens, tmp_path / "copy")
    assert len(list(file.parent.glob("*.safetensors"))) == 2
    shutil.copy(file, file.with_name(PART.replace("00002", "00003")))
    with pytest.raises((OSError, PretrainError, ValueError), match=r"shard-00003-.* is not listed in manifest\.json"):
        read(tmp_path / "copy")
