"""Text towers: captions as word pieces to one vector each, after FLIP and CLIP.

FLIP (Li et al., arXiv 2212.00794; details from the authors' released code): learned token and position embeddings, no
added class token, no causal mask. Two habits of that code are kept: padding is attended like any other token (its
validity mask is computed there and not used), and the caption's vector is the last layer's *token 0*, the first piece.

CLIP (Radford et al., arXiv 2103.00020): the same embeddings, a causal mask, and the vector of the end-of-text token,
which has the largest number of the vocabulary.
"""

from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import ClassVar

import torch
from jaxtyping import Float, Int, Int64
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from unveil_backbones.base import undecayed
from unveil_backbones.errors import ConfigError, TokenCountError, UnknownModelError
from unveil_backbones.specs import TextSpec
from unveil_backbones.text_block import Layout, TextBlock
from unveil_backbones.text_config import TextConfig

__all__ = ["TextConfig", "TextTower", "build_text", "create_text", "text_names"]


class TextTower(nn.Module):
    """A Transformer over word pieces that returns one vector per caption.

    Args:
        config: Its shape.
        name: Name of the architecture in the spec.

    Attributes:
        OPTIMISATIONS: Name of each faster way of computing the same, and one sentence about it.
        spec: Name and full configuration: what ``build_text`` needs to make it again.
        width: Width of the returned vector.
        checkpoint_blocks: Whether blocks forget their inner activations and compute them again in the backward pass.
    """

    OPTIMISATIONS: ClassVar[Mapping[str, str]] = MappingProxyType(
        {
            "last_block": "The last block computes the pooled token only.",
            "cut": "Unless padding is attended: tokens after the end of the batch's longest caption are not computed.",
            "pack": "Unless padding is attended: rows without padding; only attention sees captions side by side.",
        }
    )

    def __init__(self, config: TextConfig, name: str = "text") -> None:
        super().__init__()
        self.config = config
        self.spec = TextSpec(name, config.to_json())
        self.width = config.width
        self.checkpoint_blocks = False
        self._optimisations = frozenset(self.OPTIMISATIONS)
        self.token_embed = nn.Embedding(config.vocab_size, config.width)
        self.pos_embed = nn.Parameter(torch.empty(1, config.length, config.width))
        self.blocks = nn.ModuleList(TextBlock(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.width, eps=config.norm_epsilon)
        self._initialise()

    def _initialise(self) -> None:
        """Xavier in bidirectional towers (FLIP's code), by widths and depth in causal ones (CLIP)."""
        nn.init.normal_(self.token_embed.weight, std=0.02)
        nn.init.normal_(self.pos_embed, std=0.01)
        config = self.config
        residual = (2 * config.depth * config.width) ** -0.5
        deviations = {
            "attn.qkv": config.width**-0.5,
            "attn.proj": residual,
            "mlp.fc1": (2 * config.width) ** -0.5,
            "mlp.fc2": residual,
        }
        for block in self.blocks:
            for layer, deviation in deviations.items():
                linear = block.get_submodule(layer)
                assert isinstance(linear, nn.Linear)
                if config.causal:
                    nn.init.normal_(linear.weight, std=deviation)
                else:
                    nn.init.xavier_uniform_(linear.weight)
                nn.init.zeros_(linear.bias)

    @property
    def optimisations(self) -> frozenset[str]:
        """Names of the optimisations in use; all of ``OPTIMISATIONS`` at first."""
        return self._optimisations

    def set_optimisations(self, names: Collection[str]) -> None:
        """Use these optimisations and no others. Results stay equal up to rounding.

        Args:
            names: Any of ``OPTIMISATIONS``; empty for the plain way.

        Raises:
            ConfigError: A name is unknown.
        """
        unknown = set(names) - set(self.OPTIMISATIONS)
        if unknown:
            raise ConfigError(
                f"{self.spec.name} has no optimisations {sorted(unknown)}; it has: {', '.join(self.OPTIMISATIONS)}; "
                "leave the others out"
            )
        self._optimisations = frozenset(names)

    def forward(self, ids: Int[Tensor, "b t"], positions: Int64[Tensor, "b t"] | None = None) -> Float[Tensor, "b d"]:
        """Return each caption's vector, ``d = width``.

        Args:
            ids: Word pieces, at most ``length`` of them per caption, padded. They may lie on the CPU whatever the
                tower's device, and should: ``cut`` and ``pack`` need to know how long captions are before work is
                handed to an accelerator, and apply to such rows only.
            positions: Place of each piece, below ``length``, where pieces were dropped; 0, 1, 2, ... if ``None``.

        Raises:
            TokenCountError: Captions are empty or longer than the position embedding.
        """
        if not 1 <= ids.shape[1] <= self.config.length:
            raise TokenCountError(
                f"{self.spec.name} got captions of {ids.shape[1]} word pieces; it takes 1 to {self.config.length}; "
                "use the tokenizer that was saved with it"
            )
        ids, layout = self._arrange(ids)
        table = self._embed(ids, layout, positions)
        for index, block in enumerate(self.blocks):
            pooled_only = "last_block" in self._optimisations and index == len(self.blocks) - 1
            if self.checkpoint_blocks and torch.is_grad_enabled():
                table = checkpoint(block, table, layout, pooled_only, use_reentrant=False)
            else:
                table = block(table, layout, pooled_only)
        return self.norm(table if "last_block" in self._optimisations else table[layout.pooled])

    def _arrange(self, ids: Int[Tensor, "b t"]) -> tuple[Int[Tensor, "b u"], Layout]:
        """Decide which tokens are computed; return the kept columns and their layout, on the tower's device."""
        config, device = self.config, self.token_embed.weight.device
        ends = ids.argmax(dim=1) if config.pooling == "eot" else torch.zeros_like(ids[:, 0], dtype=torch.int64)
        columns = torch.arange(ids.shape[1], device=ids.device)
        keys = None
        if config.causal:
            keys = columns <= ends[:, None]
        elif not config.attend_padding:
            # The pooled token is always there: a caption of padding alone would have nothing to attend.
            keys = (ids != config.pad_id) | (columns == ends[:, None])
        shortens = keys is not None and ids.device.type == "cpu" and len(ids) > 0
        if shortens and keys is not None and self._optimisations & {"cut", "pack"}:
            longest = int(keys.any(dim=0).nonzero().max()) + 1
            ids, keys = ids[:, :longest], keys[:, :longest]
        length = ids.shape[1]
        rows, pooled = None, torch.arange(len(ids), device=ids.device) * length + ends
        if shortens and keys is not None and "pack" in self._optimisations:
            there = keys.flatten()
            rows = there.nonzero().squeeze(1).to(device, non_blocking=True)
            pooled = there.cumsum(0)[pooled] - 1
        layout = Layout(
            captions=len(ids),
            length=length,
            pooled=pooled.to(device, non_blocking=True),
            rows=rows,
            causal=config.causal,
            keys=None if keys is None else keys.to(device, non_blocking=True),
        )
        return ids.to(device, non_blocking=True), layout

    def _embed(
        self, ids: Int[Tensor, "b t"], layout: Layout, positions: Int64[Tensor, "b u"] | None
    ) -> Float[Tensor, "r d"]:
        if positions is not None:
            positions = positions[:, : layout.length].to(ids.device, non_blocking=True)
        if layout.rows is None:
            position = self.pos_embed[0, : layout.length] if positions is None else self.pos_embed[0][positions]
            return (self.token_embed(ids) + position).flatten(0, 1)
        places = layout.rows % layout.length if positions is None else positions.flatten()[layout.rows]
        return self.token_embed(ids.flatten()[layout.rows]) + nn.functional.embedding(places, self.pos_embed[0])

    def block_names(self) -> tuple[str, ...]:
        """Return the module paths of the blocks: units to wrap for FSDP and of ``checkpoint_blocks``."""
        return tuple(f"blocks.{index}" for index in range(len(self.blocks)))

    def no_weight_decay(self) -> frozenset[str]:
        """Return biases, norms and the position embedding (FLIP, table 10)."""
        return undecayed(self, ("pos_embed",))


_PRESETS: Mapping[str, tuple[int, int, int]] = MappingProxyType(
    # width, depth, heads; text_b, text_l and text_h are FLIP's table 9, text_s narrows text_b to ViT-S's width.
    {
        "text_tiny": (128, 2, 4),
        "text_s": (384, 12, 6),
        "text_b": (512, 12, 8),
        "text_l": (768, 12, 12),
        "text_h": (1024, 24, 16),
    }
)


def text_names() -> tuple[str, ...]:
    """Return the names that ``create_text`` knows."""
    return tuple(_PRESETS)


def create_text(
    name: str, vocab_size: int, length: int, *, causal: bool = False, attend_padding: bool = True
) -> TextTower:
    """Make a text tower with fresh weights; for others give ``TextTower`` a ``TextConfig``.

    Args:
        name: One of ``text_names()``.
        vocab_size: Number of word pieces of its tokenizer.
        length: Word pieces per caption (FLIP: 32, CLIP: 77).
        causal: CLIP's tower, which pools the end of text, instead of FLIP's bidirectional one.
        attend_padding: Of bidirectional towers, as in ``TextConfig``.

    Raises:
        UnknownModelError: The name is none of ``text_names()``.
        ConfigError: A size is not positive.
    """
    if name not in _PRESETS:
        raise UnknownModelError(
            f"text tower {name!r} is unknown; there are {', '.join(text_names())}; choose one of them"
        )
    width, depth, heads = _PRESETS[name]
    config = TextConfig(
        vocab_size=vocab_size,
        length=length,
        width=width,
        depth=depth,
        num_heads=heads,
        causal=causal,
        pooling="eot" if causal else "first",
        norm_epsilon=1e-5 if causal else 1e-6,
        attend_padding=attend_padding,
    )
    return TextTower(config, name)


def build_text(spec: TextSpec) -> TextTower:
    """Make the text tower that a spec describes, with fresh weights.

    Raises:
        UnknownModelError: The spec's name is neither one of ``text_names()`` nor ``text``.
        ManifestError: A field of the configuration is missing, unknown or of the wrong type.
        ConfigError: The values make no text tower.
    """
    if spec.name != "text" and spec.name not in _PRESETS:
        raise UnknownModelError(
            f"text tower {spec.name!r} is unknown; this version builds {', '.join((*text_names(), 'text'))}; "
            "upgrade unveil-backbones if a newer version made it"
        )
    return TextTower(TextConfig.from_json(spec.config), spec.name)
