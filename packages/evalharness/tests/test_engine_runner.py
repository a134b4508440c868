"""Training on mmengine's Runner: learns, resumes exactly, leaves nothing behind."""

import multiprocessing
import random
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from unveil_evalharness.engine.optim import OptimiserSettings
from unveil_evalharness.engine.runner import DivergedError, TrainingPlan, train_and_evaluate
from unveil_evalharness.engine.session import session
from unveil_evalharness.engine.stream import keyed_loader, seed_globals
from unveil_evalharness.errors import DataError

pytestmark = pytest.mark.mm


class Line:
    """Points of y = 2x - 1 with jitter drawn from the global generator, as an augmentation would."""

    def __len__(self):
        return 10

    def __getitem__(self, index):
        x = index / 10 + 0.01 * random.random()
        return torch.tensor([x]), torch.tensor([2 * x - 1])


def collate(samples):
    return {"inputs": torch.stack([x for x, _ in samples]), "targets": torch.stack([y for _, y in samples])}


class TinyEncoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Linear(1, 4)

    def forward(self, x):
        return self.scale(x)

    def layer_groups(self):
        return [["scale.weight", "scale.bias"]]

    def no_weight_decay(self):
        return frozenset()


def build_model(explode_at=None):
    from mmengine.model import BaseModel

    class Regression(BaseModel):
        def __init__(self):
            super().__init__()
            self.encoder = TinyEncoder()
            self.head = nn.Linear(4, 1)
            self.passes = 0

        def forward(self, inputs, targets, mode):
            prediction = self.head(functional.dropout(self.encoder(inputs), 0.1, training=self.training))
            if mode == "predict":
                return [{"error": error} for error in (prediction - targets).abs().flatten().tolist()]
            self.passes += 1
            loss = functional.mse_loss(prediction, targets)
            return {"loss": loss * float("nan") if self.passes == explode_at else loss}

    return Regression()


def build_metric():
    from mmengine.evaluator import BaseMetric

    class MeanError(BaseMetric):
        def process(self, data_batch, data_samples):
            self.results.extend(sample["error"] for sample in data_samples)

        def compute_metrics(self, results):
            return {"error": float(np.mean(results))}

    return MeanError()


def draw():
    """One number of each global generator."""
    return random.random(), np.random.random(), torch.rand(1).item()  # noqa: NPY002


def run(
    work_dir: Path,
    *,
    dataset=None,
    num_workers=0,
    seed=0,
    max_iters=60,
    accumulate=1,
    checkpoint_interval=0,
    explode_at=None,
):
    """One training; returns its metrics and final weights."""
    work_dir.mkdir(parents=True, exist_ok=True)
    dataset = dataset or Line()
    with session(scope="mmengine", work_dir=work_dir, seed=seed) as opened:
        model = build_model(explode_at)
        metrics = train_and_evaluate(
            opened,
            model=model,
            encoder=model.encoder,
            train_loader=keyed_loader(
                dataset, batch_size=4 // accumulate, seed=seed, num_workers=num_workers, collate=collate
            ),
            val_loader=torch.utils.data.DataLoader(dataset, batch_size=5, collate_fn=collate),
            evaluator=build_metric(),
            plan=TrainingPlan(
                max_iters=max_iters,
                optimiser=OptimiserSettings(lr=0.1, warmup_iters=5),
                accumulate=accumulate,
                checkpoint_interval=checkpoint_interval,
            ),
            device="cpu",
            progress=False,
            title="line",
        )
    return metrics, {name: tensor.clone() for name, tensor in model.state_dict().items()}


def test_training_lowers_the_error_and_logs_to_a_file_only(tmp_path, capfd):
    untrained, _ = run(tmp_path / "short", max_iters=6)
    trained, _ = run(tmp_path / "long", max_iters=60)
    assert trained["error"] < 0.3 * untrained["error"]
    out, err = capfd.readouterr()
    assert out == ""
    assert err == ""
    log = (tmp_path / "long" / "train.log").read_text()
    assert "loss" in log
    assert list((tmp_path / "long").glob("*/vis_data/*.json"))


def test_the_same_seed_gives_the_same_weights_and_another_seed_does_not(tmp_path):
    first, weights = run(tmp_path / "a", max_iters=8)
    second, same = run(tmp_path / "b", max_iters=8)
    _, other = run(tmp_path / "c", max_iters=8, seed=1)
    assert first == second
    assert all(torch.equal(weights[name], same[name]) for name in weights)
    assert not torch.equal(weights["head.weight"], other["head.weight"])


def test_two_runs_in_one_process_leave_no_state_behind(tmp_path):
    from mmengine.logging import MessageHub, MMLogger
    from mmengine.registry import DefaultScope
    from mmengine.visualization import Visualizer

    managers = (MMLogger, MessageHub, Visualizer, DefaultScope)
    before = [dict(manager._instance_dict) for manager in managers]
    seed_globals(5)
    expected = draw()
    seed_globals(5)
    run(tmp_path / "a", max_iters=6)
    run(tmp_path / "b", max_iters=6)
    assert draw() == expected
    assert [dict(manager._instance_dict) for manager in managers] == before
    assert sys.stdout is not None
    assert not (tmp_path / "a" / "last_checkpoint").exists()


def test_an_interrupted_run_resumes_to_the_same_weights(tmp_path):
    whole, weights = run(tmp_path / "whole", max_iters=12)
    with pytest.raises(DivergedError, match="not finite"):
        run(tmp_path / "broken", max_iters=12, checkpoint_interval=5, explode_at=8)
    assert list((tmp_path / "broken").glob("iter_5.pth"))
    resumed, same = run(tmp_path / "broken", max_iters=12, checkpoint_interval=5)
    assert "resumed epoch: 0, iter: 5" in (tmp_path / "broken" / "train.log").read_text()
    assert resumed == whole
    assert all(torch.equal(weights[name], same[name]) for name in weights)


def test_a_loss_that_is_not_a_number_stops_the_run_with_step_and_rate(tmp_path):
    with pytest.raises(DivergedError, match=r"training pass 2 is not finite .*learning rate"):
        run(tmp_path, max_iters=8, explode_at=3)


def test_accumulated_passes_hold_the_same_images_as_one_step(tmp_path):
    whole, _ = run(tmp_path / "whole", max_iters=30)
    split, _ = run(tmp_path / "split", max_iters=30, accumulate=2)
    assert split["error"] == pytest.approx(whole["error"], abs=0.1)


class Broken(Line):
    def __getitem__(self, index):
        if index == 7:
            raise DataError("cannot decode 7.jpg; replace the file")
        return super().__getitem__(index)


def test_loader_processes_change_nothing_and_end_with_the_training(tmp_path):
    whole, _ = run(tmp_path / "whole", max_iters=6)
    split, _ = run(tmp_path / "split", max_iters=6, num_workers=1)
    assert split == whole
    assert multiprocessing.active_children() == []


def test_an_error_in_a_loader_process_is_one_line(tmp_path):
    with pytest.raises(DataError) as caught:
        run(tmp_path, dataset=Broken(), max_iters=6, num_workers=1)
    assert str(caught.value) == "cannot decode 7.jpg; replace the file"
