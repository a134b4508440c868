"""What the pictures of detections show: those of a high score, or the best there are."""

import io
import json

import numpy as np
import polars as pl
import pytest
from PIL import Image

pytest.importorskip("pycocotools", reason="needs the [detection] extra")

from pycocotools import mask as run_lengths
from unveil_evalharness.tasks.coco_det.pictures import detection_pictures

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:pycocotools.*")


@pytest.fixture
def drawn(tmp_path):
    """A function from scores of detections to the one picture of an image with two objects."""
    Image.fromarray(np.full((40, 60, 3), 128, dtype=np.uint8)).save(tmp_path / "a.jpg")
    box = [5, 5, 20, 20]
    truth = {
        "images": [{"id": 1, "file_name": "a.jpg", "height": 40, "width": 60}],
        "categories": [{"id": 3, "name": "three"}],
        "annotations": [
            {"id": number, "image_id": 1, "category_id": 3, "iscrowd": 0, "bbox": box, "area": 400,
             "segmentation": [[5, 5, 25, 5, 25, 25, 5, 25]]}
            for number in (1, 2)
        ],
    }  # fmt: skip
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    outline = np.zeros((40, 60), dtype=np.uint8, order="F")
    outline[5:25, 5:25] = 1
    lengths = run_lengths.encode(outline)
    lengths["counts"] = lengths["counts"].decode()
    samples = pl.DataFrame({"image": ["a.jpg"], "image_id": [1], "segm_found": [1], "num_objects": [2]})

    def draw(*scores):
        rows = [{"image_id": 1, "category_id": 3, "segmentation": lengths, "score": score} for score in scores]
        rows.append({"image_id": 2, "category_id": 3, "segmentation": lengths, "score": 0.99})
        (tmp_path / "found.json").write_text(json.dumps(rows))
        [picture] = detection_pictures(tmp_path / "truth.json", tmp_path / "found.json", tmp_path, samples)
        return picture

    return draw


@pytest.mark.parametrize(
    ("scores", "num_shown"),
    [
        ((0.9, 0.31, 0.29, 0.1), 2),  # those of 0.3 or more
        ((0.9,) * 20, 15),  # no more than can be told apart
        ((0.2, 0.1), 2),  # none is that high: the best
        ((0.2, 0.1, 0.05, 0.04, 0.03, 0.02), 5),
        ((), 0),
    ],
)
def test_the_detections_that_are_shown(drawn, scores, num_shown):
    assert drawn(*scores).caption == f"a.jpg: 1 of 2 objects found at mask overlap 0.5, {num_shown} detections shown"


def pixels_of(picture):
    return np.asarray(Image.open(io.BytesIO(picture.encoded)), dtype=int)


def test_low_detections_are_drawn_and_said_to_be_low(drawn):
    low, none, high = (pixels_of(drawn(*scores)) for scores in ((0.2,), (), (0.5,)))
    assert (np.abs(low - none).max(axis=2) > 40).sum() > 100  # its outline and its title
    title = slice(0, 12)
    assert (low[title] != high[title]).any()
