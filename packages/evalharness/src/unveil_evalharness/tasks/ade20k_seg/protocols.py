"""The segmentation protocols by name: one per suite, and the published lengths. docs/protocols.md has every source."""

from dataclasses import replace

from unveil_evalharness.errors import UnknownSuiteError
from unveil_evalharness.task import SUITES
from unveil_evalharness.tasks.ade20k_seg.config import SegmentationProtocol
from unveil_evalharness.tasks.dense.training import EncoderTuning, Schedule

__all__ = ["SCHEDULES", "protocol_for", "quick_protocol", "short_protocol", "steps_80k", "steps_160k"]

SCHEDULES = ("80k", "160k")
"""Published lengths that `protocol_for` knows beside the suites; ``full`` is ``160k``."""


def quick_protocol() -> SegmentationProtocol:
    """A minute on one CPU core: 64 pixels, a small head, 400 training images, no augmentation but crops and flips.

    Meant for comparing checkpoints of small encoders with each other; its numbers compare with no published ones.
    """
    tuning = EncoderTuning(lr=1.5e-3, weight_decay=0.05, layer_decay=1.0, drop_path=0.0)
    return SegmentationProtocol(
        crop_size=64,
        stride=64,
        scale_range=(1.0, 1.0),
        distort_colours=False,
        test_scales=(1.0, 1.5),
        num_train_images=400,
        num_val_images=100,
        batch_size=8,
        schedule=Schedule(max_iters=160, warmup_iters=10),
        plain=tuning,
        hierarchical=tuning,
        channels=64,
        auxiliary_channels=0,
        precision="float32",
    )


def steps_160k() -> SegmentationProtocol:
    """UPerNet on ADE20K as mmsegmentation 1.2.2 fine-tunes MAE's ViT-B and Swin: 160,000 steps of 16 crops of 512.

    ``configs/mae/mae-base_upernet_8xb2-amp-160k_ade20k-512x512.py`` for plain encoders,
    ``configs/swin/swin-tiny-patch4-window7-in1k-pre_upernet_8xb2-160k_ade20k-512x512.py`` for hierarchical ones.
    """
    return SegmentationProtocol(
        crop_size=512,
        stride=341,
        scale_range=(0.5, 2.0),
        distort_colours=True,
        test_scales=(0.5, 0.75, 1.0, 1.25, 1.5, 1.75),
        num_train_images=None,
        num_val_images=None,
        batch_size=16,
        schedule=Schedule(max_iters=160_000, warmup_iters=1_500, warmup_start=1e-6, decay="linear"),
        plain=EncoderTuning(lr=1e-4, weight_decay=0.05, layer_decay=0.65, drop_path=0.1),
        hierarchical=EncoderTuning(lr=6e-5, weight_decay=0.01, layer_decay=1.0, drop_path=0.3),
        channels=512,
        auxiliary_channels=256,
        precision="float16",
    )


def steps_80k() -> SegmentationProtocol:
    """Half of `steps_160k` with the same warm-up."""
    return _with_steps(80_000)


def short_protocol() -> SegmentationProtocol:
    """About an hour on one GPU by estimate: `steps_160k` cut to 10,000 steps."""
    return _with_steps(10_000)


def _with_steps(number: int) -> SegmentationProtocol:
    whole = steps_160k()
    return replace(whole, schedule=replace(whole.schedule, max_iters=number))


def protocol_for(name: str) -> SegmentationProtocol:
    """The protocol of a suite, or of one of `SCHEDULES`.

    Raises:
        UnknownSuiteError: for any other name.
    """
    match name:
        case "quick":
            return quick_protocol()
        case "short":
            return short_protocol()
        case "full" | "160k":
            return steps_160k()
        case "80k":
            return steps_80k()
        case _:
            raise UnknownSuiteError(f"ade20k_seg has no suite {name!r}; use one of {', '.join((*SUITES, *SCHEDULES))}")
