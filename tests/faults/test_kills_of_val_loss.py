"""SIGKILL of `evalharness run --tasks val_loss`, whose numbers come from a process of its own, `pretrain score`.

The process ends with the harness that started it; one that did not would write where nobody reads. Each kill is a test
of its own, so that several processes can share them. UNVEIL_FAULT_SEED draws other moments.
"""

import contextlib
import json
import os
import signal
import threading

import good_files
import polars
import pytest
from harness_folders import harness_differences, harness_unreadable
from numpy.random import Generator, Philox

SEED = int(os.environ.get("UNVEIL_FAULT_SEED", "0"))
OBJECTIVES = {"mim": "images", "flip": "captions"}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    root = tmp_path_factory.mktemp("val_loss")
    good_files.labelled_images(root / "images", splits=("val",))
    good_files.coco_folder(root / "captions")  # no shards: those of the pairs are written for the occasion
    return root


@pytest.fixture(scope="module")
def words(place, pretrain_server, pretrain_words):
    """The words of a run over the newest checkpoint of a small training."""
    made = {}

    def of(command, out):
        if command not in made:
            folder = place / command
            ended = pretrain_server.run("fault_children:pretrain", pretrain_words(command, folder), {})
            assert ended.code == 0, ended.err
            made[command] = max((folder / "checkpoints").glob("step_*"))
        return ["run", "--ckpt", str(made[command]), "--data-root", str(place / OBJECTIVES[command]),
                "--output-path", str(out), "--tasks", "val_loss", "--suite", "quick", "--limit", "3",
                "--device", "cpu", "--no-progress"]  # fmt: skip

    return of


@pytest.fixture(scope="module")
def straight(place, harness_server, words):
    """The undisturbed run, the seconds that it took, and the number of its operations on files."""
    made = {}

    def of(command):
        if command not in made:
            out, tally = place / f"{command}-straight", place / f"{command}-tally"
            count = {"count": str(tally), "below": str(out)}
            ended = harness_server.run("fault_children:evalharness", words(command, out), count)
            assert ended.code == 0, ended.err
            made[command] = out, ended.seconds, len(tally.read_text().splitlines())
        return made[command]

    return of


def nothing_is_lost(server, words, out, whole, where):
    """What a killed run left is whole, and the same command ends with the same files."""
    assert harness_unreadable(out) == [], where
    again = server.run("fault_children:evalharness", words, {})
    assert again.code == 0, f"{where}: {again.err}"
    assert harness_differences(out, whole) == [], where


def draws(command, stream):
    return Generator(Philox(key=[SEED, 400 + 10 * stream + list(OBJECTIVES).index(command)])).random(4)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(3))
@pytest.mark.parametrize("command", OBJECTIVES)
def test_a_kill_at_any_time_ends_the_scoring_too(command, number, harness_server, words, straight, tmp_path):
    whole, seconds, _ = straight(command)
    moment, out = draws(command, 0)[number] * seconds, tmp_path / "out"
    where = f"val_loss of {command} killed after {moment:.3f} s (UNVEIL_FAULT_SEED={SEED})"
    kill = ((moment, signal.SIGKILL),)
    ended = harness_server.run("fault_children:evalharness", words(command, out), {}, signals=kill, patience=1.0)
    assert ended.code in (-signal.SIGKILL, 0), f"{where}: {ended.code} {ended.err}"
    assert ended.left == (), where
    nothing_is_lost(harness_server, words(command, out), out, whole, where)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(2))
@pytest.mark.parametrize("command", OBJECTIVES)
def test_a_kill_at_any_operation_on_its_files(command, number, harness_server, words, straight, tmp_path):
    whole, _, num_operations = straight(command)
    operation, out = int(draws(command, 1)[number] * num_operations), tmp_path / "out"
    where = f"val_loss of {command} killed at operation {operation} of {num_operations} (UNVEIL_FAULT_SEED={SEED})"
    kill = {"kill": operation, "below": str(out)}
    ended = harness_server.run("fault_children:evalharness", words(command, out), kill, patience=1.0)
    assert ended.code == -signal.SIGKILL, f"{where}: {ended.code} {ended.err}"
    assert ended.left == (), where
    nothing_is_lost(harness_server, words(command, out), out, whole, where)


def scoring_killed(server, words, out, whole, *, fault=None, number=signal.SIGKILL):
    """A signal half a second after the log of the cell begins: the process that scores is there, and far from done."""
    (log,) = (whole / "logs").glob("*.log")
    ended = server.run("fault_children:evalharness", words, fault or {}, signals=((0.5, number),),
                       when=out / "logs" / log.name, patience=1.0)  # fmt: skip
    assert "pretrain score --ckpt" in (out / "logs" / log.name).read_text()
    return ended


@pytest.mark.slow
def test_a_process_that_outlives_the_harness_is_found_and_mixes_with_nothing(harness_server, words, straight, tmp_path):
    """Where the process goes on it writes into the folder of its own attempt; here it does so without an end."""
    whole, _, _ = straight("mim")
    out = tmp_path / "out"
    ended = signalled_while_scoring(harness_server, words("mim", out), out, whole, fault={"orphans": True})
    assert (ended.code, len(ended.left)) == (-signal.SIGKILL, 1)
    (folder,) = (out / "work").glob("*/score-*")
    done = threading.Event()
    orphan = threading.Thread(target=write_other_scores, args=(folder, done))
    orphan.start()
    try:
        again = harness_server.run("fault_children:evalharness", words("mim", out), {})
    finally:
        done.set()
        orphan.join()
    assert again.code == 0, again.err
    # It may have written once more while the folder was removed; the same command removes what is left.
    assert [name for name in harness_differences(out, whole) if not name.startswith("files: work/")] == []
    nothing_is_lost(harness_server, words("mim", out), out, whole, "a second start")


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_the_scoring_too(number, code, harness_server, words, straight, tmp_path):
    whole, _, _ = straight("mim")
    out = tmp_path / "out"
    ended = signalled_while_scoring(harness_server, words("mim", out), out, whole, number=number)
    assert (ended.code, ended.left) == (code, ()), ended.err
    nothing_is_lost(harness_server, words("mim", out), out, whole, signal.Signals(number).name)


def signalled_while_scoring(server, words, out, whole, *, fault=None, number=signal.SIGKILL):
    """A signal half a second after the cell's log begins: the process that scores is there, and far from done."""
    (log,) = (whole / "logs").glob("*.log")
    log = out / "logs" / log.name
    ended = server.run("fault_children:evalharness", words, fault or {}, signals=((0.5, number),), when=log,
                       patience=1.0)  # fmt: skip
    assert "pretrain score --ckpt" in log.read_text()
    return ended


def write_other_scores(folder, done):
    """What `pretrain score` would write, with another loss, over and over until `done` is set or the folder is gone."""
    table = polars.DataFrame({"key": ["a"], "group": [0], "view": ["loss"], "value": [123.0]})
    with contextlib.suppress(FileNotFoundError):
        while not done.wait(0.01):
            (folder / ".orphan.json").write_text(json.dumps({"loss": 123.0}))
            (folder / ".orphan.json").replace(folder / "score.json")
            table.write_parquet(folder / ".orphan.parquet")
            (folder / ".orphan.parquet").replace(folder / "score.parquet")
