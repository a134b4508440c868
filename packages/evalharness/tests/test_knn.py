"""Nearest neighbours: as scikit-learn finds them and lets them vote, whatever the blocks and batches."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.neighbors import KNeighborsClassifier
from squares import COLOURS, context_for, write_squares
from unveil_backbones import load
from unveil_evalharness.errors import ProtocolError, UnknownSuiteError
from unveil_evalharness.tasks import load_task
from unveil_evalharness.tasks.knn import model
from unveil_evalharness.tasks.knn.config import protocol_for
from unveil_evalharness.tasks.knn.metrics import NO_CLASS, ranked_by_votes


def test_votes_by_hand():
    similarities, labels = np.array([[0.9, 0.8, 0.8]]), np.array([[2, 0, 0]])
    near = ranked_by_votes(similarities, labels, num_classes=4, temperature=0.01, top=4)
    assert near.tolist() == [[2, 0, NO_CLASS, NO_CLASS]], "at a low temperature the nearest decides"
    far = ranked_by_votes(similarities, labels, num_classes=4, temperature=1.0, top=4)
    assert far.tolist() == [[0, 2, NO_CLASS, NO_CLASS]], "at a high one the number of neighbours"


def test_equal_votes_go_to_the_class_that_comes_first():
    ranked = ranked_by_votes(np.array([[0.5, 0.5]]), np.array([[3, 1]]), num_classes=4, temperature=0.07, top=2)
    assert ranked.tolist() == [[1, 3]]


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**32 - 1), st.integers(1, 30))
def test_votes_are_those_of_scikit_learn(seed, k):
    generator = np.random.default_rng(seed)
    train, val = generator.normal(size=(40, 6)), generator.normal(size=(9, 6))
    labels = generator.integers(0, 5, 40)
    labels[:5] = range(5)
    reference = KNeighborsClassifier(
        n_neighbors=k, metric="cosine", weights=lambda distance: np.exp((1 - distance) / 0.07), algorithm="brute"
    ).fit(train, labels)
    similarities, positions = model.nearest(torch.from_numpy(val), torch.from_numpy(train), k=k, device="cpu")
    ranked = ranked_by_votes(similarities.numpy(), labels[positions.numpy()], num_classes=5, temperature=0.07, top=5)
    assert np.array_equal(ranked[:, 0], reference.predict(val))
    probabilities = reference.predict_proba(val)
    voted = (ranked != NO_CLASS).sum(axis=1)
    assert np.array_equal(voted, (probabilities > 0).sum(axis=1))
    for row, number in enumerate(voted):
        ordered = probabilities[row][ranked[row, :number]]
        assert (np.diff(ordered) <= 1e-12).all()


@pytest.mark.parametrize(("queries", "candidates"), [(1, 3), (7, 1), (1000, 16)])
def test_blocks_of_any_size_find_the_same_neighbours(monkeypatch, queries, candidates):
    generator = torch.Generator().manual_seed(0)
    train, val = torch.randn(50, 8, generator=generator), torch.randn(20, 8, generator=generator)
    whole = model.nearest(val, train, k=7, device="cpu")
    monkeypatch.setattr(model, "_QUERIES", queries)
    monkeypatch.setattr(model, "_CANDIDATES", candidates)
    blocked = model.nearest(val, train, k=7, device="cpu")
    assert torch.equal(blocked[1], whole[1])
    assert torch.allclose(blocked[0], whole[0])


def test_no_more_neighbours_than_images():
    similarities, positions = model.nearest(torch.eye(2), torch.eye(2), k=9, device="cpu")
    assert similarities.shape == (2, 2)
    assert positions[:, 0].tolist() == [0, 1]


def test_the_protocol_is_dinos_in_every_suite():
    for suite in ("quick", "short", "full"):
        protocol = protocol_for(suite)
        assert (protocol.neighbours, protocol.temperature) == ((10, 20, 100, 200), 0.07)
    with pytest.raises(UnknownSuiteError, match="knn has no suite 'long'"):
        protocol_for("long")


@pytest.mark.parametrize(
    ("change", "message"), [({"main_neighbours": 5}, "hold main_neighbours=5"), ({"temperature": 0.0}, "above 0")]
)
def test_contradicting_values_are_refused(change, message):
    with pytest.raises(ProtocolError, match=message):
        dataclasses.replace(protocol_for("full"), **change)


def test_the_task_repeats_itself_whatever_the_batch_and_goes_on_from_its_features(mae_checkpoint, tmp_path):
    write_squares(tmp_path, COLOURS, train=6, val=3)
    task, checkpoint = load_task("knn"), load(mae_checkpoint)
    runs = [
        task.run(context_for(checkpoint, tmp_path, tmp_path / name, protocol_for("quick"), batch_size=size))
        for name, size in (("a", None), ("b", 1), ("c", 7))
    ]
    assert [metric.name for metric in runs[0].metrics] == [spec.name for spec in task.metrics]
    assert runs[0].metrics == runs[1].metrics == runs[2].metrics
    assert runs[0].samples.equals(runs[1].samples)
    assert runs[0].metrics[1].value > 2 * runs[0].metrics[1].baseline
    for path in (tmp_path / "imagenet" / "train").glob("*/*.*"):
        path.write_bytes(b"gone")
    again = task.run(context_for(checkpoint, tmp_path, tmp_path / "a", protocol_for("quick")))
    assert again.metrics == runs[0].metrics, "features in the work folder are not computed again"
