"""Shape of a Swin Transformer V2, and the windows that fit an image.

Windows never exceed the stage's grid: with windows of 12 at 192 x 192 pixels the grids are 48, 24, 12 and 6, so the
last stage uses 6 (the ``[12, 12, 12, 6]`` of the released SimMIM configurations). The continuous position bias divides
coordinates by the window *of pre-training*; without it a clamped or enlarged window at another image size would read
other biases for the same distance. The configuration therefore keeps both.
"""

from dataclasses import asdict, dataclass

from unveil_backbones._json import JSON, Fields, read_float, read_int, sequence_of
from unveil_backbones.base import check_image_size
from unveil_backbones.errors import ConfigError

__all__ = ["NUM_STAGES", "SwinConfig", "clamped_windows"]

NUM_STAGES = 4


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
        check_image_size(*self.image_size, self.patch_size * 2 ** (NUM_STAGES - 1), "SwinConfig")
        per_stage = (self.depths, self.num_heads, self.window_sizes, self.pretrained_window_sizes)
        if any(len(values) != NUM_STAGES for values in per_stage):
            raise ConfigError(
                f"depths {self.depths}, heads {self.num_heads}, windows {self.window_sizes}, pre-training windows "
                f"{self.pretrained_window_sizes}; each has {NUM_STAGES} entries, one per stage; complete them"
            )
        wrong = any(heads < 1 or self.width * 2**stage % heads for stage, heads in enumerate(self.num_heads))
        if self.width < 1 or wrong:
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
