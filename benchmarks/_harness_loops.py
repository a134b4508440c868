"""One training and evaluation of a dense task by the harness's engine, and the same by mmengine's Runner as it comes.

Both get the same model, dataset, transforms, optimiser settings, number of steps and validation images. The bare loop
is what mmdet's and mmseg's ``tools/train.py`` run: mmengine's Runner with its default hooks, an iteration loop, an
``InfiniteSampler``, then its validation loop. Neither side writes interim checkpoints.
"""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import unveil_backbones
from torch import Tensor
from unveil_backbones.manifest import Preprocessing
from unveil_evalharness.compat import third_party_warnings
from unveil_evalharness.engine.optim import build_optimiser, schedule
from unveil_evalharness.engine.runner import TrainingPlan, train_and_evaluate
from unveil_evalharness.engine.session import Session, session
from unveil_evalharness.tasks.ade20k_seg import layout
from unveil_evalharness.tasks.ade20k_seg.protocols import quick_protocol as segmentation_protocol
from unveil_evalharness.tasks.coco_det import annotations
from unveil_evalharness.tasks.coco_det.protocols import quick_protocol as detection_protocol
from unveil_evalharness.tasks.dense.training import training_plan

__all__ = ["Parts", "bare_loop", "detection", "first_loss", "harness_loop", "segmentation"]

