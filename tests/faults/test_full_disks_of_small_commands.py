"""A full disk under commands that write one thing: one line, what was there stays, nothing half is left."""

import errno
import os
import shutil

import pytest

EARLIER = b"what an earlier call wrote"


@pytest.fixture(scope="module")
def run(pretrain_server, pretrain_words, tmp_path_factory):
    """A finished run of `mim`."""
    folder = tmp_path_factory.mktemp("export") / "run"
    ended = pretrain_server.run("fault_children:pretrain", pretrain_words("mim", folder), {})
    assert ended.code == 0, ended.err
    return folder


@pytest.fixture
def command(request, run, results, subjects, harness_server, pretrain_server, tmp_path):
    """Server, function, words, what is said at a refusal, its exit code, and the file or folder that is written."""
    place = tmp_path / "place"
    place.mkdir()
    policy = tmp_path / "policy.toml"
    policy.write_text("[default]\nabsolute = 0.03\n")
    gate = ["gate", "--baseline", str(results), "--candidate", str(results), "--policy", str(policy),
            "--num-resamples", "100"]  # fmt: skip
    out = place / "out"
    return {
        "export": (pretrain_server, "pretrain", ["export", str(run), "--out", str(out)], "pretrain: error: ", 2, out),
        "convert": (harness_server, "backbones", ["convert", str(subjects["mae"]), str(out), "--to", "timm"],
                    "unveil_backbones: error: ", 2, out),
        "junit": (harness_server, "evalharness", [*gate, "--junit", str(place / "g.xml")], "evalharness: error: ", 4,
                  place / "g.xml"),
        "markdown": (harness_server, "evalharness", [*gate, "--markdown", str(place / "g.md")], "evalharness: error: ",
                     4, place / "g.md"),
        "show": (harness_server, "masking", ["show", "--strategy", "text_random", "-o", str(place / "m.png")],
                 "unveil_masking: ", 2, place / "m.png"),
    }[request.param]  # fmt: skip


ANSWERS = {2: (0,), 4: (0, 1, 2, 3)}  # by the code of a refusal
COMMANDS = ("export", "convert", "junit", "markdown", "show")


@pytest.mark.parametrize("command", COMMANDS, indirect=True)
def test_a_full_disk_under_a_command_that_writes_one_thing(command, tmp_path):
    server, function, words, said, code, written = command
    place, tally, start = written.parent, tmp_path / "tally", f"fault_children:{function}"
    done = server.run(start, words, {"count": str(tally), "below": str(place)})
    assert done.code in ANSWERS[code], done.err
    if written.is_dir():  # a folder is only ever made, so there is none before
        shutil.rmtree(written)
    else:
        written.write_bytes(EARLIER)
    names = tally.read_text().splitlines()
    last = max(number for number, name in enumerate(names) if name.startswith(("rename", "replace", "write")))
    for number in sorted({0, last // 2, last}):
        if not names[number].startswith(("remove", "rmdir")):
            fault = {"refuse": number, "code": errno.ENOSPC, "below": str(place)}
            refused = server.run(start, words, fault)
            (line,) = refused.err.splitlines()
            assert (refused.code, line.startswith(said), "free" in line) == (code, True, True), refused.err
            assert os.strerror(errno.ENOSPC) in line
            assert [path.name for path in place.rglob("*")] == [written.name] * written.exists(), names[number]
            # The summary of a job is added to, and what a step has written halfway is the file system's to say.
            assert not written.exists() or written.read_bytes().startswith(EARLIER)
    again = server.run(start, words, {})
    assert again.code == done.code, again.err
    assert written.stat().st_size > len(EARLIER)
