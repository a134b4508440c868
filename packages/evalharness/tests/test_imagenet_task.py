"""The whole task on coloured squares: learns, repeats exactly, refuses a wrong encoder and broken data."""

import dataclasses

import pytest
import squares
import torch
from squares import COLOURS, write_squares
from unveil_backbones import load
from unveil_backbones.encoder import create
from unveil_backbones.specs import Preprocessing
from unveil_evalharness.engine.encoder import fresh_encoder, scaled_windows
from unveil_evalharness.errors import DataError, GateError
from unveil_evalharness.tasks.imagenet_ft.config import ImagenetProtocol, full, quick
from unveil_evalharness.tasks.imagenet_ft.task import ImagenetFineTune

pytestmark = pytest.mark.mm


@pytest.fixture(scope="module")
def data_root(tmp_path_factory):
    root = tmp_path_factory.mktemp("squares")
    write_squares(root, COLOURS)
    return root


@pytest.fixture(scope="module")
def checkpoint(mae_checkpoint):
    return load(mae_checkpoint)


def changed(protocol: ImagenetProtocol, **changes) -> ImagenetProtocol:
    """The protocol with its last recipe, changed, for every encoder."""
    recipe = dataclasses.replace(protocol.recipes[-1], **changes)
    return dataclasses.replace(protocol, recipes=(recipe,))


def context_for(checkpoint, data_root, work_dir, protocol=None, **changes):
    protocol = protocol or changed(quick(), duration=15, warmup=2, batch_size=16, lr=2e-3)
    return squares.context_for(checkpoint, data_root, work_dir, protocol, **changes)


def test_it_learns_colours_and_reports_every_image(checkpoint, data_root, tmp_path):
    before = {name: tensor.clone() for name, tensor in checkpoint.encoder.state_dict().items()}
    lines = []
    result = ImagenetFineTune().run(context_for(checkpoint, data_root, tmp_path / "a", log=lines.append))
    acc1, acc5, mean = result.metrics
    assert [metric.name for metric in result.metrics] == [spec.name for spec in ImagenetFineTune().metrics]
    assert acc1.value > 0.6 > acc1.baseline == pytest.approx(1 / 6)
    assert acc5.baseline == pytest.approx(5 / 6)
    assert mean.value == pytest.approx(acc1.value), "the classes have the same number of images"
    assert acc1.n == acc5.n == 24
    assert result.load_coverage == 1.0
    samples = result.samples
    assert samples.columns == ["image", "label", "prediction", "correct", "correct5"]
    assert samples["image"][0] == "imagenet/val/blue/0.jpg"
    assert samples["correct"].mean() == acc1.value
    assert ((samples["label"] == samples["prediction"]) == samples["correct"]).all()
    assert lines == [
        "72 training and 24 test images of 6 classes",
        "recipe: quick",
        "load coverage 1.0000, forward parity 0.0e+00",
    ]
    assert result.tables.keys() == {"per_class", "confusion", "recipe"}
    assert result.tables["confusion"]["n"].sum() == 24
    recalls = dict(result.tables["per_class"].select("class", "recall").iter_rows())
    assert recalls["blue"] == samples.filter(samples["label"] == "blue")["correct"].mean()
    assert dict(result.tables["recipe"].iter_rows())["duration"] == "15"
    assert len(result.gallery) == 12
    assert {picture.outcome for picture in result.gallery} <= {"good", "bad"}
    assert all(torch.equal(tensor, before[name]) for name, tensor in checkpoint.encoder.state_dict().items())


def test_the_same_seed_repeats_every_outcome_and_a_split_batch_stays_close(checkpoint, data_root, tmp_path):
    # A random head after a few steps still confuses classes, so that another seed shows.
    protocol = changed(quick(), duration=4, warmup=1, batch_size=8, head="random")
    runs = [
        ImagenetFineTune().run(context_for(checkpoint, data_root, tmp_path / name, protocol=protocol, **changes))
        for name, changes in (("a", {}), ("b", {}), ("c", {"seed": 1}), ("d", {"batch_size": 4}))
    ]
    assert runs[0].metrics == runs[1].metrics
    assert runs[0].samples.equals(runs[1].samples)
    assert not runs[0].samples.equals(runs[2].samples)
    # Accumulated gradients are the same up to rounding, and the augmentation of each image is the same.
    assert (runs[0].samples["prediction"] == runs[3].samples["prediction"]).mean() > 0.8


