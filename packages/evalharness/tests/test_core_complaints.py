"""One line for words that a command cannot read: the wrong one by name, what is missing, and what may be meant."""

import contextlib
import re
from importlib import import_module

import pytest
from unveil_evalharness.cli import COMMANDS, main
from unveil_evalharness.complaints import one_line, option_names
from unveil_evalharness.run import RunOptions

RUN = ["run", "--ckpt", "a", "--data-root", "b", "--output-path", "c"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["run", "--data-rot", "x", "--ckpt", "a", "--output-path", "o"],
            "unknown option --data-rot; did you mean --data-root?",
        ),
        (["run", "--ckpt", "a", "--data_rot=x", "--output-path", "o"], "--data_rot; did you mean --data-root?"),
        (
            ["run", "--data-rot", "x", "--ckptt", "a"],
            "unknown options --data-rot, --ckptt; did you mean --data-root, --ckpt? also missing: --output-path",
        ),
        (
            ["gate", "init", "--zzz", "3"],
            "unknown option --zzz; also missing: --baseline, --candidate, --reason (see evalharness gate init --help)",
        ),
        ([*RUN, "--cluster.partion", "p"], "--cluster.partion; did you mean --cluster.partition?"),
        ([*RUN, "--no-progres"], "--no-progres; did you mean --no-progress?"),
        (["compare", "A", "--jsn"], "unknown option --jsn; did you mean --json?"),
        ([*RUN, "--tasks", "knn", "linear"], "nothing takes 'linear' after --tasks: join several values by commas"),
        (["run", "--ckpt", "a", "b"], "missing --data-root, --output-path; nothing takes 'b' after --ckpt"),
        (["compare", "A", "--a\nb"], r"unknown option '--a\nb' (see"),
        (["compare", "A", "B", "C"], "nothing takes 'C' (see"),
        (["compare", "A"], "error: missing B (the other side, in the same form as A) (see evalharness compare --help)"),
        (["compare"], "missing A (output folder of `evalharness run`, or FOLDER:CHECKPOINT with a label or the start"),
        (["verify"], "missing FOLDER (output folder of `evalharness run`) (see"),
        (["gate", "show"], "missing BASELINE (file of `gate init`) (see"),
    ],
)
def test_the_wrong_word_is_named_in_one_line(arguments, message, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "40")  # narrow: what is said goes on over several lines of the frame
    assert main(arguments) in (2, 4)
    out, err = capsys.readouterr()
    assert message in err
    assert (out, err.count("\n")) == ("", 1)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_options_known_are_those_of_the_help(name, capsys):
    command = COMMANDS[name]
    kind = vars(import_module(f"unveil_evalharness.{command.module}"))[command.options]
    with contextlib.suppress(SystemExit):
        main([*name.split(), "--help"])
    heads = re.findall(r"^[│ ] (-.*)", capsys.readouterr().out, flags=re.MULTILINE)
    shown = {word for head in heads for word in re.findall(r"(?<![\w-])--[a-z][\w.-]*", head.split("  ")[0])}
    assert set(option_names(kind)) == shown - {"--help"}


def test_a_frame_of_ascii_reads_alike():
    """As tyro draws it where stdout is not UTF-8."""
    lines = (
        " Required options         ",
        " ------------------------ ",
        "  Missing from evalharness run:",
        "      --data-root PATH",
        "          Folder. (required)",
        "  ------------------------",
        "  Unrecognized options:",
        "      x",
        "  ------------------------",
        "  For full helptext, run:",
    )
    assert one_line("\n".join(lines), RunOptions, ["x"]) == "missing --data-root; nothing takes 'x'"
