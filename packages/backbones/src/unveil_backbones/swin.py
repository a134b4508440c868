"""Swin Transformer V2 on timm's modules, for any image whose sides are multiples of 32.

Liu et al., arXiv 2111.09883. Windows never exceed the stage's grid: with windows of 12 at 192 x 192 pixels the grids
are 48, 24, 12 and 6, so the last stage uses 6 (the ``[12, 12, 12, 6]`` of the released SimMIM configurations). The
continuous position bias divides coordinates by the window *of pre-training*; without it a clamped or enlarged window at
another image size would read other biases for the same distance. The configuration therefore keeps both.
"""

from dataclasses import asdict, dataclass
from typing import cast

from jaxtyping import Float
from torch import Tensor, nn

from unveil_backbones._json import JSON, Fields, read_float, read_int, sequence_of
from unveil_backbones._timm import SwinTransformerV2, SwinTransformerV2Stage
from unveil_backbones.base import Encoder, check_image_size, undecayed
from unveil_backbones.errors import ConfigError
from unveil_backbones.specs import EncoderSpec

__all__ = ["SwinConfig", "SwinEncoder", "clamped_windows"]

_NUM_STAGES = 4


def clamped_windows(
    image_size: tuple[int, int], patch_size: int, window_sizes: tuple[int, ...]
) -> tuple[tuple[int, int], ...]:
    """Return each stage's real window (height, width): the wanted one, but not larger than the stage's grid."""
    rows, cols = image_size[0] // patch_size, image_size[1] // patch_size
    return tuple((min(window, rows >> stage), min(window, cols >> stage)) for stage, window in enumerate(window_sizes))


@dataclass(frozen=True, kw_only=True, slots=True)
class SwinConfig:
    """Shape of a Swin Transformer V2."""

    image_size: tuple[int, int]
    """Height and width of pre-training. Other sizes may be given later."""
    width: int
    """Width C of the first stage; each stage doubles it."""
    depths: tuple[int, ...]
    """Blocks of each of the four stages."""
    num_heads: tuple[int, ...]
    """Attention heads of each stage."""
    window_sizes: tuple[int, ...]
    """Wanted window side of each stage, in tokens."""
    pretrained_window_sizes: tuple[tuple[int, int], ...]
    """Windows of pre-training, which scale the position bias; see ``clamped_windows``."""
    patch_size: int = 4
    """Side of a patch in pixels."""
    mlp_ratio: float = 4.0
    """Hidden width of the MLP over the stage's width."""
    drop_path: float = 0.0
    """Stochastic depth of the last block; it grows linearly from 0."""

    def __post_init__(self) -> None:
        check_image_size(*self.image_size, self.patch_size * 2 ** (_NUM_STAGES - 1), "SwinConfig")
        per_stage = (self.depths, self.num_heads, self.window_sizes, self.pretrained_window_sizes)
        if any(len(values) != _NUM_STAGES for values in per_stage):
            raise ConfigError(
                f"depths {self.depths}, heads {self.num_heads}, windows {self.window_sizes}, pre-training windows "
                f"{self.pretrained_window_sizes}; each has {_NUM_STAGES} entries, one per stage; complete them"
            )
        if any(self.width * 2**stage % heads for stage, heads in enumerate(self.num_heads)):
            raise ConfigError(
                f"width {self.width} with heads {self.num_heads}; each stage's width (doubled per stage) has to be a "
                "multiple of its heads; change one of them"
            )
        if min(self.window_sizes) < 1 or min(min(window) for window in self.pretrained_window_sizes) < 1:
            raise ConfigError(
                f"windows {self.window_sizes}, pre-training windows {self.pretrained_window_sizes}; "
                "a window has at least one token; give positive sides"
            )
        if not 0 <= self.drop_path < 1:
            raise ConfigError(f"drop_path {self.drop_path}; it is a probability below 1; give 0 for none")

    def to_json(self) -> dict[str, JSON]:
        """Return plain JSON values."""
        return {
            **asdict(self),
            "image_size": list(self.image_size),
            "depths": list(self.depths),
            "num_heads": list(self.num_heads),
            "window_sizes": list(self.window_sizes),
            "pretrained_window_sizes": [list(window) for window in self.pretrained_window_sizes],
        }

    @classmethod
    def from_json(cls, value: JSON, where: str = "encoder.config") -> "SwinConfig":
        """Read what ``to_json`` wrote.

        Raises:
            ManifestError: A field is missing, unknown or of the wrong type.
            ConfigError: The values make no encoder.
        """
        fields = Fields(value, where)
        height, width = fields.take("image_size", sequence_of(read_int, 2))
        windows = fields.take("pretrained_window_sizes", sequence_of(sequence_of(read_int, 2)))
        config = cls(
            image_size=(height, width),
            width=fields.take("width", read_int),
            depths=fields.take("depths", sequence_of(read_int)),
            num_heads=fields.take("num_heads", sequence_of(read_int)),
            window_sizes=fields.take("window_sizes", sequence_of(read_int)),
            pretrained_window_sizes=tuple((rows, cols) for rows, cols in windows),
            patch_size=fields.take("patch_size", read_int),
            mlp_ratio=fields.take("mlp_ratio", read_float),
            drop_path=fields.take("drop_path", read_float),
        )
        fields.done()
        return config


