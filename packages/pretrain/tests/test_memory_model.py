"""The memory of a step: predicted without data, against the allocator of a real step, by hand, and how it grows."""

from dataclasses import replace

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch.profiler import ProfilerActivity, profile
from unveil_backbones import create
from unveil_pretrain.errors import ConfigError
from unveil_pretrain.objectives.base import BuildContext, Inputs
from unveil_pretrain.planning.memory import ERROR, MemoryLine, StepMemory, step_memory
from unveil_pretrain.planning.simulation import Pairs, simulate
from unveil_pretrain.planning.storage_meter import StorageMeter
from unveil_pretrain.recipes import (
    mae_vit_h14,
    simmim_swinv2,
    tiny_beit,
    tiny_flip,
    tiny_ijepa,
    tiny_mae,
    tiny_simmim,
    tiny_simmim_vit,
)

MB = 2**20


def real_step(config, size, *, checkpointing=False, device="cpu"):
    """A function that runs forward and backward of `size` samples, after one that fills caches."""
    captions = [f"a thing {number}" for number in range(600)]
    objective = config.objective.build(
        BuildContext(
            encoder=create(config.encoder, image_size=config.image_size),
            image_size=config.image_size,
            captions=lambda most: captions[:most],
            tokenizer_json=None,
        )
    )
    objective.train().to(device).encoder.checkpoint_blocks = checkpointing

    def step(num):
        pixels = torch.randint(256, (num, 3, *config.image_size), dtype=torch.uint8, device=device)
        ids = torch.arange(num, device=device)
        texts = captions[:num] if config.objective.needs_captions else None
        with torch.autocast(device, torch.bfloat16, enabled=config.precision == "bfloat16"):
            losses = objective(Inputs(pixels.float(), ids, torch.zeros_like(ids), texts), seed=0).per_sample
        losses.mean().backward()
        del losses
        objective.zero_grad(set_to_none=True)

    step(2)
    return lambda: step(size)


