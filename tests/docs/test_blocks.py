"""Every code block of every page and README: run, or read by the parsers of its commands; and the checks can fail."""

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from docs_blocks import ELSEWHERE, ROOT, BlockError, blocks_of, elsewhere, pages
from docs_commands import commands_of, mistakes

PAGES = {path.relative_to(ROOT).as_posix(): blocks_of(path) for path in pages()}
BLOCKS = [block for blocks in PAGES.values() for block in blocks]
PARSED = [block for block in BLOCKS if block.how == "parse"]
SLOW = {"docs/tutorial.md", "docs/how-to/foreign-checkpoint.md", "docs/how-to/new-objective.md"}
"""Pages that train or evaluate."""


def has_runs(page: str) -> bool:
    skip = ("python",) if elsewhere(page) else ()
    return any(block.how == "run" and block.language not in skip for block in PAGES[page])


RUN = [pytest.param(page, marks=[pytest.mark.slow] if page in SLOW else []) for page in PAGES if has_runs(page)]


@pytest.mark.parametrize("block", PARSED, ids=lambda block: block.place)
def test_the_commands_would_be_understood(block):
    found = mistakes(block.text, console=block.language == "console")
    assert not found, f"{block.place}: {found}"


def run_page(page: str, folder: Path, **environment: str) -> str:
    """Run the blocks of a page in order in one folder; what its commands print."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    state = {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1", **environment}
    names: dict[str, object] = {"__name__": "page"}
    printed = ""
    for block in PAGES[page]:
        if block.how != "run":
            continue
        if block.language == "python":
            if elsewhere(page) is None:
                exec(compile(block.text, block.place, "exec"), names)  # the page is our own
            continue
        script = f"{block.text}\nenv -0 > {folder}/.environment\n"
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=folder,
            env=state,
            check=False,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"{block.place}\n{block.text}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        exported = (folder / ".environment").read_text(encoding="utf-8").split("\0")
        state = dict(line.split("=", 1) for line in exported if "=" in line)
        printed += done.stdout
    return printed


# timm's and mmengine's own warnings are not under test here.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("page", RUN)
def test_a_page_runs_from_top_to_bottom(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run_page(page, tmp_path)
    assert sum(block.how == "run" for block in PAGES[page]) > 0


@pytest.mark.slow
@pytest.mark.data
def test_the_tutorial_ends_with_a_folder_of_real_photographs(real_data, tmp_path):
    printed = run_page("docs/tutorial.md", tmp_path, PHOTOS=str(real_data / "caltech101" / "train"))
    assert "knn" in printed
    assert not (tmp_path / "scenes").exists()
    assert (tmp_path / "report" / "report.html").is_file()


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.how == "read"], ids=lambda block: block.place)
def test_settings_are_read(block):
    assert json.loads(block.text) if block.language == "json" else tomllib.loads(block.text)


def test_blocks_that_are_only_shown_say_why():
    for block in BLOCKS:
        if block.how == "shown":
            assert len(block.why) > 10, block.place


@pytest.mark.parametrize(("pattern", "test"), ELSEWHERE.items())
def test_a_page_that_is_run_elsewhere_is_run_there(pattern, test):
    assert any(elsewhere(page) == test for page in PAGES), pattern
    text = (ROOT / test).read_text(encoding="utf-8")
    name = Path(pattern).name if "*" not in pattern else Path(pattern).parent.name
    assert name in text
    assert re.search(r"exec\(|subprocess|import test_", text)


@pytest.mark.parametrize(
    ("command", "complaint"),
    [
        ("pretrain mim tiny_mae --out r --train-data a --val-data b --stepz 5", "stepz"),
        ("pretrain mim tiny_may --out r", "tiny_may"),
        ("pretrain pretend", "pretend"),
        ("evalharness run --ckpt a --data-root d --output-path o --task knn", "--task"),
        ("evalharness run --ckpt a", "missing"),
        ("evalharness gate shew b.toml", "shew"),
        ("python -m unveil_backbones inspect a --jsn", "--jsn"),
        ("python -m unveil_masking show --stratgy x", "--stratgy"),
        ("python -m benchmarks.masking --roundz 3", "--roundz"),
        ("python -m benchmarks.nothing", "benchmarks.nothing"),
        ("torchrun --nproc-per-node 2 -m unveil_pretrain mim tiny_mae --out r --stepz 5", "stepz"),
        ("torchrun --nproc 2 --no-such-flag -m unveil_pretrain ls", "no-such-flag"),
        ("make dmo", "dmo"),
        ("pip install './packages/pretrain[scene]'", "scene"),
        ("pretend-this --works", "pretend-this"),
        ("x=1 OMP_NUM_THREADS=1 pretrain status --jsn | head", "jsn"),
    ],
)
def test_a_wrong_command_is_found(command, complaint):
    (mistake,) = mistakes(command)
    assert complaint in mistake


@pytest.mark.parametrize(
    "command",
    [
        "pretrain mim tiny_mae --out r --train-data a --val-data 'b-{0..3}.tar' --steps 5",
        "evalharness run --ckpt a --tasks knn …",
        "OMP_NUM_THREADS=1 pretrain ls > recipes.txt 2>&1",
        "torchrun --nproc-per-node 2 -m unveil_pretrain mim tiny_mae --out r --train-data a --val-data b",
        "python - <<'X'\nthis is no command\nX",
    ],
)
def test_a_right_command_is_not(command):
    assert mistakes(command) == []


def test_a_piece_of_shell_falls_into_commands():
    text = "a=1\nfor x in 1 2; do pretrain ls; done\nmake \\\n  demo  # so\nevalharness ls tasks | head -3 && exit 1\n"
    assert commands_of(text) == [["pretrain", "ls"], ["make", "demo"], ["evalharness", "ls", "tasks"]]
    assert commands_of("$ make demo\nit says\n", console=True) == [["make", "demo"]]


@pytest.mark.parametrize(
    "text", ["```bash\nls\n", "<!-- block: run -->\n\n```bash\nls\n```\n", "<!-- block: ran -->\n```\nx\n```\n"]
)
def test_a_fence_or_comment_that_means_nothing_is_refused(text, tmp_path):
    page = tmp_path / "page.md"
    page.write_text(text, encoding="utf-8")
    with pytest.raises(BlockError):
        blocks_of(page, tmp_path)
