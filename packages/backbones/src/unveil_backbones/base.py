"""What every image encoder offers: ``embed`` (pixels to tokens) and ``encode`` (tokens to tokens), in two halves.

Masking happens between the two, outside of the encoder. Shapes: ``b`` images, ``c h w`` pixels, ``n`` tokens of
``embed`` in raster order, ``k`` kept ones, ``m`` tokens of ``encode``, ``d`` and ``e`` their widths.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from types import MappingProxyType
from typing import ClassVar, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from unveil_backbones._json import JSON
from unveil_backbones.errors import ConfigError, ImageSizeError, KeepError, TokenCountError, UnknownLayerError
from unveil_backbones.specs import EncoderSpec

__all__ = ["POOLINGS", "Encoder", "EncoderConfig", "Pooling", "check_image_size", "undecayed"]

Pooling = Literal["mean", "mean_all", "cls"]
"""How tokens become one vector: mean of the image's tokens, mean of all tokens (FLIP), or the class token alone."""

POOLINGS: tuple[Pooling, ...] = ("mean", "mean_all", "cls")


@runtime_checkable
class EncoderConfig(Protocol):
    """What the typed configurations of all families have in common."""

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of pre-training."""
        ...

    def to_json(self) -> dict[str, JSON]:
        """Return plain JSON values."""
        ...


class Encoder(nn.Module, ABC):
    """An image encoder on timm's modules; parameter names are timm's.

    Attributes:
        OPTIMISATIONS: Name of each faster way of computing the same, and one sentence about it.
        UNMEASURED: Those of them that are off at first, because nobody has shown them to be faster yet.
        spec: Name and full configuration: what ``build`` needs to make it again.
        width: Width of the tokens of ``encode`` and of ``forward``.
        embed_width: Width of the tokens of ``embed``.
        patch_size: Side in pixels of a token of ``embed``.
        stride: Side in pixels of a token of ``encode``.
        num_prefix_tokens: Tokens that ``encode`` puts before those of the image.
        accepts_subset: Whether ``encode`` takes a part of the tokens.
        accepts_padding: Whether there is ``encode_padded``, for images that keep unequal numbers of tokens.
        needs_keep: Whether ``encode`` has to be told which tokens of the grid such a part is: what a block computes
            depends on places (rotary positions, Hiera's units), not on what ``embed`` added to the tokens alone.
        mask_unit: Side, in tokens of ``embed``, of the squares that are kept or hidden as a whole (Hiera: 8).
        feature_channels: Channels of each map of ``features``.
        feature_strides: Pixels per cell of each map of ``features``.
        pooling: How ``forward`` and ``encode_pooled`` make one vector of the tokens.
        checkpoint_blocks: Whether blocks forget their inner activations and compute them again in the backward pass:
            less memory, the same gradients.
    """

    OPTIMISATIONS: ClassVar[Mapping[str, str]] = MappingProxyType({})
    UNMEASURED: ClassVar[frozenset[str]] = frozenset()

    spec: EncoderSpec
    width: int
    embed_width: int
    patch_size: int
    stride: int
    num_prefix_tokens: int
    accepts_subset: bool
    accepts_padding: bool = False
    needs_keep: bool = False
    mask_unit: int = 1
    feature_channels: tuple[int, ...]
    feature_strides: tuple[int, ...]
    pooling: Pooling
    checkpoint_blocks: bool

    def __init__(self) -> None:
        super().__init__()
        self.pooling = "mean"
        self.checkpoint_blocks = False
        self._optimisations = frozenset(self.OPTIMISATIONS) - self.UNMEASURED

    @property
    @abstractmethod
    def config(self) -> EncoderConfig:
        """The typed configuration, for ``rebuild``."""

    @property
    def optimisations(self) -> frozenset[str]:
        """Names of the optimisations in use; all of ``OPTIMISATIONS`` but ``UNMEASURED`` at first."""
        return self._optimisations

    def set_optimisations(self, names: Collection[str]) -> None:
        """Use these optimisations and no others. Results stay equal up to rounding.

        Args:
            names: Any of ``OPTIMISATIONS``; empty for timm's own way.

        Raises:
            ConfigError: A name is unknown.
        """
        unknown = set(names) - set(self.OPTIMISATIONS)
        if unknown:
            known = ", ".join(self.OPTIMISATIONS) or "none"
            raise ConfigError(
                f"{self.spec.name} has no optimisations {sorted(unknown)}; it has: {known}; leave the others out"
            )
        self._optimisations = frozenset(names)

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Return rows and columns of ``embed``'s tokens for an image of this size.

        Raises:
            ImageSizeError: A side is not a multiple of ``stride``.
        """
        check_image_size(height, width, self.stride, self.spec.name)
        return height // self.patch_size, width // self.patch_size

    @abstractmethod
    def embed(
        self, images: Float[Tensor, "b c h w"], keep: Int64[Tensor, "b k"] | None = None
    ) -> Float[Tensor, "b n d"]:
        """Turn images into tokens in raster order, positions added where the encoder has them.

        Args:
            images: Pixels.
            keep: Raster indices of the tokens that are wanted, in any order; all of them if ``None``. With it the
                result is ``[b, k, d]`` and equals the gathered full result, except where patches overlap (Hiera):
                there hidden pixels count as zeros. Only if ``accepts_subset``.

        Raises:
            ImageSizeError: A side is not a multiple of ``stride``.
            TokenCountError: ``keep`` was given to an encoder that needs all tokens, or does not fit the grid.
            KeepError: ``keep`` has incomplete mask units.
        """

    def positions(self, grid: tuple[int, int]) -> Float[Tensor, "n d"] | None:
        """Return what ``embed`` adds to each token of this grid for its place; ``None`` if it adds nothing.

        A mask token that replaces a patch embedding is a stranger to its place until this is added to it:
        ``where(hidden, mask_token + positions(grid), embed(images))`` hides patches *before* positions are added, as
        SimMIM and BEiT do.

        Args:
            grid: Rows and columns of the tokens.
        """
        del grid
        return None

    @abstractmethod
    def encode(
        self, tokens: Float[Tensor, "b n d"], grid: tuple[int, int], keep: Int64[Tensor, "b k"] | None = None
    ) -> Float[Tensor, "b m e"]:
        """Run the blocks and the final norm.

        Args:
            tokens: What ``embed`` returned, or a part of it if ``accepts_subset``, or a mixture with mask tokens.
            grid: Rows and columns of the whole image's tokens.
            keep: Raster index of each of ``tokens``; those of the whole image in order if ``None``. Pass it whenever
                ``embed`` had it: encoders without ``needs_keep`` do not look at it.

        Raises:
            TokenCountError: The number of tokens does not fit the grid, or that of ``keep``.
            KeepError: A part of the tokens came without ``keep`` although ``needs_keep``, or has incomplete mask units.
        """

    def encode_padded(
        self, tokens: Float[Tensor, "b n d"], grid: tuple[int, int], present: Bool[Tensor, "b n"]
    ) -> Float[Tensor, "b m e"]:
        """Return ``encode`` of the tokens that are present; only if ``accepts_padding``.

        Args:
            tokens: A part of what ``embed`` returned, filled up to one length by any others.
            grid: As for ``encode``.
            present: True for the tokens that count; no token attends to the others, whose results mean nothing.

        Raises:
            TokenCountError: The encoder has no such way, or there are more tokens than the grid has.
        """
        del tokens, grid, present
        raise TokenCountError(
            f"{self.spec.name} takes equally many tokens of every image; choose a vit encoder for unequal numbers"
        )

    def encode_at(
        self, tokens: Float[Tensor, "b n d"], grid: tuple[int, int], places: Int64[Tensor, "b r"]
    ) -> Float[Tensor, "b r e"]:
        """Return ``encode(tokens, grid)`` at some places; an encoder may skip what the others alone would need.

        Args:
            tokens: As for ``encode``.
            grid: As for ``encode``.
            places: Indices into the tokens of ``encode``, those of prefix tokens included.

        Raises:
            TokenCountError: The number of tokens does not fit the grid.
        """
        return torch.take_along_dim(self.encode(tokens, grid), places[:, :, None], 1)

    @abstractmethod
    def features(self, images: Float[Tensor, "b c h w"]) -> list[Float[Tensor, "b _ _ _"]]:
        """Return the encoder's native feature maps, finest first (``feature_channels``, ``feature_strides``)."""

    def encode_pooled(
        self, tokens: Float[Tensor, "b n d"], grid: tuple[int, int], keep: Int64[Tensor, "b k"] | None = None
    ) -> Float[Tensor, "b e"]:
        """Return ``pool(encode(tokens, grid, keep))``; an encoder may skip what pooling does not read.

        Args:
            tokens: As for ``encode``.
            grid: As for ``encode``.
            keep: As for ``encode``.

        Raises:
            TokenCountError: The number of tokens does not fit the grid, or that of ``keep``.
            KeepError: As for ``encode``.
        """
        return self.pool(self.encode(tokens, grid, keep))

    def pool(self, tokens: Float[Tensor, "b m e"], pooling: Pooling | None = None) -> Float[Tensor, "b e"]:
        """Return one vector per image from the tokens of ``encode``.

        Args:
            tokens: The encoded tokens.
            pooling: How; as the encoder's ``pooling`` says if ``None``.
        """
        how = pooling or self.pooling
        if how == "cls":
            return tokens[:, 0]
        return tokens[:, self.num_prefix_tokens if how == "mean" else 0 :].mean(dim=1)

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b e"]:
        """Return one vector per image: the pooled tokens of ``encode``."""
        return self.encode_pooled(self.embed(images), self.grid(images.shape[-2], images.shape[-1]))

    @abstractmethod
    def layer_groups(self) -> list[list[str]]:
        """Return the names of all parameters in groups from the input to the final norm, for layer-wise rates."""

    def no_weight_decay(self) -> frozenset[str]:
        """Return the names of the parameters that weight decay must not touch: biases, norms, tokens, positions."""
        return undecayed(self)

    def block_names(self) -> tuple[str, ...]:
        """Return the module paths of the transformer blocks, in order.

        They are the units to wrap for FSDP and the units of ``checkpoint_blocks``.
        """
        paths = [name.rpartition(".") for name, _ in self.named_modules()]
        return tuple(f"{parent}.{last}" for parent, _, last in paths if _is_block(parent, last))

    def intermediate_names(self) -> tuple[str, ...]:
        """Return the names of the layers whose outputs are usually wanted: the blocks and the final norm.

        ``intermediates`` takes every module path that runs in ``encode``, such as ``blocks.0.attn.qkv``, too.
        """
        return (*self.block_names(), *(name for name, _ in self.named_children() if name == "norm"))

    def intermediates(self, images: Float[Tensor, "b c *t h w"], names: Sequence[str]) -> dict[str, Tensor]:
        """Return the outputs of the named layers for whole images, each in the layer's own shape.

        Args:
            images: Pixels.
            names: Module paths, for example from ``intermediate_names()``.

        Raises:
            UnknownLayerError: No module has such a path, or it did not run, or its output is not one tensor.
        """
        modules = dict(self.named_modules())
        unknown = [name for name in names if not name or name not in modules]
        if unknown:
            raise UnknownLayerError(
                f"{self.spec.name} has no layers {unknown}; it has {', '.join(self.intermediate_names())} and the "
                "modules inside; choose among them"
            )
        found: dict[str, Tensor] = {}
        handles = [modules[name].register_forward_hook(_recorder(found, name)) for name in names]
        try:
            self._encode_whole(images)
        finally:
            for handle in handles:
                handle.remove()
        silent = [name for name in names if name not in found]
        if silent:
            raise UnknownLayerError(
                f"layers {silent} of {self.spec.name} gave no tensor: they do not run as modules of their own; "
                f"choose among {', '.join(self.intermediate_names())}"
            )
        return {name: found[name] for name in names}

    @property
    def num_parameters(self) -> int:
        """Number of parameters."""
        return sum(parameter.numel() for parameter in self.parameters())

    def _encode_whole(self, images: Tensor) -> Tensor:
        """Return the encoded tokens of whole images."""
        return self.encode(self.embed(images), self.grid(images.shape[-2], images.shape[-1]))

    def _run(self, block: Callable[..., Tensor], *inputs: Tensor | None) -> Tensor:
        """Run a block, or a function of it, under ``checkpoint_blocks``.

        The state of the random generators is kept, so that drop path takes the same decisions twice.
        """
        if self.checkpoint_blocks and torch.is_grad_enabled():
            return checkpoint(block, *inputs, use_reentrant=False)
        return block(*inputs)

    def _check_count(self, given: int, grid: tuple[int, ...]) -> None:
        """Refuse a number of tokens that cannot come from ``grid``."""
        whole = math.prod(grid)
        if given == whole or (self.accepts_subset and given < whole):
            return
        allowed = f"at most {whole}" if self.accepts_subset else f"exactly {whole}"
        raise TokenCountError(
            f"{self.spec.name} got {given} tokens for a grid of {' x '.join(map(str, grid))}; it takes {allowed}; "
            "pass the grid that `encoder.grid(height, width)` returns"
        )

    def _check_tokens(self, tokens: Tensor, grid: tuple[int, ...], keep: Tensor | None) -> None:
        """Refuse tokens that cannot come from ``grid``, or whose places are not known but needed."""
        given = tokens.shape[1]
        self._check_count(given, grid)
        if keep is None:
            if self.needs_keep and given != math.prod(grid):
                raise KeepError(
                    f"{self.spec.name} got {given} of {math.prod(grid)} tokens and no `keep`; its blocks depend on "
                    "the tokens' places; pass `encode` the `keep` that `embed` was given"
                )
            return
        if keep.shape[1] != given:
            raise TokenCountError(
                f"{self.spec.name} got {given} tokens and `keep` for {keep.shape[1]}; both are the same number; "
                "pass the `keep` that `embed` was given"
            )

    def _check_keep(self, keep: Tensor | None, grid: tuple[int, ...]) -> None:
        """Refuse ``keep`` where all tokens are needed, or where it names more tokens than the grid has."""
        if keep is None:
            return
        if not self.accepts_subset:
            raise TokenCountError(
                f"{self.spec.name} needs all tokens and got `keep` for {keep.shape[1]}; leave `keep` out and replace "
                "hidden tokens by mask tokens, or choose an encoder with `accepts_subset`"
            )
        self._check_count(keep.shape[1], grid)


def check_image_size(height: int, width: int, multiple: int, who: str) -> None:
    """Refuse image sides that are not positive multiples of ``multiple``, and name the nearest that are.

    Raises:
        ImageSizeError: A side does not fit.
    """
    if height > 0 and width > 0 and height % multiple == 0 and width % multiple == 0:
        return
    sizes = [" or ".join(str(near) for near in _nearest(side, multiple)) for side in (height, width)]
    raise ImageSizeError(
        f"{who} got an image of {height} x {width} pixels; height and width have to be multiples of {multiple}; "
        f"resize or pad to height {sizes[0]} and width {sizes[1]}"
    )


def undecayed(module: nn.Module, containing: tuple[str, ...] = ()) -> frozenset[str]:
    """Names of parameters with at most one axis longer than 1, or with one of the given words in their name."""
    return frozenset(
        name
        for name, parameter in module.named_parameters()
        if sum(side > 1 for side in parameter.shape) <= 1 or any(word in name for word in containing)
    )


def _nearest(side: int, multiple: int) -> list[int]:
    below = side // multiple * multiple
    if below == side and side > 0:
        return [side]
    return [below, below + multiple] if below > 0 else [multiple]


def _is_block(parent: str, last: str) -> bool:
    """Whether a module path ends in ``blocks.<number>``, as timm names the blocks of every family."""
    return last.isdigit() and parent.rpartition(".")[2] == "blocks"


def _recorder(found: dict[str, Tensor], name: str) -> Callable[[nn.Module, object, object], None]:
    def record(module: nn.Module, inputs: object, output: object) -> None:
        if isinstance(output, Tensor):
            # The first run counts: under activation checkpointing the backward pass runs the layer again.
            found.setdefault(name, output)

    return record
