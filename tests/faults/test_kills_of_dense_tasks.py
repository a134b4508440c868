"""SIGKILL within detection and segmentation: training goes on from its interim checkpoint to the same results.

Each kill is a test of its own, so that several processes can share them. UNVEIL_FAULT_SEED draws other moments.
"""

import json
import os
import signal

import good_files
import pytest
from fork_server import ForkServer
from harness_folders import harness_differences, harness_unreadable
from numpy.random import Generator, Philox

SEED = int(os.environ.get("UNVEIL_FAULT_SEED", "0"))
STEPS = 6
TASKS = ("coco_det", "ade20k_seg")
pytestmark = [pytest.mark.mm, pytest.mark.slow]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    root = tmp_path_factory.mktemp("dense")
    good_files.coco_folder(root / "data")
    good_files.segmentation_folder(root / "data")
    good_files.checkpoint(root / "ckpt")
    return root


@pytest.fixture(scope="module")
def dense_server(tmp_path_factory):
    pytest.importorskip("mmdet")
    pytest.importorskip("mmseg")
    server = ForkServer(
        tmp_path_factory.mktemp("dense_server"), "unveil_evalharness.commands.run", "dense_preload", "polars"
    )
    yield server
    server.close()


@pytest.fixture(scope="module")
def start(dense_server, place):
    def begin(task, out, fault):
        words = ["run", "--ckpt", str(place / "ckpt"), "--data-root", str(place / "data"), "--output-path", str(out),
                 "--tasks", task, "--device", "cpu", "--no-progress"]  # fmt: skip
        return dense_server.run("fault_children:evalharness", words, fault)

    return begin


@pytest.fixture(scope="module")
def straight(start, place):
    """The undisturbed run of a task, and the number of its operations on files."""
    made = {}

    def of(task):
        if task not in made:
            out, tally = place / f"{task}-straight", place / f"{task}-tally"
            ended = start(task, out, {"count": str(tally), "below": str(out)})
            assert ended.code == 0, ended.err
            made[task] = out, len(tally.read_text().splitlines())
        return made[task]

    return of


def passes_in(tally):
    return [int(line) for line in tally.read_text().splitlines()] if tally.exists() else []


@pytest.mark.parametrize("number", range(5))
@pytest.mark.parametrize("task", TASKS)
def test_a_kill_loses_no_more_than_the_steps_since_the_interim_checkpoint(task, number, start, straight, tmp_path):
    whole, num_operations = straight(task)
    share = Generator(Philox(key=[SEED, 300 + TASKS.index(task)])).random(5)[number]
    operation, out = int(share * num_operations), tmp_path / "out"
    where = f"{task} killed at operation {operation} of {num_operations} (UNVEIL_FAULT_SEED={SEED})"
    kill = {"kill": operation, "below": str(out)}
    ended = start(task, out, {"both": [kill, {"passes": str(tmp_path / "before")}]})
    assert ended.code == -signal.SIGKILL, f"{where}: {ended.err}"
    assert harness_unreadable(out) == [], where
    pointers = list(out.rglob("interim.json"))
    kept = json.loads(pointers[0].read_text())["iteration"] if pointers else 0
    again = start(task, out, {"passes": str(tmp_path / "after")})
    assert again.code == 0, f"{where}: {again.err}"
    assert harness_differences(out, whole) == [], where
    done = passes_in(tmp_path / "after")
    assert done == list(range(kept, STEPS)) or (not pointers and not done), where
