"""The shape of a Hiera as data (Ryali et al., arXiv 2306.00989)."""

from dataclasses import asdict, dataclass
from typing import Literal, cast

from unveil_backbones._json import JSON, Fields, choice_of, optional, read_bool, read_float, read_int, sequence_of
from unveil_backbones.base import check_image_size
from unveil_backbones.errors import ConfigError

__all__ = [
    "HIERA_POSITIONS",
    "MASK_UNIT",
    "NUM_STAGES",
    "PATCH_STRIDE",
    "UNIT_PIXELS",
    "HieraConfig",
    "HieraPosition",
]

NUM_STAGES = 4
PATCH_STRIDE = 4
"""Pixels from a token of the first stage to the next; its patch is 7 x 7, so that patches overlap."""
MASK_UNIT = 8
"""Side of a mask unit in tokens of the first stage; the last stage has one token per unit."""
UNIT_PIXELS = PATCH_STRIDE * MASK_UNIT

HieraPosition = Literal["learned", "windowed"]
HIERA_POSITIONS: tuple[HieraPosition, ...] = ("learned", "windowed")


@dataclass(frozen=True, kw_only=True, slots=True)
class HieraConfig:
    """Shape of a Hiera.

    Raises:
        ImageSizeError: A side of the image is not a multiple of 32.
        ConfigError: The values make no encoder.
    """

    image_size: tuple[int, int]
    """Height and width of pre-training. Other sizes may be given later."""
    width: int
    """Width C of the first stage; each stage doubles it."""
    depths: tuple[int, ...]
    """Blocks of each of the four stages."""
    num_heads: int
    """Attention heads of the first stage; each stage doubles them."""
    mlp_ratio: float = 4.0
    """Hidden width of the MLP over the stage's width."""
    drop_path: float = 0.0
    """Stochastic depth of the last block; it grows linearly from 0."""
    position: HieraPosition = "learned"
    """One learned table of the whole grid, or a coarse one plus one of a unit that is tiled (arXiv 2311.05613)."""
    global_grid: tuple[int, int] = (14, 14)
    """Rows and columns of the coarse table of ``windowed`` positions."""
    expand_projection: bool = True
    """Whether the first block of a stage doubles the width by a projection; else by its maximum and its mean."""
    layer_scale: float | None = None
    """Initial factor of both branches of a block; no factors if ``None``."""

    def __post_init__(self) -> None:
        check_image_size(*self.image_size, UNIT_PIXELS, "HieraConfig")
        if len(self.depths) != NUM_STAGES or min(self.depths) < 1:
            raise ConfigError(f"depths {self.depths}; there are {NUM_STAGES} stages of at least one block; complete it")
        if self.num_heads < 1 or self.width < 1 or self.width % self.num_heads:
            raise ConfigError(
                f"width {self.width} with {self.num_heads} heads; width has to be a multiple of the heads; "
                "change one of them"
            )
        if not 0 <= self.drop_path < 1:
            raise ConfigError(f"drop_path {self.drop_path}; it is a probability below 1; give 0 for none")
        if self.position not in HIERA_POSITIONS:
            raise ConfigError(
                f"position is {self.position!r}; there are {', '.join(HIERA_POSITIONS)}; choose one of them"
            )
        if min(self.global_grid) < 1 or (self.layer_scale is not None and self.layer_scale <= 0):
            raise ConfigError(
                f"global_grid {self.global_grid}, layer_scale {self.layer_scale}; both are positive; "
                "give layer_scale None for no factors"
            )

    def to_json(self) -> dict[str, JSON]:
        """Return plain JSON values."""
        return {
            **asdict(self),
            "image_size": list(self.image_size),
            "depths": list(self.depths),
            "global_grid": list(self.global_grid),
        }

    @classmethod
    def from_json(cls, value: JSON, where: str = "encoder.config") -> "HieraConfig":
        """Read what ``to_json`` wrote.

        Raises:
            ManifestError: A field is missing, unknown or of the wrong type.
            ConfigError: The values make no encoder.
        """
        fields = Fields(value, where)
        height, width = fields.take("image_size", sequence_of(read_int, 2))
        rows, cols = fields.take("global_grid", sequence_of(read_int, 2))
        config = cls(
            image_size=(height, width),
            width=fields.take("width", read_int),
            depths=fields.take("depths", sequence_of(read_int)),
            num_heads=fields.take("num_heads", read_int),
            mlp_ratio=fields.take("mlp_ratio", read_float),
            drop_path=fields.take("drop_path", read_float),
            position=cast(HieraPosition, fields.take("position", choice_of(HIERA_POSITIONS))),
            global_grid=(rows, cols),
            expand_projection=fields.take("expand_projection", read_bool),
            layer_scale=fields.take("layer_scale", optional(read_float)),
        )
        fields.done()
        return config
