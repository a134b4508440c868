"""Objectives whose tensors have no data, for counting what a step would hold; a model of any size costs nothing.

They are built on PyTorch's meta device, and their parameters are then replaced by fake ones (`FakeTensorMode`) of the
shapes and types of the real ones. Fake tensors are on the CPU whatever the device of the plan: CUDA cannot be imitated
where there is none. Where an encoder takes another way on CUDA, it is told to take it here too.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from unveil_backbones import ImageTextPair, SwinEncoder, WordPieceTokenizer, create, create_text
from unveil_backbones.swin_blocks import SwinBlock
from unveil_backbones.vit_attention import VitAttention
from unveil_masking import Grid, MultiBlockMask, Partition, RandomMask, UnitMask

from unveil_pretrain.config import FlipConfig, MimConfig
from unveil_pretrain.objectives.base import BuildContext, Objective
from unveil_pretrain.objectives.flip import FLIP, FLIPConfig
from unveil_pretrain.objectives.flip_model import PairLossSettings
from unveil_pretrain.objectives.flip_text import TextInput
from unveil_pretrain.objectives.ijepa import IJEPAConfig
from unveil_pretrain.objectives.mae import MAEConfig
from unveil_pretrain.objectives.simmim import SimMIMConfig
from unveil_pretrain.stochastic_depth import StochasticDepth

__all__ = ["KNOWN", "FixedMask", "fake_objective"]

KNOWN = SimMIMConfig | MAEConfig | FLIPConfig | IJEPAConfig
"""Objectives that can be simulated."""

_BPE_VOCABULARY = 49_408


class FixedMask:
    """Stands where a strategy stands, and always gives the same masks: drawing them needs data."""

    def __init__(self, strategy: RandomMask | UnitMask | MultiBlockMask, num_samples: int, grid: Grid) -> None:
        """Draw real masks for the samples 0, 1, 2, ..."""
        self.strategy = strategy
        self.unit = strategy.unit if isinstance(strategy, UnitMask) else 1
        ids = torch.arange(num_samples)
        self.real = strategy.sample(grid, ids, seed=0, epoch=torch.zeros_like(ids))
        self.known: Partition[Tensor] | None = None

    def hide_data(self, mode: FakeTensorMode) -> None:
        """Have `sample` give masks without data."""
        real = self.real
        self.known = Partition(mode.from_tensor(real.mask), real.grid, real.equal_count, real.most_kept)

    def sample(self, grid: Grid, sample_ids: Tensor, *, seed: int, epoch: Tensor) -> Partition[Tensor]:
        """The masks drawn at first, whatever is asked for."""
        del grid, sample_ids, seed, epoch
        assert self.known is not None
        return self.known


def fake_objective(
    config: MimConfig | FlipConfig,
    mode: FakeTensorMode,
    *,
    num_samples: int,
    explicit_attention: bool,
    half_blocks: bool = False,
) -> Objective:
    """The objective of `config`, in training mode, ready to be called with so many samples under `mode`.

    Args:
        config: Its settings; the objective is one of `KNOWN`.
        mode: Where its tensors belong to.
        num_samples: Samples of a forward pass.
        explicit_attention: Whether attention is made of plain products where it is on a CPU; else it is fused, as on
            CUDA.
        half_blocks: Whether the parameters of blocks are bfloat16, as FSDP gathers them under bfloat16.

    Raises:
        ConfigError: encoder, objective and image size do not fit together.
        BackboneError: the encoder is unknown or the image size does not suit it.
    """
    with torch.device("meta"):
        encoder = create(config.encoder, image_size=config.image_size, drop_path=config.drop_path)
        context = BuildContext(
            encoder=encoder, image_size=config.image_size, captions=lambda _: ["a"], tokenizer_json=None
        )
        objective = (
            _fake_flip(config.objective, context)
            if isinstance(config.objective, FLIPConfig)
            else config.objective.build(context)
        )
    objective.train()
    for branch in StochasticDepth.install(objective).branches:
        branch.factors = mode.from_tensor(torch.ones(num_samples))
    for module in objective.modules():
        if isinstance(module, VitAttention):
            module.explicit = module.explicit and explicit_attention
        elif isinstance(module, SwinBlock) and not explicit_attention:
            module.register_forward_pre_hook(_fused, with_kwargs=True)
    sides = encoder.grid(*config.image_size)
    if isinstance(encoder, SwinEncoder):
        encoder._plan(sides, torch.device("cpu"))  # pyright: ignore[reportPrivateUsage]  # made of data, once and for all
    strategy = getattr(objective, "strategy", None)
    if isinstance(strategy, RandomMask | UnitMask | MultiBlockMask):
        mask = FixedMask(strategy, num_samples, Grid(*sides))
        mask.hide_data(mode)
        objective.strategy = mask  # pyright: ignore[reportAttributeAccessIssue, reportArgumentType]
    blocks = {objective.get_submodule(name) for name in objective.block_names()} if half_blocks else set[nn.Module]()
    _replace_tensors(objective, mode, blocks)
    return objective


def _fused(block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Let a block of SwinV2 attend as on CUDA; fake tensors are said to lie on the CPU."""
    del block
    return args, {**kwargs, "kind": "sdpa"}


def _fake_flip(config: FLIPConfig, context: BuildContext) -> FLIP:
    """FLIP with a text tower of the planned size; the tokenizer, of which only the shapes matter, knows one word."""
    causal = config.tokenizer == "bpe"
    text = create_text(
        config.text,
        vocab_size=_BPE_VOCABULARY if causal else config.vocab_size,
        length=config.text_length,
        causal=causal,
        attend_padding=config.attend_padding,
    )
    # How long the captions of a batch are is not known: they count as if all were as long as they may be.
    text.set_optimisations(set(text.OPTIMISATIONS) - {"cut", "pack"})
    with torch.device("cpu"):
        tokenizer = WordPieceTokenizer.train(["a"], 64, length=config.text_length)
    masking = "none" if config.text_masking == "none" else "truncate"
    return FLIP(
        ImageTextPair(context.encoder, text, config.embed_dim),
        TextInput(tokenizer, causal=False, masking=masking, num_kept=config.text_keep),
        config._strategy(context.encoder),  # pyright: ignore[reportPrivateUsage]
        context.image_size,
        loss=PairLossSettings(kind=config.loss, initial_bias=config.initial_bias, chunk_size=config.loss_chunk),
        negative_pool=config.negative_pool,
        reconstruction=config._reconstruction(context.encoder),  # pyright: ignore[reportPrivateUsage]
        table=None,
    )


def _replace_tensors(objective: nn.Module, mode: FakeTensorMode, half: set[nn.Module]) -> None:
    """Put fake parameters and buffers in the place of those on the meta device; shared ones stay shared."""
    inside = {id(tensor) for block in half for tensor in block.parameters()}
    made: dict[int, nn.Parameter] = {}
    with mode, torch.device("cpu"):
        for module in objective.modules():
            for name, parameter in list(module.named_parameters(recurse=False)):
                if id(parameter) not in made:
                    kind = torch.bfloat16 if id(parameter) in inside else parameter.dtype
                    fake = torch.empty(parameter.shape, dtype=kind)
                    made[id(parameter)] = nn.Parameter(fake, requires_grad=parameter.requires_grad)
                setattr(module, name, made[id(parameter)])
            for name, buffer in list(module.named_buffers(recurse=False)):
                setattr(module, name, torch.empty(buffer.shape, dtype=buffer.dtype))
