"""UPerNet on real mmseg: labels are counted exactly, the encoder is the checkpoint's, runs repeat, and it learns."""

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image
from unveil_evalharness.errors import DataError, GateError, ProtocolError, UnknownSuiteError
from unveil_evalharness.fingerprint import fingerprint
from unveil_evalharness.task import SUITES
from unveil_evalharness.tasks.ade20k_seg import layout
from unveil_evalharness.tasks.ade20k_seg.metrics import metric_from_samples
from unveil_evalharness.tasks.ade20k_seg.protocols import SCHEDULES, protocol_for, quick_protocol
from unveil_evalharness.tasks.ade20k_seg.task import Ade20kSegmentation
from unveil_evalharness.tasks.dense.training import Schedule

pytest.importorskip("mmseg")
pytestmark = pytest.mark.mm


@pytest.fixture
def tiny():
    """Two steps at 64 pixels with the smallest head."""
    return dataclasses.replace(
        quick_protocol(),
        crop_size=64,
        stride=32,
        batch_size=2,
        schedule=Schedule(max_iters=2, warmup_iters=0),
        channels=32,
        num_resamples=5,
    )


@pytest.fixture
def opened(tmp_path):
    """An open mmseg session."""
    from unveil_evalharness.compat import third_party_warnings
    from unveil_evalharness.engine.session import session

    with session(scope="mmseg", work_dir=tmp_path, seed=0) as one, third_party_warnings():
        yield one


@pytest.mark.parametrize("encoder", ["swinv2_tiny", "vit_tiny"])
def test_a_short_run_reports_everything(ade_root, tiny, make_context, capsys, encoder):
    context, lines = make_context(ade_root, tiny, encoder=encoder)
    result = Ade20kSegmentation().run(context)
    assert [metric.name for metric in result.metrics] == [spec.name for spec in Ade20kSegmentation().metrics]
    measured = {metric.name.removeprefix("ade20k_seg."): metric for metric in result.metrics}
    assert sorted(measured) == ["aAcc", "aAcc_ms", "mAcc", "mAcc_ms", "mIoU", "mIoU_ms"]
    for metric in result.metrics:
        assert 0 <= metric.value <= 1
        assert metric.n == 4
        assert metric.standard_error is not None
    # The commonest class, "wall", fills most of every scene; the mean over three classes is a third of its IoU.
    accuracy = measured["aAcc"].baseline
    assert 0.7 < accuracy < 1
    assert measured["mIoU"].baseline == pytest.approx(accuracy / 3)
    assert measured["mAcc"].baseline == pytest.approx(1 / 3)
    assert result.load_coverage == 1.0
    assert result.samples is not None
    assert sorted(result.samples["labelled_pixels"]) == [3840, 3840, 3840, 7680]
    again = metric_from_samples(result.samples)
    assert {name: pytest.approx(metric.value, abs=1e-12) for name, metric in measured.items()} == again
    assert len(result.gallery) == 4
    assert all(picture.encoded.startswith(b"\xff\xd8") for picture in result.gallery)
    assert result.tables["per_class"]["class"].to_list() == ["wall", "red, ruby", "blue"]
    assert result.tables["confusion"]["pixels"].sum() == result.samples["labelled_pixels"].sum()
    assert capsys.readouterr().out == ""
    assert lines == []


def test_the_same_seed_gives_the_same_numbers(ade_root, tiny, make_context):
    # Hardly trained, or every seed would predict the commonest class everywhere.
    protocol = dataclasses.replace(tiny, hierarchical=dataclasses.replace(tiny.hierarchical, lr=1e-6))
    tables = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        context, _ = make_context(ade_root, protocol, seed=seed, name=name)
        tables.append(Ade20kSegmentation().run(context).samples)
    assert tables[0].equals(tables[1])
    assert not tables[0].equals(tables[2])


def test_a_split_batch_is_announced_and_a_single_image_refused(ade_root, tiny, make_context):
    """Batch normalisation makes the result depend on the split."""
    context, lines = make_context(ade_root, dataclasses.replace(tiny, batch_size=4), batch_size=2)
    assert Ade20kSegmentation().run(context).metrics[0].n == 4
    assert len(lines) == 1
    assert "batch normalisation sees 2 images at a time instead of 4" in lines[0]
    context, _ = make_context(ade_root, tiny, batch_size=1, name="single")
    with pytest.raises(ProtocolError, match="use --batch-size 2"):
        Ade20kSegmentation().run(context)


def test_labels_lose_zero_exactly(ade_root, tiny, opened):
    from unveil_evalharness.tasks.ade20k_seg import data

    pair = layout.read_pairs(ade_root, "val")[1]
    values = np.zeros((64, 64), np.uint8)
    values[0, :5] = [0, 1, 2, 3, 255]
    Image.fromarray(values).save(pair.labels)
    sample = data.test_loader([pair], ("a", "b", "c"), tiny, num_workers=0).dataset[0]
    found = sample["data_samples"].gt_sem_seg.data[0]
    assert found[0, :6].tolist() == [255, 0, 1, 2, 255, 255]
    assert sample["data_samples"].ori_shape == (64, 64)


