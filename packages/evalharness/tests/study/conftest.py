"""Builds output folders of `evalharness run` without running anything: rows and manifests that look real."""

import dataclasses
import hashlib
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from unveil_backbones.manifest import EncoderSpec, Manifest, Passport, Preprocessing, TextSpec, ValPoint
from unveil_evalharness.results import ResultRow, append_rows

MAIN = ("imagenet_ft.acc1", "coco_det.bbox_mAP", "ade20k_seg.mIoU", "zs_retrieval.image_recall@1")
SIMMIM = Passport(
    objective="simmim",
    target_normalisation="window47",
    reduction="hidden_pixels",
    mask={"strategy": "unit", "unit": 8, "ratio": 0.6, "rounding": "ceil_hidden"},
    realised_ratio=0.609375,
    mask_seed=0,
    mask_epoch=0,
    image_size=(64, 64),
    crop="resize",
    images_hash="0123456789abcdef",
    negative_pool=0,
    dtype="float32",
)
FLIP = dataclasses.replace(
    SIMMIM, objective="flip", target_normalisation="none", reduction="samples", negative_pool=256,
    mask={"strategy": "random", "ratio": 0.5, "rounding": "floor_keep", "unit": 1}, realised_ratio=0.5,
)  # fmt: skip


def curve(final: float, *, step: int, overfits: bool = False, train: bool = True) -> tuple[ValPoint, ...]:
    """A falling loss that ends at `final`; an over-fitting one turns up again after its middle."""
    points = []
    for part in range(1, 6):
        progress = part / 5
        loss = final + 0.25 * (math.exp(-4 * progress) - math.exp(-4))
        if overfits:
            loss += 0.02 * (abs(progress - 0.5) - 0.5)
        points.append(
            ValPoint(
                step=round(step * progress),
                loss=final if part == 5 else loss,
                standard_error=0.004,
                num_images=400,
                train_loss=loss - 0.01 - (0.03 * progress if overfits else 0.0) if train else None,
            )
        )
    return tuple(points)


def make_manifest(
    loss: float | None = 0.5,
    *,
    step: int = 200,
    num_unique: int = 2000,
    passport: Passport | None = SIMMIM,
    seed: int = 0,
    val: tuple[ValPoint, ...] | None = None,
    name: str = "swinv2_tiny",
) -> Manifest:
    objective = "simmim" if passport is None else passport.objective
    if val is None:
        val = () if loss is None else curve(loss, step=step, overfits=num_unique < 100)
    return Manifest(
        encoder=EncoderSpec(name, {"width": 32}),
        text=TextSpec("text_tiny", {"width": 64}) if objective == "flip" else None,
        preprocessing=Preprocessing(image_size=(64, 64)),
        objective=objective,
        mask={} if passport is None else passport.mask,
        realised_ratio=0.6,
        seed=seed,
        step=step,
        samples_seen=step * 64,
        unique_samples=num_unique,
        tokens_seen=step * 64 * 256,
        device_seconds=30.0,
        data_hash=f"data{num_unique}",
        num_parameters=1_000_000,
        versions={"torch": "2.9.0"},
        created="2026-01-01T00:00:00+00:00",
        val=val,
        passport=passport,
    )


