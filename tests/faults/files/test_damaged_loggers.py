"""What a run shows of itself while it runs, damaged in every way: a run goes on, and `pretrain status` still works."""

import json
import shutil
from pathlib import Path

import pytest
from damage import DAMAGES, Case, command, problems_of
from good_files import sharded_config
from unveil_pretrain import train
from unveil_pretrain.cli import main
from unveil_pretrain.errors import OutputError
from unveil_pretrain.record import RunFolder


def event_file(specimens, folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    shutil.copytree(specimens / "image" / "run", folder / "run")
    (file,) = (folder / "run" / "tensorboard").iterdir()
    return file


def shown(folder: Path):
    """The next step in an event file of its own, and what `status` says of the run."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run, before = RunFolder(folder / "run"), set((folder / "run" / "tensorboard").iterdir())
    with run.shown_by(("tensorboard",), config={}, start_step=4):
        run.add_metrics({"step": 5, "loss": 0.25})
    (new,) = set((folder / "run" / "tensorboard").iterdir()) - before
    events = EventAccumulator(str(new))
    events.Reload()
    said = json.loads(command(main, "status", folder / "run", "--json"))
    return [(event.step, event.value) for event in events.Scalars("train/loss")], said["step"], said["damaged"]


def test_event_files_of_earlier_starts_are_written_beside_and_read_by_nobody(specimens, tmp_path):
    case = Case(make=event_file, read=shown, flips=2)
    assert shown_whole(specimens, tmp_path / "whole") == ([(5, 0.25)], 5, [])
    (tmp_path / "damaged").mkdir()
    assert problems_of(case, specimens, tmp_path / "damaged") == []


def shown_whole(specimens, folder: Path):
    event_file(specimens, folder)
    return shown(folder)


def test_a_logger_without_a_place_is_told_by_its_option(specimens, tmp_path):
    file = event_file(specimens, tmp_path / "copy")
    shutil.rmtree(file.parent)
    file.parent.write_text("a file")
    with (
        pytest.raises(OutputError, match=r"what --loggers show cannot be written .* leave the logger out"),
        RunFolder(tmp_path / "copy" / "run").shown_by(("tensorboard",), config={}, start_step=4),
    ):
        raise AssertionError


@pytest.mark.parametrize("kind", ["noise", "another text", "a flipped bit"])
def test_a_run_goes_on_beside_damaged_logs(specimens, tmp_path, kind):
    """Also one whose metrics.jsonl cannot be read: it says so, and keeps the file as it was."""
    run, said = tmp_path / "run", list[str]()
    shutil.copytree(specimens / "sharded" / "run", run)
    (run / "tensorboard").mkdir()
    (run / "tensorboard" / "events.out.tfevents.1.here.1.0").write_bytes(bytes(100))
    file = run / "metrics.jsonl"
    if kind == "a flipped bit":
        file.write_bytes(file.read_bytes().replace(b'"step"', b'"stap"', 1))
    else:
        DAMAGES[kind](file)
    before, data = file.read_bytes(), json.loads((run / "run.json").read_text())
    train(
        sharded_config(), out=run, train_data=data["train_data"], val_data=data["val_data"], device="cpu",
        loggers=("tensorboard",), progress=False, log=said.append,
    )  # fmt: skip
    assert [line for line in said if "left out what cannot be read of metrics.jsonl" in line]
    assert (run / "metrics.jsonl.damaged1").read_bytes() == before
    steps = [json.loads(line)["step"] for line in file.read_text().splitlines()]
    assert steps == ([2, 3, 4] if kind == "a flipped bit" else [3, 4])
    assert [json.loads(line)["step"] for line in (run / "val.jsonl").read_text().splitlines()] == [2, 4]
    status = json.loads(command(main, "status", run, "--json"))
    assert (status["state"], status["damaged"]) == ("finished", [])
