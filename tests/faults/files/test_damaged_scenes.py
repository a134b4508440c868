"""The folder that `pretrain scenes` built, damaged in every way: the command does not take it for what it builds."""

import hashlib
import shutil
from pathlib import Path

import pytest
from damage import Case, command, problems_of
from unveil_pretrain.cli import main
from unveil_pretrain.scenes import ScenesConfig, build_scenes

pytest.importorskip("sklearn")
pytest.importorskip("pycocotools")

ALL = "one hash is kept of all files, since the way on is to build all of them again"
FEW = {
    "num_train": 3, "num_val": 2, "num_classification_train": 0, "num_classification_val": 0,
    "num_detection_train": 1, "num_detection_val": 1, "num_segmentation_train": 0, "num_segmentation_val": 0,
    "image_size": 32, "dense_image_size": 64, "samples_per_shard": 4,
}  # fmt: skip


def scenes_with(file: str):
    """A copy of scenes that are built when they are first asked for."""

    def make(specimens, folder: Path) -> Path:
        kept = (specimens / "one").parent / "scenes"
        if not kept.exists():
            build_scenes(ScenesConfig(out=kept, **FEW), progress=False)
        folder.mkdir(exist_ok=True)
        shutil.copytree(kept, folder / "scenes")
        return sorted((folder / "scenes").glob(file))[0]

    return make


def built_again(folder: Path):
    """The folder that the command finds already there, by what is in it."""
    found = build_scenes(ScenesConfig(out=folder / "scenes", **FEW), progress=False)
    files = sorted(file for file in found.rglob("*") if file.is_file() and file.name != "scenes.json")
    return [(str(file), hashlib.sha256(file.read_bytes()).hexdigest()) for file in files]


CASES = {
    "scenes.json": Case(make=scenes_with("scenes.json"), read=built_again, flips=24),
    "a shard of scenes": Case(make=scenes_with("shards/pairs/*.tar"), read=built_again, flips=3, unnamed=ALL),
    "an image of scenes": Case(make=scenes_with("coco/val2017/*.jpg"), read=built_again, flips=3, unnamed=ALL),
    "annotations of scenes": Case(make=scenes_with("coco/annotations/*.json"), read=built_again, flips=3, unnamed=ALL),
}


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools 2.0.11, on building
@pytest.mark.parametrize("name", CASES)
def test_damage_is_found_and_said(name, specimens, tmp_path):
    assert problems_of(CASES[name], specimens, tmp_path) == []


def test_the_command_says_it_in_one_line(specimens, tmp_path):
    scenes_with("scenes.json")(specimens, tmp_path / "copy").write_text(
        '{"generator": 1, "config": [], "content_hash": 1}'
    )
    with pytest.raises(OSError, match=r"pretrain: error: .*copy/scenes .*scenes\.json .*choose another folder"):
        command(main, "scenes", "--out", tmp_path / "copy" / "scenes")
