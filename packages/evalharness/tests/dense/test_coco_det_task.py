"""Mask R-CNN on real mmdet: the encoder inside is the checkpoint's, runs repeat, damage is named, and it learns."""

import dataclasses
import json

import numpy as np
import pytest
from unveil_evalharness.errors import DataError, GateError, ProtocolError, UnknownSuiteError
from unveil_evalharness.fingerprint import fingerprint
from unveil_evalharness.task import SUITES
from unveil_evalharness.tasks.coco_det.config import HeadSizes
from unveil_evalharness.tasks.coco_det.metrics import metric_from_samples
from unveil_evalharness.tasks.coco_det.protocols import SCHEDULES, protocol_for, quick_protocol
from unveil_evalharness.tasks.coco_det.task import CocoDetection
from unveil_evalharness.tasks.dense.training import Schedule

pytest.importorskip("mmdet")
pytestmark = pytest.mark.mm


@pytest.fixture
def tiny():
    """Two steps at 64 pixels with the smallest heads."""
    heads = HeadSizes(
        channels=16,
        box_channels=16,
        num_mask_convs=1,
        anchor_scale=4.0,
        proposals_before_nms=32,
        train_proposals=16,
        test_proposals=16,
        rpn_samples=16,
        region_samples=8,
    )
    return dataclasses.replace(
        quick_protocol(),
        image_size=64,
        batch_size=2,
        schedule=Schedule(max_iters=2, warmup_iters=0),
        heads=heads,
        num_resamples=5,
    )


@pytest.mark.parametrize("encoder", ["swinv2_tiny", "vit_tiny"])
def test_a_short_run_reports_everything(coco_root, tiny, make_context, capsys, encoder):
    context, lines = make_context(coco_root, tiny, encoder=encoder)
    before = {name: tensor.clone() for name, tensor in context.checkpoint.encoder.state_dict().items()}
    result = CocoDetection().run(context)
    assert [metric.name for metric in result.metrics] == [spec.name for spec in CocoDetection().metrics]
    measured = {metric.name.removeprefix("coco_det."): metric for metric in result.metrics}
    for name in ("bbox_mAP", "bbox_mAP_50", "bbox_mAP_75", "segm_mAP", "segm_mAP_50", "segm_mAP_75"):
        assert 0 <= measured[name].value <= 1
        assert measured[name].baseline == 0.0
        assert measured[name].n == 4
        assert measured[name].standard_error is not None
    # Squares of 16 to 29 pixels a side are small; there is no large object to measure.
    assert (measured["bbox_mAP_s"].n, measured["bbox_mAP_l"].n) == (3, 0)
    assert measured["segm_mAP_l"].standard_error is None
    assert result.load_coverage == 1.0
    assert result.samples is not None
    assert sorted(result.samples["num_objects"]) == [0, 1, 1, 1]
    assert len(result.gallery) == 4
    assert all(picture.encoded.startswith(b"\xff\xd8") for picture in result.gallery)
    assert result.tables["per_class"]["class"].to_list() == ["red", "blue"]
    again = metric_from_samples(result.samples)
    assert all(again[name] == pytest.approx(measured[name].value, abs=1e-12) for name in again)
    assert capsys.readouterr().out == ""  # standard output belongs to the result table
    assert all(before[name].equal(tensor) for name, tensor in context.checkpoint.encoder.state_dict().items())
    assert lines == []


def test_the_same_seed_gives_the_same_detections(coco_root, tiny, make_context):
    protocol = dataclasses.replace(tiny, score_threshold=0.0)
    tables = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        context, _ = make_context(coco_root, protocol, seed=seed, name=name)
        tables.append(CocoDetection().run(context).samples)
    assert tables[0]["best_score"].null_count() == 0
    assert tables[0].equals(tables[1])
    assert not tables[0].equals(tables[2])


def test_limit_restricts_training_and_validation(coco_root, tiny, make_context):
    context, _ = make_context(coco_root, tiny, limit=2)
    result = CocoDetection().run(context)
    assert result.metrics[0].n == 2
    written = json.loads((context.work_dir / "annotations" / "train.json").read_text())
    assert len(written["images"]) == 2


def test_batch_size_splits_the_step_or_is_refused(coco_root, tiny, make_context):
    context, _ = make_context(coco_root, tiny, batch_size=1)
    assert CocoDetection().run(context).metrics[0].n == 4
    context, _ = make_context(coco_root, dataclasses.replace(tiny, batch_size=3), batch_size=2, name="odd")
    with pytest.raises(ProtocolError, match="--batch-size 2 does not divide"):
        CocoDetection().run(context)


def test_a_truncated_image_is_named(coco_root, tiny, make_context):
    image = next((coco_root / "coco" / "val2017").glob("*.jpg"))
    image.write_bytes(image.read_bytes()[:700])
    context, _ = make_context(coco_root, tiny)
    with pytest.raises(DataError, match=f"cannot decode the image .*{image.name}"):
        CocoDetection().run(context)


