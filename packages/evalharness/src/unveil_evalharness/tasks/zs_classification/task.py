"""``zs_classification`` and the robustness suite: name the class of an image by comparing it with sentences.

Every data set is a task of its own, so that its numbers have a name, a protocol and a data hash of their own; all share
what is here.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from unveil_evalharness.task import MetricSpec, TaskContext, TaskResult
from unveil_evalharness.tasks.classification.pictures import gallery_of
from unveil_evalharness.tasks.classification.scores import TOP, samples_of, score, tables_of
from unveil_evalharness.tasks.zs_classification.config import DataSet, Prompts, ZeroShotProtocol, protocol_for
from unveil_evalharness.tasks.zs_classification.data import LabelledSet, Photograph, data_hash, read_set
from unveil_evalharness.tasks.zs_classification.metrics import nearest_classes
from unveil_evalharness.tasks.zs_classification.prompts import templates_for

if TYPE_CHECKING:
    import polars
    import unveil_backbones.manifest

__all__ = [
    "ZeroShotClassification",
    "ZeroShotClassification80",
    "ZeroShotImagenetA",
    "ZeroShotImagenetR",
    "ZeroShotImagenetSketch",
    "ZeroShotImagenetV2",
    "ZeroShotObjectnet",
]

_METRICS = ("acc1", "acc5", "mean_per_class")


def _specs(task: str) -> tuple[MetricSpec, ...]:
    return tuple(MetricSpec(name=f"{task}.{metric}", main=metric == "acc1") for metric in _METRICS)


class ZeroShotClassification:
    """Accuracy over ``imagenet/val``; the baseline names the most frequent class of the evaluated images."""

    name = "zs_classification"
    version = 1
    description = "zero-shot classification of imagenet/val by 7 prompts a class (needs a text tower)"
    metrics = _specs("zs_classification")
    requires = ("open_clip",)
    data_set: DataSet = "folder"
    prompts: Prompts = "clip_7"

    def protocol(self, suite: str) -> ZeroShotProtocol:
        """The protocol of a suite."""
        return protocol_for(suite, self.data_set, self.prompts)

    def expected_time(self, suite: str) -> str:
        """For one checkpoint."""
        few = protocol_for(suite, self.data_set, self.prompts).max_images is not None
        return "minutes on one CPU core" if few else "for GPUs, time not measured yet"

    def not_applicable(self, manifest: "unveil_backbones.manifest.Manifest") -> str | None:
        """Only a checkpoint with a text tower knows what class names mean."""
        return None if manifest.text is not None else "the checkpoint has no text tower"

    def data_hash(self, data_root: Path) -> str:
        """See `data.data_hash`."""
        return data_hash(data_root, self.data_set)

    def num_images(self, data_root: Path, protocol: ZeroShotProtocol) -> int:
        """Images of the set, at most as many as the protocol takes."""
        return len(read_set(data_root, protocol.data_set).limited(protocol.max_images).images.images)

    def run(self, context: TaskContext) -> TaskResult:
        """Embeds class names and images once. No metric depends on the batch size."""
        from unveil_evalharness.tasks.zs_classification.model import PairEmbedder, embed_classes

        protocol: ZeroShotProtocol = context.protocol
        labelled = read_set(context.data_root, self.data_set).limited(protocol.max_images).limited(context.limit)
        templates = labelled.templates or templates_for(protocol.prompts)
        context.log(f"{labelled.title}, {len(labelled.images.images)} of them evaluated, {len(templates)} prompts each")
        checkpoint = context.checkpoint
        embedder = PairEmbedder(checkpoint.path, checkpoint.manifest.preprocessing, device=context.device)
        classes = embed_classes(embedder, labelled.images.classes, templates)
        images = embedder.images(self._photographs(labelled, protocol.border, context.progress))
        ranked = nearest_classes(images, classes, k=TOP)
        names = {metric: f"{self.name}.{metric}" for metric in _METRICS}
        samples = samples_of(ranked, labelled.images, context.data_root)
        return TaskResult(
            metrics=score(ranked, labelled.images, labelled.images, names=names),
            samples=samples,
            gallery=gallery_of(samples, labelled.images, context.data_root),
            tables={**tables_of(ranked, labelled.images), "data": _data_table(labelled, len(templates))},
        )

    def _photographs(self, labelled: LabelledSet, border: int, progress: bool) -> Iterator[Photograph]:
        from tqdm import tqdm

        files = [path for path, _ in labelled.images.images if isinstance(path, Path)]
        for path in tqdm(files, desc=self.name, unit=" images", disable=not progress, leave=False):
            yield Photograph(path, border)


class ZeroShotClassification80(ZeroShotClassification):
    """The same images with CLIP's eighty prompts a class."""

    name = "zs_classification_80"
    description = "zero-shot classification of imagenet/val by 80 prompts a class (needs a text tower)"
    metrics = _specs("zs_classification_80")
    prompts: Prompts = "clip_80"


class ZeroShotImagenetV2(ZeroShotClassification):
    """ImageNet-V2, matched frequency: new photographs of the 1,000 classes."""

    name = "zs_imagenet_v2"
    description = "zero-shot classification of ImageNet-V2 (needs a text tower)"
    metrics = _specs("zs_imagenet_v2")
    data_set: DataSet = "imagenet_v2"


class ZeroShotImagenetA(ZeroShotClassification):
    """ImageNet-A: photographs that classifiers got wrong, of 200 classes."""

    name = "zs_imagenet_a"
    description = "zero-shot classification of ImageNet-A among its 200 classes (needs a text tower)"
    metrics = _specs("zs_imagenet_a")
    data_set: DataSet = "imagenet_a"


class ZeroShotImagenetR(ZeroShotClassification):
    """ImageNet-R: renditions of 200 classes, with eighty prompts as in FLIP."""

    name = "zs_imagenet_r"
    description = "zero-shot classification of ImageNet-R among its 200 classes, 80 prompts (needs a text tower)"
    metrics = _specs("zs_imagenet_r")
    data_set: DataSet = "imagenet_r"
    prompts: Prompts = "clip_80"


class ZeroShotImagenetSketch(ZeroShotClassification):
    """ImageNet-Sketch: black-and-white drawings of the 1,000 classes."""

    name = "zs_imagenet_sketch"
    description = "zero-shot classification of ImageNet-Sketch (needs a text tower)"
    metrics = _specs("zs_imagenet_sketch")
    data_set: DataSet = "imagenet_sketch"


class ZeroShotObjectnet(ZeroShotClassification):
    """ObjectNet: the 113 of its classes that ImageNet has too, by ObjectNet's own names without a prompt."""

    name = "zs_objectnet"
    description = "zero-shot classification of ObjectNet's 113 classes, names without prompt (needs a text tower)"
    metrics = _specs("zs_objectnet")
    data_set: DataSet = "objectnet"
    prompts: Prompts = "class_name"


def _data_table(labelled: LabelledSet, num_templates: int) -> "polars.DataFrame":
    import polars

    return polars.DataFrame(
        {"set": [labelled.title], "images": [len(labelled.images.images)], "prompts": [num_templates]}
    )
