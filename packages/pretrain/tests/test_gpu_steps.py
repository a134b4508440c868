"""Training steps on a GPU: the loss and the gradients of the CPU, under bfloat16, compiled, and in micro-batches."""

from dataclasses import replace

import pytest
import torch
from unveil_pretrain.data import train_batches
from unveil_pretrain.recipes import tiny_flip, tiny_mae, tiny_simmim
from unveil_pretrain.recipes.tiny import tiny_beit, tiny_ijepa, tiny_simmim_vit, tiny_sparse_simmim, tiny_splitmask
from unveil_pretrain.record import RunFolder
from unveil_pretrain.run import assemble
from unveil_pretrain.sources import open_data

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device, and torch sees none"),
]

RECIPES = {
    recipe.__name__: recipe
    for recipe in (
        tiny_simmim,
        tiny_simmim_vit,
        tiny_sparse_simmim,
        tiny_mae,
        tiny_beit,
        tiny_splitmask,
        tiny_ijepa,
        tiny_flip,
    )
}


@pytest.fixture(autouse=True)
def exact_products():
    """No TF32: its 10 bits of mantissa would need tolerances that hide mistakes."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def small(name):
    """The recipe with what 24 training images can give: batches of 8, small vocabularies and pools."""
    config = replace(RECIPES[name](), batch_size=8, gap_images=0)
    objective = config.objective
    if name in ("tiny_beit", "tiny_splitmask"):
        objective = replace(objective, vocab_size=64)
    if name in ("tiny_flip", "tiny_splitmask"):
        objective = replace(objective, negative_pool=5)
    return replace(config, objective=objective)


def step(config, device, shards, tmp_path, **settings):
    """Per-sample losses and gradients of the first step, on the CPU."""
    data = open_data(config, train_data=shards[0], val_data=shards[1])
    with torch.random.fork_rng(devices=[torch.device("cuda")]):
        run, _ = assemble(config, data, RunFolder(tmp_path / "run"), None, device=torch.device(device), **settings)
    batch = next(train_batches(data.train, batch_size=8, start_step=0, num_steps=1, seed=config.seed))
    losses = run.gradients(batch).per_sample.detach().float().cpu()
    gradients = {
        name: parameter.grad.float().cpu()
        for name, parameter in run.objective.named_parameters()
        if parameter.grad is not None
    }
    return losses, gradients


def assert_close(found, expected, *, rel):
    torch.testing.assert_close(found[0], expected[0], rtol=rel, atol=rel)
    assert found[1].keys() == expected[1].keys()
    whole = sum(float(gradient.square().sum()) for gradient in expected[1].values()) ** 0.5
    apart = sum(float((found[1][name] - expected[1][name]).square().sum()) for name in expected[1]) ** 0.5
    assert apart <= 10 * rel * whole


@pytest.mark.parametrize("name", RECIPES)
def test_a_step_is_that_of_the_cpu(name, shards, tmp_path):
    """Masks and crops are equal by construction; float32 sums differ by their order."""
    config = small(name)
    assert_close(step(config, "cuda", shards, tmp_path), step(config, "cpu", shards, tmp_path), rel=1e-3)


@pytest.mark.parametrize("name", RECIPES)
def test_bfloat16_is_finite_and_near(name, shards, tmp_path):
    config = small(name)
    losses, gradients = step(replace(config, precision="bfloat16"), "cuda", shards, tmp_path)
    assert losses.isfinite().all()
    assert all(gradient.isfinite().all() for gradient in gradients.values())
    torch.testing.assert_close(losses, step(config, "cuda", shards, tmp_path)[0], rtol=0.1, atol=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tiny_simmim", "tiny_mae", "tiny_flip"])
def test_compiled_blocks_compute_the_same(name, shards, tmp_path):
    config = small(name)
    compiled = step(config, "cuda", shards, tmp_path, compile_blocks=True)
    assert_close(compiled, step(config, "cuda", shards, tmp_path), rel=1e-3)


@pytest.mark.parametrize("name", ["tiny_mae", "tiny_splitmask", "tiny_flip"])
def test_micro_batches_are_the_batch(name, shards, tmp_path):
    """FLIP's and SplitMask's losses are those of the whole batch, whatever it is cut into: 3, 3 and 2 samples."""
    config = small(name)
    cut = step(config, "cuda", shards, tmp_path, micro_batch_size=3)
    assert_close(cut, step(config, "cuda", shards, tmp_path), rel=1e-3)
