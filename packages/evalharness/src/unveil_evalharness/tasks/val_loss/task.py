"""``val_loss``: the pre-training validation loss of a checkpoint, over any images, with its passport."""

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from unveil_evalharness.task import Metric, MetricSpec, TaskContext, TaskResult
from unveil_evalharness.tasks.val_loss import data
from unveil_evalharness.tasks.val_loss.config import ValLossProtocol, protocol_for

if TYPE_CHECKING:
    import unveil_backbones.manifest

__all__ = ["ValidationLoss"]

_BATCH_SIZE = 64
_PAIRS = ("flip", "clip")
_IMAGES = ("mae", "simmim", "sparse_simmim", "beit", "splitmask", "ijepa")
_HEADS = "heads.safetensors"


class ValidationLoss:
    """The loss of the checkpoint's own objective under frozen masks; lower is better.

    The samples' `loss` is per image; the table ``passport`` says what the loss depends on besides the model. Losses of
    two checkpoints may be compared where their passports agree, also if one of them is another program's.
    """

    name = "val_loss"
    version = 1
    description = "pre-training validation loss, measured again by `pretrain score` (needs the decoder)"
    metrics = (MetricSpec(name="val_loss.loss", higher_is_better=False, unit="loss", main=True),)
    requires = ("unveil_pretrain",)

    def protocol(self, suite: str) -> ValLossProtocol:
        """The protocol of a suite: 64 images, 5,000, or all."""
        return protocol_for(suite)

    def expected_time(self, suite: str) -> str:
        """For one checkpoint."""
        return {"quick": "20 s on one CPU core"}.get(suite, "one forward pass over the images, time not measured yet")

    def not_applicable(self, manifest: "unveil_backbones.manifest.Manifest") -> str | None:
        """Only a checkpoint of an objective that can be scored, decoder included, has a loss."""
        if manifest.objective not in (*_PAIRS, *_IMAGES):
            return f"nothing can be scored: its objective is {manifest.objective!r}"
        if _HEADS not in manifest.files:
            return f"it has no decoder, without which {manifest.objective} has no loss"
        return None

    def data_hash(self, data_root: Path) -> str:
        """See `data.data_hash`."""
        return data.data_hash(data_root)

    def num_images(self, data_root: Path, protocol: ValLossProtocol) -> int:
        """Images that `protocol` scores."""
        found = data.count_images(data_root)
        return min(found, protocol.num_images or found)

    def run(self, context: TaskContext) -> TaskResult:
        """Scores in a process of its own; see `model.score`."""
        from unveil_evalharness.tasks.val_loss import metrics
        from unveil_evalharness.tasks.val_loss.model import score

        protocol = _limited(context.protocol, context.limit)
        contrastive = context.checkpoint.manifest.objective in _PAIRS
        # A folder for this attempt alone: where a killed run's process could go on, it writes into another one.
        with tempfile.TemporaryDirectory(dir=context.work_dir, prefix="score-") as name:
            work = Path(name)
            if contrastive:
                images = data.pair_source(context.data_root, work)
            else:
                images = str(data.image_source(context.data_root))
            scored = score(
                context.checkpoint.path,
                images,
                protocol,
                contrastive=contrastive,
                seed=context.seed,
                batch_size=context.batch_size or _BATCH_SIZE,
                device=context.device,
                work=work,
                log=context.log,
            )
        samples, summary = metrics.per_image(scored.table), scored.summary
        loss, error = metrics.mean_and_error(samples["loss"].to_numpy(), samples["group"].to_numpy())
        return TaskResult(
            metrics=(
                Metric(
                    name="val_loss.loss",
                    value=loss,
                    baseline=summary["chance"],
                    standard_error=error,
                    n=samples.height,
                ),
            ),
            samples=samples,
            load_coverage=1.0,
            tables={"passport": metrics.passport_table(summary), "views": metrics.views_table(summary)},
        )


def _limited(protocol: ValLossProtocol, limit: int | None) -> ValLossProtocol:
    """The protocol over at most `limit` images; a pool is no larger than what there is to fill it."""
    if limit is None:
        return protocol
    num_images = min(limit, protocol.num_images or limit)
    return replace(protocol, num_images=num_images, negative_pool=max(2, min(protocol.negative_pool, num_images)))
