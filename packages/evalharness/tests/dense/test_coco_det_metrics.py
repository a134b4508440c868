"""Average precision against hand-computed values and against COCOeval itself."""

import json

import numpy as np
import pytest
from unveil_evalharness.tasks.coco_det import metrics

pytest.importorskip("pycocotools")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:pycocotools.*")


def write(tmp_path, objects, detections, *, num_images=2, categories=(1,)):
    """Objects ``(image, category, box, crowd)`` and detections ``(image, category, box, score)``, masks = boxes."""

    def outline(box):
        x, y, w, h = box
        return [[x, y, x + w, y, x + w, y + h, x, y + h]]

    truth = {
        "images": [{"id": i + 1, "file_name": f"{i + 1}.png", "height": 100, "width": 100} for i in range(num_images)],
        "categories": [{"id": number, "name": str(number)} for number in categories],
        "annotations": [
            {"id": n + 1, "image_id": i, "category_id": c, "bbox": list(b), "area": b[2] * b[3], "iscrowd": crowd,
             "segmentation": outline(b)}
            for n, (i, c, b, crowd) in enumerate(objects)
        ],
    }  # fmt: skip
    rows = [{"image_id": i, "category_id": c, "bbox": list(b), "score": s} for i, c, b, s in detections]
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    (tmp_path / "found.json").write_text(json.dumps(rows))
    return tmp_path / "truth.json", tmp_path / "found.json"


def once(matches):
    return np.ones(len(matches.image_ids), dtype=np.int64)


A, B = (10, 10, 20, 20), (60, 60, 20, 20)


@pytest.mark.parametrize(
    ("detections", "expected"),
    [
        ([(1, 1, A, 0.9), (1, 1, B, 0.8)], 1.0),
        ([(1, 1, A, 0.9)], 51 / 101),  # precision 1 at the recall levels 0.00 … 0.50
        ([(2, 1, A, 0.9), (1, 1, A, 0.8), (1, 1, B, 0.7)], 2 / 3),  # wrong one first: 1/2, then 2/3, at best 2/3
        ([(2, 1, A, 0.1), (1, 1, A, 0.8), (1, 1, B, 0.7)], 1.0),  # wrong one last
        ([], 0.0),
    ],
)
def test_average_precision_by_hand(tmp_path, detections, expected):
    files = write(tmp_path, [(1, 1, A, 0), (1, 1, B, 0)], detections)
    matches = metrics.read_matches(*files, "bbox")
    assert metrics.average_precision(matches, once(matches)) == pytest.approx(expected, abs=1e-12)


def test_thresholds_are_averaged(tmp_path):
    # Overlap 20·18 / 400 = 0.9: right at 0.50 … 0.90, wrong at 0.95.
    files = write(tmp_path, [(1, 1, A, 0)], [(1, 1, (10, 10, 20, 18), 0.9)])
    matches = metrics.read_matches(*files, "bbox")
    assert metrics.average_precision(matches, once(matches)) == pytest.approx(0.9)


def test_crowds_and_categories_without_objects_do_not_count(tmp_path):
    objects = [(1, 1, A, 0), (1, 1, B, 1)]
    files = write(tmp_path, objects, [(1, 1, B, 0.99), (1, 1, A, 0.9), (2, 2, A, 0.9)], categories=(1, 2))
    matches = metrics.read_matches(*files, "bbox")
    assert metrics.average_precision(matches, once(matches)) == 1.0


def random_case(tmp_path, seed):
    rng = np.random.default_rng(seed)

    def box():
        return [float(value) for value in (*rng.integers(0, 60, 2), *rng.integers(8, 40, 2))]

    objects = [(int(rng.integers(1, 9)), int(rng.integers(1, 4)), box(), int(rng.random() < 0.1)) for _ in range(30)]
    detections = [
        (i, c, [v + float(rng.normal(0, 2)) for v in b], round(float(rng.random()), 1)) for i, c, b, _ in objects
    ]
    detections += [
        (int(rng.integers(1, 9)), int(rng.integers(1, 4)), box(), round(float(rng.random()), 1)) for _ in range(30)
    ]
    return write(tmp_path, objects, detections, num_images=8, categories=(1, 2, 3, 4))


@pytest.mark.parametrize("seed", range(5))
def test_equals_cocoeval(tmp_path, capsys, seed):
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    truth_file, found_file = random_case(tmp_path, seed)
    truth = COCO(str(truth_file))
    evaluation = COCOeval(truth, truth.loadRes(str(found_file)), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    matches = metrics.read_matches(truth_file, found_file, "bbox")
    value = metrics.average_precision(matches, once(matches))
    assert value == pytest.approx(evaluation.stats[0], abs=1e-12)
    assert 0.05 < value < 0.95


def test_counting_an_image_twice_equals_having_it_twice(tmp_path):
    objects = [(1, 1, A, 0), (2, 1, B, 0), (2, 1, A, 0)]
    detections = [(1, 1, A, 0.9), (2, 1, B, 0.8), (2, 1, (0, 0, 5, 5), 0.85)]
    (tmp_path / "doubled").mkdir()
    doubled = write(
        tmp_path / "doubled",
        objects + [(3, c, b, crowd) for i, c, b, crowd in objects if i == 2],
        detections + [(3, c, b, s) for i, c, b, s in detections if i == 2],
        num_images=3,
    )
    matches = metrics.read_matches(*write(tmp_path, objects, detections), "bbox")
    expected = metrics.read_matches(*doubled, "bbox")
    assert metrics.average_precision(matches, np.array([1, 2])) == pytest.approx(
        metrics.average_precision(expected, once(expected)), abs=1e-12
    )


def test_standard_error(tmp_path):
    matches = metrics.read_matches(*random_case(tmp_path, 0), "bbox")
    error = metrics.standard_error(matches, num_resamples=50, seed=3)
    assert error is not None
    assert error == metrics.standard_error(matches, num_resamples=50, seed=3)
    assert 0.005 < error < 0.3
    assert metrics.standard_error(matches, num_resamples=0, seed=3) is None
    perfect = write(tmp_path, [(1, 1, A, 0), (2, 1, A, 0)], [(1, 1, A, 0.9), (2, 1, A, 0.8)])
    assert metrics.standard_error(metrics.read_matches(*perfect, "bbox"), num_resamples=20, seed=0) == 0.0


def test_per_image_table(tmp_path):
    objects = [(1, 1, A, 0), (1, 2, B, 0)]
    files = write(tmp_path, objects, [(1, 1, A, 0.9), (1, 1, B, 0.4), (1, 2, (10, 60, 20, 20), 0.3)], categories=(1, 2))
    bbox = metrics.read_matches(*files, "bbox")
    table = metrics.per_image(bbox, bbox)
    assert table.rows() == [(1, "1.png", 2, 3, 0.9, 1, 1), (2, "2.png", 0, 0, None, 0, 0)]
