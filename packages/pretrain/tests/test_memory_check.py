"""A run whose steps cannot fit is refused before the first, with the nearest that do; one that may not is warned of."""

from dataclasses import replace

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from unveil_pretrain import train
from unveil_pretrain.errors import ConfigError, MemoryLimitError
from unveil_pretrain.memory_check import available_memory, rough_bound
from unveil_pretrain.planning.fake_models import KNOWN, fake_objective
from unveil_pretrain.planning.fits import judge_fit, nearest, verdict_of
from unveil_pretrain.planning.layouts import KNOWN_NAMES, Layout
from unveil_pretrain.planning.memory import ERROR, step_memory
from unveil_pretrain.recipes import FLIP_RECIPES, MIM_RECIPES, tiny_mae

GB = 1e9


def start(config, out, shards, limit):
    lines = []
    train(config, out=out, train_data=shards[0], val_data=shards[1], device="cpu", progress=False, log=lines.append,
          loggers=(), memory_limit=limit)  # fmt: skip
    return "\n".join(lines)


def test_verdicts_by_hand():
    assert verdict_of(100.0, 100.0 / 0.85) == "fits"
    assert verdict_of(100.0, 117.0) == "may not fit"
    assert verdict_of(100.0, 87.0) == "may not fit"
    assert verdict_of(100.0, 86.9) == "cannot fit"


def test_a_run_is_refused_before_its_first_step(mae_config, shards, tmp_path):
    with pytest.raises(MemoryLimitError, match=r"predicted to need .* MB .*there are 5 MB.*--memory-limit"):
        start(mae_config, tmp_path / "run", shards, 0.005)
    assert not (tmp_path / "run" / "metrics.jsonl").exists()
    # A larger limit runs it nevertheless, and the same folder.
    assert "memory" not in start(mae_config, tmp_path / "run", shards, 100.0)
    with pytest.raises(ConfigError, match="memory_limit is -1"):
        start(mae_config, tmp_path / "other", shards, -1.0)


def test_a_run_that_may_not_fit_is_warned_of(mae_config, shards, tmp_path):
    needed = step_memory(mae_config, micro_batch=mae_config.batch_size, device="cpu").total / GB
    assert "memory may run out" in start(mae_config, tmp_path / "run", shards, needed)
    assert (tmp_path / "run" / "metrics.jsonl").exists()


def test_the_nearest_that_fit_do_fit():
    config = replace(tiny_mae(), batch_size=64)
    layout = Layout(micro_batch=0, device="cpu")
    needed = step_memory(config, micro_batch=64, device="cpu").total
    verdict, said = judge_fit(config, layout, 0.8 * needed)
    assert verdict == "cannot fit"
    found = nearest(config, layout, 0.8 * needed)
    assert all(change in said for change in found)
    changes = " ".join(found)
    assert all(flag in changes for flag in ("--micro-batch-size", "--checkpoint-blocks", "bfloat16", "--parallel fsdp"))
    micro = int(found[0].split()[-1])
    assert step_memory(config, micro_batch=micro, device="cpu").total <= 0.8 * needed
    assert judge_fit(config, layout, 2 * needed) == ("fits", "")
    verdict, said = judge_fit(config, layout, 1000.0)
    assert verdict == "cannot fit"
    assert "nothing of this encoder" in said


@pytest.mark.parametrize("name", ["tiny_mae", "tiny_simmim", "tiny_flip", "tiny_ijepa", "tiny_simmim_vit"])
def test_the_bound_that_takes_no_time_is_one(name):
    """What it lets through without a simulation needs less than it says."""
    config = {**MIM_RECIPES, **FLIP_RECIPES}[name]()
    objective = fake_objective(
        config, FakeTensorMode(allow_non_fake_inputs=True), num_samples=8, explicit_attention=True
    )
    needed = step_memory(replace(config, batch_size=8), micro_batch=8, device="cpu").total
    bound = rough_bound(config, objective, micro=8, own=8)
    assert (1 + ERROR) * needed < bound < 30 * needed


def test_known_names_are_those_of_the_simulation():
    assert {kind.name for kind in KNOWN.__args__} == set(KNOWN_NAMES)


def test_memory_that_there_is(monkeypatch):
    model = torch.nn.Linear(1000, 1000)
    alone = available_memory(torch.device("cpu"), model)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert alone > 2 * available_memory(torch.device("cpu"), model) > 0
