"""VideoMAE (arXiv:2203.12602): MAE on clips; tubes are hidden, and a decoder predicts the pixels of hidden cubes.

A tube is one place of the frames through all of the clip, so that a hidden patch cannot be copied from a frame before
or after. The encoder sees the cubes that are not hidden, the decoder is MAE's with a projection without bias.

Shapes: b clips, c t h w pixels, n cubes, k kept, m hidden, p values of a cube.
"""

from dataclasses import dataclass, field
from typing import ClassVar, cast

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from unveil_backbones import VideoVitEncoder
from unveil_backbones.position_clip import clip_position
from unveil_backbones.vit_video import cubes_of
from unveil_masking import Grid, TubeMask

from unveil_pretrain.data.clip_sampling import ClipSettings
from unveil_pretrain.errors import ConfigError
from unveil_pretrain.losses import patch_mse
from unveil_pretrain.objectives.base import BuildContext, Inputs, LossOutput, Objective, ObjectiveConfig, ValidationCard
from unveil_pretrain.objectives.mae import MAEDecoder, check_decoder

__all__ = ["CubeDecoder", "VideoMAE", "VideoMAEConfig", "cube_targets"]

_EPSILON = 1e-6


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoMAEConfig(ObjectiveConfig):
    """Settings of VideoMAE."""

    name: ClassVar[str] = "videomae"

    clips: ClipSettings = field(default_factory=ClipSettings)
    """How clips are taken from videos."""
    mask_ratio: float = 0.9
    """Share of places to hide in all frames of a clip; the hidden count is rounded down: 176 of 196."""
    normalise_target: bool = True
    """Whether each channel of each cube is normalised by its own mean and standard deviation."""
    decoder_width: int = 384
    """Width of the decoder; a multiple of 4 and of decoder_heads."""
    decoder_depth: int = 4
    """Number of transformer blocks of the decoder."""
    decoder_heads: int = 6
    """Attention heads of the decoder."""

    def __post_init__(self) -> None:
        if not 0.0 < self.mask_ratio < 1.0:
            raise ConfigError(f"mask_ratio is {self.mask_ratio}; give a number between 0 and 1, for example 0.9")
        check_decoder(width=self.decoder_width, depth=self.decoder_depth, heads=self.decoder_heads)

    def clip_settings(self) -> ClipSettings:
        """How clips are taken from videos."""
        return self.clips

    def build(self, context: BuildContext) -> "VideoMAE":
        """VideoMAE around the encoder.

        Raises:
            ConfigError: the encoder is none of clips, or the mask hides no place or all of them.
        """
        encoder = context.encoder
        if not isinstance(encoder, VideoVitEncoder):
            raise ConfigError(
                f"videomae encodes clips, which {encoder.spec.name} does not; choose an encoder whose name begins with "
                "vit_video, or mae for images"
            )
        slots, rows, cols = encoder.clip_grid(self.clips.num_frames, *context.image_size)
        strategy = TubeMask(self.mask_ratio)
        hidden = round(strategy.realised_ratio(Grid(rows, cols, frames=slots)) * rows * cols)
        if not 0 < hidden < rows * cols:
            raise ConfigError(
                f"mask_ratio {self.mask_ratio} hides {hidden} of {rows * cols} places; at least one is hidden and one "
                "kept; change the ratio, or take larger images"
            )
        decoder = CubeDecoder(
            encoder.width,
            width=self.decoder_width,
            depth=self.decoder_depth,
            heads=self.decoder_heads,
            num_outputs=3 * encoder.tubelet * encoder.patch_size**2,
        )
        return VideoMAE(
            encoder, decoder, strategy, context.image_size, self.clips, normalise_target=self.normalise_target
        )


