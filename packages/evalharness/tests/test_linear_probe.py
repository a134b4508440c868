"""Linear probes: LARS and its schedule by formula, logistic regression as scikit-learn fits it, the task as a whole."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from squares import COLOURS, context_for, write_squares
from unveil_backbones import load
from unveil_evalharness.errors import ProtocolError, UnknownSuiteError
from unveil_evalharness.tasks import load_task
from unveil_evalharness.tasks.imagenet_ft.probe import logistic_head
from unveil_evalharness.tasks.linear_probe.config import protocol_for
from unveil_evalharness.tasks.linear_probe.data import held_out
from unveil_evalharness.tasks.linear_probe.metrics import ranked
from unveil_evalharness.tasks.linear_probe.model import LarsProbe, choose_penalty, learning_rate


def points(number, seed=0):
    """Three classes around three points of five dimensions."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(number) % 3
    return torch.eye(3, 5)[labels] * 3 + torch.randn(number, 5, generator=generator), labels


def test_the_rate_rises_linearly_and_falls_by_half_a_cosine():
    rates = [learning_rate(step, peak=6.4, warmup=10, total=90) for step in range(91)]
    assert rates[0] == rates[90] == 0.0
    assert rates[5] == pytest.approx(3.2)
    assert rates[10] == 6.4
    assert rates[50] == pytest.approx(3.2), "the middle of the cosine"


def probe_of(**changes):
    protocol = dataclasses.replace(protocol_for("quick"), epochs=4, warmup=1, **changes)
    return LarsProbe(5, num_classes=3, steps_per_epoch=2, protocol=protocol, seed=0, device="cpu")


def test_a_step_of_lars_is_the_one_of_the_paper(tmp_path):
    features, labels = points(12)
    probe = probe_of(lr=2.0, weight_decay=0.1)
    probe.step = 2  # behind the warm-up, so that the rate is the peak
    weight, bias = (tensor.detach().clone().requires_grad_() for tensor in probe.layers[1].parameters())
    normed = (features - features.mean(0)) / (features.var(0, correction=0) + 1e-6).sqrt()
    torch.nn.functional.cross_entropy(normed @ weight.T + bias, labels).backward()
    rate = learning_rate(2, peak=2.0, warmup=2, total=8)
    probe.train(itertools.islice([(features, labels)], 1), keep=tmp_path / "kept", report=lambda step: None)
    moved = weight.grad + 0.1 * weight
    trust = 0.001 * weight.norm() / (weight.grad.norm() + 0.1 * weight.norm())
    assert torch.allclose(probe.layers[1].weight, weight - rate * trust * moved, atol=1e-6)
    assert torch.allclose(probe.layers[1].bias, bias - rate * bias.grad, atol=1e-6)


def batches(first):
    features, labels = points(24)
    for step in itertools.count(first):
        chosen = torch.arange(8) + 8 * (step % 3)
        yield features[chosen], labels[chosen]


def test_an_interrupted_training_ends_as_a_whole_one(tmp_path):
    whole = probe_of(lr=20.0)
    whole.train(batches(0), keep=tmp_path / "whole", report=lambda step: None)
    cut = probe_of(lr=20.0)
    cut.train(itertools.islice(batches(0), 5), keep=tmp_path / "cut", report=lambda step: None)
    again = probe_of(lr=20.0)
    assert again.resume(tmp_path / "cut")
    assert again.step == 4, "the end of the second epoch"
    again.train(batches(again.step), keep=tmp_path / "cut", report=lambda step: None)
    features, _ = points(24)
    assert torch.equal(again.logits(features), whole.logits(features))
    assert not probe_of().resume(tmp_path / "absent")


def test_the_regression_is_scikit_learns():
    features, labels = points(60)
    features = features.double()
    standard = (features - features.mean(0)) / features.std(0, correction=0)
    reference = LogisticRegression(C=0.3, tol=1e-10, max_iter=1000).fit(standard.numpy(), labels.numpy())
    head = logistic_head(features, labels, num_classes=3, penalty=1 / (0.3 * 60), max_steps=500)
    with torch.no_grad():
        found = head(features).softmax(dim=1).numpy()
    assert found == pytest.approx(reference.predict_proba(standard.numpy()), abs=1e-4)


