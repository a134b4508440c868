"""Sources that hang, and decoders that hang or die: each ends in time, by name, and leaves nothing behind."""

import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from unveil_pretrain.data import FolderDataset, ImageDataset, ShardDataset, train_batches, workers
from unveil_pretrain.data.audit import audit
from unveil_pretrain.data.deadline import Deadline
from unveil_pretrain.data.retrying import ReadPolicy, noting_retries, with_retries
from unveil_pretrain.data.workers import Loaded
from unveil_pretrain.errors import ConfigError, DataError, SourceError

# Python 3.12 and later say so when a process with threads forks its workers.
pytestmark = pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")

SHORT = ReadPolicy(timeout=0.2, tries=2, first_wait=0.01)


class Hanging(MemoryFileSystem):
    """A file system whose server is gone as long as `gone` is set."""

    protocol = "hanging"
    gone = threading.Event()
    back = threading.Event()

    def cat_file(self, path, start=None, end=None, **options):
        if self.gone.is_set():
            self.back.wait(30)
        return super().cat_file(path, start=start, end=end, **options)


@pytest.fixture
def hanging(shards):
    """The URL of a shard there."""
    fsspec.register_implementation("hanging", Hanging, clobber=True)
    filesystem = fsspec.filesystem("hanging")
    filesystem.pipe_file("hanging://train.tar", Path(shards[0]).read_bytes())
    Hanging.gone.clear()
    Hanging.back.clear()
    yield "hanging://train.tar"
    Hanging.back.set()
    Hanging.gone.clear()


def helpers():
    return [thread for thread in threading.enumerate() if thread.name == "reading"]


def test_a_source_that_hangs_is_named_in_time(hanging):
    dataset = ShardDataset(hanging, SHORT)
    expected = dataset.read(3)
    Hanging.gone.set()
    begin = time.perf_counter()
    with (
        noting_retries() as retries,
        pytest.raises(SourceError, match=r"train\.tar: 000003: not read in 2 tries.*time-out 2x"),
    ):
        dataset.read(3)
    assert time.perf_counter() - begin < 3
    assert [one.cause for one in retries] == ["time-out"] * 2
    Hanging.gone.clear()
    assert dataset.read(3) == expected


@pytest.mark.parametrize("num_workers", [0, 3])
def test_loaders_and_audits_end_with_the_source(hanging, num_workers):
    dataset = ImageDataset(ShardDataset(hanging, SHORT), image_size=(16, 16))
    Hanging.gone.set()
    options = {"batch_size": 2, "start_step": 0, "num_steps": 4, "seed": 0, "num_workers": num_workers}
    with pytest.raises(SourceError, match=r"time-out 2x"):
        list(train_batches(dataset, tolerate=True, **options))
    with pytest.raises(DataError, match="hanging"):
        ShardDataset(hanging, SHORT)
    found = audit(hanging, policy=SHORT, num_workers=num_workers)
    assert [finding.kind for finding in found.findings] == ["shard", "index"]
    assert all("time-out 2x" in finding.what for finding in found.findings)
    assert found.retries == {"time-out": 4}


def test_a_file_that_hangs_is_named_in_time(tmp_path, shards):
    """A pipe that nobody writes to: opening it waits, as reading does in a network file system without its server."""
    (tmp_path / "images").mkdir()
    samples = ShardDataset(shards[0])
    for index in range(3):
        (tmp_path / "images" / f"{index}.jpg").write_bytes(samples.read(index)["jpg"])
    folder = FolderDataset(str(tmp_path / "images"), policy=SHORT)
    (tmp_path / "images" / "1.jpg").unlink()
    os.mkfifo(tmp_path / "images" / "1.jpg")
    with pytest.raises(SourceError, match=r"images: 1\.jpg: not read in 2 tries of at most 0\.2 s \(time-out 2x\)"):
        folder.read(1)
    assert folder.read(2)
    # Frees the threads that were left behind; opened for both ends, it does not itself wait for a reader.
    os.close(os.open(tmp_path / "images" / "1.jpg", os.O_RDWR | os.O_NONBLOCK))


def test_a_shard_that_is_a_pipe_is_named(tmp_path, shards):
    os.mkfifo(tmp_path / "a.tar")
    with pytest.raises(DataError, match="is no regular file"):
        ShardDataset(str(tmp_path / "a.tar"), SHORT)


def test_a_call_that_returns_in_time_is_as_it_would_be_without_a_limit():
    deadline = Deadline()
    assert deadline.call(lambda: 7, 5.0) == 7
    with pytest.raises(KeyError, match="gone"):
        deadline.call(lambda: {}["gone"], 5.0)
    assert pickle.loads(pickle.dumps(deadline)).call(lambda: 8, 5.0) == 8
    del deadline


def test_helpers_end_with_the_threads_that_used_them(shards):
    dataset = ImageDataset(ShardDataset(shards[0]), image_size=(16, 16))
    before = len(helpers())
    list(train_batches(dataset, batch_size=4, start_step=0, num_steps=6, seed=0, num_workers=3))
    deadline = time.monotonic() + 10
    while len(helpers()) > before + 1 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert len(helpers()) <= before + 1


