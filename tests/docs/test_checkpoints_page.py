"""docs/checkpoints.md: its Python runs, its commands run, and they print what the page says."""

import re
import shlex
from pathlib import Path

import pytest
from unveil_backbones import cli, errors
from unveil_pretrain import errors as of_runs

PAGE = (Path(__file__).parents[2] / "docs" / "checkpoints.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(python|bash|text)\n(.*?)```", PAGE, re.DOTALL)


def run_commands(text: str, capsys) -> str:
    """Output of the commands of one block, which are all of this package."""
    capsys.readouterr()
    for line in text.strip().splitlines():
        words = shlex.split(line)
        assert words[:3] == ["python", "-m", "unveil_backbones"]
        assert cli.main(words[3:]) == 0
    return capsys.readouterr().out


# timm's loader of local folders is under test here, not its warnings.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_page_runs_from_top_to_bottom(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "page"}
    printed = ""
    promised = 0
    for kind, text in BLOCKS:
        if kind == "python":
            exec(compile(text, "checkpoints.md", "exec"), names)  # the page is our own
        elif kind == "bash":
            printed = run_commands(text, capsys)
        else:
            lines = [" ".join(line.split()) for line in printed.splitlines()]
            for line in text.strip().splitlines():
                assert " ".join(line.split()) in lines
                promised += 1
    assert promised > 20


def test_the_errors_on_the_page_exist():
    named = set(re.findall(r"`(\w+Error)`", PAGE))
    assert len(named) > 8
    assert named <= {*errors.__all__, *of_runs.__all__}