class CubeDecoder(MAEDecoder):
    """MAE's decoder, but for the projection of the encoder's tokens, which has no bias."""

    def __init__(self, encoder_width: int, *, width: int, depth: int, heads: int, num_outputs: int) -> None:
        """Build as `MAEDecoder`."""
        super().__init__(encoder_width, width=width, depth=depth, heads=heads, num_outputs=num_outputs)
        self.project = nn.Linear(encoder_width, width, bias=False)
        nn.init.xavier_uniform_(self.project.weight)


class VideoMAE(Objective):
    """Predict the cubes of hidden tubes from the others."""

    def __init__(
        self,
        encoder: VideoVitEncoder,
        decoder: CubeDecoder,
        strategy: TubeMask,
        image_size: tuple[int, int],
        clips: ClipSettings,
        *,
        normalise_target: bool,
    ) -> None:
        """Join encoder and decoder."""
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder
        self.strategy = strategy
        self.image_size = image_size
        self.clips = clips
        self.normalise_target = normalise_target

    @property
    def video_encoder(self) -> VideoVitEncoder:
        """The encoder, by its type."""
        return cast(VideoVitEncoder, self.encoder)

    def forward(self, inputs: Inputs, *, seed: int) -> LossOutput:
        """Mean squared error over the hidden cubes of each clip."""
        clips, encoder = inputs.images, self.video_encoder
        grid = encoder.clip_grid(clips.shape[2], clips.shape[3], clips.shape[4])
        tokens = Grid(grid[1], grid[2], frames=grid[0])
        partition = self.strategy.sample(tokens, inputs.sample_ids, seed=seed, epoch=inputs.epochs)
        keep = partition.keep
        latent = encoder.encode(encoder.embed(clips, keep), grid, keep)
        positions = clip_position(grid, self.decoder.width, device=latent.device)
        prediction = self.decoder(latent, partition, positions, num_prefix=0, permuted=True)
        target = cube_targets(
            clips,
            partition.hidden,
            tubelet=encoder.tubelet,
            patch_size=encoder.patch_size,
            normalise=self.normalise_target,
        )
        return LossOutput(patch_mse(prediction, target), keep.shape[0] * keep.shape[1])

    def card(self) -> ValidationCard:
        """Target, reduction, mask and clips of this objective."""
        slots, rows, cols = self.video_encoder.clip_grid(self.clips.num_frames, *self.image_size)
        clip = {"num_frames": self.clips.num_frames, "frame_stride": self.clips.frame_stride}
        return ValidationCard(
            target_normalisation="cube_channel" if self.normalise_target else "none",
            reduction="hidden_cubes",
            mask={**self.strategy.describe(), **clip, "tubelet": self.video_encoder.tubelet},
            realised_ratio=self.strategy.realised_ratio(Grid(rows, cols, frames=slots)),
        )


def cube_targets(
    clips: Float[Tensor, "b c t h w"], hidden: Int64[Tensor, "b m"], *, tubelet: int, patch_size: int, normalise: bool
) -> Float[Tensor, "b m p"]:
    """Values of some cubes; p = tubelet · patch_size² · c, slot slowest, channel fastest.

    Args:
        clips: Pixels.
        hidden: Indices of the wanted cubes, slot by slot in raster order.
        tubelet: Frames of a cube.
        patch_size: Side of a cube.
        normalise: Whether each channel of each cube has its mean taken away and is divided by its standard deviation
            (unbiased, plus 1e-6).
    """
    cubes = cubes_of(clips, tubelet, patch_size)
    _, _, rows, cols, *_ = cubes.shape
    sample = torch.arange(len(clips), device=clips.device)[:, None]
    values = cubes[sample, hidden // (rows * cols), hidden // cols % rows, hidden % cols].flatten(3)
    if normalise:
        # Differences to the first value: those of a flat cube are exactly 0, whatever a mean would be rounded to.
        values = values - values[..., :1]
        deviation, mean = torch.std_mean(values, dim=-1, keepdim=True)
        values = (values - mean) / (deviation + _EPSILON)
    return values.transpose(2, 3).flatten(2)
