"""The README's examples run, and the checks these tests rely on are switched on."""

import re
from pathlib import Path

import pytest
import torch
import unveil_backbones
from jaxtyping import TypeCheckError
from unveil_backbones import create

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_the_readme_has_examples():
    assert len(BLOCKS) == 3


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.split("\n")[0])
def test_examples_run(block, capsys):
    exec(compile(block, "README.md", "exec"), {"__name__": "readme"})  # the file is our own
    printed = capsys.readouterr().out
    promised = re.findall(r"print\(checkpoint.*# (.*)", block)
    assert all(line in printed for line in promised)


def test_the_changelog_knows_this_version():
    assert f"## {unveil_backbones.__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f'version = "{unveil_backbones.__version__}"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def test_shapes_are_checked_while_testing():
    encoder = create("vit_tiny")
    with pytest.raises(TypeCheckError):
        encoder.encode(torch.zeros(64, 128), (8, 8))
    with pytest.raises(TypeCheckError):
        encoder.embed(torch.zeros(1, 3, 64, 64, dtype=torch.int64))
