"""The benchmark of whole training steps: both steps train, and memory is that of the process that is asked."""

import json

import pytest
import torch
from torch import nn
from unveil_backbones import create
from unveil_pretrain.objectives.base import BuildContext
from unveil_pretrain.recipes import tiny_videomae

from benchmarks import pretrain
from benchmarks._device import open_device
from benchmarks._steps import Work
from benchmarks._train_step import our_step, reference_step, uint8_batch


@pytest.fixture
def work():
    return Work(device=open_device("cpu"), batch=2, autocast=False, quick=True)


def test_our_step_is_an_update_of_the_loop(work):
    recipe = tiny_videomae()
    torch.manual_seed(0)
    encoder = create(recipe.encoder, image_size=recipe.image_size, num_frames=8)
    objective = recipe.objective.build(BuildContext(encoder, recipe.image_size, lambda _: [], None))
    before = {name: value.clone() for name, value in objective.state_dict().items()}
    our_step(objective, recipe, uint8_batch(work, (8, *recipe.image_size)), work)()
    changed = [name for name, value in objective.state_dict().items() if not torch.equal(value, before[name])]
    assert len(changed) > 0.9 * len(before)


class Square(nn.Module):
    """A loss whose gradient is known: the mean of the normalised pixels times one weight."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(2.0))

    def forward(self, images):
        return self.weight**2 + 0 * images.mean()


@pytest.mark.parametrize("clip", [True, False])
def test_the_references_step_is_one_of_adamw(work, clip):
    recipe, model = tiny_videomae(), Square()
    reference_step(model, recipe, uint8_batch(work, (4, 4)), work, clip=clip)()
    # The first update of Adam is the rate, whatever the gradient; a scalar does not decay.
    assert model.weight.item() == pytest.approx(2.0 - recipe.lr, abs=1e-6)
    assert model.weight.grad is None


def test_batches_are_equal_in_every_call(work):
    one, other = (uint8_batch(work, (2, 4, 4)) for _ in range(2))
    assert one.images.shape == (2, 3, 2, 4, 4)
    assert torch.equal(one.images, other.images)


def test_memory_counts_what_this_process_held_at_most():
    before = pretrain._memory_line("VmHWM")
    block = torch.ones(2**26)  # 256 MiB
    del block
    assert pretrain._memory_line("VmHWM") >= max(before, 2**28)
    assert pretrain._memory_line("VmRSS") <= pretrain._memory_line("VmHWM")


@pytest.mark.slow
def test_the_benchmark_runs_without_peers_and_says_so(tmp_path, capsys):
    out = tmp_path / "figures.json"
    arguments = ["--quick", "--only", "mae", "videomae", "--rounds", "1", "--batch", "1", "--json", str(out)]
    assert pretrain.main(arguments) == 0
    text = capsys.readouterr().out
    assert "clone github.com/facebookresearch/mae and give --mae PATH" in text
    assert "peak memory, videomae, ours" in text
    assert "trial" in text
    assert json.loads(out.read_text())
