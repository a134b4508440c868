"""Two processes in one folder: the second is told, and nothing is harmed; a lock that a kill left keeps nobody out."""

import fcntl
import threading
import time
from contextlib import contextmanager

import pytest
from unveil_backbones.whole_files import alone, remove_unfinished, write_whole


@contextmanager
def held(lock):
    """As another process would hold a lock; its file stays, as after a kill."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("a") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield
    assert lock.exists()


@pytest.mark.parametrize("command", ["mim", "flip", "shards", "subset"])
def test_commands_of_pretrain(pretrain_server, pretrain_words, shards, eval_data, tmp_path, command):
    out = tmp_path / "out"
    once = ("--steps", "1", "--validate-every", "1", "--loggers")
    words, lock = {
        "mim": (pretrain_words("mim", out, *once), out / ".lock"),
        "flip": (pretrain_words("flip", out, *once), out / ".lock"),
        "shards": (["shards", "--source", str(eval_data / "imagenet" / "train"), "--out", str(out)], out / ".lock"),
        "subset": (["subset", shards[0], "--fractions", "0.5", "--out", str(out)], tmp_path / ".out.lock"),
    }[command]
    if command in ("mim", "flip"):
        assert pretrain_server.run("fault_children:pretrain", words, {}).code == 0
    with held(lock):
        before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
        ended = pretrain_server.run("fault_children:pretrain", words, {})
        assert ended.code == 2
        said = [line for line in ended.err.splitlines() if line.startswith("pretrain: error: another ")]
        assert len(said) == 1, ended.err
        assert str(out) in said[0]
        assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    assert pretrain_server.run("fault_children:pretrain", words, {}).code == 0


def test_an_ablation(pretrain_server, shards, tmp_path):
    """Its cells are runs with locks of their own; but none of them has failed, and no step is to be timed now."""
    out = tmp_path / "out"
    words = ["flip-ablation", "tiny_flip", "--out", str(out), "--train-data", shards[0], "--val-data", shards[1]]
    with held(out / ".lock"):
        ended = pretrain_server.run("fault_children:pretrain", words, {})
    assert (ended.code, ended.out) == (2, "")
    assert ended.err == (
        f"pretrain: error: another `pretrain flip-ablation` is running in {out}; wait for it, or give another --out\n"
    )
    assert [path.name for path in out.iterdir()] == [".lock"]


@pytest.mark.parametrize("command", ["report", "gate init", "gate promote"])
def test_commands_of_evalharness(harness_server, results, tmp_path, command):
    base = tmp_path / "base.toml"
    pin = ["--baseline", str(base), "--candidate", str(results), "--by", "a", "--reason", "b"]
    words, lock, code = {
        "report": (
            ["report", str(results), "--output", str(tmp_path / "report"), "--no-figures"],
            tmp_path / "report" / ".report.lock",
            2,
        ),
        "gate init": (["gate", "init", *pin], tmp_path / ".base.toml.lock", 4),
        "gate promote": (["gate", "promote", *pin], tmp_path / ".base.toml.lock", 4),
    }[command]
    if command == "gate promote":
        assert harness_server.run("fault_children:evalharness", ["gate", "init", *pin], {}).code == 0
    with held(lock):
        ended = harness_server.run("fault_children:evalharness", words, {})
        assert ended.code == code
        assert ended.err.startswith("evalharness: error: another `evalharness "), ended.err
        assert "wait for it" in ended.err
    ended = harness_server.run("fault_children:evalharness", words, {})
    assert ended.code == 0, ended.err
    assert not lock.exists()


def test_a_cell_that_another_process_holds_is_waited_for(harness_server, harness_words, results, tmp_path):
    """`evalharness run` takes two processes in one folder as help: each cell is done once, by one of them."""
    out = tmp_path / "out"
    (stem,) = (file.stem for file in results.glob("logs/*.log"))
    lock = out / "work" / f"{stem}.lock"
    lock.parent.mkdir(parents=True)
    stream, patience = lock.open("a"), time.monotonic() + 100
    fcntl.flock(stream, fcntl.LOCK_EX)

    def let_go_when_it_waits():
        said = harness_server.folder
        while time.monotonic() < patience and not any("is at it" in file.read_text() for file in said.glob("*.err")):
            time.sleep(0.05)
        stream.close()

    other = threading.Thread(target=let_go_when_it_waits)
    other.start()
    ended = harness_server.run("fault_children:evalharness", harness_words("knn", out), {})
    other.join()
    assert ended.code == 0, ended.err
    assert "another process is at it; coming back later" in ended.err
    assert list((out / "work").iterdir()) == []


def test_one_at_a_time(tmp_path):
    lock = tmp_path / "lock"
    with alone(lock) as mine, alone(lock) as another:
        assert (mine, another) == (True, False)
    assert not lock.exists()
    with pytest.raises(OSError, match="No such file"), alone(tmp_path / "no" / "lock"):
        pytest.fail("a lock that cannot be made is held by nobody")


def test_what_a_kill_left_goes_and_what_is_being_written_stays(tmp_path):
    left, busy, other = (tmp_path / name for name in (".a.x.unfinished.tmp", ".b.y.unfinished.tmp", ".c.tmp"))
    for file in (left, busy, other):
        file.touch()
    with held(busy):
        remove_unfinished(tmp_path)
    assert sorted(tmp_path.iterdir()) == [busy, other]
    write_whole(tmp_path / "a", "text\n")
    assert (tmp_path / "a").read_bytes() == b"text\n"
    with pytest.raises(IsADirectoryError):
        write_whole(tmp_path, b"")
    assert not list(tmp_path.parent.glob(".*.unfinished.tmp"))