@dataclasses.dataclass
class Study:
    """An output folder under construction."""

    folder: Path
    runs: dict[str, int] = dataclasses.field(default_factory=dict)

    def add(
        self,
        manifest: Manifest,
        values: Mapping[str, float | None],
        *,
        seeds: tuple[int, ...] = (0,),
        keep_manifest: bool = True,
        error: str = "",
        **fields: object,
    ) -> str:
        """Adds one evaluated checkpoint; a value of None is a failed task. Returns the checkpoint's SHA-256."""
        text = manifest.to_json()
        sha256 = hashlib.sha256(text.encode()).hexdigest()
        if keep_manifest:
            (self.folder / "manifests").mkdir(parents=True, exist_ok=True)
            (self.folder / "manifests" / f"{sha256[:12]}.json").write_text(text, encoding="utf-8")
        run = self.runs.setdefault(sha256, len(self.runs))
        rows = [
            ResultRow(
                **{
                    "checkpoint": f"/runs/r{run}/checkpoints/step_{manifest.step:08d}",
                    "checkpoint_sha256": sha256,
                    "label": manifest.label,
                    "task": metric.partition(".")[0],
                    "task_version": 1,
                    "suite": "quick",
                    "protocol": hashlib.sha256(metric.partition(".")[0].encode()).hexdigest()[:16],
                    "status": "ok" if value is not None else "failed",
                    "metric": metric,
                    "main": metric in MAIN,
                    "value": value,
                    "baseline": 0.1 if value is not None else None,
                    "standard_error": 0.01 if value is not None else None,
                    "n": 400,
                    "seed": seed,
                    "data_hash": "feedc0de00000000",
                    "versions": {"torch": "2.9.0", "unveil-evalharness": "0.1.0"},
                    "hardware": "2 CPU cores",
                    "seconds": 12.5,
                    "error": error if value is None else "",
                    "time": "2026-01-01T00:00:00+00:00",
                    **fields,
                }
            )
            for seed in seeds
            for metric, value in values.items()
        ]
        append_rows(self.folder / "results.jsonl", rows)
        return sha256

    def rows(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in (self.folder / "results.jsonl").read_text().splitlines()]


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return Study(folder=tmp_path / "eval")


@pytest.fixture
def manifest() -> Callable[..., Manifest]:
    return make_manifest


@pytest.fixture
def simmim() -> Passport:
    return SIMMIM


def fill_demo(study: Study) -> Study:
    """Two data sizes × three lengths of SimMIM and one FLIP, like the demo's, with a detection that learns nothing."""
    generator = np.random.default_rng(3)
    for num_unique in (64, 2000):
        for step in (100, 200, 400):
            loss = 0.62 - 0.00035 * step + (0.05 if num_unique == 64 else 0.0)
            accuracy = 0.35 + 2.2 * (0.62 - loss) + 0.02 * generator.standard_normal()
            study.add(
                make_manifest(loss, step=step, num_unique=num_unique),
                {"imagenet_ft.acc1": accuracy, "imagenet_ft.acc5": min(0.99, accuracy + 0.4)},
                standard_error=0.024,
            )
            study.add(
                make_manifest(loss, step=step, num_unique=num_unique),
                {"coco_det.bbox_mAP": 0.001 * generator.random(), "coco_det.segm_mAP": 0.0005 * generator.random()},
                baseline=0.0, standard_error=0.002,
            )  # fmt: skip
            study.add(
                make_manifest(loss, step=step, num_unique=num_unique),
                {"ade20k_seg.mIoU": 0.12 + 0.5 * (0.62 - loss), "ade20k_seg.aAcc": 0.7 + (0.62 - loss)},
                baseline=0.08,
            )
            study.add(
                make_manifest(loss, step=step, num_unique=num_unique), {"zs_retrieval.image_recall@1": None},
                status="not_applicable", error="the checkpoint has no text tower",
            )  # fmt: skip
    flip = make_manifest(3.9, step=400, num_unique=2000, passport=FLIP, name="vit_tiny")
    study.add(flip, {"imagenet_ft.acc1": 0.55, "imagenet_ft.acc5": 0.93}, standard_error=0.024)
    recalls = {f"zs_retrieval.{side}_recall@{k}": 0.01 * k for side in ("image", "text") for k in (1, 5, 10)}
    study.add(flip, recalls, baseline=0.0025)
    study.add(
        flip, {"coco_det.bbox_mAP": None}, error="mmdet cannot be imported; install unveil-evalharness[detection]"
    )
    return study


@pytest.fixture(scope="session")
def demo_study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """Made once; tests only read it."""
    return fill_demo(Study(folder=tmp_path_factory.mktemp("demo") / "eval"))
