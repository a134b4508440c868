"""Mean IoU and accuracy against hand-computed values, mmseg's IoUMetric and the binomial standard error."""

import math

import numpy as np
import pytest
from unveil_evalharness.tasks.ade20k_seg import metrics


def counts(intersection, predicted, labelled):
    return metrics.ImageCounts(
        intersection=np.array(intersection), predicted=np.array(predicted), labelled=np.array(labelled)
    )


# Image 1: 6 of 8 pixels of class 0 right, the other 2 called class 1. Image 2: 4 pixels of class 1, all right.
CASE = counts([[6, 0, 0], [0, 4, 0]], [[6, 2, 0], [0, 4, 0]], [[8, 0, 0], [0, 4, 0]])


def test_scores_by_hand():
    result = metrics.scores(CASE)
    # Class 0: 6 / 8. Class 1: 4 / 6. Class 2 occurs nowhere and does not count.
    assert result.mean_iou == pytest.approx((6 / 8 + 4 / 6) / 2)
    assert result.accuracy == pytest.approx(10 / 12)
    assert result.mean_accuracy == pytest.approx((6 / 8 + 4 / 4) / 2)


def test_multiplicities_weigh_images():
    assert metrics.scores(CASE, np.array([0, 3])).mean_iou == 1.0
    assert metrics.scores(CASE, np.array([1, 0])).accuracy == pytest.approx(6 / 8)


def test_nothing_labelled_is_not_a_number():
    empty = counts([[0, 0]], [[0, 0]], [[0, 0]])
    assert math.isnan(metrics.scores(empty).mean_iou)
    assert math.isnan(metrics.scores(empty).accuracy)


def test_majority_baseline_by_hand():
    # Class 1 is the commonest in training, though not in validation.
    result = metrics.scores(metrics.majority_counts(np.array([[5, 9, 0]]), CASE.labelled))
    assert result.accuracy == pytest.approx(4 / 12)
    # Class 0 scores 0 / 8, class 1 scores 4 / 12.
    assert result.mean_iou == pytest.approx((0 + 4 / 12) / 2)


def test_standard_error_of_accuracy_is_the_binomial_one():
    # Images of one pixel each, three quarters right: sqrt(p (1 - p) / n).
    right = (np.arange(400) % 4 > 0).astype(np.int64)
    labelled = np.stack([np.ones(400, np.int64), np.zeros(400, np.int64)], axis=1)
    predicted = np.stack([right, 1 - right], axis=1)
    case = counts(np.stack([right, np.zeros_like(right)], axis=1), predicted, labelled)
    error = metrics.standard_errors(case, num_resamples=400, seed=0)
    assert error is not None
    assert error.accuracy == pytest.approx(math.sqrt(0.75 * 0.25 / 400), rel=0.1)
    assert error == metrics.standard_errors(case, num_resamples=400, seed=0)


def test_no_standard_error_from_one_image_or_without_resamples():
    assert metrics.standard_errors(counts([[1]], [[1]], [[1]]), num_resamples=10, seed=0) is None
    assert metrics.standard_errors(CASE, num_resamples=0, seed=0) is None


def test_per_image_table():
    case = counts([[6, 0], [0, 0]], [[6, 2], [0, 0]], [[8, 0], [0, 0]])
    table = metrics.per_image(["a.png", "b.png"], case, case)
    shown = table.select("image", "labelled_pixels", "accuracy", "mean_iou")
    assert shown.rows() == [("a.png", 8, 0.75, pytest.approx((0.75 + 0) / 2)), ("b.png", 0, None, None)]