class SwinEncoder(Encoder):
    """A Swin Transformer V2 whose ``encode`` takes all tokens, hidden ones replaced by a mask token (SimMIM).

    timm keeps windows, shift masks and bias coordinates of one image size in its blocks; they are set again whenever
    the size changes and are a function of the size alone. One encoder must not run at two sizes in two threads at once.

    Args:
        config: Its shape.
        name: Name of the architecture in the spec.
    """

    accepts_subset = False
    num_prefix_tokens = 0

    def __init__(self, config: SwinConfig, name: str = "swinv2") -> None:
        super().__init__()
        self._config = config
        self.spec = EncoderSpec(name, config.to_json())
        self.embed_width = config.width
        self.width = config.width * 2 ** (_NUM_STAGES - 1)
        self.patch_size = config.patch_size
        self.stride = config.patch_size * 2 ** (_NUM_STAGES - 1)
        self.feature_channels = tuple(config.width * 2**stage for stage in range(_NUM_STAGES))
        self.feature_strides = tuple(config.patch_size * 2**stage for stage in range(_NUM_STAGES))
        body = SwinTransformerV2(
            img_size=config.image_size,
            patch_size=config.patch_size,
            num_classes=0,
            embed_dim=config.width,
            depths=config.depths,
            num_heads=config.num_heads,
            window_size=[(window, window) for window in config.window_sizes],
            mlp_ratio=config.mlp_ratio,
            drop_path_rate=config.drop_path,
            # timm's annotation knows square windows only; its code takes pairs.
            pretrained_window_sizes=cast(tuple[int, ...], config.pretrained_window_sizes),
        )
        # Adopting the children, not the model, keeps timm's names; timm's own size check knows one size only.
        self.patch_embed = body.patch_embed
        self.patch_embed.strict_img_size = False
        self.layers = cast(nn.Sequential, body.layers)
        self.norm = cast(nn.LayerNorm, body.norm)
        self._configured_grid = self.grid(*config.image_size)

    @property
    def config(self) -> SwinConfig:
        """The typed configuration."""
        return self._config

    def embed(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b n d"]:
        """Turn images into tokens of width C in raster order.

        Raises:
            ImageSizeError: A side is not a multiple of 32.
        """
        self.grid(images.shape[-2], images.shape[-1])
        return self.patch_embed(images).flatten(1, 2)

    def encode(self, tokens: Float[Tensor, "b n d"], grid: tuple[int, int]) -> Float[Tensor, "b m e"]:
        """Run the four stages and the final norm; ``m = n / 64`` tokens of width ``e = 8C``, in raster order.

        Args:
            tokens: All tokens of ``embed``, some of them possibly replaced.
            grid: Rows and columns of the tokens.

        Raises:
            TokenCountError: The number of tokens is not that of the grid.
        """
        return self.norm(self._stages(tokens, grid)[-1]).flatten(1, 2)

    def features(self, images: Float[Tensor, "b c h w"]) -> list[Float[Tensor, "b _ _ _"]]:
        """Return the four stages' outputs before merging and without the final norm, as detectors use them."""
        grid = self.grid(images.shape[-2], images.shape[-1])
        return [stage.permute(0, 3, 1, 2).contiguous() for stage in self._stages(self.embed(images), grid)]

    def layer_groups(self) -> list[list[str]]:
        """Return one group for the patch embedding, one per block, one for the final norm.

        The merging after a stage belongs to the stage's last block; timm keeps it in the next stage as ``downsample``.
        """
        names = [name for name, _ in self.named_parameters()]
        groups = [["patch_embed."]]
        for index in range(_NUM_STAGES):
            groups += [[f"layers.{index}.blocks.{block}."] for block in range(self.config.depths[index])]
            groups[-1].append(f"layers.{index + 1}.downsample.")
        groups.append(["norm."])
        return [[name for name in names if name.startswith(tuple(prefixes))] for prefixes in groups]

    def no_weight_decay(self) -> frozenset[str]:
        """Return biases, norms, the position bias networks and the attention temperatures, as SimMIM does."""
        return undecayed(self, ("cpb_mlp", "logit_scale"))

    def _stages(self, tokens: Tensor, grid: tuple[int, int]) -> list[Tensor]:
        """Output of each stage, rows and columns before channels."""
        self._check_count(tokens.shape[1], grid)
        self._configure(grid)
        maps = tokens.unflatten(1, grid)
        outputs = []
        for stage in self.layers:
            maps = stage(maps)
            outputs.append(maps)
        return outputs

    def _configure(self, grid: tuple[int, int]) -> None:
        """Give every block the windows, shift masks and bias coordinates of this grid."""
        if grid == self._configured_grid:
            return
        check_image_size(grid[0] * self.patch_size, grid[1] * self.patch_size, self.stride, self.spec.name)
        for index, (stage, window) in enumerate(zip(self.layers, self.config.window_sizes, strict=True)):
            # timm takes the size before the stage's merging, which halves it in every stage but the first.
            scale = 2 ** max(index - 1, 0)
            cast(SwinTransformerV2Stage, stage).set_input_size((grid[0] // scale, grid[1] // scale), window)
        self._configured_grid = grid
