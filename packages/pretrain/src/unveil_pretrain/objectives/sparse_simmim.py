"""Sparse SimMIM on SwinV2: only visible units are encoded; a light decoder predicts the pixels of the hidden ones.

This is another objective than `simmim`, not a faster way to the same: no mask token enters the encoder, visible tokens
attend to visible tokens of their window alone, and windows without any are not computed (`unveil_backbones.swin_sparse`
has the definition). The decoder, on the final grid of 32-pixel cells, gets the encoded cells and mask tokens with their
positions. Masks, targets and the loss on the hidden pixels are SimMIM's (arXiv:2111.09886); the way to encode is in the
spirit of GreenMIM (arXiv:2205.13515), with one mask per sample instead of one per batch.

Its validation loss is comparable between sparse runs, never with `simmim`'s: the task is another, and so is the
encoder's input at fine-tuning, where all units are visible for the first time.

Shapes: b samples, u units, k visible cells, m hidden cells of the final grid, c h w pixels.
"""

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor
from unveil_backbones import Encoder, SwinEncoder
from unveil_backbones.position import sin_cos_position
from unveil_backbones.swin_sparse import encode_units
from unveil_masking import Grid, UnitMask

from unveil_pretrain.errors import ConfigError
from unveil_pretrain.losses import cell_l1
from unveil_pretrain.objectives.base import BuildContext, Inputs, LossOutput, Objective, ObjectiveConfig, ValidationCard
from unveil_pretrain.objectives.mae import MAEDecoder, check_decoder
from unveil_pretrain.targets import cut_cells, normalise_by_window

__all__ = ["SparseSimMIM", "SparseSimMIMConfig"]


@dataclass(frozen=True, kw_only=True, slots=True)
class SparseSimMIMConfig(ObjectiveConfig):
    """Settings of sparse SimMIM. Mask units are the encoder's final cells, 32 pixels wide."""

    name: ClassVar[str] = "sparse_simmim"

    mask_ratio: float = 0.6
    """Share of units to hide; the count is rounded up (22 of 36 units at 192 pixels)."""
    target_window: int = 47
    """Side in pixels of the window that normalises the target (odd); 0 predicts the pixels as they are."""
    decoder_width: int = 512
    """Width of the decoder; a multiple of 4 and of decoder_heads."""
    decoder_depth: int = 1
    """Number of transformer blocks of the decoder."""
    decoder_heads: int = 16
    """Attention heads of the decoder."""

    def __post_init__(self) -> None:
        if not 0.0 < self.mask_ratio < 1.0:
            raise ConfigError(f"mask_ratio is {self.mask_ratio}; give a number between 0 and 1, for example 0.6")
        if self.target_window and (self.target_window < 3 or self.target_window % 2 == 0):
            raise ConfigError(f"target_window is {self.target_window}; give an odd number of pixels ≥ 3, or 0 for none")
        check_decoder(width=self.decoder_width, depth=self.decoder_depth, heads=self.decoder_heads)

    def build(self, context: BuildContext) -> "SparseSimMIM":
        """Sparse SimMIM around the encoder.

        Raises:
            ConfigError: the encoder is no SwinV2.
            RatioError: the ratio leaves no unit visible.
        """
        encoder = context.encoder
        if not isinstance(encoder, SwinEncoder):
            raise ConfigError(
                f"sparse_simmim leaves out windows of a swinv2 encoder, and {encoder.spec.name} is none; choose one, "
                "or mae"
            )
        strategy = UnitMask(1, self.mask_ratio)
        cells = Grid(context.image_size[0] // encoder.stride, context.image_size[1] // encoder.stride)
        strategy.num_hidden(cells)  # refuses a ratio that leaves no unit visible
        decoder = MAEDecoder(
            encoder.width,
            width=self.decoder_width,
            depth=self.decoder_depth,
            heads=self.decoder_heads,
            num_outputs=encoder.stride**2 * 3,
        )
        return SparseSimMIM(encoder, decoder, strategy, context.image_size, target_window=self.target_window)


class SparseSimMIM(Objective):
    """Predict the pixels of hidden units from encoded visible ones."""

    def __init__(
        self,
        encoder: SwinEncoder,
        decoder: MAEDecoder,
        strategy: UnitMask,
        image_size: tuple[int, int],
        *,
        target_window: int,
    ) -> None:
        """Join encoder and decoder; `target_window` = 0 keeps raw pixels as target."""
        super().__init__()
        self.encoder: Encoder = encoder
        self.decoder = decoder
        self.strategy = strategy
        self.image_size = image_size
        self.target_window = target_window

    def forward(self, inputs: Inputs, *, seed: int) -> LossOutput:
        """L1 over the hidden pixels of each sample; errors as `encode_units` and `UnitMask.sample`."""
        assert isinstance(self.encoder, SwinEncoder)
        stride = self.encoder.stride
        grid = self.encoder.grid(*inputs.images.shape[-2:])
        side = stride // self.encoder.patch_size
        cells = Grid(grid[0] // side, grid[1] // side)
        partition = self.strategy.sample(cells, inputs.sample_ids, seed=seed, epoch=inputs.epochs)
        visible, hidden = partition.keep, partition.hidden
        encoded = encode_units(self.encoder, inputs.images, visible, side=stride)
        positions = sin_cos_position(
            cells.rows,
            cells.cols,
            self.decoder.width,
            base_rows=cells.rows,
            base_cols=cells.cols,
            device=encoded.device,
        )
        predicted = self.decoder(encoded, partition, positions, num_prefix=0, permuted=True)
        target = cut_cells(self._target(inputs.images), stride, hidden)
        return LossOutput(cell_l1(predicted, target, inputs.images.shape[1]), visible.numel() * side**2)

    def block_names(self) -> tuple[str, ...]:
        """The decoder's blocks: those of the encoder are taken apart, and have to be there as a whole."""
        return tuple(name for name in super().block_names() if not name.startswith(self.encoder_prefix))

    def _target(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return normalise_by_window(images, self.target_window) if self.target_window else images

    def card(self) -> ValidationCard:
        """Target, reduction and mask of this objective; the mask's unit is in tokens of embed(), as SimMIM's is."""
        stride, patch = self.encoder.stride, self.encoder.patch_size
        cells = Grid(self.image_size[0] // stride, self.image_size[1] // stride)
        return ValidationCard(
            target_normalisation=f"window{self.target_window}" if self.target_window else "none",
            reduction="hidden_pixels",
            mask={**self.strategy.describe(), "unit": stride // patch},
            realised_ratio=self.strategy.realised_ratio(cells),
        )
