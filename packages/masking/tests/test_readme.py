"""The README's examples run and print what it says, and its table has every strategy."""

import re
from pathlib import Path

import pytest
import unveil_masking
from unveil_masking import Strategy, TextStrategy

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```\n(?:\n```text\n(.*?)```)?", README, re.DOTALL)


def test_the_first_example_has_ten_lines():
    assert len(EXAMPLES) == 3
    assert len([line for line in EXAMPLES[0][0].splitlines() if line]) <= 10


@pytest.mark.parametrize(("code", "output"), EXAMPLES, ids=lambda text: text.split("\n")[1][:40] if text else "")
def test_an_example_prints_what_the_readme_says(code, output, capsys):
    if "import torch" in code:
        pytest.importorskip("torch")
    exec(compile(code, "README.md", "exec"), {"__name__": "readme"})  # the file is our own
    assert capsys.readouterr().out == output


def test_every_strategy_is_named():
    for name in unveil_masking.__all__:
        value = getattr(unveil_masking, name)
        if isinstance(value, type) and issubclass(value, (Strategy, TextStrategy)):
            assert f"`{name}" in README or value in (Strategy, TextStrategy), name
