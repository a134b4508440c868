"""Both protocols build, and the full one is the published recipe."""

import dataclasses
import subprocess
import sys

import pytest
from unveil_evalharness.engine.optim import OptimiserSettings
from unveil_evalharness.errors import ProtocolError, UnknownSuiteError
from unveil_evalharness.fingerprint import fingerprint
from unveil_evalharness.tasks.imagenet_ft.config import protocol_for
from unveil_evalharness.tasks.imagenet_ft.task import ImagenetFineTune, _batch, _plan


def test_full_is_simmims_recipe_for_imagenet_1k():
    protocol = protocol_for("full")
    assert (protocol.duration, protocol.warmup, protocol.unit) == (100, 20, "epochs")
    assert protocol.lr * 512 / protocol.batch_size == pytest.approx(1.25e-3)
    assert protocol.lr * protocol.final_lr * 512 / protocol.batch_size == pytest.approx(2.5e-7)
    assert (protocol.layer_decay, protocol.drop_path, protocol.weight_decay) == (0.75, 0.1, 0.05)
    assert protocol.test_crop == pytest.approx(224 / 256)


def test_full_on_imagenet_1k_has_625_steps_per_epoch():
    plan = _plan(protocol_for("full"), num_images=1_281_167, accumulate=4)
    assert plan.max_iters == 62_500
    assert plan.optimiser.warmup_iters == 12_500
    assert plan.accumulate == 4
    assert plan.checkpoint_interval == 3125


def test_quick_counts_iterations_and_keeps_no_interim_checkpoint():
    protocol = protocol_for("quick")
    plan = _plan(protocol, num_images=10, accumulate=1)
    assert plan.max_iters == protocol.duration
    assert plan.checkpoint_interval == 0
    assert isinstance(plan.optimiser, OptimiserSettings)


def test_the_suites_have_different_fingerprints():
    task = ImagenetFineTune()
    assert len({fingerprint(task.name, task.version, task.protocol(suite)) for suite in ("quick", "full")}) == 2


def test_an_unknown_suite_is_refused():
    with pytest.raises(UnknownSuiteError, match=r"no suite 'medium'; choose 'quick' or 'full'"):
        protocol_for("medium")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"duration": 0}, "duration >= 1"),
        ({"warmup": 100}, "warmup < duration"),
        ({"mixup": 0.8, "batch_size": 7}, "must be even"),
    ],
)
def test_contradicting_values_are_refused(change, message):
    with pytest.raises(ProtocolError, match=message):
        dataclasses.replace(protocol_for("full"), **change)


def test_an_odd_device_batch_is_refused_with_mixup_only():
    full = dataclasses.replace(protocol_for("full"), batch_size=6)
    with pytest.raises(ProtocolError, match="--batch-size 3 is odd"):
        _batch(full, 3)
    assert _batch(dataclasses.replace(full, mixup=0.0, cutmix=0.0), 3).accumulate == 2


def test_the_task_describes_itself():
    task = ImagenetFineTune()
    assert [spec.name for spec in task.metrics if spec.main] == ["imagenet_ft.acc1"]
    assert "CPU" in task.expected_time("quick")
    assert "GPU" in task.expected_time("full")


def test_describing_the_task_loads_neither_mmengine_nor_timm():
    code = (
        "import sys, unveil_evalharness.tasks.imagenet_ft.task as module;"
        "module.ImagenetFineTune().protocol('quick');"
        "print([name for name in ('mmengine', 'timm', 'mmcv') if name in sys.modules])"
    )
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert finished.stdout.strip() == "[]"
