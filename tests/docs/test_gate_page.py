"""docs/how-to/gate-ci.md: its policy is read, its commands are understood, its scripts return what they say."""

import os
import re
import shlex
import subprocess
import tomllib
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "how-to"
PAGE = (FOLDER / "gate-ci.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", PAGE, flags=re.DOTALL)


def test_the_policy_on_the_page_is_one():
    from unveil_evalharness.gate.policy import parse_policy

    (text,) = blocks("toml")
    policy = parse_policy(tomllib.loads(text), "page")
    assert (policy.min_runs, len(policy.metrics), len(policy.speed), len(policy.memory)) == (3, 1, 1, 1)


def commands():
    text = "\n".join(blocks("sh")).replace("\\\n", " ")
    lines = [line.partition(" || ")[0] for line in text.splitlines() if line.startswith("evalharness ")]
    return [shlex.split(line, comments=True)[1:] for line in lines]


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_every_command_on_the_page_is_understood(words):
    from importlib import import_module

    from unveil_evalharness.cli import COMMANDS
    from unveil_evalharness.parsing import parse_options

    name = next(name for name in (" ".join(words[:2]), words[0]) if name in COMMANDS)
    module = import_module(f"unveil_evalharness.{COMMANDS[name].module}")
    options = parse_options(module.__dict__[COMMANDS[name].options], name, words[len(name.split()) :])
    assert type(options).__name__ == COMMANDS[name].options


def run_with_stub(script, code, tmp_path):
    """Runs a script whose `evalharness gate` exits with `code`."""
    stub = tmp_path / "bin" / "evalharness"
    stub.parent.mkdir(exist_ok=True)
    stub.write_text(f'#!/bin/sh\necho "$@" >> "{tmp_path}/calls"\n[ "$1" != gate ] || exit {code}\n')
    stub.chmod(0o755)
    environment = {
        "PATH": f"{stub.parent}:{os.environ['PATH']}", "CANDIDATE": "c", "DATA": "d",
        "GITHUB_STEP_SUMMARY": str(tmp_path / "summary"),
    }  # fmt: skip
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script], env=environment, cwd=tmp_path, check=False, capture_output=True
    ).returncode


@pytest.mark.parametrize(("code", "expected"), [(0, 0), (1, 1), (2, 0), (3, 3), (4, 4)])
def test_the_scripts_pass_on_what_the_gate_says(code, expected, tmp_path):
    shell = (FOLDER / "gate.sh").read_text(encoding="utf-8")
    assert run_with_stub(shell, code, tmp_path) == expected
    assert (tmp_path / "calls").read_text().splitlines()[1].startswith("gate --baseline ci/baseline.toml")
    workflow = (FOLDER / "gate-workflow.yml").read_text(encoding="utf-8")
    _, _, step = workflow.partition("      - name: Gate\n        run: |\n")
    script = "\n".join(line.strip() for line in step.partition("      - uses:")[0].splitlines())
    assert "evalharness gate" in script
    assert run_with_stub(script, code, tmp_path) == expected