def test_a_missing_image_stops_before_training(coco_root, tiny, make_context):
    next((coco_root / "coco" / "train2017").glob("*.jpg")).unlink()
    context, _ = make_context(coco_root, tiny)
    with pytest.raises(DataError, match="names 1 of 6 images that are not in"):
        CocoDetection().run(context)
    assert not (context.work_dir / "train.log").exists()


def test_foreign_weights_are_refused_before_training(coco_root, tiny, make_context, monkeypatch):
    import torch
    from unveil_evalharness.tasks.coco_det import task

    real = task.fresh_encoder

    def forgetful(encoder, **options):
        fresh = real(encoder, **options)
        with torch.no_grad():
            next(fresh.parameters()).add_(1e-3)
        return fresh

    monkeypatch.setattr(task, "fresh_encoder", forgetful)
    context, _ = make_context(coco_root, tiny)
    with pytest.raises(GateError, match=r"load coverage 0\.99\d+ under 'backbone\.pyramid\.encoder\.'"):
        CocoDetection().run(context)


def test_an_encoder_run_differently_is_refused(coco_root, tiny, make_context, monkeypatch):
    from unveil_evalharness import compat

    compat.install()
    with compat.third_party_warnings():
        from unveil_evalharness.tasks.dense import backbone

    monkeypatch.setattr(backbone.PyramidBackbone, "forward", lambda self, images: self.pyramid(images * 1.01))
    context, _ = make_context(coco_root, tiny)
    with pytest.raises(GateError, match="forward parity: feature map 0 differs"):
        CocoDetection().run(context)


def test_pixels_are_normalised_as_in_pre_training(coco_root, tiny, load_checkpoint, tmp_path):
    from unveil_evalharness.compat import third_party_warnings
    from unveil_evalharness.compat.images import read_rgb
    from unveil_evalharness.engine.session import session
    from unveil_evalharness.tasks.coco_det import annotations

    checkpoint = load_checkpoint("vit_tiny")
    with session(scope="mmdet", work_dir=tmp_path, seed=0), third_party_warnings():
        from unveil_evalharness.tasks.coco_det import data, model

        split = annotations.read_split(coco_root, "val")
        files = annotations.write_split(split, tmp_path / "v.json", sizes=(), with_objects=False, log=print)
        sample = data.test_dataset(files, tiny)[0]
        detector = model.build_detector(
            checkpoint.encoder, tiny, preprocessing=checkpoint.manifest.preprocessing, num_classes=2
        )
        inputs = detector.data_preprocessor({"inputs": [sample["inputs"]], "data_samples": [sample["data_samples"]]})
    pixels = read_rgb(split.image_dir / sample["data_samples"].img_path.split("/")[-1]) / 255
    expected = (pixels - np.array([0.5, 0.4, 0.3])) / np.array([0.2, 0.25, 0.3])
    np.testing.assert_allclose(inputs["inputs"][0].permute(1, 2, 0).numpy(), expected, atol=1e-5)


def test_protocols_differ_and_build():
    task = CocoDetection()
    names = (*SUITES, "1x", "3x")
    prints = {fingerprint(task.name, task.version, task.protocol(name)) for name in names}
    assert len(prints) == 5
    assert task.protocol("full") == task.protocol("100ep")
    assert all(task.expected_time(name) for name in (*SUITES, *SCHEDULES))
    with pytest.raises(UnknownSuiteError, match="'huge'; use one of quick, short, full, 1x, 3x, 100ep"):
        task.protocol("huge")
    with pytest.raises(ProtocolError, match="multiple of 32"):
        dataclasses.replace(quick_protocol(), image_size=100)


@pytest.mark.parametrize(
    ("name", "batch", "epochs", "drops"), [("1x", 16, 12, (8, 11)), ("3x", 16, 36, (27, 33)), ("100ep", 64, 100, None)]
)
def test_schedules_are_the_published_ones(name, batch, epochs, drops):
    """COCO's train2017 has 118,287 images, 117,266 of them with objects."""
    protocol = protocol_for(name)
    schedule = protocol.schedule
    assert protocol.batch_size == batch
    seen = schedule.max_iters * batch / epochs
    assert seen == pytest.approx(117_266, abs=16) if drops else 117_266 < seen < 118_287
    ends = [step / schedule.max_iters * epochs for step in schedule.milestones]
    assert ends == pytest.approx(drops or (100 * 8 / 9, 96.3), abs=0.01)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "encoder"), [("100ep", "swinv2_tiny"), ("100ep", "vit_tiny"), ("1x", "vit_tiny")])
