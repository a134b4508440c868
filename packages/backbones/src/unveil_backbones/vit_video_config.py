"""The shape of a Vision Transformer for clips as data: VideoMAE's (Tong et al., arXiv 2203.12602)."""

from dataclasses import asdict, dataclass

from unveil_backbones._json import JSON, Fields, read_float, read_int, sequence_of
from unveil_backbones.base import check_image_size
from unveil_backbones.errors import ConfigError

__all__ = ["VideoVitConfig"]


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoVitConfig:
    """Shape of a Vision Transformer for clips. There is no class token; tokens are pooled by their mean.

    Raises:
        ImageSizeError: A side of the frames is not a multiple of the patch.
        ConfigError: The values make no encoder.
    """

    image_size: tuple[int, int]
    """Height and width of the frames of pre-training. Other sizes may be given later."""
    num_frames: int = 16
    """Frames of a clip of pre-training. Other numbers may be given later."""
    tubelet: int = 2
    """Frames of a token's cube, which is ``tubelet x patch_size x patch_size`` pixels."""
    patch_size: int
    """Side of a cube in pixels."""
    width: int
    """Width of the tokens."""
    depth: int
    """Number of blocks; each attends over space and time jointly."""
    num_heads: int
    """Attention heads of each block."""
    mlp_ratio: float = 4.0
    """Hidden width of the MLP over ``width``."""
    drop_path: float = 0.0
    """Stochastic depth of the last block; it grows linearly from 0."""
    norm_epsilon: float = 1e-6
    """Added to the variance in every LayerNorm."""

    def __post_init__(self) -> None:
        check_image_size(*self.image_size, self.patch_size, "VideoVitConfig")
        if self.tubelet < 1 or self.num_frames < 1 or self.num_frames % self.tubelet:
            raise ConfigError(
                f"num_frames {self.num_frames}, tubelet {self.tubelet}; a clip is a whole number of tubelets; "
                f"give a multiple of {max(1, self.tubelet)} frames"
            )
        if self.width < 2 or self.width % 2 or self.num_heads < 1 or self.width % self.num_heads:
            raise ConfigError(
                f"width {self.width} with {self.num_heads} heads; width is even (sine and cosine) and a multiple of "
                "the heads; change one of them"
            )
        if self.depth < 1 or self.mlp_ratio <= 0 or self.norm_epsilon <= 0:
            raise ConfigError(
                f"depth {self.depth}, mlp_ratio {self.mlp_ratio}, norm_epsilon {self.norm_epsilon}; all are positive; "
                "give at least one block, as in depth 12, mlp_ratio 4, norm_epsilon 1e-6"
            )
        if not 0 <= self.drop_path < 1:
            raise ConfigError(f"drop_path {self.drop_path}; it is a probability below 1; give 0 for none")

    def to_json(self) -> dict[str, JSON]:
        """Return plain JSON values."""
        return {**asdict(self), "image_size": list(self.image_size)}

    @classmethod
    def from_json(cls, value: JSON, where: str = "encoder.config") -> "VideoVitConfig":
        """Read what ``to_json`` wrote.

        Raises:
            ManifestError: A field is missing, unknown or of the wrong type.
            ConfigError: The values make no encoder.
        """
        fields = Fields(value, where)
        height, width = fields.take("image_size", sequence_of(read_int, 2))
        config = cls(
            image_size=(height, width),
            num_frames=fields.take("num_frames", read_int),
            tubelet=fields.take("tubelet", read_int),
            patch_size=fields.take("patch_size", read_int),
            width=fields.take("width", read_int),
            depth=fields.take("depth", read_int),
            num_heads=fields.take("num_heads", read_int),
            mlp_ratio=fields.take("mlp_ratio", read_float),
            drop_path=fields.take("drop_path", read_float),
            norm_epsilon=fields.take("norm_epsilon", read_float),
        )
        fields.done()
        return config
