"""The benchmark of retrieval: every way gives the recalls of a plain count, and unequal recalls end it."""

import numpy as np
import pytest
import torch

from benchmarks import retrieval
from benchmarks._retrieval_work import Problem, counted, memory_row, one_hot_top_k, problem, sorted_by

WAYS = {
    "counted": counted,
    "NumPy": lambda given: sorted_by(given, lambda scores: np.argsort(-scores, axis=1)),
    "PyTorch": lambda given: sorted_by(
        given, lambda scores: torch.argsort(torch.from_numpy(scores), dim=1, descending=True).numpy()
    ),
    "one-hot": one_hot_top_k,
}


@pytest.fixture(scope="module")
def given():
    return problem(40, 200, 8)


def plain(given: Problem) -> list[float]:
    scores = given.images.astype(np.float64) @ given.texts.T.astype(np.float64)
    captions = [(column > column[own]).sum() for column, own in zip(scores.T, given.owner, strict=True)]
    images = [(row > row[given.owner == i].max()).sum() for i, row in enumerate(scores)]
    return [float(np.mean(np.array(better) < k)) for better in (captions, images) for k in (1, 5, 10)]


@pytest.mark.parametrize("way", WAYS)
def test_every_way_gives_the_recalls_of_a_plain_count(given, way):
    np.testing.assert_allclose(WAYS[way](given), plain(given), atol=1e-12)


def test_the_problem_has_hits_and_misses(given):
    assert 0.05 < plain(given)[0] < 0.95
    assert np.bincount(given.owner).tolist() == [5] * 40


def test_a_small_run_prints_every_row(capsys):
    assert retrieval.main(["--quick", "--only", "1k", "--rounds", "1", "--warm-up", "0", "--width", "8"]) == 0
    out = capsys.readouterr().out
    for name in ("ours, counted in tiles", "NumPy", "PyTorch", "top k and one-hot", "the product alone"):
        assert name in out


def test_unequal_recalls_end_the_run(capsys, monkeypatch):
    monkeypatch.setattr(retrieval, "counted", lambda given: counted(given) + 0.01)
    assert retrieval.main(["--quick", "--only", "1k", "--rounds", "1", "--warm-up", "0", "--width", "8"]) == 1
    assert "differ by 0.01" in capsys.readouterr().err


def test_memory_is_that_of_a_process_of_its_own():
    row = memory_row((20, 100), 8)
    assert row.startswith("20 images x 100 captions in a process of its own: peak 0.")
    assert row.endswith("bar 2 GB: reached")
