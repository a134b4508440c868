"""docs/how-to/new-task.md, followed literally: its files written, its test run, its commands run."""

import json
import re
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "new-task.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"^`([\w/]+\.py)`\n\n```python\n(.*?)```", PAGE, re.DOTALL | re.MULTILINE))
COMMANDS = [line for block in re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()]
LISTED = re.findall(r"^  (\w+\.py)", PAGE, re.MULTILINE)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The page's files, images of two brightnesses, and a checkpoint."""
    import torch
    import unveil_backbones
    from unveil_backbones.manifest import Manifest, Preprocessing

    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    generator = np.random.default_rng(0)
    for split, count in (("train", 6), ("val", 3)):
        for name, level in (("dark", 40), ("light", 215)):
            place = tmp_path / "data" / "imagenet" / split / name
            place.mkdir(parents=True)
            for number in range(count):
                pixels = generator.integers(level - 30, level + 30, (40, 40, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(place / f"{number}.png")
    torch.manual_seed(0)
    encoder = unveil_backbones.create("vit_tiny", image_size=32)
    manifest = Manifest(
        encoder=encoder.spec,
        preprocessing=Preprocessing(image_size=(32, 32)),
        objective="mae",
        mask={},
        realised_ratio=0.75,
        seed=0,
        step=1,
        samples_seen=1,
        unique_samples=1,
        tokens_seen=1,
        device_seconds=0.0,
        data_hash="",
        num_parameters=encoder.num_parameters,
        versions={},
        created="",
    )
    unveil_backbones.save(tmp_path / "checkpoint", encoder=encoder, manifest=manifest)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in [name for name in sys.modules if name.split(".")[0] in ("class_means", "test_class_means")]:
        del sys.modules[name]


def run(command: str) -> int:
    """One command of the page, by the function behind `evalharness`."""
    from unveil_evalharness.cli import main

    words = shlex.split(command)
    assert words[:2] == ["PYTHONPATH=.", "evalharness"]
    return main([*words[2:], "--device", "cpu", "--no-progress"])


def test_the_page_writes_the_files_that_it_lists():
    assert {name.removeprefix("class_means/") for name in FILES if name.startswith("class_means/")} == set(LISTED)
    assert len(COMMANDS) == 2


def test_the_test_on_the_page_passes_and_can_fail(folder):
    from test_class_means import test_the_nearest_mean_by_hand as check  # pyright: ignore[reportMissingImports]

    check()
    metrics = sys.modules["class_means.metrics"]
    assert metrics.ranked(np.array([[2.0, 1.0]]), np.array([[0.0, 1.0], [1.0, 0.0]])).tolist() != [[0, 1]]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_commands_run_and_the_second_goes_on_from_the_first(folder, capsys):
    assert [run(command) for command in COMMANDS] == [0, 0]
    captured = capsys.readouterr()
    assert "class_means" in captured.out
    assert "finished earlier" in captured.err
    rows = [json.loads(line) for line in (folder / "out" / "results.jsonl").read_text().splitlines()]
    values = {row["metric"]: row["value"] for row in rows if row["task"] == "class_means"}
    assert values == {"class_means.acc1": 1.0, "class_means.mean_per_class": 1.0}, "dark is not light"
    assert {row["task"] for row in rows} == {"class_means", "knn"}
    assert all(row["status"] == "ok" for row in rows)