def test_training_crops_keep_labels_and_image_aligned(ade_root, tiny, opened):
    from unveil_evalharness.tasks.ade20k_seg import data

    protocol = dataclasses.replace(tiny, scale_range=(1.0, 1.0))
    pairs = layout.read_pairs(ade_root, "train")[1:3]
    loader = data.train_loader(pairs, ("wall", "red", "blue"), protocol, batch_size=2, seed=0, num_workers=0)
    batch = next(iter(loader))
    for image, sample in zip(batch["inputs"], batch["data_samples"], strict=True):
        labels = sample.gt_sem_seg.data[0]
        assert image.shape[1:] == labels.shape == (64, 64)
        inside = image[:, (labels == 1) | (labels == 2)].float()
        # Red or blue: one channel far above the middle one.
        assert (inside.max(dim=0).values - inside.median(dim=0).values).median() > 100
    again = next(iter(data.train_loader(pairs, ("wall", "red", "blue"), protocol, batch_size=2, seed=0, num_workers=0)))
    assert all(torch.equal(a, b) for a, b in zip(batch["inputs"], again["inputs"], strict=True))


def test_limit_restricts_training_and_validation(ade_root, tiny, make_context):
    context, _ = make_context(ade_root, tiny, limit=3)
    assert Ade20kSegmentation().run(context).metrics[0].n == 3


def test_a_truncated_image_is_named(ade_root, tiny, make_context):
    image = ade_root / "ade20k" / "images" / "validation" / "scene_1.jpg"
    image.write_bytes(image.read_bytes()[:700])
    context, _ = make_context(ade_root, tiny)
    with pytest.raises(DataError, match=r"cannot decode the image .*scene_1\.jpg"):
        Ade20kSegmentation().run(context)


def test_a_wrong_label_stops_before_training(ade_root, tiny, make_context):
    path = ade_root / "ade20k" / "annotations" / "training" / "scene_2.png"
    Image.fromarray(np.full((64, 64), 9, np.uint8)).save(path)
    context, _ = make_context(ade_root, tiny)
    with pytest.raises(DataError, match="holds label 9, but there are 3 classes"):
        Ade20kSegmentation().run(context)
    assert not (context.work_dir / "train.log").exists()


def test_foreign_weights_are_refused_before_training(ade_root, tiny, make_context, monkeypatch):
    from unveil_evalharness.tasks.ade20k_seg import task

    real = task.fresh_encoder

    def forgetful(encoder, **options):
        fresh = real(encoder, **options)
        with torch.no_grad():
            next(fresh.parameters()).zero_()
        return fresh

    monkeypatch.setattr(task, "fresh_encoder", forgetful)
    context, _ = make_context(ade_root, tiny)
    with pytest.raises(GateError, match=r"load coverage 0\.99\d+ under 'backbone\.pyramid\.encoder\.'"):
        Ade20kSegmentation().run(context)


def test_zero_and_255_are_ignored_and_classes_count_from_zero(tmp_path, opened):
    """All 256 values, by our rule, by mmseg's loader, and by hand."""
    from mmseg.datasets.transforms import LoadAnnotations

    stored = np.arange(256, dtype=np.uint8).reshape(16, 16)
    ours = layout.reduce_zero(stored)
    assert ours.ravel()[[0, 1, 2, 150, 254, 255]].tolist() == [255, 0, 1, 149, 253, 255]
    Image.fromarray(stored).save(tmp_path / "labels.png")
    record = {"seg_map_path": str(tmp_path / "labels.png"), "reduce_zero_label": True, "seg_fields": []}
    theirs = LoadAnnotations(reduce_zero_label=True, imdecode_backend="pillow")({**record, "label_map": None})
    assert (theirs["gt_seg_map"] == ours).all()


def test_views_are_all_scales_plain_and_mirrored_with_labels_as_they_are(ade_root, tiny, opened):
    from unveil_evalharness.tasks.ade20k_seg import data

    protocol = dataclasses.replace(tiny, test_scales=(0.5, 1.0, 1.5))
    pair = layout.read_pairs(ade_root, "val")[1]
    views = data.views_loader([pair], ("a", "b", "c"), protocol, num_workers=0).dataset[0]
    sides = [tuple(image.shape[1:]) for image in views["inputs"]]
    assert sorted(sides) == [(32, 32), (32, 32), (64, 64), (64, 64), (96, 96), (96, 96)]
    labels = torch.from_numpy(layout.reduce_zero(layout.read_labels(pair)))
    by_view = {(view.img_shape, view.flip): view.gt_sem_seg.data[0] for view in views["data_samples"]}
    assert len(by_view) == 6
    assert all(torch.equal(found, labels) for found in by_view.values())
    plain, mirrored = (
        next(
            image
            for image, view in zip(views["inputs"], views["data_samples"], strict=True)
            if (tuple(image.shape[1:]), view.flip) == ((64, 64), flip)
        )
        for flip in (False, True)
    )
    assert torch.equal(plain, mirrored.flip(-1))


