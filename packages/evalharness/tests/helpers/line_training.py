"""A regression small enough to train in a moment on the engine: a dataset, a model, a metric and one training."""

import os
import random
import signal
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from unveil_evalharness import compat
from unveil_evalharness.engine.optim import OptimiserSettings
from unveil_evalharness.engine.runner import TrainingPlan, train_and_evaluate
from unveil_evalharness.engine.session import session
from unveil_evalharness.engine.stream import keyed_loader
from unveil_evalharness.task import Metric, MetricSpec, TaskResult

__all__ = ["Line", "LineProtocol", "LineTask", "build_metric", "build_model", "collate", "train_line"]


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


def build_model(explode_at=None, dropout=0.1):
    from mmengine.model import BaseModel

    class Regression(BaseModel):
        def __init__(self):
            super().__init__()
            self.encoder = TinyEncoder()
            self.head = nn.Linear(4, 1)
            self.passes = 0

        def forward(self, inputs, targets, mode):
            prediction = self.head(functional.dropout(self.encoder(inputs), dropout, training=self.training))
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


def train_line(
    work_dir: Path,
    *,
    dataset=None,
    num_workers=0,
    seed=0,
    max_iters=60,
    accumulate=1,
    checkpoint_interval=0,
    explode_at=None,
    dropout=0.1,
    ema_decay=0.0,
    hooks=(),
):
    """One training; returns its metrics and final weights."""
    work_dir.mkdir(parents=True, exist_ok=True)
    dataset = dataset or Line()
    with session(scope="mmengine", work_dir=work_dir, seed=seed) as opened:
        model = build_model(explode_at, dropout)
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
                ema_decay=ema_decay,
            ),
            device="cpu",
            progress=False,
            title="line",
            hooks=hooks,
        )
    return metrics, {name: tensor.clone() for name, tensor in model.state_dict().items()}


@dataclass(frozen=True, kw_only=True)
class LineProtocol:
    max_iters: int = 12
    checkpoint_interval: int = 5
    batch_size: int = 4


class LineTask:
    """The regression as a task of the harness; `passes` are those of training in this process."""

    name = "line"
    version = 1
    description = "a line"
    metrics = (MetricSpec(name="line.error", main=True, higher_is_better=False),)
    requires = ("mmengine",)

    def __init__(self, *, kill_at=None):
        self.kill_at = kill_at
        self.passes = 0

    def protocol(self, suite):
        return LineProtocol()

    def expected_time(self, suite):
        return "a moment"

    def not_applicable(self, manifest):
        return None

    def data_hash(self, data_root):
        return "line"

    def run(self, context):
        metrics, _ = train_line(
            context.work_dir,
            seed=context.seed,
            max_iters=context.protocol.max_iters,
            checkpoint_interval=context.protocol.checkpoint_interval,
            accumulate=4 // (context.batch_size or 4),
            hooks=[self._hook()],
        )
        return TaskResult(
            metrics=(Metric(name="line.error", value=metrics["error"], baseline=None, standard_error=None, n=10),)
        )

    def _hook(self):
        compat.install()  # imports mmengine as a session does, without its warnings
        from mmengine.hooks import Hook

        task = self

        class Killer(Hook):
            def before_train_iter(self, runner, batch_idx, data_batch=None):
                task.passes += 1
                if runner.iter == task.kill_at:
                    os.kill(os.getpid(), signal.SIGKILL)

        return Killer()
