"""Interim checkpoints of tasks that train, damaged in every way: refused with the reason, or of no effect."""

from pathlib import Path

import pytest
import torch
from damage import Case, Found, problems_of
from unveil_evalharness.engine.interim import read_interim, write_interim

PLAN = "6 steps of 1 x 8 images, seed 0"
NONE = "a folder without a pointer holds no interim checkpoint: training begins"


def work_with(file: str):
    def make(specimens, folder: Path) -> Path:
        folder.mkdir(exist_ok=True)
        state = {"iteration": 2, "state_dict": {"a": torch.arange(40.0)}, "optimizer": {"state": {0: torch.ones(9)}}}
        write_interim(folder, state, iteration=2, plan=PLAN)
        return folder / file

    return make


def resumed(folder: Path):
    found = read_interim(folder, plan=PLAN)
    if found.refused:
        raise Found(found.refused)
    return str(found.state)


CASES = {
    "interim.json": Case(
        make=work_with("interim.json"), read=resumed, flips=48,
        tolerated=dict.fromkeys(("missing", "a folder", "a link to itself"), NONE),
    ),
    "interim-*.pth": Case(make=work_with("interim-00000002.pth"), read=resumed, flips=48),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_damage_is_found_and_said(name, specimens, tmp_path):
    assert problems_of(CASES[name], specimens, tmp_path) == []


@pytest.mark.parametrize("file", ["5", '"a\\u0000"', "null", '["a"]'])
def test_a_pointer_to_what_is_no_file_is_refused(tmp_path, file):
    work_with("interim.json")(None, tmp_path)
    pointer = tmp_path / "interim.json"
    pointer.write_text(pointer.read_text().replace('"interim-00000002.pth"', file))
    found = read_interim(tmp_path, plan=PLAN)
    assert found.state is None
    assert found.refused
