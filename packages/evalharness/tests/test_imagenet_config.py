"""Every suite builds, and each encoder gets the recipe that was published for it."""

import dataclasses
import subprocess
import sys

import pytest
from unveil_backbones.manifest import read_manifest
from unveil_evalharness.engine.optim import OptimiserSettings
from unveil_evalharness.errors import ProtocolError, UnknownSuiteError
from unveil_evalharness.fingerprint import fingerprint
from unveil_evalharness.task import SUITES
from unveil_evalharness.tasks.imagenet_ft.config import full, protocol_for, quick
from unveil_evalharness.tasks.imagenet_ft.recipe import choose_recipe
from unveil_evalharness.tasks.imagenet_ft.task import ImagenetFineTune, _batch, _plan

SWIN, VIT, OTHER = {"window_sizes": [12]}, {"patch_size": 16, "depth": 12}, {"timm": "resnet50"}


@pytest.fixture
def manifest_of(mae_checkpoint):
    """A manifest with another encoder configuration, objective and number of parameters (in millions)."""
    manifest = read_manifest(mae_checkpoint)

    def make(config, objective, millions):
        encoder = dataclasses.replace(manifest.encoder, config=config)
        return dataclasses.replace(
            manifest, encoder=encoder, objective=objective, num_parameters=round(millions * 1_000_000)
        )

    return make


@pytest.mark.parametrize(
    ("config", "objective", "millions", "name"),
    [
        (SWIN, "simmim", 49, "SimMIM SwinV2-S/B"),
        (SWIN, "simmim", 87, "SimMIM SwinV2-S/B"),
        (SWIN, "mae", 195, "SimMIM SwinV2-L"),
        (SWIN, "simmim", 655, "SimMIM SwinV2-H/g"),
        (SWIN, "simmim", 1061, "SimMIM SwinV2-H/g"),
        (VIT, "simmim", 86, "SimMIM ViT-B"),
        (VIT, "mae", 86, "MAE ViT-B"),
        (VIT, "mae", 303, "MAE ViT-L"),
        (VIT, "simmim", 303, "MAE ViT-L"),
        (VIT, "mae", 631, "MAE ViT-H"),
        (VIT, "flip", 86, "FLIP ViT-B"),
        (VIT, "flip", 303, "FLIP ViT-L/H"),
        (VIT, "clip", 631, "FLIP ViT-L/H"),
        (OTHER, "unknown", 25, "MAE ViT-B"),
        (OTHER, "unknown", 900, "MAE ViT-H"),
    ],
)
def test_each_encoder_gets_the_recipe_published_for_it(manifest_of, config, objective, millions, name):
    assert full().recipe(manifest_of(config, objective, millions)).name == name


def recipe_called(name):
    return next(recipe for recipe in full().recipes if recipe.name == name)


def test_swin_is_fine_tuned_as_simmims_configuration_says():
    recipe = recipe_called("SimMIM SwinV2-S/B")
    assert (recipe.duration, recipe.warmup, recipe.unit) == (100, 20, "epochs")
    assert recipe.lr * 512 / recipe.batch_size == pytest.approx(1.25e-3)
    assert recipe.lr * recipe.final_lr * 512 / recipe.batch_size == pytest.approx(2.5e-7)
    assert (recipe.layer_decay, recipe.drop_path, recipe.weight_decay) == (0.75, 0.1, 0.05)
    assert full().test_crop == pytest.approx(224 / 256)


@pytest.mark.parametrize(
    ("name", "epochs", "per_256", "layer_decay", "drop_path"),
    [
        ("MAE ViT-B", 100, 5e-4, 0.65, 0.1),
        ("MAE ViT-L", 50, 1e-3, 0.75, 0.2),
        ("MAE ViT-H", 50, 1e-3, 0.75, 0.3),
        ("FLIP ViT-L/H", 50, 5e-5, 0.75, 0.2),
    ],
)
def test_vits_are_fine_tuned_as_mae_and_flip_say(name, epochs, per_256, layer_decay, drop_path):
    recipe = recipe_called(name)
    assert (recipe.duration, recipe.warmup, recipe.batch_size) == (epochs, 5, 1024)
    assert recipe.lr * 256 / 1024 == pytest.approx(per_256)
    assert recipe.lr * recipe.final_lr == pytest.approx(1e-6)
    assert (recipe.layer_decay, recipe.drop_path) == (layer_decay, drop_path)
    assert recipe.clip_norm is None


