"""SIGTERM and SIGINT: what is under way is saved, the code is 128 and the signal's number, nobody stays behind."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time

import pytest
from run_folders import differences, unreadable
from unveil_backbones import load
from unveil_pretrain.interrupts import Interrupted, ending_by_exception, stop_requests

CODES = {signal.SIGTERM: 143, signal.SIGINT: 130}
LONG = ("--steps", "20", "--validate-every", "10", "--checkpoint-every", "10", "--loggers")


@pytest.fixture(scope="module")
def straight(pretrain_server, pretrain_words, tmp_path_factory):
    run = tmp_path_factory.mktemp("straight") / "run"
    ended = pretrain_server.run("fault_children:pretrain", pretrain_words("mim", run, *LONG), {})
    assert ended.code == 0, ended.err
    return run


def without_extra(run, extra):
    """Removes the checkpoint that only an interrupted run has, once it has been looked at."""
    import shutil

    if extra is not None:
        shutil.rmtree(run / "checkpoints" / f"step_{extra:08d}")
    return run


@pytest.mark.parametrize(
    ("number", "workers"),
    [
        (signal.SIGTERM, "0"),
        (signal.SIGINT, "2"),
        pytest.param(signal.SIGTERM, "2", marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, "0", marks=pytest.mark.slow),
    ],
)
def test_pretrain_finishes_the_step_saves_and_says_how_to_go_on(
    straight, pretrain_server, pretrain_words, tmp_path, number, workers
):
    run = tmp_path / "run"
    words = pretrain_words("mim", run, *LONG, "--num-workers", workers)
    ended = pretrain_server.run(
        "fault_children:pretrain", words, {}, signals=((0.05, number),), when=run / "metrics.jsonl"
    )
    assert ended.code == CODES[number], ended.err
    assert ended.left == ()
    last = ended.err.strip().splitlines()[-1]
    said = re.fullmatch(
        rf"pretrain: error: stopped by {signal.Signals(number).name}; step (\d+) of 20 is saved in {run}; "
        "the same command continues from there",
        last,
    )
    assert said, ended.err
    assert "Traceback" not in ended.err
    step = int(said[1])
    assert load(run).manifest.step == step == len((run / "metrics.jsonl").read_text().splitlines())
    assert unreadable(run) == []
    again = pretrain_server.run("fault_children:pretrain", words, {})
    assert again.code == 0
    assert f"continuing at step {step}" in again.err
    assert differences(without_extra(run, None if step in (10, 20) else step), straight) == []


SLOW_VALIDATION = {"slow": "validation"}
SLOW_SAVING = {"slow": "saving"}


@pytest.mark.parametrize("fault", [SLOW_VALIDATION, SLOW_SAVING], ids=["validation", "saving"])
def test_a_signal_while_validating_or_saving_waits_for_it(straight, pretrain_server, pretrain_words, tmp_path, fault):
    run, mark = tmp_path / "run", tmp_path / "mark"
    words = pretrain_words("mim", run, *LONG)
    ended = pretrain_server.run(
        "fault_children:pretrain", words, {**fault, "mark": str(mark)}, signals=((0.0, signal.SIGTERM),), when=mark
    )
    assert ended.code == 143, ended.err
    assert "step 10 of 20 is saved" in ended.err
    assert [json.loads(line)["step"] for line in (run / "val.jsonl").read_text().splitlines()] == [10]
    assert pretrain_server.run("fault_children:pretrain", words, {}).code == 0
    assert differences(run, straight) == []


@pytest.mark.parametrize("fault", [pytest.param(SLOW_VALIDATION, marks=pytest.mark.slow), SLOW_SAVING])
def test_a_second_signal_ends_it_at_once_and_harms_nothing(straight, pretrain_server, pretrain_words, tmp_path, fault):
    run, mark = tmp_path / "run", tmp_path / "mark"
    words = pretrain_words("mim", run, *LONG)
    twice = ((0.0, signal.SIGINT), (1.2, signal.SIGTERM))
    ended = pretrain_server.run(
        "fault_children:pretrain", words, {**fault, "mark": str(mark)}, signals=twice, when=mark
    )
    assert ended.code == -signal.SIGTERM, ended.err
    assert ended.left == ()
    assert unreadable(run) == []
    assert pretrain_server.run("fault_children:pretrain", words, {}).code == 0
    assert differences(run, straight) == []


def test_a_request_that_comes_twice_at_once_is_one():
    """As `timeout` sends it: to the process, and to its group."""
    with stop_requests(speaks=False) as request:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        for _ in range(100):
            time.sleep(0.001)
        assert request.number == signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_handlers_are_put_back_and_an_ignored_signal_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with stop_requests(speaks=False) as request:
            os.kill(os.getpid(), signal.SIGINT)
            assert not request
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
    with pytest.raises(Interrupted, match="goes on from there") as caught, ending_by_exception():
        signal.raise_signal(signal.SIGTERM)
    assert caught.value.exit_code == 143
    assert not isinstance(caught.value, Exception)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_signal_whose_exception_python_drops_is_not_lost():
    """As within a hook of `fork`, or a finaliser: here it is one."""

    class Finalised:
        def __del__(self):
            signal.raise_signal(signal.SIGTERM)

    went_on = False

    def work():
        nonlocal went_on
        one = Finalised()
        del one
        went_on = True

    with pytest.raises(Interrupted, match="goes on from there"), ending_by_exception():
        work()
    assert went_on


@pytest.mark.slow
@pytest.mark.parametrize("to_one", [False, True], ids=["torchrun", "one_rank"])
def test_under_torchrun_all_ranks_stop_at_the_same_step(pretrain_words, tmp_path, to_one):
    """SIGTERM to torchrun, which passes it on, or to one of its processes: each process stops behind the same step."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    run, err = tmp_path / "run", tmp_path / "err"
    words = pretrain_words("mim", run, *LONG, "--steps", "4000")
    launcher = [sys.executable, "-m", "torch.distributed.run", f"--master-port={port}", "--nproc-per-node=2"]
    with err.open("wb") as stream:
        process = subprocess.Popen(
            [*launcher, "-m", "unveil_pretrain", *words],
            stderr=stream,
            stdout=subprocess.DEVNULL,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            start_new_session=True,
        )
    patience = time.monotonic() + 200
    while not (run / "metrics.jsonl").exists() and time.monotonic() < patience and process.poll() is None:
        time.sleep(0.05)
    ranks = ranks_of(process.pid)
    assert len(ranks) == 2, err.read_text()
    os.kill(ranks[1] if to_one else process.pid, signal.SIGTERM)
    process.wait(120)
    said = re.findall(r"stopped by SIGTERM; step (\d+) of 4000 is saved", err.read_text())
    assert len(said) == 1, err.read_text()
    assert load(run).manifest.step == int(said[0])
    assert unreadable(run) == []
    assert not [rank for rank in ranks if os.path.exists(f"/proc/{rank}")]  # noqa: PTH110


def ranks_of(parent: int) -> list[int]:
    """The processes that torchrun started, by rank."""
    found = {}
    for entry in os.listdir("/proc"):  # noqa: PTH208
        try:
            with open(f"/proc/{entry}/stat", encoding="ascii", errors="replace") as stream:  # noqa: PTH123
                fields = stream.read().rpartition(")")[2].split()
            with open(f"/proc/{entry}/environ", encoding="utf-8", errors="replace") as stream:  # noqa: PTH123
                names = dict(pair.partition("=")[::2] for pair in stream.read().split("\0"))
        except (OSError, ValueError):
            continue
        if fields and fields[1] == str(parent) and "RANK" in names:
            found[int(names["RANK"])] = int(entry)
    return [found[rank] for rank in sorted(found)]
