"""The parts of a manifest that describe the models and their input (standard library only)."""

from dataclasses import asdict, dataclass

from unveil_backbones._json import JSON, Fields, read_float, read_int, read_object, read_text, sequence_of

__all__ = ["EncoderSpec", "Preprocessing", "TextSpec"]


@dataclass(frozen=True, kw_only=False, slots=True)
class EncoderSpec:
    """What an image encoder is built from."""

    name: str
    """Name of the architecture, one of ``unveil_backbones.names()``."""
    config: dict[str, JSON]
    """Every field of its configuration, as plain JSON values."""

    @classmethod
    def from_json(cls, value: JSON, where: str = "encoder") -> "EncoderSpec":
        """Read the JSON object of a manifest.

        Raises:
            ManifestError: A field is missing, unknown or of the wrong type.
        """
        members = Fields(value, where)
        spec = cls(members.take("name", read_text), members.take("config", read_object))
        members.done()
        return spec


@dataclass(frozen=True, kw_only=False, slots=True)
class TextSpec:
    """What a text tower is built from."""

    name: str
    """Name of the architecture: ``text_tiny``, ``text_s``, ..."""
    config: dict[str, JSON]
    """Every field of its configuration, as plain JSON values."""

    @classmethod
    def from_json(cls, value: JSON, where: str = "text") -> "TextSpec":
        """Read the JSON object of a manifest.

        Raises:
            ManifestError: A field is missing, unknown or of the wrong type.
        """
        members = Fields(value, where)
        spec = cls(members.take("name", read_text), members.take("config", read_object))
        members.done()
        return spec


@dataclass(frozen=True, kw_only=True, slots=True)
class Preprocessing:
    """How pixels in [0, 1] become the encoder's input."""

    image_size: tuple[int, int]
    """Height and width in pixels."""
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    """Subtracted per channel; ImageNet's by default."""
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    """Divided by per channel; ImageNet's by default."""
    interpolation: str = "bicubic"
    """Resampling filter of the resize."""
    crop_fraction: float = 1.0
    """Side of the centre crop over the side of the resized image at evaluation."""

    def to_json(self) -> dict[str, JSON]:
        """Return plain JSON values."""
        return {
            **asdict(self),
            "image_size": list(self.image_size),
            "mean": list(self.mean),
            "std": list(self.std),
        }

    @classmethod
    def from_json(cls, value: JSON, where: str = "preprocessing") -> "Preprocessing":
        """Read what ``to_json`` wrote.

        Raises:
            ManifestError: A field is missing, unknown or of the wrong type.
        """
        members = Fields(value, where)
        height, width = members.take("image_size", sequence_of(read_int, 2))
        mean_r, mean_g, mean_b = members.take("mean", sequence_of(read_float, 3))
        std_r, std_g, std_b = members.take("std", sequence_of(read_float, 3))
        preprocessing = cls(
            image_size=(height, width),
            mean=(mean_r, mean_g, mean_b),
            std=(std_r, std_g, std_b),
            interpolation=members.take("interpolation", read_text),
            crop_fraction=members.take("crop_fraction", read_float),
        )
        members.done()
        return preprocessing
