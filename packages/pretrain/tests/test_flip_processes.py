"""FLIP over several processes and in micro-batches: the gradients of the whole batch on one."""

import os
import socket
from dataclasses import replace

import pytest
import torch
import torch.multiprocessing as mp
from safetensors.torch import load_file, save_file
from unveil_backbones import create
from unveil_pretrain import gradient_sums
from unveil_pretrain.data import Batch
from unveil_pretrain.objectives.base import BuildContext, Inputs
from unveil_pretrain.objectives.flip import FLIPConfig
from unveil_pretrain.step import GradientStep, rows_of
from unveil_pretrain.stochastic_depth import StochasticDepth
from unveil_pretrain.world import joined, world_of_environment

WORDS = ["red", "green", "blue", "white", "black", "yellow", "small", "large"]
SETTINGS = {
    "infonce": FLIPConfig(text="text_tiny", text_length=6, vocab_size=60, embed_dim=16, mask_ratio=0.5, loss_chunk=3),
    "sigmoid": FLIPConfig(
        text="text_tiny", text_length=6, vocab_size=60, embed_dim=16, loss="sigmoid", loss_chunk=3, initial_bias=-2.0
    ),
    "reconstruction": FLIPConfig(
        text="text_tiny", text_length=6, vocab_size=60, embed_dim=16, text_masking="random", text_keep=3,
        reconstruction_weight=0.3, decoder_width=16, decoder_depth=1, decoder_heads=2,
    ),
}  # fmt: skip


def batch(num=8):
    generator = torch.Generator().manual_seed(5)
    return Batch(
        images=torch.randint(0, 255, (num, 3, 32, 32), generator=generator, dtype=torch.uint8),
        sample_ids=torch.arange(num, dtype=torch.int64) + 70,
        epochs=torch.arange(num, dtype=torch.int64) % 2,
        captions=[f"a {WORDS[number % 8]} {WORDS[number * 3 % 7]} field" for number in range(num)],
    )


def normalise(batch):
    return Inputs(batch.images.double() / 255 - 0.5, batch.sample_ids, batch.epochs, batch.captions)


def gradients(kind, world, *, micro_batch_size=0):
    """Losses of this process's samples, and all gradients, of a FLIP with masks and stochastic depth."""
    torch.manual_seed(0)
    encoder = create("vit_tiny", image_size=(32, 32), drop_path=0.5)
    given = batch()
    context = BuildContext(encoder, (32, 32), captions=lambda most: given.captions[:most], tokenizer_json=None)
    objective = SETTINGS[kind].build(context).double().train()
    step = GradientStep(
        objective=objective,
        depth=StochasticDepth.install(objective),
        normalise=normalise,
        world=world,
        device=torch.device("cpu"),
        seed=3,
        micro_batch_size=micro_batch_size,
    )
    losses = step(rows_of(given, world.share(len(given.sample_ids)))).per_sample
    return losses, {name: parameter.grad for name, parameter in objective.named_parameters()}


def worker(rank, size, port, kind, micro_batch_size, folder):
    os.environ.update(
        RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(size), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port)
    )
    torch.set_num_threads(1)
    gradient_sums._MESSAGE = 2000  # elements: several messages of this small model
    with joined(world_of_environment(), torch.device("cpu")) as world:
        losses, found = gradients(kind, world, micro_batch_size=micro_batch_size)
    save_file({"losses": losses, **found}, f"{folder}/{rank}.safetensors")


def several(size, kind, folder, *, micro_batch_size=0):
    """Losses in rank order, and the gradients that each process ended with."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # Forked processes need not import everything again.
    mp.start_processes(worker, (size, port, kind, micro_batch_size, str(folder)), nprocs=size, start_method="fork")
    results = [load_file(folder / f"{rank}.safetensors") for rank in range(size)]
    return torch.cat([found.pop("losses") for found in results]), results


def same(kind, found, expected):
    """Losses and gradients are equal to rounding, which in float64 hides no mistake."""
    # MAE's error is a number of float32 whatever it is given.
    tolerance = 1e-6 if kind == "reconstruction" else 1e-10
    torch.testing.assert_close(found[0], expected[0], rtol=tolerance, atol=tolerance)
    assert found[1].keys() == expected[1].keys()
    for name, value in expected[1].items():
        largest = max(float(value.abs().max()), 1e-3)
        assert float((found[1][name] - value).abs().max()) <= tolerance * largest, name


@pytest.fixture(scope="module")
def whole():
    return {kind: gradients(kind, world_of_environment({})) for kind in SETTINGS}


@pytest.mark.parametrize("kind", SETTINGS)
@pytest.mark.parametrize("size", [1, 3, 4])
def test_gradients_of_micro_batches_are_those_of_the_whole(kind, size, whole):
    same(kind, gradients(kind, world_of_environment({}), micro_batch_size=size), whole[kind])


@pytest.mark.parametrize(("size", "kind", "micro"), [(2, "infonce", 0), (4, "sigmoid", 0), (4, "reconstruction", 1)])
def test_gradients_of_processes_are_those_of_the_whole(size, kind, micro, whole, tmp_path):
    losses, found = several(size, kind, tmp_path, micro_batch_size=micro)
    for of_process in found:
        same(kind, (losses, of_process), whole[kind])


def test_a_loss_among_ones_own_samples_only_is_noticed(whole):
    """What many implementations do: each process compares with its own pairs only."""
    given = batch()
    context = BuildContext(create("vit_tiny", image_size=(32, 32)), (32, 32), lambda most: given.captions[:most], None)
    objective = replace(SETTINGS["infonce"], loss_chunk=2).build(context).double()
    parts = [rows_of(given, part) for part in (slice(0, 4), slice(4, 8))]
    halves = [objective(normalise(part), seed=3).per_sample.detach() for part in parts]
    assert not torch.allclose(torch.cat(halves), whole["infonce"][0], rtol=1e-2)
