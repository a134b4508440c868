"""Gradients of one step by `GradientStep`, in this process or, as a script, by every process of a run.

As a script: gradients.py FILE MICRO_BATCH_SIZE SHARDS KIND ...; each process prints its losses, the first writes
gradients. SHARDS is 0 for whole copies of the weights.
"""

import json
import sys
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812
from safetensors.torch import save_file
from torch import nn
from torch.distributed.tensor import DTensor
from unveil_backbones import create
from unveil_masking import Grid, RandomMask
from unveil_pretrain import gradient_sums
from unveil_pretrain.data import Batch
from unveil_pretrain.objectives.base import BuildContext, Encoded, Inputs, LossOutput, Objective, ValidationCard
from unveil_pretrain.objectives.mae import MAEConfig
from unveil_pretrain.objectives.simmim import SimMIMConfig
from unveil_pretrain.parallel import Parallel, shard
from unveil_pretrain.step import GradientStep, rows_of
from unveil_pretrain.stochastic_depth import StochasticDepth
from unveil_pretrain.world import World, joined, world_of_environment

KINDS = ("mae", "simmim", "coupled")
SIZE = 8


class Coupled(Objective):
    """Two masked views of each image find each other among those of the whole batch; each has a loss of its own too."""

    def __init__(self, encoder, size):
        super().__init__()
        self.encoder, self.size = encoder, size
        self.projection = nn.Linear(encoder.width, 5)
        self.log_scale = nn.Parameter(torch.tensor(1.0))

    couples_samples = True

    def card(self):
        return ValidationCard(target_normalisation="none", reduction="samples", mask={}, realised_ratio=0.5)

    def encode_samples(self, inputs, *, seed):
        sides = self.encoder.grid(*self.size)
        views = []
        for number in range(2):
            partition = RandomMask(0.5).sample(Grid(*sides), inputs.sample_ids, seed=seed + number, epoch=inputs.epochs)
            kept = self.encoder.embed(inputs.images, partition.keep)
            views.append(F.normalize(self.projection(self.encoder.pool(self.encoder.encode(kept, sides))), dim=1))
        own = (views[0] - views[1]).square().sum(1) * self.projection.bias.exp().sum()
        return Encoded(tuple(views), own, kept.shape[0] * kept.shape[1])

    def compare(self, embeddings, *, first, gather):
        mine, others = embeddings[0], gather(embeddings[1])
        partner = torch.arange(first, first + len(mine))
        return F.cross_entropy(self.log_scale.exp() * mine @ others.T, partner, reduction="none")

    def forward(self, inputs, *, seed):
        encoded = self.encode_samples(inputs, seed=seed)
        return LossOutput(
            self.compare(encoded.embeddings, first=0, gather=lambda rows: rows) + encoded.own, encoded.num_tokens
        )


def build(kind):
    """The objective with stochastic depth, and the batch."""
    torch.manual_seed(3)
    encoder = create("swinv2_tiny" if kind == "simmim" else "vit_tiny", image_size=(32, 32), drop_path=0.5)
    if kind == "coupled":
        objective = Coupled(encoder, (32, 32))
    else:
        config = (
            SimMIMConfig(mask_unit=8, target_window=0)
            if kind == "simmim"
            else MAEConfig(decoder_width=16, decoder_depth=1, decoder_heads=2)
        )
        objective = config.build(
            BuildContext(encoder=encoder, image_size=(32, 32), captions=lambda most: [], tokenizer_json=None)
        )
    with torch.no_grad():
        for parameter in objective.parameters():  # SwinV2's last norms begin at zero
            parameter.add_(0.02 * torch.randn_like(parameter))
    batch = Batch(
        images=torch.randint(0, 256, (SIZE, 3, 32, 32), dtype=torch.uint8),
        sample_ids=torch.arange(SIZE) * 7919 + 11,
        epochs=torch.tensor([0, 0, 0, 0, 0, 1, 1, 1]),
        captions=None,
    )
    return objective.double().train(), batch


def normalise(batch):
    return Inputs(batch.images.double() / 128 - 1, batch.sample_ids, batch.epochs, batch.captions)


def gradients(kind, micro_batch_size, world=None, *, checkpoint_blocks=False, num_shards=0):
    """Losses of this process's samples, and all gradients by name."""
    world, (objective, batch) = world or World(), build(kind)
    objective.encoder.checkpoint_blocks = checkpoint_blocks
    depth = StochasticDepth.install(objective)
    if num_shards:
        parallel = Parallel(kind="fsdp", shard_over=num_shards)
        shard(objective, parallel, world, torch.device("cpu"), bfloat16=False)
    step = GradientStep(
        objective=objective,
        depth=depth,
        normalise=normalise,
        world=world,
        device=torch.device("cpu"),
        seed=5,
        micro_batch_size=micro_batch_size,
    )
    losses = step(rows_of(batch, world.share(SIZE)))
    named = {name: parameter.grad for name, parameter in objective.named_parameters() if parameter.grad is not None}
    return losses, {name: one.full_tensor() if isinstance(one, DTensor) else one for name, one in named.items()}


if __name__ == "__main__":
    file, micro, shards, *kinds = sys.argv[1:]
    world = world_of_environment()
    gradient_sums._MESSAGE = 2000  # elements: several messages of these small models, and some with a single tensor
    with joined(world, torch.device("cpu")):
        for kind in kinds:
            checkpoint_blocks = int(shards) > 0 and int(micro) > 0
            losses, found = gradients(
                kind, int(micro), world, num_shards=int(shards), checkpoint_blocks=checkpoint_blocks
            )
            print(json.dumps(losses.per_sample.tolist()))
            if world.writes:
                save_file(found, Path(file).with_suffix(f".{kind}"))
