"""Real images: other sizes, grey images, plain and zipped folders (needs the image pack)."""

import dataclasses
import os
import zipfile
from pathlib import Path

import pytest
from unveil_backbones import load
from unveil_evalharness.task import TaskContext
from unveil_evalharness.tasks.imagenet_ft.config import quick
from unveil_evalharness.tasks.imagenet_ft.task import ImagenetFineTune

pytestmark = [pytest.mark.mm, pytest.mark.data]

PACK = Path(os.environ.get("UNVEIL_DATA") or Path(__file__).parents[3] / ".." / "shared" / "data" / "pack")


@pytest.fixture
def pack():
    if not PACK.is_dir():
        pytest.skip(f"{PACK} is not there; set UNVEIL_DATA to the image pack")
    return PACK.resolve()


def run(checkpoint, root, work_dir):
    task = ImagenetFineTune()
    assert len(task.data_hash(root)) == 16
    work_dir.mkdir()
    recipe = dataclasses.replace(quick().recipes[0], duration=20, warmup=2, batch_size=16)
    return task.run(
        TaskContext(
            checkpoint=load(checkpoint),
            data_root=root,
            protocol=dataclasses.replace(quick(), recipes=(recipe,)),
            seed=0,
            limit=150,
            batch_size=None,
            device="cpu",
            work_dir=work_dir,
            log=lambda line: None,
            progress=False,
        )
    )


def test_caltech101_photographs_beat_the_majority_class(pack, mae_checkpoint, tmp_path):
    (tmp_path / "imagenet").symlink_to(pack / "caltech101")
    result = run(mae_checkpoint, tmp_path, tmp_path / "work")
    assert result.metrics[0].value > 2 * result.metrics[0].baseline
    assert result.metrics[1].value > result.metrics[1].baseline


def test_tiny_imagenet_from_its_archives(pack, mae_checkpoint, tmp_path):
    for split, count in (("train", 6), ("val", 2)):
        with zipfile.ZipFile(pack / "imagenet_tiny64" / f"{split}.zip") as archive:
            kept: dict[str, int] = {}
            for name in archive.namelist():
                folder = name.split("/")[0]
                if not name.endswith("/") and kept.setdefault(folder, 0) < count:
                    kept[folder] += 1
                    archive.extract(name, tmp_path / "imagenet" / split)
    result = run(mae_checkpoint, tmp_path, tmp_path / "work")
    assert result.metrics[0].n == 50
    assert result.metrics[0].baseline == pytest.approx(1 / 25)
    assert 0 <= result.metrics[0].value <= result.metrics[1].value <= 1
