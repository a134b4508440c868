"""What mmengine sees of this task: the classifier, its loss, and the collection of per-image outcomes."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from mmengine.evaluator import BaseMetric
from mmengine.model import BaseModel
from timm.data.mixup import Mixup
from torch import Tensor, nn
from torch.nn import functional

from unveil_evalharness.tasks.classification.scores import TOP
from unveil_evalharness.tasks.imagenet_ft.probe import logistic_head

if TYPE_CHECKING:
    import unveil_backbones.base

__all__ = ["Classifier", "OutcomeCollector", "build_mixup", "collate"]


def build_mixup(*, mixup: float, cutmix: float, label_smoothing: float, num_classes: int) -> Mixup | None:
    """Timm's mixup and CutMix, one of the two per batch; None when both are off."""
    if not mixup and not cutmix:
        return None
    return Mixup(
        mixup_alpha=mixup,
        cutmix_alpha=cutmix,
        label_smoothing=label_smoothing,
        num_classes=num_classes,
    )


class Classifier(BaseModel):
    """Encoder, mean over its tokens, one linear layer.

    Args:
        encoder: with the checkpoint's weights.
        num_classes: outputs of the linear layer.
        head_std: standard deviation of the linear layer's first weights.
        label_smoothing: of the loss; mixup smooths by itself.
        mixup: applied to training batches, or None.
    """

    def __init__(
        self,
        encoder: "unveil_backbones.base.Encoder",
        *,
        num_classes: int,
        head_std: float,
        label_smoothing: float,
        mixup: Mixup | None,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(encoder.width, num_classes)
        nn.init.trunc_normal_(self.head.weight, std=head_std)
        nn.init.zeros_(self.head.bias)
        self._label_smoothing = label_smoothing
        self._mixup = mixup

    def start_from_probe(self, batches: Iterable[dict[str, Any]], *, penalty: float) -> None:
        """Replaces the head's weights by logistic regression on the frozen features of `batches`.

        Args:
            batches: the training images without augmentation, see `collate`.
            penalty: see `logistic_head`.
        """
        device = self.head.weight.device
        training = self.training
        self.eval()
        features, labels = [], []
        with torch.no_grad():
            for batch in batches:
                features.append(self.pooled(batch["inputs"].to(device)).float())
                labels.append(batch["data_samples"]["targets"].to(device))
        self.train(training)
        fitted = logistic_head(
            torch.cat(features), torch.cat(labels), num_classes=self.head.out_features, penalty=penalty
        )
        self.head.load_state_dict(fitted.state_dict())

    def pooled(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d"]:
        """The vector that the head sees."""
        return self.encoder(images)

    def forward(self, inputs: Float[Tensor, "b c h w"], data_samples: Any = None, mode: str = "tensor") -> Any:
        """The loss (``mode="loss"``) or the likeliest classes of each image, best first (``mode="predict"``).

        Args:
            inputs: normalised images.
            data_samples: ``{"targets": labels, "indices": positions in the folder}``, int64 [b] each.
            mode: ``"loss"``, ``"predict"``, or ``"tensor"`` for the logits alone.
        """
        if mode == "tensor":
            return self.head(self.pooled(inputs)).float()
        targets, indices = data_samples["targets"], data_samples["indices"]
        if mode == "loss":
            return {"loss": self._loss(inputs, targets)}
        logits = self.head(self.pooled(inputs)).float()
        ranked = logits.topk(min(TOP, logits.shape[1]), dim=1).indices
        return [{"index": index, "ranked": row} for index, row in zip(indices.tolist(), ranked.tolist(), strict=True)]

    def _loss(self, inputs: Tensor, targets: Tensor) -> Tensor:
        if self._mixup is not None:
            inputs, soft = self._mixup(inputs, targets)
            return functional.cross_entropy(self.head(self.pooled(inputs)).float(), soft)
        logits = self.head(self.pooled(inputs)).float()
        return functional.cross_entropy(logits, targets, label_smoothing=self._label_smoothing)


class OutcomeCollector(BaseMetric):
    """Keeps the outcome of every image in `outcomes`, ordered by index."""

    def __init__(self) -> None:
        super().__init__(collect_device="cpu")
        self.outcomes: list[dict[str, Any]] = []

    def process(self, data_batch: Any, data_samples: Sequence[dict[str, Any]]) -> None:
        """Takes the outcomes of one batch."""
        del data_batch
        self.results.extend(data_samples)

    def compute_metrics(self, results: list[dict[str, Any]]) -> dict[str, float]:
        """Stores all outcomes; the task scores them."""
        self.outcomes = sorted(results, key=lambda outcome: outcome["index"])
        return {"num_images": float(len(results))}


def collate(samples: list[dict[str, Any]]) -> dict[str, Any]:
    """Samples of `FolderImages` as one batch."""
    return {
        "inputs": torch.stack([sample["inputs"] for sample in samples]),
        "data_samples": {
            "targets": torch.tensor([sample["targets"] for sample in samples]),
            "indices": torch.tensor([sample["indices"] for sample in samples]),
        },
    }
