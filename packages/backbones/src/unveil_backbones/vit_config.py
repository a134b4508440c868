"""The shape of a Vision Transformer as data. The defaults are MAE's; CLIP's and DINOv2's differ in the later fields."""

from dataclasses import asdict, dataclass
from typing import Literal, cast

from unveil_backbones._json import (
    JSON,
    Fields,
    choice_of,
    optional,
    read_bool,
    read_float,
    read_int,
    sequence_of,
)
from unveil_backbones.base import POOLINGS, Pooling, check_image_size
from unveil_backbones.errors import ConfigError

__all__ = ["ACTIVATIONS", "POSITIONS", "Activation", "Position", "VitConfig"]

Position = Literal["sincos", "learned"]
Activation = Literal["gelu", "quick_gelu"]
POSITIONS: tuple[Position, ...] = ("sincos", "learned")
ACTIVATIONS: tuple[Activation, ...] = ("gelu", "quick_gelu")


@dataclass(frozen=True, kw_only=True, slots=True)
class VitConfig:
    """Shape of a Vision Transformer.

    Raises:
        ImageSizeError: A side of the image is not a multiple of the patch.
        ConfigError: The values make no encoder.
    """

    image_size: tuple[int, int]
    """Height and width of pre-training, where positions are whole numbers. Other sizes may be given later."""
    patch_size: int
    """Side of a patch in pixels."""
    width: int
    """Width of the tokens."""
    depth: int
    """Number of blocks."""
    num_heads: int
    """Attention heads of each block."""
    mlp_ratio: float = 4.0
    """Hidden width of the MLP over ``width``."""
    drop_path: float = 0.0
    """Stochastic depth of the last block; it grows linearly from 0."""
    position: Position = "sincos"
    """Fixed sine-cosine positions (MAE), or a learned table (CLIP, DINOv2), resampled for other grids."""
    class_position: bool = False
    """Whether a learned table has an entry for the class token, before those of the patches."""
    class_token: bool = True
    """Whether there is a class token."""
    num_registers: int = 0
    """Register tokens after the class token (Darcet et al., arXiv 2309.16588); they have no position."""
    pooling: Pooling = "mean"
    """How the encoded tokens become one vector."""
    pre_norm: bool = False
    """Whether a LayerNorm stands before the first block (CLIP)."""
    patch_bias: bool = True
    """Whether the patch projection has a bias (not in CLIP)."""
    qkv_bias: bool = True
    """Whether queries, keys and values have one."""
    layer_scale: float | None = None
    """Initial factor of both branches of a block (DINOv2: 1e-5); no factors if ``None``."""
    activation: Activation = "gelu"
    """Activation of the MLP; OpenAI's CLIP has ``quick_gelu``, ``x sigmoid(1.702 x)``."""
    norm_epsilon: float = 1e-6
    """Added to the variance in every LayerNorm; 1e-5 in CLIP."""

    def __post_init__(self) -> None:
        check_image_size(*self.image_size, self.patch_size, "VitConfig")
        multiple = 4 if self.position == "sincos" else 1
        if self.num_heads < 1 or self.width < 1 or self.width % self.num_heads or self.width % multiple:
            raise ConfigError(
                f"width {self.width} with {self.num_heads} heads; width has to be a multiple of the heads, and of 4 "
                "with sincos positions; change one of them"
            )
        if not 0 <= self.drop_path < 1:
            raise ConfigError(f"drop_path {self.drop_path}; it is a probability below 1; give 0 for none")
        self._check_choices()
        self._check_tokens()

    def _check_choices(self) -> None:
        for name, given, allowed in (
            ("position", self.position, POSITIONS),
            ("pooling", self.pooling, POOLINGS),
            ("activation", self.activation, ACTIVATIONS),
        ):
            if given not in allowed:
                raise ConfigError(f"{name} is {given!r}; there are {', '.join(allowed)}; choose one of them")
        if self.norm_epsilon <= 0 or (self.layer_scale is not None and self.layer_scale <= 0):
            raise ConfigError(
                f"norm_epsilon {self.norm_epsilon}, layer_scale {self.layer_scale}; both are positive; "
                "give layer_scale None for no factors"
            )

    def _check_tokens(self) -> None:
        if self.num_registers < 0 or self.depth < 1:
            raise ConfigError(f"num_registers {self.num_registers}, depth {self.depth}; give at least 0 and 1")
        if not self.class_token and (self.pooling == "cls" or self.class_position):
            raise ConfigError(
                f"pooling {self.pooling!r}, class_position {self.class_position} without a class token; "
                "set class_token, or take pooling 'mean' and no class_position"
            )
        if self.class_position and self.position != "learned":
            raise ConfigError(
                f"class_position with position {self.position!r}; only a learned table has such an entry; set position "
                "to 'learned'"
            )

    def to_json(self) -> dict[str, JSON]:
        """Return plain JSON values."""
        return {**asdict(self), "image_size": list(self.image_size)}

    @classmethod
    def from_json(cls, value: JSON, where: str = "encoder.config") -> "VitConfig":
        """Read what ``to_json`` wrote, now or before the fields after ``drop_path`` existed.

        Raises:
            ManifestError: A field is missing, unknown or of the wrong type.
            ConfigError: The values make no encoder.
        """
        fields = Fields(value, where)
        height, width = fields.take("image_size", sequence_of(read_int, 2))
        config = cls(
            image_size=(height, width),
            patch_size=fields.take("patch_size", read_int),
            width=fields.take("width", read_int),
            depth=fields.take("depth", read_int),
            num_heads=fields.take("num_heads", read_int),
            mlp_ratio=fields.take("mlp_ratio", read_float),
            drop_path=fields.take("drop_path", read_float),
            position=cast(Position, fields.take("position", choice_of(POSITIONS), "sincos")),
            class_position=fields.take("class_position", read_bool, False),
            class_token=fields.take("class_token", read_bool, True),
            num_registers=fields.take("num_registers", read_int, 0),
            pooling=cast(Pooling, fields.take("pooling", choice_of(POOLINGS), "mean")),
            pre_norm=fields.take("pre_norm", read_bool, False),
            patch_bias=fields.take("patch_bias", read_bool, True),
            qkv_bias=fields.take("qkv_bias", read_bool, True),
            layer_scale=fields.take("layer_scale", optional(read_float), None),
            activation=cast(Activation, fields.take("activation", choice_of(ACTIVATIONS), "gelu")),
            norm_epsilon=fields.take("norm_epsilon", read_float, 1e-6),
        )
        fields.done()
        return config