def test_the_table_of_images_gives_the_metrics_again():
    """Also for a resample, in which images occur twice or not at all."""
    rng = np.random.default_rng(0)
    intersection = rng.integers(0, 9, (6, 4))
    case = counts(intersection, intersection + rng.integers(0, 5, (6, 4)), intersection + rng.integers(0, 5, (6, 4)))
    views = counts(intersection // 2, case.predicted, case.labelled)
    table = metrics.per_image([f"{n}.png" for n in range(6)], case, views)
    rows = np.array([0, 0, 2, 5, 5, 5])
    for sampled, times in ((table, np.ones(6)), (table[rows], np.bincount(rows, minlength=6))):
        again = metrics.metric_from_samples(sampled)
        for suffix, part in (("", case), ("_ms", views)):
            value = metrics.scores(part, times)
            assert again[f"mIoU{suffix}"] == pytest.approx(value.mean_iou, abs=1e-12)
            assert again[f"mAcc{suffix}"] == pytest.approx(value.mean_accuracy, abs=1e-12)
            assert again[f"aAcc{suffix}"] == pytest.approx(value.accuracy, abs=1e-12)


def test_class_and_confusion_tables_by_hand():
    table = metrics.per_class(["wall", "red", "blue"], CASE)
    assert table["IoU"].to_list() == [6 / 8, pytest.approx(4 / 6), None]
    assert table["accuracy"].to_list() == [6 / 8, 1.0, None]
    assert table["num_images"].to_list() == [1, 1, 0]
    cells = metrics.confusion_table(["wall", "red", "blue"], np.array([[6, 2, 0], [0, 4, 0], [0, 0, 0]]))
    assert cells.rows() == [("wall", "wall", 6, 0.75), ("red", "red", 4, 1.0), ("wall", "red", 2, 0.25)]


@pytest.mark.mm
def test_agrees_with_mmseg_and_torchmetrics_on_random_maps():
    pytest.importorskip("mmseg")
    import torch
    from torchmetrics.functional.classification import multiclass_accuracy, multiclass_confusion_matrix
    from torchmetrics.functional.classification import multiclass_jaccard_index as jaccard
    from unveil_evalharness import compat

    compat.install()
    with compat.third_party_warnings(), compat.third_party_stdout():
        from unveil_evalharness.tasks.ade20k_seg.collector import CountingIoU

        metric = CountingIoU(4, keep=["20.png"])
        metric.dataset_meta = {"classes": ("a", "b", "c", "d")}
        rng = np.random.default_rng(0)
        expected, found, truth = [], [], []
        for side in (7, 20, 33):
            predicted, labelled = rng.integers(0, 4, (side, side)), rng.integers(0, 4, (side, side))
            labelled[rng.random((side, side)) < 0.2] = 255
            expected.append([np.sum((predicted == c) & (labelled == c)) for c in range(4)])
            found.append(torch.tensor(predicted).flatten())
            truth.append(torch.tensor(labelled).flatten())
            maps = {"pred_sem_seg": predicted, "gt_sem_seg": labelled}
            sample = {name: {"data": torch.tensor(values)} for name, values in maps.items()}
            metric.process({}, [{**sample, "img_path": f"{side}.png"}])
        reported = metric.evaluate(3)
    assert metric.counts is not None
    assert metric.counts.intersection.tolist() == [[int(value) for value in row] for row in expected]
    assert {path: kept.shape for path, kept in metric.label_maps.items()} == {"20.png": (20, 20)}
    ours = metrics.scores(metric.counts)
    assert ours.mean_iou == pytest.approx(reported["mIoU"] / 100, abs=6e-5)
    assert ours.mean_accuracy == pytest.approx(reported["mAcc"] / 100, abs=6e-5)
    assert ours.accuracy == pytest.approx(reported["aAcc"] / 100, abs=6e-5)
    arguments = (torch.cat(found), torch.cat(truth))
    options = {"num_classes": 4, "ignore_index": 255}
    assert ours.mean_iou == pytest.approx(float(jaccard(*arguments, average="macro", **options)), abs=1e-6)
    for average, value in (("macro", ours.mean_accuracy), ("micro", ours.accuracy)):
        theirs = multiclass_accuracy(*arguments, average=average, **options)
        assert value == pytest.approx(float(theirs), abs=1e-6)
    assert metric.confusion is not None
    assert metric.confusion.tolist() == multiclass_confusion_matrix(*arguments, **options).tolist()
