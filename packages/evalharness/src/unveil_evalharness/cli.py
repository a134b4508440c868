"""The ``evalharness`` command: each subcommand is generated from its options dataclass.

A subcommand's code is imported only when it is called, so that `ls`, `report` and `correlate` need not wait for torch.
The table or JSON goes to stdout, everything else to stderr. Exit codes: 0 done, 1 a task failed or a check found
problems, 2 bad input or a disk that takes no more, 130 interrupted, 141 the reader of what it prints has gone, 143
terminated; commands that say more by their code have it in their help.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module

from unveil_backbones.terminal import guard_output, quiet_without_reader, whole_output

from unveil_evalharness.errors import HarnessError
from unveil_evalharness.parsing import nearest, parse_options, with_config

__all__ = ["COMMANDS", "Command", "main"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Command:
    """Where a subcommand lives: a module with an options dataclass and ``main(options) -> int``."""

    module: str
    """Inside this package."""
    options: str
    """Name of the options dataclass."""
    what: str
    """One line for the list of commands."""
    bad_input: int = 2
    """Exit code of bad input, where 2 already means something else."""


COMMANDS = {
    "run": Command(
        module="commands.run",
        options="RunOptions",
        what="evaluate checkpoints: evalharness run --ckpt PATH[,PATH] --data-root D --output-path OUT",
    ),
    "ls": Command(module="commands.ls", options="ListOptions", what="list tasks, suites, protocols or metrics"),
    "doctor": Command(module="doctor", options="DoctorOptions", what="check packages, hardware and data"),
    "verify": Command(
        module="commands.verify", options="VerifyOptions", what="check hashes, fingerprints and metrics of a run"
    ),
    "report": Command(
        module="report.command", options="ReportOptions", what="write tables and figures from finished runs"
    ),
    "correlate": Command(
        module="correlate.command",
        options="CorrelateOptions",
        what="relate validation losses to downstream metrics",
    ),
    "predict": Command(
        module="predict.command",
        options="PredictOptions",
        what="forecast a run's score from its loss, with an interval, and whether to measure it",
    ),
    "compare": Command(
        module="compare.command",
        options="CompareOptions",
        what="compare two checkpoints, paired by evaluation item: evalharness compare A B",
    ),
    "gate": Command(
        module="gate.command",
        options="GateOptions",
        what="is a candidate worse than a baseline? exit 0 ok, 1 regressed, 2 undecided, 3 not comparable",
        bad_input=4,
    ),
    "gate init": Command(
        module="gate.lifecycle", options="InitOptions", what="pin a baseline from finished runs", bad_input=4
    ),
    "gate promote": Command(
        module="gate.lifecycle",
        options="PromoteOptions",
        what="move a baseline to a candidate, with a reason",
        bad_input=4,
    ),
    "gate show": Command(
        module="gate.lifecycle", options="ShowOptions", what="show a baseline and its history", bad_input=4
    ),
}
"""A command of two words (``gate promote``) is looked for before one of its first word alone."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code."""
    if arguments is None:
        guard_output()
    with quiet_without_reader():
        return _main(list(sys.argv[1:] if arguments is None else arguments))


def _main(given: list[str]) -> int:
    try:
        with whole_output():
            return _dispatch(given)
    except HarnessError as error:
        name = _name(given)
        return _fail(str(error), code=COMMANDS[name].bad_input if name else 2)
    except OSError as error:
        name = _name(given)
        message = f"{error}; earlier results are intact; check the path, its permissions and the free space"
        return _fail(message, code=COMMANDS[name].bad_input if name else 2)
    except KeyboardInterrupt:
        print("evalharness: interrupted", file=sys.stderr)
        return 130


def _dispatch(given: list[str]) -> int:
    if not given:
        return _fail("no command; use one of " + ", ".join(COMMANDS))
    if given[0] in ("-h", "--help", "help"):
        print(_usage())
        return 0
    if given[0] == "--version":
        from importlib.metadata import version

        print(f"evalharness {version('unveil-evalharness')}")
        return 0
    name = _name(given)
    if name is None:
        return _fail(f"unknown command {given[0]!r}{nearest(given[0], list(COMMANDS))}")
    command = COMMANDS[name]
    module = import_module(f"unveil_evalharness.{command.module}")
    words = given[len(name.split()) :]
    options = parse_options(module.__dict__[command.options], name, with_config(words) if name == "run" else words)
    return module.main(options)


def _name(given: list[str]) -> str | None:
    return next((name for name in (" ".join(given[:2]), *given[:1]) if name in COMMANDS), None)


def _usage() -> str:
    width = max(map(len, COMMANDS))
    return "\n".join(
        [
            "usage: evalharness COMMAND [OPTIONS]",
            "",
            "Evaluate checkpoints of masked pre-training, and learn how far their validation loss can be trusted.",
            "",
            "commands:",
            *(f"  {name:{width}}  {command.what}" for name, command in COMMANDS.items()),
            "",
            "`evalharness COMMAND --help` describes the options of a command.",
        ]
    )


def _fail(message: str, *, code: int = 2) -> int:
    print(f"evalharness: error: {message}", file=sys.stderr)
    return code