def test_a_limit_keeps_classes_balanced(checkpoint, data_root, tmp_path):
    protocol = changed(quick(), duration=1, warmup=0, batch_size=4)
    result = ImagenetFineTune().run(context_for(checkpoint, data_root, tmp_path, protocol=protocol, limit=12))
    assert result.samples["label"].value_counts()["count"].to_list() == [2] * 6
    assert result.metrics[0].n == 12


def test_top_5_of_two_classes_is_certain_and_so_is_its_baseline(checkpoint, tmp_path):
    write_squares(tmp_path, {name: COLOURS[name] for name in ("red", "blue")}, train=3, val=2)
    protocol = changed(quick(), duration=1, warmup=0, batch_size=4)
    result = ImagenetFineTune().run(context_for(checkpoint, tmp_path, tmp_path / "work", protocol=protocol))
    assert result.metrics[1].value == result.metrics[1].baseline == 1.0


def test_the_full_recipes_augmentation_mixup_and_image_size_run(checkpoint, data_root, tmp_path):
    protocol = changed(full(), duration=2, warmup=1, unit="iterations", batch_size=4, ema_decay=0.5)
    protocol = dataclasses.replace(protocol, image_side=48)
    result = ImagenetFineTune().run(context_for(checkpoint, data_root, tmp_path, protocol=protocol, limit=6))
    assert result.metrics[0].n == 6


def test_swin_windows_scale_with_the_image(checkpoint, data_root, tmp_path):
    encoder = create("swinv2_tiny", image_size=64)
    preprocessing = Preprocessing(image_size=(64, 64))
    manifest = dataclasses.replace(checkpoint.manifest, preprocessing=preprocessing)
    checkpoint = dataclasses.replace(checkpoint, encoder=encoder, manifest=manifest)
    protocol = changed(quick(), duration=1, warmup=0, batch_size=2, drop_path=0.1, head="random")
    protocol = dataclasses.replace(protocol, image_side=96)
    result = ImagenetFineTune().run(context_for(checkpoint, data_root, tmp_path, protocol=protocol, limit=6))
    assert result.load_coverage == 1.0
    assert fresh_encoder(encoder, drop_path=0.1, image_side=96).spec.config["window_sizes"] == [6, 6, 6, 6]


def test_window_scaling_is_simmims_for_224_and_leaves_fractions_alone():
    assert scaled_windows([12, 12, 12, 6], pretraining=192, finetuning=224) == [14, 14, 14, 7]
    assert scaled_windows([4, 4, 4, 4], pretraining=64, finetuning=72) == [4, 4, 4, 4]


def test_an_encoder_changed_on_the_way_into_the_model_is_refused(checkpoint, data_root, tmp_path, monkeypatch):
    from unveil_evalharness.tasks.imagenet_ft import task

    def damaged(encoder, *, drop_path, image_side):
        fresh = fresh_encoder(encoder, drop_path=drop_path, image_side=image_side)
        torch.nn.init.zeros_(fresh.norm.bias.data.add_(1.0)[:1])
        return fresh

    monkeypatch.setattr(task, "fresh_encoder", damaged)
    with pytest.raises(GateError, match=r"with other values: norm\.bias"):
        ImagenetFineTune().run(context_for(checkpoint, data_root, tmp_path))


def test_a_corrupt_training_image_is_named(checkpoint, tmp_path):
    write_squares(tmp_path, COLOURS, train=2, val=1)
    broken = tmp_path / "imagenet" / "train" / "red" / "0.jpg"
    broken.write_bytes(broken.read_bytes()[:300])
    with pytest.raises(DataError, match=r"cannot decode .*train.red.0\.jpg"):
        ImagenetFineTune().run(context_for(checkpoint, tmp_path, tmp_path / "work"))