class Stuck(ImageDataset):
    """A data set whose sample 5 never comes."""

    def train_example(self, index, *, seed, epoch):
        if index == 5:
            time.sleep(20)
        return super().train_example(index, seed=seed, epoch=epoch)


class Deadly(ImageDataset):
    """A data set whose sample 5 ends the process that decodes it."""

    def train_example(self, index, *, seed, epoch):
        if index == 5:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().train_example(index, seed=seed, epoch=epoch)


OPTIONS = {"batch_size": 24, "start_step": 0, "num_steps": 3, "seed": 0, "num_workers": 1}


@pytest.mark.parametrize("kind", ["thread", pytest.param("process", marks=pytest.mark.slow)])
def test_a_decoder_that_is_stuck_is_an_error(shards, kind, monkeypatch):
    monkeypatch.setattr("unveil_pretrain.data.workers._FAREWELL", 0.1)
    dataset = Stuck(ShardDataset(shards[0]), image_size=(16, 16))
    begin = time.perf_counter()
    worker_kind = {"thread": "threads", "process": "processes"}[kind]
    with pytest.raises(DataError, match=f"no batch came for 1 s: a decoding {kind} is stuck"):
        list(train_batches(dataset, worker_kind=worker_kind, patience=1, **OPTIONS))
    assert time.perf_counter() - begin < 15


@pytest.mark.slow
def test_a_decoding_process_that_is_killed_is_an_error(shards):
    dataset = Deadly(ShardDataset(shards[0]), image_size=(16, 16))
    with pytest.raises(DataError, match=r"a decoding process ended .*repeat the command"):
        list(train_batches(dataset, worker_kind="processes", **OPTIONS))


DEATH = "DataLoader worker (pid 15828) is killed by signal: Killed. "


@pytest.mark.parametrize("first", [RuntimeError(DEATH), ConnectionResetError(104, "reset"), EOFError()])
@pytest.mark.parametrize("is_signalled", [True, False])
def test_a_process_that_is_killed_at_any_point_is_an_error(monkeypatch, first, is_signalled):
    """As it hands a batch over, its socket closes first; the signal comes later, and would hit whoever works then."""

    def handler(number, frame):
        raise RuntimeError(DEATH)

    def loader(*args, **options):
        if is_signalled and not isinstance(first, RuntimeError):
            signal.setitimer(signal.ITIMER_REAL, 0.05)
        yield Loaded("batch")
        raise first

    monkeypatch.setattr(workers, "DataLoader", loader)
    monkeypatch.setattr(workers, "_OBITUARY", 0.2)
    before = signal.signal(signal.SIGALRM, handler)
    try:
        batches = workers.loaded_in_order([], range(2), num_workers=1, worker_kind="processes", patience=1)
        assert next(batches) == "batch"
        with pytest.raises(DataError, match=r"a decoding process ended .*repeat the command") as found:
            next(batches)
        time.sleep(0.2)  # nothing is left to come
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert ("is killed" in str(found.value)) == (is_signalled or isinstance(first, RuntimeError))


class Failing(ImageDataset):
    """A data set that is wrong in a way that has nothing to do with files."""

    def train_example(self, index, *, seed, epoch):
        raise RuntimeError("shapes differ")


def test_an_error_that_a_process_met_is_not_called_its_end(shards):
    dataset = Failing(ShardDataset(shards[0]), image_size=(16, 16))
    with pytest.raises(RuntimeError, match="shapes differ") as found:
        list(train_batches(dataset, worker_kind="processes", **OPTIONS))
    assert not isinstance(found.value, DataError)


READER = """
import sys
from unveil_pretrain.data import ImageDataset, ShardDataset, train_batches
kind, shard = sys.argv[1:]
dataset = ImageDataset(ShardDataset(shard), image_size=(16, 16))
batches = train_batches(dataset, batch_size=4, start_step=0, num_steps=10**9, seed=0, num_workers=2, worker_kind=kind)
for number, batch in enumerate(batches):
    if number == 3:
        print("reading", flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["threads", "processes"])
def test_an_interrupt_leaves_no_worker_behind(shards, kind):
    process = subprocess.Popen(
        [sys.executable, "-c", READER, kind, shards[0]],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    assert process.stdout.readline() == "reading\n"
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does for Ctrl-C
    process.wait(60)
    process.stdout.close()
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    pytest.fail("a worker lives on")


def test_errors_that_may_pass_are_told_from_those_that_stay():
    answers = iter([OSError(5, "Input/output error"), ConnectionResetError("reset"), "read"])

    def read():
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    with noting_retries() as retries:
        assert with_retries(read, replace(SHORT, tries=3), what="a.tar", key=1) == "read"
    assert [one.cause for one in retries] == ["input/output error", "connection lost"]
    assert [one.wait > 0 for one in retries] == [True, True]

    def refuse():
        raise PermissionError("no")

    with noting_retries() as retries, pytest.raises(SourceError, match=r"a\.tar: access is denied \(no\)"):
        with_retries(refuse, SHORT, what="a.tar", key=1)
    assert retries == []


@pytest.mark.parametrize("wrong", [{"timeout": 0}, {"timeout": float("inf")}, {"tries": 0}, {"first_wait": -1}])
def test_impossible_policies_are_refused(wrong):
    with pytest.raises(ConfigError, match="give"):
        ReadPolicy(**wrong)
