"""The moving average of the weights is the one computed by hand, is what is tested, and outlives an interruption."""

import pytest
import torch
from torch import nn
from unveil_evalharness.engine.optim import OptimiserSettings
from unveil_evalharness.engine.runner import TrainingPlan, train_and_evaluate
from unveil_evalharness.engine.session import session
from unveil_evalharness.engine.stream import keyed_loader

pytestmark = pytest.mark.mm

DECAY = 0.5


class Scale(nn.Module):
    """One weight."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([1.0]))

    def layer_groups(self):
        return [["weight"]]

    def no_weight_decay(self):
        return frozenset()


def run(work_dir, *, max_iters, accumulate=1, stop_at=None, checkpoint_interval=0, seen=None):
    """Trains one weight; returns the weight of the evaluation and that of the model afterwards."""
    work_dir.mkdir(exist_ok=True)
    numbers = torch.linspace(0.5, 1.5, 8)[:, None]

    def collate(samples):
        return {"inputs": torch.stack(samples)}

    with session(scope="mmengine", work_dir=work_dir, seed=0) as opened:
        from mmengine.evaluator import BaseMetric
        from mmengine.model import BaseModel

        class Model(BaseModel):
            def __init__(self):
                super().__init__()
                self.encoder = Scale()
                self.passes = 0

            def forward(self, inputs, mode):
                if mode == "predict":
                    return [{"weight": self.encoder.weight.item()}]
                if stop_at is not None and self.passes == stop_at:
                    raise KeyboardInterrupt
                if seen is not None:
                    seen.append(self.encoder.weight.item())
                self.passes += 1
                return {"loss": (self.encoder.weight * inputs).sum() / len(inputs)}

        class Weight(BaseMetric):
            def process(self, data_batch, data_samples):
                self.results.extend(sample["weight"] for sample in data_samples)

            def compute_metrics(self, results):
                return {"weight": results[0]}

        model = Model()
        loader = keyed_loader(numbers, batch_size=4 // accumulate, seed=0, num_workers=0, collate=collate)
        found = train_and_evaluate(
            opened,
            model=model,
            encoder=model.encoder,
            train_loader=loader,
            val_loader=torch.utils.data.DataLoader(numbers[:1], collate_fn=collate),
            evaluator=Weight(),
            plan=TrainingPlan(
                max_iters=max_iters,
                optimiser=OptimiserSettings(lr=0.1, weight_decay=0.0),
                accumulate=accumulate,
                checkpoint_interval=checkpoint_interval,
                ema_decay=DECAY,
            ),
            device="cpu",
            progress=False,
            title="ema",
        )
    return found["weight"], model.encoder.weight.item()


def average_of(weights):
    """The moving average over the weights after each step."""
    average = weights[0]
    for weight in weights[1:]:
        average = DECAY * average + (1 - DECAY) * weight
    return average


def test_the_average_tested_is_the_one_by_hand_and_the_weights_stay(tmp_path):
    seen = []
    tested, last = run(tmp_path / "a", max_iters=4, seen=seen)
    assert tested == pytest.approx(average_of([*seen[1:], last]), abs=1e-6)
    assert abs(tested - last) > 1e-3


def test_a_step_of_two_passes_moves_the_average_once(tmp_path):
    seen = []
    tested, last = run(tmp_path / "a", max_iters=4, accumulate=2, seen=seen)
    assert len(seen) == 8
    assert tested == pytest.approx(average_of([*seen[2::2], last]), abs=1e-6)


def test_an_interrupted_training_ends_with_the_same_average(tmp_path):
    whole = run(tmp_path / "whole", max_iters=5, checkpoint_interval=2)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", max_iters=5, checkpoint_interval=2, stop_at=3)
    seen = []
    assert run(tmp_path / "cut", max_iters=5, checkpoint_interval=2, seen=seen) == pytest.approx(whole, abs=1e-6)
    assert len(seen) == 3, "two steps were kept"