_ENCODER = "vit_tiny"
_PIXELS = Preprocessing(image_size=(64, 64), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
_LOGS = 20  # steps between two lines, mmengine's default is 10


@dataclass(frozen=True, kw_only=True, slots=True)
class Parts:
    """What one loop is given; made anew for each run."""

    opened: Session
    encoder: Any
    model: Any
    train_loader: Any
    """The harness's, over `train_dataset`."""
    train_dataset: Any
    val_loader: Any
    evaluator: Any
    batch_size: int
    plan: TrainingPlan


Maker = Callable[[], Any]
"""Opens `Parts` as a context manager."""


def detection(root: Path, *, steps: int, val_images: int) -> Maker:
    """Mask R-CNN of the quick suite on ``root/coco``."""

    @contextmanager
    def make() -> Iterator[Parts]:
        whole = detection_protocol()
        protocol = replace(whole, schedule=replace(whole.schedule, max_iters=steps, warmup_iters=1))
        with (
            tempfile.TemporaryDirectory() as place,
            session(scope="mmdet", work_dir=Path(place), seed=0) as opened,
            third_party_warnings(),
        ):
            from mmdet.evaluation import CocoMetric
            from unveil_evalharness.tasks.coco_det import data, model

            train, val = (
                annotations.write_split(
                    annotations.read_split(root, name),
                    Path(place) / f"{name}.json",
                    sizes=(number,),
                    with_objects=name == "train",
                    log=lambda line: None,
                )
                for name, number in (("train", None), ("val", val_images))
            )
            encoder = unveil_backbones.create(_ENCODER)
            detector = model.build_detector(encoder, protocol, preprocessing=_PIXELS, num_classes=len(train.classes))
            yield Parts(
                opened=opened,
                encoder=encoder,
                model=detector,
                train_loader=data.train_loader(train, protocol, batch_size=protocol.batch_size, seed=0, num_workers=0),
                train_dataset=data.train_dataset(train, protocol),
                val_loader=data.test_loader(val, protocol, batch_size=protocol.batch_size, num_workers=0),
                evaluator=CocoMetric(ann_file=str(val.annotation_file), metric=["bbox", "segm"]),
                batch_size=protocol.batch_size,
                plan=_plan(protocol),
            )

    return make


def segmentation(root: Path, *, steps: int, val_images: int) -> Maker:
    """UPerNet of the quick suite on ``root/ade20k``."""

    @contextmanager
    def make() -> Iterator[Parts]:
        whole = segmentation_protocol()
        protocol = replace(whole, schedule=replace(whole.schedule, max_iters=steps, warmup_iters=1))
        train, val = layout.read_pairs(root, "train"), layout.read_pairs(root, "val")[:val_images]
        classes = layout.class_names(root, train)
        with (
            tempfile.TemporaryDirectory() as place,
            session(scope="mmseg", work_dir=Path(place), seed=0) as opened,
            third_party_warnings(),
        ):
            from mmseg.evaluation import IoUMetric
            from unveil_evalharness.tasks.ade20k_seg import data, model

            encoder = unveil_backbones.create(_ENCODER)
            segmenter = model.build_segmenter(encoder, protocol, preprocessing=_PIXELS, num_classes=len(classes))
            loader = data.train_loader(train, classes, protocol, batch_size=protocol.batch_size, seed=0, num_workers=0)
            yield Parts(
                opened=opened,
                encoder=encoder,
                model=segmenter,
                train_loader=loader,
                train_dataset=loader.dataset.dataset,  # pyright: ignore[reportAttributeAccessIssue]
                val_loader=data.test_loader(val, classes, protocol, num_workers=0),
                evaluator=IoUMetric(iou_metrics=["mIoU"]),
                batch_size=protocol.batch_size,
                plan=_plan(protocol),
            )

    return make


def _plan(protocol: Any) -> TrainingPlan:
    plan = training_plan(protocol.schedule, protocol.plain, accumulate=1, precision="float32")
    # A pass to see whether the batch fits costs the same for 20 steps as for 160,000.
    return replace(plan, checkpoint_interval=0, log_interval=_LOGS, probe_memory=False)


def harness_loop(make: Maker) -> None:
    """The engine of the harness, as its tasks call it."""
    with make() as parts:
        train_and_evaluate(
            parts.opened,
            model=parts.model,
            encoder=parts.encoder,
            train_loader=parts.train_loader,
            val_loader=parts.val_loader,
            evaluator=parts.evaluator,
            plan=parts.plan,
            device="cpu",
            progress=False,
            title="benchmark",
        )


def bare_loop(make: Maker) -> None:
    """The Runner of mmengine with its default hooks."""
    with make() as parts:
        from mmengine.dataset import pseudo_collate
        from mmengine.evaluator import Evaluator
        from mmengine.runner import Runner

        settings, steps = parts.plan.optimiser, parts.plan.max_iters
        wrapper: dict[str, Any] = {
            "type": "OptimWrapper",
            "optimizer": build_optimiser(parts.model, parts.encoder, settings),
        }
        if settings.clip_norm is not None:
            wrapper["clip_grad"] = {"max_norm": settings.clip_norm}
        hooks: dict[str, Any] = {"checkpoint": None, "logger": {"type": "LoggerHook", "interval": _LOGS}}
        runner = Runner(
            model=parts.model,
            work_dir=str(parts.opened.work_dir / "bare"),
            train_dataloader={
                "batch_size": parts.batch_size,
                "num_workers": 0,
                "sampler": {"type": "InfiniteSampler", "shuffle": True},
                "collate_fn": pseudo_collate,
                "dataset": parts.train_dataset,
            },
            val_dataloader=parts.val_loader,
            train_cfg={"by_epoch": False, "max_iters": steps, "val_interval": steps + 1},
            val_cfg={},
            val_evaluator=Evaluator(parts.evaluator),
            optim_wrapper=wrapper,
            param_scheduler=[dict(config) for config in schedule(settings, max_iters=steps)],
            default_hooks=hooks,
            log_processor={"by_epoch": False},
            default_scope=parts.opened.scope,
            randomness={"seed": 0},
        )
        runner.train()
        runner.val()


def first_loss(make: Maker) -> float:
    """Sum of the losses of the first batch before any step, by the model that both loops train."""
    with make() as parts:
        model: Any = parts.model
        model.train()
        torch.manual_seed(0)
        batch = model.data_preprocessor(next(iter(parts.train_loader)), training=True)
        losses = model(**batch, mode="loss")
        values = [part for value in losses.values() for part in (value if isinstance(value, list) else [value])]
        return float(sum(part.detach().mean() for part in values if isinstance(part, Tensor)))