def test_blocks_of_rows_change_nothing(monkeypatch):
    from unveil_evalharness.tasks.imagenet_ft import probe

    features, labels = points(30)
    whole = logistic_head(features.double(), labels, num_classes=3, penalty=0.1)
    monkeypatch.setattr(probe, "_ROWS", 7)
    blocked = logistic_head(features.double(), labels, num_classes=3, penalty=0.1)
    assert torch.allclose(blocked.weight, whole.weight, atol=1e-5)


@given(st.lists(st.integers(0, 3), min_size=1, max_size=60), st.floats(0.05, 0.6))
def test_each_class_gives_its_share_and_keeps_an_image(labels, fraction):
    labels = np.array(labels)
    chosen = held_out(labels, fraction)
    for label in np.unique(labels):
        members = labels == label
        assert chosen[members].sum() == min(round(fraction * members.sum()), members.sum() - 1)
    assert np.array_equal(chosen, held_out(labels, fraction)), "always the same images"


def test_the_penalty_that_does_best_on_the_images_held_out_is_chosen():
    features, labels = points(90, seed=3)
    chosen = held_out(labels.numpy(), 0.2)
    options = {"num_classes": 3, "inverse_penalties": (1e-6, 1e-2, 1.0), "max_steps": 50}
    choice = choose_penalty(features.double(), labels, chosen, **options)
    assert choice.inverse_penalty == options["inverse_penalties"][int(np.argmax(choice.accuracies))]
    assert max(choice.accuracies) > 0.8


def test_without_images_to_hold_out_the_fitted_ones_decide():
    features, labels = points(3)
    chosen = held_out(labels.numpy(), 0.2)
    assert not chosen.any()
    choice = choose_penalty(features.double(), labels, chosen, num_classes=3, inverse_penalties=(1.0,), max_steps=50)
    assert choice.accuracies == (1.0,)


def test_equal_scores_are_ordered_by_class():
    assert ranked(np.array([[0.0, 1.0, 1.0]]), top=2).tolist() == [[1, 2]]


def test_full_is_maes_probe_and_dinov2s_sweep():
    protocol = protocol_for("full")
    assert (protocol.epochs, protocol.warmup, protocol.batch_size) == (90, 10, 16_384)
    assert protocol.lr * 256 / protocol.batch_size == pytest.approx(0.1)
    exponents = [math.log10(inverse) for inverse in protocol.inverse_penalties]
    assert exponents == pytest.approx(np.linspace(-6, 5, 45), abs=1e-5)
    with pytest.raises(UnknownSuiteError, match="linear_probe has no suite 'long'"):
        protocol_for("long")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"warmup": 90}, "warmup < epochs"),
        ({"held_out": 1.0}, "between 0 and 1"),
        ({"inverse_penalties": ()}, "above 0"),
    ],
)
def test_contradicting_values_are_refused(change, message):
    with pytest.raises(ProtocolError, match=message):
        dataclasses.replace(protocol_for("full"), **change)


@pytest.mark.parametrize("augment", [False, True])
def test_the_task_repeats_itself_whatever_the_batch(mae_checkpoint, tmp_path, augment):
    write_squares(tmp_path, COLOURS, train=6, val=2)
    task, checkpoint = load_task("linear_probe"), load(mae_checkpoint)
    protocol = dataclasses.replace(
        protocol_for("quick"),
        batch_size=16,
        epochs=8,
        warmup=2,
        augment=augment,
        crop_scale=(0.9, 1.0),
        inverse_penalties=(0.1, 10.0),
        max_steps=30,
    )
    runs = [
        task.run(context_for(checkpoint, tmp_path, tmp_path / name, protocol, batch_size=size))
        for name, size in (("a", None), ("b", 4))
    ]
    assert [metric.name for metric in runs[0].metrics] == [spec.name for spec in task.metrics]
    assert runs[0].metrics == runs[1].metrics
    assert runs[0].samples.equals(runs[1].samples)
    assert {"prediction", "lbfgs_prediction", "correct", "lbfgs_correct5"} <= set(runs[0].samples.columns)
    assert runs[0].tables["penalties"]["chosen"].sum() == 1
    assert runs[0].metrics[3].value > runs[0].metrics[3].baseline
