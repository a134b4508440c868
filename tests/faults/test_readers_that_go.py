"""The reader of what a command prints goes before the end, as `head` does: an end as by SIGPIPE, and not a word."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from run_folders import differences, unreadable

GONE = 141
PROGRAMS = {
    "pretrain": ("unveil_pretrain", "mim", "--help"),
    "evalharness": ("unveil_evalharness", "--help"),
    "backbones": ("unveil_backbones", "schema"),
    "masking": ("unveil_masking", "ls"),
}
SLOW = {
    "pretrain, a recipe's help": ("unveil_pretrain", "mim", "tiny_mae", "--help"),
    "pretrain ls": ("unveil_pretrain", "ls"),
    "evalharness run --help": ("unveil_evalharness", "run", "--help"),
    "evalharness ls": ("unveil_evalharness", "ls"),
    "backbones --help": ("unveil_backbones", "verify", "--help"),
}
ALL = [*PROGRAMS.values(), *(pytest.param(words, marks=pytest.mark.slow) for words in SLOW.values())]
NAMES = [*PROGRAMS, *SLOW]


def start(words, *, unbuffered=False, before="pass", **streams):
    """A command line in a process of its own, with Python's usual buffers or without any."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    environment |= {"PYTHONUNBUFFERED": "1"} if unbuffered else {}
    module, *rest = words
    code = f"import sys; {before}; sys.argv[1:] = {rest}; import runpy; runpy.run_module({module!r}, None, '__main__')"
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, stdin=subprocess.DEVNULL, check=False, timeout=100, text=True,
        **streams,
    )  # fmt: skip


@pytest.fixture
def deaf():
    """The writing end of a pipe that nobody reads."""
    reader, writer = os.pipe()
    os.close(reader)
    yield writer
    os.close(writer)


@pytest.mark.parametrize("words", ALL, ids=NAMES)
@pytest.mark.parametrize(
    "unbuffered", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["buffered", "unbuffered"]
)
def test_a_command_ends_quietly(words, unbuffered, deaf):
    ended = start(words, unbuffered=unbuffered, stdout=deaf, stderr=subprocess.PIPE)
    assert (ended.returncode, ended.stderr) == (GONE, "")


@pytest.mark.parametrize("words", PROGRAMS.values(), ids=PROGRAMS)
def test_a_reader_that_goes_after_three_lines(words, tmp_path):
    """As a user sees it, with a shell; more output than a pipe holds is not needed for that."""
    python = f"{sys.executable} -m {' '.join(words)}"
    said = tmp_path / "said"
    shell = f"({python} 2>{said}; echo ${{PIPESTATUS[0]}} >>{said}) | head -3"
    ended = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, check=False, timeout=100)
    assert 1 <= len(ended.stdout.splitlines()) <= 3
    assert ended.stderr == ""
    # A short page may be written before `head` goes.
    assert said.read_text() in ("0\n", f"{GONE}\n")


@pytest.mark.parametrize("words", [(module, "no such command") for module, *_ in PROGRAMS.values()], ids=PROGRAMS)
def test_a_reader_of_errors_that_has_gone(words, deaf):
    ended = start(words, stdout=subprocess.PIPE, stderr=deaf)
    assert ended.stdout == ""
    assert ended.returncode in (2, GONE)  # argparse says nothing where it cannot


@pytest.mark.parametrize("words", PROGRAMS.values(), ids=PROGRAMS)
def test_output_that_a_disk_refuses_is_said(words):
    with Path("/dev/full").open("w") as full:
        ended = start(words, stdout=full, stderr=subprocess.PIPE)
    assert ended.returncode == 2
    assert ended.stderr.count("\n") == 1
    assert "No space left on device" in ended.stderr


@pytest.mark.parametrize("program", ["pretrain", "evalharness", "backbones"])
def test_a_pipe_to_somewhere_else_that_breaks_is_said(program):
    """A socket, or the pipe to another process: no reader of ours."""
    module, command = {
        "pretrain": ("unveil_pretrain.cli", "_dispatch"),
        "evalharness": ("unveil_evalharness.cli", "_dispatch"),
        "backbones": ("unveil_backbones.cli", "_parser"),
    }[program]
    breaking = (
        f"import os, {module} as cli; ends = os.pipe(); os.close(ends[0]); "
        f"cli.{command} = lambda *_: os.write(ends[1], b'x')"
    )
    ended = start(PROGRAMS[program], before=breaking, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert ended.stderr.count("\n") == 1
    assert "error: [Errno 32] Broken pipe" in ended.stderr


def test_a_gate_keeps_its_verdict_without_a_reader(harness_server, results, tmp_path):
    """Its exit code is what it is called for, and `| head` in a script must not turn "ok" into something else."""
    base = tmp_path / "base.toml"
    pinned = ["gate", "init", "--baseline", str(base), "--candidate", str(results), "--by", "a", "--reason", "b"]
    assert harness_server.run("fault_children:evalharness", pinned, {}).code == 0
    policy = tmp_path / "policy.toml"
    policy.write_text('[metrics."knn.acc1@20"]\nabsolute = 0.3\n')
    words = ["gate", "--baseline", str(base), "--candidate", str(results), "--policy", str(policy)]
    heard = harness_server.run("fault_children:evalharness", words, {})
    unheard = harness_server.run("fault_children:evalharness", words, {"reader": "", "of": [1]})
    assert heard.out, heard.err
    assert (unheard.code, unheard.err) == (heard.code, "")


def test_a_run_without_a_reader_goes_on_from_its_last_checkpoint(pretrain_server, pretrain_words, tmp_path):
    """What a run says of itself goes to stderr, where it ends; stdout gets one line, when everything is done."""
    run, straight = tmp_path / "run", tmp_path / "straight"
    ended = pretrain_server.run("fault_children:pretrain", pretrain_words("mim", straight), {"reader": "", "of": [1]})
    assert ended.code == GONE
    assert "Broken pipe" not in ended.err
    words = pretrain_words("mim", run)
    ended = pretrain_server.run("fault_children:pretrain", words, {"reader": "", "of": [2]})
    assert (ended.code, ended.out) == (GONE, "")
    assert unreadable(run) == []
    assert pretrain_server.run("fault_children:pretrain", words, {}).code == 0
    assert differences(run, straight) == []


def test_a_reader_that_goes_by_the_same_signal_does_not_keep_a_run_from_saving(
    pretrain_server, pretrain_words, tmp_path
):
    """Ctrl-C on `pretrain ... 2>&1 | tee log` ends `tee` at once, and the run behind its step."""
    run, mark = tmp_path / "run", tmp_path / "mark"
    fault = {"both": [{"slow": "validation", "mark": str(mark)}, {"reader": str(mark), "of": [1, 2]}]}
    words = pretrain_words("mim", run)
    ended = pretrain_server.run("fault_children:pretrain", words, fault, signals=((1.0, signal.SIGINT),), when=mark)
    assert ended.code in (130, GONE)  # whoever hears of it first
    assert unreadable(run) == []
    assert (run / "checkpoints" / "step_00000002").is_dir()
