"""Loggers: what a run shows of itself, that TensorBoard forgets what a run repeats, and the adapters' calls."""

import importlib.util
import inspect
import json
import sys
import types

import pytest
from unveil_pretrain import ConfigError, loggers
from unveil_pretrain.loggers import Loggers, check_loggers, open_loggers, scalars_of
from unveil_pretrain.record import RunFolder

ROW = {"step": 3, "loss": 0.5, "lr": 1e-3, "train_loss": None, "passport": "abc", "alarm": None, "pools": [1]}


def read_events(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"scalars": 0}, purge_orphaned_data=True)
    events.Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


class Recorder:
    """A logger that remembers what it was told."""

    def __init__(self):
        self.told = []

    def scalars(self, values, *, step):
        self.told.append((step, dict(values)))

    def flush(self):
        self.told.append("flush")

    def close(self):
        self.told.append("close")


def test_numbers_of_a_row_are_shown_and_nothing_else():
    assert scalars_of(ROW, "val") == {"val/loss": 0.5, "val/lr": 1e-3}
    assert scalars_of({"step": 1, "alarm": True}, "val") == {"val/alarm": 1.0}


def test_every_logger_gets_every_row_and_is_flushed_after_a_validation():
    both = (Recorder(), Recorder())
    shown = Loggers(both)
    shown.train_row({"step": 1, "loss": 2.0})
    shown.val_row({"step": 1, "loss": 3.0, "unmasked_gap": 0.5, "alarm": {"step": 1}})
    shown.close()
    for one in both:
        assert one.told == [
            (1, {"train/loss": 2.0}),
            (1, {"val/loss": 3.0, "val/unmasked_gap": 0.5, "val/alarm": 1.0}),
            "flush",
            "close",
        ]


def test_the_rows_of_a_run_folder_go_to_its_loggers(tmp_path):
    folder = RunFolder(tmp_path)
    folder.add_metrics({"step": 1, "loss": 9.0})
    with folder.shown_by(("tensorboard",), config={}, start_step=1):
        folder.add_metrics({"step": 2, "loss": 0.25})
        folder.add_validation({"step": 2, "loss": 0.5, "alarm": None})
    folder.add_metrics({"step": 3, "loss": 9.0})
    assert read_events(tmp_path / "tensorboard") == {
        "train/loss": [(2, 0.25)],
        "val/loss": [(2, 0.5)],
        "val/alarm": [(2, 0.0)],
    }


def test_tensorboard_forgets_the_steps_that_a_run_repeats(tmp_path):
    """Five steps, then a start at the checkpoint of step 3: each step is shown once, with what it gave at last."""
    first = open_loggers(("tensorboard",), run=tmp_path, config={}, start_step=0)
    for step in range(1, 6):
        first.train_row({"step": step, "loss": float(step)})
    first.close()
    second = open_loggers(("tensorboard",), run=tmp_path, config={}, start_step=3)
    for step in range(4, 7):
        second.train_row({"step": step, "loss": 10.0 * step})
    second.close()
    assert read_events(tmp_path / "tensorboard")["train/loss"] == [
        (1, 1.0), (2, 2.0), (3, 3.0), (4, 40.0), (5, 50.0), (6, 60.0),
    ]  # fmt: skip


def test_without_forgetting_steps_would_be_shown_twice(tmp_path, monkeypatch):
    """The meta-test: the same without the step from which TensorBoard is to forget."""
    from torch.utils.tensorboard import SummaryWriter

    forgetful = types.SimpleNamespace(SummaryWriter=lambda log_dir, purge_step: SummaryWriter(log_dir=log_dir))
    monkeypatch.setattr(loggers, "_module", lambda name: forgetful)
    for start in (0, 3):
        one = open_loggers(("tensorboard",), run=tmp_path, config={}, start_step=start)
        for step in range(start + 1, 6):
            one.train_row({"step": step, "loss": 1.0})
        one.close()
    assert [step for step, _ in read_events(tmp_path / "tensorboard")["train/loss"]].count(4) == 2


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_missing_package_is_named_before_anything_starts(monkeypatch, tmp_path, name):
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda module: None if module == name else real(module))
    check_loggers(("tensorboard",))
    with pytest.raises(ConfigError, match=rf"the logger {name} needs the package {name}.*`pip install {name}`"):
        check_loggers(("tensorboard", name))
    with pytest.raises(ConfigError, match=f"leave {name} out of --loggers"):
        open_loggers((name,), run=tmp_path, config={}, start_step=0)
    assert list(tmp_path.iterdir()) == []


