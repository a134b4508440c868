"""What a conversion used of a foreign checkpoint, and what it left (standard library only)."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from unveil_backbones._json import JSON, Fields, read_int, read_object, read_text, sequence_of

__all__ = ["CoverageReport"]


@dataclass(frozen=True, kw_only=True, slots=True)
class CoverageReport:
    """Coverage of one conversion: each tensor of the file was used, or was dropped for a reason that is written here.

    A conversion that cannot say so refuses, hence a report never lists a tensor that is missing or left over.
    """

    format: str
    """Layout of the file: ``simmim``, ``mae``, ``timm``, ``open_clip``, ``dino``, ``huggingface``."""
    source: str
    """Name of the file, without its folder."""
    source_sha256: str
    """SHA-256 of the file."""
    num_used: int
    """Tensors of the file that became weights."""
    num_filled: int
    """Tensors of our model that were filled; all it has."""
    dropped: Mapping[str, tuple[str, ...]]
    """Names of the tensors that were not used, by the reason why."""
    assumed: Mapping[str, JSON]
    """What shapes do not tell and was given or taken from the format's convention: ``num_heads``, ``norm_epsilon``."""
    unknown: tuple[str, ...]
    """Fields of the manifest whose values nobody knows; they hold 0, ``""`` or ``"unknown"``."""

    @property
    def num_dropped(self) -> int:
        """Tensors of the file that were knowingly not used."""
        return sum(len(names) for names in self.dropped.values())

    def __str__(self) -> str:
        """Return lines for people: counts, what was dropped and why, and what was assumed."""
        total = self.num_used + self.num_dropped
        lines = [f"{self.source} ({self.format}): {self.num_used} of {total} tensors used, {self.num_dropped} dropped"]
        lines += [f"  {len(names)} dropped: {reason}" for reason, names in self.dropped.items()]
        lines.append(f"  {self.num_filled} tensors of the model filled, none left")
        lines += [f"  assumed {name} = {value}" for name, value in self.assumed.items()]
        return "\n".join(lines)

    def to_json(self) -> dict[str, JSON]:
        """Return plain JSON values."""
        return {
            **asdict(self),
            "dropped": {reason: list(names) for reason, names in self.dropped.items()},
            "assumed": dict(self.assumed),
            "unknown": list(self.unknown),
        }

    @classmethod
    def from_json(cls, value: JSON, where: str = "origin") -> "CoverageReport":
        """Read what ``to_json`` wrote.

        Raises:
            ManifestError: A field is missing, unknown or of the wrong type.
        """
        fields = Fields(value, where)
        dropped = fields.take("dropped", read_object)
        report = cls(
            format=fields.take("format", read_text),
            source=fields.take("source", read_text),
            source_sha256=fields.take("source_sha256", read_text),
            num_used=fields.take("num_used", read_int),
            num_filled=fields.take("num_filled", read_int),
            dropped={
                reason: sequence_of(read_text)(names, f"{where}.dropped.{reason}") for reason, names in dropped.items()
            },
            assumed=fields.take("assumed", read_object),
            unknown=fields.take("unknown", sequence_of(read_text)),
        )
        fields.done()
        return report
