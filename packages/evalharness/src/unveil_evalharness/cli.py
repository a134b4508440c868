"""The ``evalharness`` command: each subcommand is generated from its options dataclass.

A subcommand's code is imported only when it is called, so that `ls`, `report` and `correlate` need not wait for torch.
The table or JSON goes to stdout, everything else to stderr. Exit codes: 0 done, 1 a task failed or a check found
problems, 2 bad input, 130 interrupted.
"""

import contextlib
import difflib
import io
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_args, get_origin

from unveil_evalharness.errors import HarnessError, UsageError

if TYPE_CHECKING:
    import tyro

    from unveil_evalharness.run import RunOptions

__all__ = ["main"]

_USAGE = """usage: evalharness COMMAND [OPTIONS]

Evaluate masked pre-training checkpoints on downstream tasks and relate the results to the validation loss.

commands:
  run        evaluate checkpoints: evalharness run --ckpt PATH[,PATH] --data-root D --output-path OUT
  ls         list tasks, suites or metrics
  doctor     check packages, hardware and data
  report     write tables and figures from finished runs
  correlate  relate validation losses to downstream metrics

`evalharness COMMAND --help` describes the options of a command."""

_COMMANDS = ("run", "ls", "doctor", "report", "correlate")
_LISTS = ("tasks", "suites", "metrics")
_Options = TypeVar("_Options")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        return _dispatch(given)
    except HarnessError as error:
        return _fail(str(error))
    except BrokenPipeError:
        # The reader of stdout (head, less) has gone; nobody is left to tell.
        sys.stderr.close()
        return 1
    except KeyboardInterrupt:
        print("evalharness: interrupted", file=sys.stderr)
        return 130


def _dispatch(given: list[str]) -> int:
    if not given:
        return _fail("no command; use one of " + ", ".join(_COMMANDS))
    command, rest = given[0], given[1:]
    match command:
        case "-h" | "--help" | "help":
            print(_USAGE)
            return 0
        case "--version":
            from importlib.metadata import version

            print(f"evalharness {version('unveil-evalharness')}")
            return 0
        case "run":
            return _run(rest)
        case "ls":
            return _list(rest)
        case "doctor":
            from unveil_evalharness.doctor import DoctorOptions, doctor

            return doctor(_parse(DoctorOptions, "doctor", rest, comma_lists=True))
        case "report":
            from unveil_evalharness.report import command as report

            return report.main(_parse(report.ReportOptions, "report", rest))
        case "correlate":
            from unveil_evalharness.correlate import command as correlate

            return correlate.main(_parse(correlate.CorrelateOptions, "correlate", rest))
        case _:
            return _fail(f"unknown command {command!r}{_nearest(command, _COMMANDS)}")


def _run(arguments: list[str]) -> int:
    from unveil_evalharness.run import RunOptions, RunSummary, run

    options = _parse(RunOptions, "run", arguments, comma_lists=True)
    summary = RunSummary()
    interrupted = False
    try:
        run(options, summary=summary)
    except KeyboardInterrupt:
        interrupted = True
    from unveil_evalharness.table import format_table, rows_as_json

    code = 130 if interrupted else summary.exit_code
    if options.json:
        print(
            json.dumps(
                {
                    "output_path": str(options.output_path),
                    "exit_code": code,
                    "num_run": summary.num_run,
                    "num_skipped": summary.num_skipped,
                    "num_failed": summary.num_failed,
                    "rows": json.loads(rows_as_json(summary.rows)),
                }
            )
        )
    elif summary.rows:
        print(format_table(summary.rows))
    _closing_words(options, summary.rows, interrupted=interrupted)
    return code


def _closing_words(options: "RunOptions", rows: Sequence[Any], *, interrupted: bool) -> None:
    for row in rows:
        if row.status != "ok":
            print(f"{row.label} · {row.task}: {row.status.replace('_', ' ')}: {row.error}", file=sys.stderr)
    print(f"results: {options.output_path / 'results.jsonl'}", file=sys.stderr)
    if interrupted:
        print("evalharness: interrupted; finished tasks are kept, the same command goes on from here", file=sys.stderr)


def _list(arguments: list[str]) -> int:
    from unveil_evalharness.listing import ListOptions, describe

    what = arguments[0] if arguments and not arguments[0].startswith("-") else None
    if what is not None and what not in _LISTS:
        raise UsageError(f"cannot list {what!r}{_nearest(what, _LISTS)}")
    options = _parse(ListOptions, f"ls [{'|'.join(_LISTS)}]", arguments if what is None else arguments[1:])
    print(describe(what or "tasks", options))
    return 0


def _parse(kind: type[_Options], command: str, arguments: list[str], *, comma_lists: bool = False) -> _Options:
    """Options from the command line; a mistake becomes one line instead of tyro's box.

    Raises:
        UsageError: what tyro says about the arguments.
    """
    import tyro

    complaint = io.StringIO()
    registry = _comma_list_registry() if comma_lists else None
    try:
        with contextlib.redirect_stderr(complaint):
            return tyro.cli(kind, prog=f"evalharness {command}", args=arguments, registry=registry)
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        raise UsageError(f"{_plain(complaint.getvalue())} (see evalharness {command.split()[0]} --help)") from None


def _plain(box: str) -> str:
    """What tyro complains about, on one line, without the frame it draws around it.

    The frame is made of box characters, or of ASCII where stdout is not UTF-8; then the title is a part of its own.
    """
    lines = [line.strip("│ ") for line in box.splitlines() if not line.startswith(("╭", "╰"))]
    parts: list[list[str]] = [[]]
    for line in lines:
        if len(line) > 3 and not line.strip("─-"):
            parts.append([])
        elif line:
            parts[-1].append(line)
    body = parts[0] if "╭" in box or len(parts) == 1 else parts[1]
    if body and body[0].startswith("Missing from"):
        return "missing " + ", ".join(line.split()[0] for line in body if line.startswith("--"))
    return re.sub(r"^Error parsing \w+Options: ", "", " ".join(" ".join(body).split()))


def _comma_list_registry() -> "tyro.constructors.ConstructorRegistry":
    """Reads ``tuple[X, ...]`` options as ``--name a,b``, as lm-evaluation-harness does."""
    from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

    registry = ConstructorRegistry()

    @registry.primitive_rule
    def comma_list(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec | None:
        members = get_args(info.type)
        if get_origin(info.type) is not tuple or len(members) != 2 or members[1] is not Ellipsis:
            return None
        member = members[0]
        name = {Path: "PATH", int: "INT"}.get(member, "NAME")
        return PrimitiveConstructorSpec(
            nargs=1,
            metavar=f"{name}[,{name}…]",
            instance_from_str=lambda words: tuple(member(word) for word in words[0].split(",") if word),
            is_instance=lambda value: isinstance(value, tuple),
            str_from_instance=lambda value: [",".join(str(item) for item in value)],
        )

    return registry


def _nearest(word: str, words: Sequence[str]) -> str:
    near = difflib.get_close_matches(word, words, n=1, cutoff=0.4)
    hint = f"; did you mean {near[0]}?" if near else ""
    return f"{hint} (one of {', '.join(words)})"


def _fail(message: str) -> int:
    print(f"evalharness: error: {message}", file=sys.stderr)
    return 2