class FakeRun:
    """wandb.Run with the signatures of wandb 0.19."""

    def __init__(self, calls):
        self.calls = calls

    def define_metric(
        self, name, step_metric=None, step_sync=None, hidden=None, summary=None, goal=None, overwrite=None
    ):
        self.calls.append(("define_metric", name, step_metric))

    def log(self, data, step=None, commit=None):
        self.calls.append(("log", data, step))

    def finish(self, exit_code=None, quiet=None):
        self.calls.append(("finish",))


def test_weights_and_biases(monkeypatch, tmp_path):
    calls = []

    def init(entity=None, project=None, dir=None, id=None, name=None, notes=None, tags=None, config=None, resume=None):
        calls.append(("init", id, name, dir, config, resume, project))
        return FakeRun(calls)

    fake = types.ModuleType("wandb")
    fake.init = init  # pyright: ignore[reportAttributeAccessIssue]
    present(monkeypatch, fake)
    (tmp_path / "run.json").write_text("{}")
    for start in (0, 2):
        shown = open_loggers(("wandb",), run=tmp_path, config={"seed": 3}, start_step=start)
        shown.train_row({"step": 3, "loss": 0.5})
        shown.val_row({"step": 3, "loss": 0.6})
        shown.close()
    first, second = calls[: len(calls) // 2], calls[len(calls) // 2 :]
    assert first == second  # the same id: the run continues there
    identity = first[0][1]
    assert first == [
        ("init", identity, tmp_path.name, str(tmp_path), {"seed": 3}, "allow", None),
        ("define_metric", "*", "step"),
        ("log", {"train/loss": 0.5, "step": 3}, None),
        ("log", {"val/loss": 0.6, "val/alarm": 0.0, "step": 3}, None),
        ("finish",),
    ]
    assert len(identity) == 16


def test_mlflow(monkeypatch, tmp_path):
    calls = []
    fake = types.ModuleType("mlflow")

    def start_run(run_id=None, experiment_id=None, run_name=None, nested=False, parent_run_id=None, tags=None):
        calls.append(("start_run", run_id, run_name))
        return types.SimpleNamespace(info=types.SimpleNamespace(run_id=run_id or "run7"))

    def log_params(params, synchronous=None, run_id=None):
        calls.append(("log_params", params))

    def log_metrics(metrics, step=None, synchronous=None, run_id=None, timestamp=None):
        calls.append(("log_metrics", metrics, step))

    def end_run(status="FINISHED"):
        calls.append(("end_run",))

    for function in (start_run, log_params, log_metrics, end_run):
        setattr(fake, function.__name__, function)
    present(monkeypatch, fake)
    for start in (0, 2):
        shown = open_loggers(
            ("mlflow",), run=tmp_path, config={"seed": 3, "objective": {"name": "mae"}}, start_step=start
        )
        shown.train_row({"step": start + 1, "loss": 0.5})
        shown.close()
    assert calls == [
        ("start_run", None, tmp_path.name),
        ("log_params", {"seed": 3, "objective.name": "mae"}),
        ("log_metrics", {"train/loss": 0.5}, 1),
        ("end_run",),
        ("start_run", "run7", tmp_path.name),
        ("log_metrics", {"train/loss": 0.5}, 3),
        ("end_run",),
    ]


def present(monkeypatch, module):
    """Make a module importable that is not installed."""
    module.__spec__ = importlib.util.spec_from_loader(module.__name__, loader=None)
    monkeypatch.setitem(sys.modules, module.__name__, module)


def test_names_are_those_of_the_packages():
    """`check_loggers` looks for a package of the logger's name."""
    makers = inspect.getsource(open_loggers)
    assert all(f'"{name}":' in makers for name in loggers.LoggerName.__args__)
    assert json.dumps(list(loggers.LoggerName.__args__)) == '["tensorboard", "wandb", "mlflow"]'
