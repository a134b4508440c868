"""SIGKILL at any moment of `pretrain mim` and `pretrain flip`: what is there is whole, and the same command finishes.

Half of the moments are drawn from the time that a run takes, half from the operations on its files; in the second half
a write is torn in the middle. UNVEIL_FAULT_SEED draws others.
"""

import os
import signal

import pytest
from numpy.random import Generator, Philox
from run_folders import differences, unreadable

SEED = int(os.environ.get("UNVEIL_FAULT_SEED", "0"))
COMMANDS = ("mim", "flip")


@pytest.fixture(scope="module")
def straight(pretrain_server, pretrain_words, tmp_path_factory):
    """An undisturbed run of each command: its folder, its seconds, and how many operations it does on files."""
    found = {}
    for command in COMMANDS:
        folder = tmp_path_factory.mktemp(command)
        words, tally = pretrain_words(command, folder / "run", "--loggers"), folder / "tally"
        ended = pretrain_server.run("fault_children:pretrain", words, {})
        assert ended.code == 0, ended.err
        counted = pretrain_words(command, folder / "counted", "--loggers")
        fault = {"count": str(tally), "below": str(folder / "counted")}
        assert pretrain_server.run("fault_children:pretrain", counted, fault).code == 0
        assert differences(folder / "counted", folder / "run") == []
        found[command] = folder / "run", ended.seconds, len(tally.read_text().splitlines())
    return found


def draws(command, kind, num):
    """Numbers in [0, 1), a stream for each command and kind."""
    return Generator(Philox(key=[SEED, 2 * COMMANDS.index(command) + (kind == "time")])).random(num).tolist()


def kill_and_go_on(command, kind, share, straight, server, words, folder):
    """One kill and its aftermath; what is wrong, with what is needed to see it again."""
    whole, seconds, num_operations = straight[command]
    run = folder / f"{command}-{kind}-{share:.9f}"
    given = words(command, run, "--loggers")
    if kind == "time":
        ended = server.run("fault_children:pretrain", given, {}, signals=((share * seconds, signal.SIGKILL),))
        where = f"{command} killed after {share * seconds:.3f} s"
    else:
        number = int(share * num_operations)
        ended = server.run("fault_children:pretrain", given, {"kill": number, "below": str(run)})
        where = f"{command} killed at operation {number} of {num_operations}"
        assert ended.code == -signal.SIGKILL, f"{where}: {ended.code} {ended.err}"
    wrong = [f"{where} (UNVEIL_FAULT_SEED={SEED}): {what}" for what in unreadable(run)]
    again = server.run("fault_children:pretrain", given, {})
    if again.code:
        return [*wrong, f"{where} (UNVEIL_FAULT_SEED={SEED}): {again.err}"]
    return wrong + [f"{where} (UNVEIL_FAULT_SEED={SEED}): {what} differs" for what in differences(run, whole)]


@pytest.mark.parametrize("kind", ["time", "operation"])
def test_two_kills_of_each_kind(straight, pretrain_server, pretrain_words, tmp_path, kind):
    wrong = []
    for command in COMMANDS:
        for share in draws(command, kind, 50)[-1:]:
            wrong += kill_and_go_on(command, kind, share, straight, pretrain_server, pretrain_words, tmp_path)
    assert wrong == []


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("kind", ["time", "operation"])
def test_kills_at_fifty_points(straight, pretrain_server, pretrain_words, tmp_path, command, kind):
    """25 of each kind for each command."""
    wrong = []
    for share in draws(command, kind, 25):
        wrong += kill_and_go_on(command, kind, share, straight, pretrain_server, pretrain_words, tmp_path)
    assert wrong == []


def test_half_a_file_would_be_found(straight, tmp_path):
    """The checks can fail: a torn checkpoint, a torn table, a step counted twice, a file left behind."""
    import shutil

    from polars.exceptions import PolarsError
    from unveil_backbones import CheckpointError

    whole, *_ = straight["mim"]
    run = shutil.copytree(whole, tmp_path / "run")
    table = next(run.glob("val/step_*.parquet"))
    table.write_bytes(table.read_bytes()[:50])
    with pytest.raises(PolarsError):
        unreadable(run)
    shutil.copytree(whole, run, dirs_exist_ok=True)
    tensors = next(run.glob("checkpoints/step_*/encoder.safetensors"))
    tensors.write_bytes(tensors.read_bytes()[:500])
    with pytest.raises(CheckpointError):
        unreadable(run)
    shutil.copytree(whole, run, dirs_exist_ok=True)
    assert (unreadable(run), differences(run, whole)) == ([], [])
    lines = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    (run / "metrics.jsonl").write_text("".join([*lines, lines[-1]]))
    (run / ".metrics.jsonl.tmp").touch()
    assert len(unreadable(run)) == 1
    assert differences(run, whole) == ["files: .metrics.jsonl.tmp"]
    (run / ".metrics.jsonl.tmp").unlink()
    assert differences(run, whole) == ["metrics.jsonl"]
