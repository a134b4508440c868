"""Average precision against hand-computed values and against COCOeval itself."""

import json

import numpy as np
import polars as pl
import pytest
from unveil_evalharness.tasks.coco_det import metrics
from unveil_evalharness.tasks.coco_det.matches import per_image
from unveil_evalharness.tasks.coco_det.matching import read_matches

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


def mean_precision(files, kind="bbox"):
    return metrics.averages(read_matches(*files, kind))["mAP"]


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
    assert mean_precision(files) == pytest.approx(expected, abs=1e-12)


def test_thresholds_are_averaged(tmp_path):
    # Overlap 20·18 / 400 = 0.9: right at 0.50 … 0.90, wrong at 0.95.
    files = write(tmp_path, [(1, 1, A, 0)], [(1, 1, (10, 10, 20, 18), 0.9)])
    assert mean_precision(files) == pytest.approx(0.9)


def test_crowds_and_categories_without_objects_do_not_count(tmp_path):
    objects = [(1, 1, A, 0), (1, 1, B, 1)]
    files = write(tmp_path, objects, [(1, 1, B, 0.99), (1, 1, A, 0.9), (2, 2, A, 0.9)], categories=(1, 2))
    assert mean_precision(files) == 1.0


def random_case(tmp_path, seed, *, digits=1):
    """Few digits make equal scores."""
    rng = np.random.default_rng(seed)

    def box():
        return [float(value) for value in (*rng.integers(0, 60, 2), *rng.integers(8, 40, 2))]

    objects = [(int(rng.integers(1, 9)), int(rng.integers(1, 4)), box(), int(rng.random() < 0.1)) for _ in range(30)]
    detections = [
        (i, c, [v + float(rng.normal(0, 2)) for v in b], round(float(rng.random()), digits)) for i, c, b, _ in objects
    ]
    detections += [
        (int(rng.integers(1, 9)), int(rng.integers(1, 4)), box(), round(float(rng.random()), digits)) for _ in range(30)
    ]
    return write(tmp_path, objects, detections, num_images=8, categories=(1, 2, 3, 4))


@pytest.mark.parametrize("seed", range(5))
def test_all_averages_equal_cocoeval(tmp_path, capsys, seed):
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    truth_file, found_file = random_case(tmp_path, seed)
    truth = COCO(str(truth_file))
    evaluation = COCOeval(truth, truth.loadRes(str(found_file)), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    values = metrics.averages(read_matches(truth_file, found_file, "bbox"))
    # COCOeval says -1 where we say not a number: no large object is in the case.
    ours = [-1.0 if np.isnan(value) else value for value in values.values()]
    assert ours == pytest.approx(evaluation.stats[:6].tolist(), abs=1e-12)
    assert 0.05 < values["mAP"] < values["mAP_50"] < 0.95
    assert np.isnan(values["mAP_l"])
    assert values["mAP_s"] != values["mAP_m"]


def test_precisions_of_a_class_equal_cocoevals(tmp_path, capsys):
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    truth_file, found_file = random_case(tmp_path, 3)
    truth = COCO(str(truth_file))
    evaluation = COCOeval(truth, truth.loadRes(str(found_file)), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    theirs = evaluation.eval["precision"][:, :, :, 0, -1].mean(axis=1).T  # category, threshold; -1 without objects
    found = read_matches(truth_file, found_file, "bbox")["all"]
    ours = metrics.precisions(found.categories)
    np.testing.assert_allclose(np.nan_to_num(ours, nan=-1.0), theirs, atol=1e-12)
    table = metrics.per_class({"bbox": found, "segm": found})
    assert table["class"].to_list() == ["1", "2", "3", "4"]
    assert table["bbox_AP"][:3].to_list() == pytest.approx(theirs[:3].mean(axis=1).tolist())
    assert table["segm_AP_50"][:3].to_list() == pytest.approx(theirs[:3, 0].tolist())
    assert table.row(3, named=True)["bbox_AP"] is None
    assert table["num_objects"].sum() == sum(not one["iscrowd"] for one in truth.anns.values())


@pytest.mark.parametrize("seed", range(3))
def test_the_table_of_images_gives_the_metric_again(tmp_path, seed):
    """Also for a resample, in which images occur twice or not at all."""
    files = random_case(tmp_path, seed, digits=9)  # equal scores of a repeated image would be ordered otherwise
    found = read_matches(*files, "bbox")
    table = per_image(found["all"], found["all"])
    values = metrics.averages(found)
    again = metrics.metric_from_samples(table)
    assert set(again) == {f"{kind}_{name}" for kind in ("bbox", "segm") for name in ("mAP", "mAP_50", "mAP_75")}
    for name in ("mAP", "mAP_50", "mAP_75"):
        assert again[f"bbox_{name}"] == again[f"segm_{name}"] == pytest.approx(values[name], abs=1e-12)
    rows = np.sort(np.random.default_rng(seed).integers(0, 8, 8))
    resampled = metrics.averages(found, np.bincount(rows, minlength=8))
    assert metrics.metric_from_samples(table[rows])["bbox_mAP"] == pytest.approx(resampled["mAP"], abs=1e-12)
    table.write_parquet(tmp_path / "samples.parquet")
    assert pl.read_parquet(tmp_path / "samples.parquet").equals(table)


def test_a_table_without_objects_has_no_precision(tmp_path):
    found = read_matches(*write(tmp_path, [(1, 1, A, 0)], []), "bbox")["all"]
    assert np.isnan(metrics.metric_from_samples(per_image(found, found)[1:])["bbox_mAP"])


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
    found = read_matches(*write(tmp_path, objects, detections), "bbox")
    assert metrics.averages(found, np.array([1, 2]))["mAP"] == pytest.approx(mean_precision(doubled), abs=1e-12)


def test_standard_errors(tmp_path):
    found = read_matches(*random_case(tmp_path, 0), "bbox")
    errors = metrics.standard_errors(found, num_resamples=50, seed=3)
    assert errors == metrics.standard_errors(found, num_resamples=50, seed=3)
    assert all(0.005 < errors[name] < 0.3 for name in ("mAP", "mAP_50", "mAP_75", "mAP_s", "mAP_m"))
    assert errors["mAP_l"] is None  # no large object
    assert set(metrics.standard_errors(found, num_resamples=0, seed=3).values()) == {None}
    perfect = write(tmp_path, [(1, 1, A, 0), (2, 1, A, 0)], [(1, 1, A, 0.9), (2, 1, A, 0.8)])
    assert metrics.standard_errors(read_matches(*perfect, "bbox"), num_resamples=20, seed=0)["mAP"] == 0.0


def test_per_image_table(tmp_path):
    objects = [(1, 1, A, 0), (1, 2, B, 0)]
    files = write(tmp_path, objects, [(1, 1, A, 0.9), (1, 1, B, 0.4), (1, 2, (10, 60, 20, 20), 0.3)], categories=(1, 2))
    bbox = read_matches(*files, "bbox")["all"]
    table = per_image(bbox, bbox)
    counts = table.select("image", "image_id", "num_objects", "num_detections", "best_score", "bbox_found")
    assert counts.rows() == [("1.png", 1, 2, 3, 0.9, 1), ("2.png", 2, 0, 0, None, 0)]
    assert table["objects"].to_list() == [[0, 1], []]
    assert table["bbox_category"].to_list() == [[0, 0, 1], []]
    assert table["bbox_hit"].to_list() == [[1023, 0, 0], []]  # found at all ten thresholds
    assert table["bbox_counted"].to_list() == [[1023, 1023, 1023], []]
