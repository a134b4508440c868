"""Checkpoints that are written while training goes on: the same bits, one at a time, and no error is lost."""

import threading
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from unveil_backbones import CheckpointError, load
from unveil_pretrain import OutputError, checkpointing, saving, train
from unveil_pretrain.run import Run
from unveil_pretrain.saving import CheckpointSaver


def run(config, out, shards, **options):
    lines = []
    train(
        config, out=out, train_data=shards[0], val_data=shards[1], device="cpu", progress=False, log=lines.append,
        loggers=(), **options,
    )  # fmt: skip
    return lines


@pytest.fixture(scope="module")
def config(mae_config):
    return replace(mae_config, steps=4, checkpoint_every=1, validate_every=4, gap_images=0)


def test_a_run_ends_with_the_same_bits_and_the_same_records(config, tmp_path, shards):
    run(config, tmp_path / "at once", shards)
    run(config, tmp_path / "behind", shards, async_checkpoints=True)
    for step in range(1, 5):
        one, two = (tmp_path / name / "checkpoints" / f"step_{step:08d}" for name in ("at once", "behind"))
        assert load(two).manifest.val == load(one).manifest.val
        names = sorted(file.relative_to(one).as_posix() for file in one.rglob("*.safetensors"))
        assert names == sorted(file.relative_to(two).as_posix() for file in two.rglob("*.safetensors"))
        assert len(names) == (3 if step > 2 else 2)  # the newest two keep their optimiser
        for name in names:
            left, right = load_file(one / name), load_file(two / name)
            assert left.keys() == right.keys()
            assert all(torch.equal(left[key], right[key]) for key in left), (step, name)


def test_training_goes_on_while_a_checkpoint_is_written_and_the_next_one_waits(config, tmp_path, shards, monkeypatch):
    """The first save is held until the second step has been taken, which it could not be if the step waited for it."""
    stepped, real, seen = threading.Event(), checkpointing.save_train_state, []

    def held(folder, **given):
        seen.append((given["position"].step, len(list(folder.parent.glob(".step_*.tmp")))))
        assert stepped.wait(60)
        real(folder, **given)

    update, taken = torch.optim.AdamW.step, []

    def step(self, *given):
        result = update(self, *given)
        taken.append(1)
        if len(taken) == 2:
            stepped.set()
        return result

    monkeypatch.setattr(checkpointing, "save_train_state", held)
    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    monkeypatch.setattr(saving, "_NOTICED", 0.0)
    lines = run(config, tmp_path / "run", shards, async_checkpoints=True)
    assert stepped.is_set()
    assert seen == [(1, 1), (2, 1), (3, 1), (4, 1)]
    assert sum("until the checkpoint of step" in line for line in lines) == 4


def test_an_error_in_the_background_ends_the_run_by_name(config, tmp_path, shards, monkeypatch):
    real = checkpointing.save_train_state

    def refuse(folder, **given):
        if given["position"].step == 2:
            raise OSError(28, "No space left on device")
        real(folder, **given)

    monkeypatch.setattr(checkpointing, "save_train_state", refuse)
    with pytest.raises(CheckpointError, match=r"step_00000002 could not be written .*No space left"):
        run(config, tmp_path / "run", shards, async_checkpoints=True)
    assert [entry.name for entry in (tmp_path / "run" / "checkpoints").iterdir()] == ["step_00000001"]
    monkeypatch.undo()
    run(config, tmp_path / "run", shards, async_checkpoints=True)
    assert load(tmp_path / "run").manifest.step == 4


def test_an_error_of_the_last_checkpoint_is_not_lost_either(config, tmp_path, shards, monkeypatch):
    def broken(*_, **__):
        raise ZeroDivisionError("a mistake of ours")

    monkeypatch.setattr(checkpointing, "save_train_state", broken)
    with pytest.raises(OutputError, match=r"checkpoint of step 1 could not be written \(ZeroDivisionError: a mistake"):
        run(replace(config, steps=1), tmp_path / "run", shards, async_checkpoints=True)


def test_copies_stay_as_they_are_and_share_their_memory_with_the_next_ones():
    saver, values = CheckpointSaver(asynchronous=True), {"a": torch.zeros(3), "b": torch.tensor(1.0)}
    copies = saver.copied(values)
    values["a"].add_(1)
    assert copies["a"].tolist() == [0, 0, 0]
    again = saver.copied(values)
    assert again["a"].tolist() == [1, 1, 1]
    assert again["a"].data_ptr() == copies["a"].data_ptr()
    saver.close()
    assert CheckpointSaver().copied(values) is values
    assert Run.__dataclass_fields__["saver"].default_factory is CheckpointSaver


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_copies_of_a_gpu_are_in_host_memory_and_complete():
    """Large enough that what is copied beside the GPU's work would be seen unfinished."""
    saver = CheckpointSaver(asynchronous=True)
    values = {"a": torch.zeros(2**26, device="cuda"), "b": torch.tensor(0.0)}
    for number in range(1, 4):
        for value in values.values():
            value.fill_(number)
        copies = saver.copied(values)
        for value in values.values():
            value.zero_()  # the next update
        assert all(not copy.is_cuda and bool((copy == number).all()) for copy in copies.values())


def test_a_stager_is_asked_once_for_tensors_of_the_same_shapes(monkeypatch):
    """That of PyTorch 2.11 and 2.12 ends with what it staged first."""
    asked = []

    class StagesOnce(saving.DefaultStager):
        def stage(self, state_dict, **given):
            asked.append(list(state_dict))
            staged = super().stage(state_dict, **given)
            self._state_dict_stager.close()
            return staged

    monkeypatch.setattr(saving, "DefaultStager", StagesOnce)
    saver, values = CheckpointSaver(asynchronous=True), {"a": torch.arange(3.0)}
    for number in range(3):
        values["a"] += number
        assert torch.equal(saver.copied(values)["a"], values["a"])
    assert asked == [["a"]]
    for others in ({"a": torch.ones(1)}, {"a": torch.ones(1).double()}, {"b": torch.ones(1), "c": torch.zeros(())}):
        copies = saver.copied(others)
        assert copies.keys() == others.keys()
        for name, value in others.items():
            assert (copies[name].dtype, copies[name].tolist()) == (value.dtype, value.tolist())
    assert asked == [["a"], ["a"], ["a"], ["b", "c"]]
    with pytest.raises(KeyError):  # what would happen to one that is kept
        saver._stager.stage({"a": torch.zeros(1)})