def test_published_protocols_build(coco_root, load_checkpoint, tmp_path, name, encoder):
    from torch import nn
    from unveil_evalharness.compat import third_party_warnings
    from unveil_evalharness.engine.session import session
    from unveil_evalharness.tasks.coco_det import annotations

    protocol = protocol_for(name)
    checkpoint = load_checkpoint(encoder)
    with session(scope="mmdet", work_dir=tmp_path, seed=0), third_party_warnings():
        from unveil_evalharness.tasks.coco_det import data, model
        from unveil_evalharness.tasks.dense.norm import LayerNorm2d

        split = annotations.read_split(coco_root, "train")
        files = annotations.write_split(split, tmp_path / "t.json", sizes=(), with_objects=True, log=print)
        batch = next(iter(data.train_loader(files, protocol, batch_size=1, seed=0, num_workers=0)))
        detector = model.build_detector(
            checkpoint.encoder, protocol, preprocessing=checkpoint.manifest.preprocessing, num_classes=80
        )
        padded = detector.data_preprocessor(batch, training=True)
    assert tuple(padded["inputs"].shape) == (1, 3, 1024, 1024)
    assert detector.roi_head.mask_head.conv_logits.out_channels == 80
    box, vitdet = detector.roi_head.bbox_head, name == "100ep"
    assert (len(box.shared_convs), len(box.shared_fcs)) == ((4, 1) if vitdet else (0, 2))
    norms = [module for module in detector.modules() if isinstance(module, LayerNorm2d)]
    # Neck: two a level of ViTDet, four lateral and four output ones of the FPN; box head 4, mask head 4.
    assert len(norms) == (16 if vitdet else 0)
    convolutions = [module for module in detector.rpn_head.modules() if isinstance(module, nn.Conv2d)]
    assert len(convolutions) == (4 if vitdet else 3)


def test_a_neck_of_ones_by_hand():
    """One level of the neck without norms is a 1 × 1 and a 3 × 3 convolution; the fifth map skips every other cell."""
    import torch
    from unveil_evalharness import compat

    compat.install()
    with compat.third_party_warnings():
        from unveil_evalharness.tasks.coco_det.neck import SimpleNeck
    neck = SimpleNeck([2] * 4, 1, layer_norm=False)
    with torch.no_grad():
        for parameter in neck.parameters():
            parameter.fill_(1.0 if parameter.ndim > 1 else 0.0)
    maps = [torch.full((1, 2, 2**power, 2**power), 3.0) for power in (5, 4, 3, 2)]
    levels = neck(maps)
    assert [tuple(level.shape[-2:]) for level in levels] == [(32, 32), (16, 16), (8, 8), (4, 4), (2, 2)]
    # 2 channels of 3 sum to 6; nine neighbours inside make 54, four at a corner 24.
    assert levels[0][0, 0, 5, 5] == 54.0
    assert levels[0][0, 0, 0, 0] == 24.0
    assert levels[4][0, 0].tolist() == levels[3][0, 0, ::2, ::2].tolist()


def test_layer_norm_of_a_map_normalises_each_cell():
    import torch
    from unveil_evalharness.tasks.dense.norm import LayerNorm2d

    features = torch.randn(2, 6, 3, 5, generator=torch.Generator().manual_seed(0))
    found = LayerNorm2d(6)(features)
    mean, deviation = features.mean(dim=1, keepdim=True), features.std(dim=1, keepdim=True, unbiased=False)
    torch.testing.assert_close(found, (features - mean) / deviation, atol=1e-4, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("encoder", ["swinv2_tiny", "vit_tiny"])
def test_it_learns_what_it_is_shown(coco_root, make_context, encoder):
    """Over-fits a handful of squares: far above the empty prediction."""
    validation = coco_root / "coco"
    content = (validation / "annotations" / "instances_train2017.json").read_text()
    (validation / "annotations" / "instances_val2017.json").write_text(content)
    (validation / "val2017").rename(validation / "unused")
    (validation / "train2017").rename(validation / "val2017")
    (validation / "train2017").symlink_to(validation / "val2017", target_is_directory=True)
    # After 60 updates the AP of the ViT is 0.07 or 0.3, by the processor's rounding.
    schedule = dataclasses.replace(quick_protocol().schedule, max_iters=120)
    protocol = dataclasses.replace(quick_protocol(), image_size=64, batch_size=4, schedule=schedule)
    context, _ = make_context(coco_root, protocol, encoder=encoder)
    result = CocoDetection().run(context)
    assert result.metrics[0].value > 0.25
    assert result.metrics[1].value > 0.1


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.parametrize(("name", "classes", "images"), [("nuclei_coco", 1, (90, 30)), ("coco", 80, (80, 40))])
def test_real_images_train_and_evaluate(pack, data_root_of, tiny, make_context, name, classes, images):
    from unveil_evalharness.tasks.coco_det import annotations

    root = data_root_of(pack / name, "coco")
    for split, number in zip(("train", "val"), images, strict=True):
        found = annotations.read_split(root, split)
        assert len(found.images) == number
        assert len(found.categories) == classes
    context, _ = make_context(root, tiny, limit=6)
    result = CocoDetection().run(context)
    assert result.metrics[0].n == 6
    assert result.samples is not None
    assert result.samples["num_objects"].sum() > 0