def allocated(step):
    """The most bytes that the CPU's allocator had given out at once during a step, above those before it."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        step()
    now = most = 0
    for event in seen.profiler.kineto_results.events():
        if event.name() == "[memory]" and event.device_type() == torch.autograd.DeviceType.CPU:
            now += event.nbytes()
            most = max(most, now)
    return most


def predicted(config, size, *, checkpointing=False):
    return simulate(
        config,
        micro_batch=size,
        pairs=Pairs(own=size),
        explicit_attention=True,
        checkpointing=checkpointing,
        gradients="none",
    ).peak


@pytest.mark.parametrize(
    ("recipe", "change", "checkpointing"),
    [
        (tiny_mae, {}, False),
        (tiny_simmim, {}, True),
        (tiny_flip, {"precision": "bfloat16"}, True),
        pytest.param(tiny_mae, {}, True, marks=pytest.mark.slow),
        pytest.param(tiny_simmim, {}, False, marks=pytest.mark.slow),
        pytest.param(tiny_simmim_vit, {"precision": "bfloat16"}, False, marks=pytest.mark.slow),
        pytest.param(tiny_flip, {}, False, marks=pytest.mark.slow),
        pytest.param(tiny_ijepa, {}, False, marks=pytest.mark.slow),
    ],
)
def test_as_much_as_the_allocator_gives_out(recipe, change, checkpointing):
    """A real step of 24 samples: within 5 %, where 15 % are promised."""
    config = replace(recipe(), **change)
    if recipe is tiny_flip:  # so that the vocabulary of its captions has the size that is planned with
        config = replace(config, objective=replace(config.objective, vocab_size=64))
    measured = allocated(real_step(config, 24, checkpointing=checkpointing))
    assert predicted(config, 24, checkpointing=checkpointing) == pytest.approx(measured, rel=0.05)
    # A prediction for another configuration is not within the promise: the comparison can fail.
    assert predicted(config, 48, checkpointing=checkpointing) > (1 + ERROR) * measured


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device, and torch sees none")
@pytest.mark.parametrize("recipe", [tiny_mae, tiny_simmim, tiny_flip])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_as_much_as_cuda_gives_out(recipe, precision):
    config = replace(recipe(), precision=precision)
    step = real_step(config, 256, device="cuda")
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    step()
    measured = torch.cuda.max_memory_allocated() - before
    found = step_memory(replace(config, batch_size=256), micro_batch=256, device="cuda").activations
    assert found == pytest.approx(measured, rel=ERROR)


@pytest.mark.parametrize(
    ("precision", "size", "measured"),
    [
        ("float32", 64, 191_820_288),
        ("float32", 256, 760_851_968),
        ("bfloat16", 64, 129_041_920),
        ("bfloat16", 256, 486_720_000),
    ],
)
def test_as_much_as_an_h200_gave_out(precision, size, measured):
    """Peaks that PyTorch 2.11 counted for `tiny_simmim` (SwinV2) on an H200 on 26 November 2026."""
    config = replace(tiny_simmim(), precision=precision, batch_size=size)
    found = step_memory(config, micro_batch=size, device="cuda").activations
    assert found == pytest.approx(measured, rel=0.08)


def test_the_meter_by_hand():
    with StorageMeter() as meter:
        first = torch.empty(1000)
        assert meter.now == 4000
        second = first + first
        view = second[:10]
        del first
        assert (meter.now, meter.peak) == (4000, 8000)
        del second
        assert meter.now == 4000  # the view holds it
        del view
        assert meter.now == 0
        meter.reset_peak()
        assert meter.peak == 0


def test_moments_by_hand():
    memory = StepMemory(
        weights=10,
        optimizer=20,
        gradients=10,
        activations=35,
        gathered=7,
        messages=10,
        update=30,
        images=1,
        micro_batch=1,
    )
    assert memory.moments == {"backward": 73, "messages": 51, "update": 71}
    assert (memory.total, memory.moment) == (73, "backward")


def test_parts_by_hand():
    config = replace(tiny_mae(), batch_size=16)
    whole = step_memory(config, micro_batch=16, device="cpu")
    parameters = whole.gradients // 4
    assert parameters > 818_176  # the encoder's, and the decoder's
    assert whole.optimizer == 2 * whole.gradients
    assert whole.weights - whole.gradients == 4 * 64 * 128  # the encoder's positions are fixed
    assert whole.images == 2 * 16 * 3 * 64 * 64
    assert (whole.messages, whole.gathered) == (0, 0)
    copies = step_memory(config, micro_batch=16, device="cpu", num_replicas=2)
    assert copies.messages == copies.gradients == whole.gradients
    shards = step_memory(config, micro_batch=16, device="cpu", num_shards=2)
    assert (shards.weights, shards.optimizer) == (whole.weights // 2, whole.optimizer // 2)
    assert shards.gathered > 0 == shards.messages
    assert step_memory(config, micro_batch=16, device="cuda").update == whole.gradients
    # I-JEPA's teacher is kept and not trained.
    teacher = step_memory(tiny_ijepa(), micro_batch=2, device="cpu")
    assert teacher.weights > 1.5 * teacher.gradients


@pytest.mark.parametrize("recipe", [tiny_flip, pytest.param(tiny_simmim, marks=pytest.mark.slow)])
def test_a_line_is_a_little_above_the_simulation(recipe):
    config = replace(recipe(), batch_size=64)
    line = MemoryLine(config=config, device="cpu")
    for micro, cut in ((64, {}), (16, {}), (16, {"num_shards": 2}), (8, {"num_replicas": 4})):
        exact = step_memory(config, micro_batch=micro, device="cpu", **cut).total
        assert 0.97 * exact <= line.at(micro, **cut).total <= 1.15 * exact


@given(st.integers(1, 63), st.sampled_from([1, 2, 4]))
@example(62, 4)
@example(63, 4)
def test_memory_grows_with_the_micro_batch_and_falls_with_shards(micro, shards):
    line = MemoryLine(config=replace(tiny_mae(), batch_size=256), device="cuda")
    now, own = line.at(micro, num_shards=shards), 256 // shards
    if micro + 1 < own:  # the whole share of a process needs no whole gradients between micro-batches
        assert line.at(micro + 1, num_shards=shards).total >= now.total
    assert line.at(micro, num_shards=2 * shards).weights < now.weights
    largest = line.largest(now.total, num_shards=shards)
    assert largest >= micro
    assert line.at(largest, num_shards=shards).total <= now.total


def test_the_whole_share_may_fit_where_a_little_less_does_not():
    line = MemoryLine(config=replace(tiny_mae(), batch_size=256), device="cuda")
    whole, less = (line.at(micro, num_shards=4).total for micro in (64, 63))
    assert whole < less
    assert line.largest(whole, num_shards=4) == 64
    assert 0 < line.largest(whole - 1, num_shards=4) < 63
    assert line.largest(0, num_shards=4) == 0


def test_masks_precision_and_checkpointing_save():
    config = replace(tiny_mae(), batch_size=32)
    plain = step_memory(config, micro_batch=32, device="cpu")
    open_mask = replace(config, objective=replace(config.objective, mask_ratio=0.25))
    assert step_memory(open_mask, micro_batch=32, device="cpu").activations > plain.activations
    assert step_memory(config, micro_batch=32, device="cpu", checkpointing=True).activations < plain.activations
    half = replace(config, precision="bfloat16")
    assert step_memory(half, micro_batch=32, device="cpu").activations < plain.activations


@pytest.mark.slow
def test_the_largest_recipes():
    """SwinV2-g and ViT-H, by hand: 16 bytes of each parameter, and activations that FSDP does not cut."""
    giant = MemoryLine(config=replace(simmim_swinv2("g", "in22k", "500k"), precision="bfloat16"), device="cuda")
    assert giant.num_trained == pytest.approx(1.06e9, rel=0.03)
    alone = giant.at(1)
    assert alone.weights + alone.optimizer + alone.gradients == pytest.approx(16 * giant.num_trained, rel=0.01)
    shared = giant.at(1, num_shards=8)
    assert shared.weights + shared.optimizer + shared.gradients == pytest.approx(2 * giant.num_trained, rel=0.01)
    huge = MemoryLine(config=mae_vit_h14(), device="cuda")
    assert huge.num_trained == pytest.approx(657e6, rel=0.02)


def test_what_is_not_known():
    config = replace(tiny_mae(), batch_size=9)
    with pytest.raises(ConfigError, match="at least 1"):
        step_memory(config, micro_batch=0, device="cpu")
    with pytest.raises(ConfigError, match="batch of 9 cannot be dealt out equally to 2"):
        step_memory(config, micro_batch=1, device="cpu", num_shards=2)
    with pytest.raises(ConfigError, match="memory of beit is not known"):
        step_memory(tiny_beit(), micro_batch=1, device="cpu")
