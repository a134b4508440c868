"""Real images and captions: synsets of ImageNet, captions of COCO, copies of captions in UCM (needs the image pack)."""

import csv
import os
from pathlib import Path

import pytest
import unveil_backbones
from unveil_evalharness.task import TaskContext
from unveil_evalharness.tasks import load_task

pytestmark = pytest.mark.data

PACK = Path(os.environ.get("UNVEIL_DATA") or Path(__file__).parents[3] / ".." / "shared" / "data" / "pack")


@pytest.fixture
def pack():
    if not PACK.is_dir():
        pytest.skip(f"{PACK} is not there; set UNVEIL_DATA to the image pack")
    return PACK.resolve()


@pytest.fixture
def evaluate(flip_checkpoint, tmp_path):
    def run(name, root, *, limit=None, suite="quick"):
        task = load_task(name)
        assert len(task.data_hash(root)) == 16
        return task.run(
            TaskContext(
                checkpoint=unveil_backbones.load(flip_checkpoint),
                data_root=root,
                protocol=task.protocol(suite),
                seed=0,
                limit=limit,
                batch_size=None,
                device="cpu",
                work_dir=tmp_path,
                log=lambda message: None,
                progress=False,
            )
        )

    return run


def test_captions_of_coco_are_no_published_split_although_their_images_are_cocos(pack, evaluate, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "captions").symlink_to(pack / "coco_captions_wds")
    result = evaluate("zs_retrieval", tmp_path / "data", limit=30)
    assert result.tables["data"]["set"].item().startswith("no published split: 30 images")
    assert len(result.gallery) == 12


def test_images_that_share_captions_in_ucm(pack, evaluate, tmp_path, make_shard):
    captions: dict[str, list[str]] = {}
    lines = (pack / "ucm_captions" / "captions.txt").read_text(encoding="utf-8").splitlines()
    for row in csv.DictReader(lines):
        captions.setdefault(row["image"], []).append(row["caption"])
    records = [
        (name.partition(".")[0], (pack / "ucm_captions" / "Images" / name).read_bytes(), captions[name])
        for name in sorted(captions)[:40]
    ]
    make_shard(tmp_path / "data" / "captions" / "val-00000.tar", records)
    merged, apart = (evaluate("zs_retrieval", tmp_path / "data", suite=suite).metrics for suite in ("quick", "full"))
    assert merged[0].n == apart[0].n == 200
    assert merged[0].baseline > apart[0].baseline == pytest.approx(1 / 40)


def test_synset_folders_of_imagenet_get_clips_names(pack, evaluate, tmp_path):
    (tmp_path / "data" / "imagenet").mkdir(parents=True)
    (tmp_path / "data" / "imagenet" / "val").symlink_to(pack / "imagenet1k_fullres" / "val")
    result = evaluate("zs_classification", tmp_path / "data", limit=4)
    assert result.tables["data"]["set"].item().startswith("ImageNet-1K in part: 24 images of 24 classes")
    assert not any(label.startswith("n0") for label in result.samples["label"])
    assert result.samples["label"].n_unique() == 4