def test_one_fingerprint_covers_all_sizes_and_moves_with_each_of_them():
    task, protocol = ImagenetFineTune(), full()
    before = fingerprint(task.name, task.version, protocol)
    for index, recipe in enumerate(protocol.recipes):
        other = dataclasses.replace(recipe, drop_path=0.45)
        recipes = (*protocol.recipes[:index], other, *protocol.recipes[index + 1 :])
        assert fingerprint(task.name, task.version, dataclasses.replace(protocol, recipes=recipes)) != before


def test_full_on_imagenet_1k_has_625_steps_per_epoch():
    plan = _plan(full(), recipe_called("SimMIM SwinV2-S/B"), num_images=1_281_167, accumulate=4)
    assert plan.max_iters == 62_500
    assert plan.optimiser.warmup_iters == 12_500
    assert plan.accumulate == 4
    assert plan.interim_interval == 3125


def test_quick_counts_iterations_and_keeps_interim_checkpoints_some_steps_apart():
    recipe = quick().recipes[0]
    plan = _plan(quick(), recipe, num_images=10, accumulate=1)
    assert plan.max_iters == recipe.duration
    assert plan.interim_interval == 20
    assert isinstance(plan.optimiser, OptimiserSettings)


def test_short_scales_each_learning_rate_with_the_batch():
    for short, whole in zip(protocol_for("short").recipes, full().recipes, strict=True):
        assert short.lr / short.batch_size == pytest.approx(whole.lr / whole.batch_size)
        assert (short.name, short.duration) == (whole.name, 20)


def test_the_suites_have_different_fingerprints():
    task = ImagenetFineTune()
    assert len({fingerprint(task.name, task.version, task.protocol(suite)) for suite in SUITES}) == 3


def test_an_unknown_suite_is_refused():
    with pytest.raises(UnknownSuiteError, match=r"no suite 'medium'; choose 'quick', 'short' or 'full'"):
        protocol_for("medium")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"duration": 0}, "duration >= 1"),
        ({"warmup": 100}, "warmup < duration"),
        ({"mixup": 0.8, "batch_size": 7}, "must be even"),
        ({"ema_decay": 1.0}, "ema_decay must be at least 0 and below 1"),
    ],
)
def test_contradicting_values_are_refused(change, message):
    with pytest.raises(ProtocolError, match=message):
        dataclasses.replace(full().recipes[0], **change)


def test_a_protocol_that_leaves_encoders_out_is_refused(manifest_of):
    only_swin = full().recipes[:1]
    with pytest.raises(ProtocolError, match=r"the last recipe must suit every encoder, but 'SimMIM SwinV2-S/B'"):
        dataclasses.replace(full(), recipes=only_swin)
    with pytest.raises(ProtocolError, match=r"no recipe for mae .* among SimMIM SwinV2-S/B"):
        choose_recipe(only_swin, manifest_of(VIT, "mae", 86))


def test_an_odd_device_batch_is_refused_with_mixup_only():
    recipe = dataclasses.replace(full().recipes[0], batch_size=6)
    with pytest.raises(ProtocolError, match="--batch-size 3 is odd"):
        _batch(recipe, 3)
    assert _batch(dataclasses.replace(recipe, mixup=0.0, cutmix=0.0), 3).accumulate == 2


def test_the_task_describes_itself():
    task = ImagenetFineTune()
    assert [spec.name for spec in task.metrics if spec.main] == ["imagenet_ft.acc1"]
    assert "CPU" in task.expected_time("quick")
    assert "an hour on one GPU" in task.expected_time("short")
    assert "50 to 100 epochs" in task.expected_time("full")


def test_describing_the_task_loads_neither_mmengine_nor_timm():
    code = (
        "import sys, unveil_evalharness.tasks.imagenet_ft.task as module;"
        "module.ImagenetFineTune().protocol('quick');"
        "print([name for name in ('mmengine', 'timm', 'mmcv') if name in sys.modules])"
    )
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert finished.stdout.strip() == "[]"
