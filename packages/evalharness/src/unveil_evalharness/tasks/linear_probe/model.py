"""The two linear layers. Axes: b images of a step, n images, d features, c classes."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

from unveil_evalharness.engine.stream import Purpose, derive_seed
from unveil_evalharness.tasks.imagenet_ft.probe import logistic_head
from unveil_evalharness.tasks.linear_probe.config import LinearProbeProtocol

__all__ = ["Choice", "LarsProbe", "choose_penalty", "learning_rate"]


def learning_rate(step: int, *, peak: float, warmup: int, total: int) -> float:
    """The rate of a step: linear from 0 over `warmup` steps, then half a cosine down to 0 at `total`."""
    if step < warmup:
        return peak * step / warmup
    return peak * (1 + math.cos(math.pi * (step - warmup) / (total - warmup))) / 2


class LarsProbe:
    """Batch normalisation without scale and offset, then one linear layer, trained by LARS (MAE, appendix A.1).

    Args:
        width: number of features.
        num_classes: outputs.
        steps_per_epoch: steps of the protocol's batch.
        protocol: learning rate, momentum and the rest.
        seed: of the layer's first weights.
        device: where to train.
    """

    def __init__(
        self,
        width: int,
        *,
        num_classes: int,
        steps_per_epoch: int,
        protocol: LinearProbeProtocol,
        seed: int,
        device: str,
    ) -> None:
        import unveil_backbones

        unveil_backbones.ensure_torchvision()
        from timm.optim.lars import Lars

        self._norm = nn.BatchNorm1d(width, eps=protocol.norm_epsilon, affine=False)
        self._linear = nn.Linear(width, num_classes)
        generator = torch.Generator().manual_seed(derive_seed(seed, Purpose.INITIALISATION))
        nn.init.trunc_normal_(self._linear.weight, std=protocol.head_std, generator=generator)
        nn.init.zeros_(self._linear.bias)
        self.layers = nn.Sequential(self._norm, self._linear).to(device)
        # The rate of one-dimensional parameters is not scaled, as in MAE's code.
        weight = {"params": [self._linear.weight], "weight_decay": protocol.weight_decay, "always_adapt": True}
        bias = {"params": [self._linear.bias], "weight_decay": 0.0, "always_adapt": False}
        momentum = {"momentum": protocol.momentum}  # timm declares the argument of Lars an int
        self._optimiser = Lars([weight | momentum, bias | momentum], lr=protocol.lr, trust_coeff=protocol.trust)
        self._peak = protocol.lr
        self._warmup = protocol.warmup * steps_per_epoch
        self.total = protocol.epochs * steps_per_epoch
        self.steps_per_epoch = steps_per_epoch
        self.step = 0
        self._device = device

    def train(
        self,
        batches: Iterable[tuple[Float[Tensor, "b d"], Int[Tensor, " b"]]],
        *,
        keep: Path,
        report: Callable[[int], object],
    ) -> None:
        """Steps through `batches` to the end; they begin at ``self.step``.

        Args:
            batches: features and labels of each step.
            keep: file that the state is written to after each epoch; `resume` reads it.
            report: called with the number of steps done.
        """
        self.layers.train()
        for features, labels in batches:
            rate = learning_rate(self.step, peak=self._peak, warmup=self._warmup, total=self.total)
            for group in self._optimiser.param_groups:
                group["lr"] = rate
            loss = functional.cross_entropy(self.layers(features.to(self._device)), labels.to(self._device))
            self._optimiser.zero_grad()
            loss.backward()
            self._optimiser.step()
            self.step += 1
            report(self.step)
            if self.step % self.steps_per_epoch == 0:
                self._keep(keep)
            if self.step == self.total:
                return

    @torch.inference_mode()
    def logits(self, features: Float[Tensor, "n d"]) -> Float[Tensor, "n c"]:
        """Scores of the classes."""
        self.layers.eval()
        return self.layers(features.to(self._device)).cpu()

    def _keep(self, path: Path) -> None:
        from safetensors.torch import save_file

        tensors = {f"layers.{name}": tensor for name, tensor in self.layers.state_dict().items()}
        for name in ("weight", "bias"):
            state = self._optimiser.state[getattr(self._linear, name)]
            tensors[f"momentum.{name}"] = state["momentum_buffer"]
        tensors["step"] = torch.tensor(self.step)
        temporary = path.with_name(f".{path.name}.partial")
        save_file(tensors, temporary)
        temporary.replace(path)

    def resume(self, path: Path) -> bool:
        """Goes on from what an interrupted run of the same cell kept, if there is such a file."""
        from safetensors.torch import load_file

        if not path.is_file():
            return False
        kept = load_file(path)
        layers = {name.removeprefix("layers."): tensor for name, tensor in kept.items() if name.startswith("layers.")}
        self.layers.load_state_dict(layers)
        for name in ("weight", "bias"):
            momentum = kept[f"momentum.{name}"].to(self._device)
            self._optimiser.state[getattr(self._linear, name)] = {"momentum_buffer": momentum}
        self.step = int(kept["step"])
        return True


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """The logistic regression that was chosen."""

    head: nn.Linear
    """Fitted to all training images."""
    inverse_penalty: float
    """The ``C`` that did best on the images held out."""
    accuracies: tuple[float, ...]
    """On those images, of each ``C`` in the given order."""


def choose_penalty(
    features: Float[Tensor, "n d"],
    labels: Int[Tensor, " n"],
    held_out: Bool[np.ndarray, " n"],
    *,
    num_classes: int,
    inverse_penalties: Sequence[float],
    max_steps: int,
) -> Choice:
    """Fits each penalty without the images held out, chooses the most accurate on them, and fits all images with it.

    Of equally accurate penalties the strongest is taken. Where no image is held out (one image per class), the choice
    is made on the images that were fitted.

    Args:
        features: float64, on the device of the computation.
        labels: classes.
        held_out: marks the images to choose on.
        num_classes: outputs.
        inverse_penalties: scikit-learn's ``C``.
        max_steps: of L-BFGS.
    """
    chosen_on = torch.from_numpy(held_out if held_out.any() else np.ones_like(held_out)).to(features.device)
    fitted_on = torch.from_numpy(~held_out).to(features.device)

    def fit(inputs: Tensor, targets: Tensor, inverse: float) -> nn.Linear:
        penalty = 1 / (inverse * len(inputs))
        return logistic_head(inputs, targets, num_classes=num_classes, penalty=penalty, max_steps=max_steps)

    accuracies = []
    for inverse in inverse_penalties:
        head = fit(features[fitted_on], labels[fitted_on], inverse)
        with torch.no_grad():
            hits = head(features[chosen_on]).argmax(dim=1) == labels[chosen_on]
        accuracies.append(float(hits.double().mean()))
    best = max(zip(accuracies, (-inverse for inverse in inverse_penalties), strict=True))
    return Choice(head=fit(features, labels, -best[1]), inverse_penalty=-best[1], accuracies=tuple(accuracies))
