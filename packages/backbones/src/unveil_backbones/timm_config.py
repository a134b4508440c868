"""Which of timm's Vision Transformers, and how it is set up, as data."""

from dataclasses import asdict, dataclass
from typing import cast

from unveil_backbones._json import JSON, Fields, choice_of, read_float, read_int, read_text, sequence_of
from unveil_backbones.base import POOLINGS, Pooling, check_image_size
from unveil_backbones.errors import ConfigError

__all__ = ["TIMM_PREFIX", "TimmConfig"]

TIMM_PREFIX = "timm:"
"""What names of timm's models begin with here: ``timm:vit_base_patch16_224``."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TimmConfig:
    """One of timm's models. Everything that is not here is what timm's name stands for.

    Raises:
        ImageSizeError: A side of the image is not a multiple of the patch.
        ConfigError: The values make no encoder.
    """

    model: str
    """timm's name, for example ``vit_base_patch16_224``, with or without the tag of a set of weights."""
    image_size: tuple[int, int]
    """Height and width that the position table is made for. Other sizes may be given later."""
    patch_size: int
    """Side of a patch in pixels; timm's name has its own, which may be changed before training."""
    pooling: Pooling
    """How the encoded tokens become one vector."""
    drop_path: float = 0.0
    """Stochastic depth of the last block; it grows linearly from 0."""

    def __post_init__(self) -> None:
        if self.patch_size < 1:
            raise ConfigError(f"patch_size {self.patch_size}; a patch has at least one pixel; give a positive number")
        check_image_size(*self.image_size, self.patch_size, TIMM_PREFIX + self.model)
        if not 0 <= self.drop_path < 1:
            raise ConfigError(f"drop_path {self.drop_path}; it is a probability below 1; give 0 for none")
        if self.pooling not in POOLINGS:
            raise ConfigError(f"pooling is {self.pooling!r}; there are {', '.join(POOLINGS)}; choose one of them")

    def to_json(self) -> dict[str, JSON]:
        """Return plain JSON values."""
        return {**asdict(self), "image_size": list(self.image_size)}

    @classmethod
    def from_json(cls, value: JSON, where: str = "encoder.config") -> "TimmConfig":
        """Read what ``to_json`` wrote.

        Raises:
            ManifestError: A field is missing, unknown or of the wrong type.
            ConfigError: The values make no encoder.
        """
        fields = Fields(value, where)
        height, width = fields.take("image_size", sequence_of(read_int, 2))
        config = cls(
            model=fields.take("model", read_text),
            image_size=(height, width),
            patch_size=fields.take("patch_size", read_int),
            pooling=cast(Pooling, fields.take("pooling", choice_of(POOLINGS))),
            drop_path=fields.take("drop_path", read_float),
        )
        fields.done()
        return config