def test_protocols_differ_and_refuse_nonsense():
    task = Ade20kSegmentation()
    prints = {fingerprint(task.name, task.version, task.protocol(name)) for name in (*SUITES, "80k")}
    assert len(prints) == 4
    assert task.protocol("full") == task.protocol("160k")
    assert all(task.expected_time(name) for name in (*SUITES, *SCHEDULES))
    with pytest.raises(UnknownSuiteError, match="'huge'; use one of quick, short, full, 80k, 160k"):
        task.protocol("huge")
    with pytest.raises(ProtocolError, match="multiple of 32 and stride at most that"):
        dataclasses.replace(quick_protocol(), stride=999)
    with pytest.raises(ProtocolError, match="at least one positive scale"):
        dataclasses.replace(quick_protocol(), test_scales=())


def test_published_values_are_those_of_mmsegs_configurations(opened):
    """Read from the configurations that mmseg's wheel brings."""
    from importlib.resources import files

    from mmengine.config import Config

    folder = files("mmseg") / ".mim" / "configs"
    if not folder.is_dir():
        pytest.skip("mmseg was installed without its configurations")
    whole = protocol_for("160k")
    for name, tuning in (
        ("mae/mae-base_upernet_8xb2-amp-160k_ade20k-512x512.py", whole.plain),
        ("swin/swin-tiny-patch4-window7-in1k-pre_upernet_8xb2-160k_ade20k-512x512.py", whole.hierarchical),
    ):
        config = Config.fromfile(str(folder / name))
        optimiser = config.optim_wrapper.optimizer
        assert (tuning.lr, tuning.weight_decay) == (optimiser.lr, optimiser.weight_decay)
        assert tuning.drop_path == config.model.backbone.drop_path_rate
        rise, fall = config.param_scheduler
        assert (rise.end, rise.start_factor) == (whole.schedule.warmup_iters, whole.schedule.warmup_start)
        assert (fall.type, fall.power, fall.end) == ("PolyLR", 1.0, whole.schedule.max_iters)
        assert list(whole.test_scales) == config.img_ratios
        assert config.model.auxiliary_head.channels == whole.auxiliary_channels
    assert Config.fromfile(str(folder / "_base_/schedules/schedule_80k.py")).train_cfg.max_iters == 80_000
    assert protocol_for("80k").schedule.max_iters == 80_000


@pytest.mark.slow
def test_the_full_protocol_builds(ade_root, load_checkpoint, opened):
    from unveil_evalharness.tasks.ade20k_seg import data, model

    protocol, checkpoint = protocol_for("full"), load_checkpoint("vit_tiny")
    pairs = layout.read_pairs(ade_root, "train")
    classes = tuple(str(number) for number in range(150))
    batch = next(iter(data.train_loader(pairs, classes, protocol, batch_size=2, seed=0, num_workers=0)))
    segmenter = model.build_segmenter(
        checkpoint.encoder, protocol, preprocessing=checkpoint.manifest.preprocessing, num_classes=150
    )
    padded = segmenter.data_preprocessor(batch, training=True)
    assert tuple(padded["inputs"].shape) == (2, 3, 512, 512)
    assert segmenter.auxiliary_head.conv_seg.out_channels == 150


@pytest.mark.slow
@pytest.mark.parametrize("encoder", ["swinv2_tiny", "vit_tiny"])
def test_it_learns_what_it_is_shown(ade_root, make_context, encoder):
    """Over-fits a handful of squares: far above the majority class."""
    folder = ade_root / "ade20k"
    for kind in ("images", "annotations"):
        (folder / kind / "validation").rename(folder / kind / "unused")
        (folder / kind / "validation").symlink_to(folder / kind / "training", target_is_directory=True)
    schedule = dataclasses.replace(quick_protocol().schedule, max_iters=60)
    protocol = dataclasses.replace(quick_protocol(), crop_size=64, stride=64, batch_size=4, schedule=schedule)
    context, _ = make_context(ade_root, protocol, encoder=encoder)
    result = Ade20kSegmentation().run(context)
    assert result.metrics[0].value > result.metrics[0].baseline + 0.2


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.parametrize(("name", "classes", "val"), [("stanford_bg_ade_layout", 8, 100), ("camvid_ade_layout", 11, 6)])
def test_real_images_train_and_evaluate(pack, data_root_of, tiny, make_context, name, classes, val):
    root = data_root_of(pack / name, "ade20k")
    pairs = layout.read_pairs(root, "val")
    assert len(pairs) == val
    assert len(layout.class_names(root, pairs)) == classes
    context, _ = make_context(root, tiny, limit=5)
    result = Ade20kSegmentation().run(context)
    assert result.metrics[0].n == 5
    assert all(metric.baseline > 0 for metric in result.metrics)
