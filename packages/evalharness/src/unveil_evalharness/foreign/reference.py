"""What ``--ckpt`` names: a path, or a model of timm or open_clip with the place of its weights."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from unveil_backbones.places import is_there

from unveil_evalharness.errors import ForeignCheckpointError

__all__ = ["FORMATS", "ForeignFormat", "Reference", "parse_reference"]

ForeignFormat = Literal[
    "mae", "simmim", "swin", "dino", "dinov2", "dinov3", "timm", "open_clip", "clip", "huggingface", "hf"
]
"""Names of formats on the command line; several may mean one."""

FORMATS: dict[str, str] = {
    "swin": "simmim",
    "dinov2": "dino",
    "dinov3": "dino",
    "clip": "open_clip",
    "hf": "huggingface",
}
"""What the further names mean."""

_RANDOM = "@random"


@dataclass(frozen=True, kw_only=True, slots=True)
class Reference:
    """One foreign checkpoint as the command line names it."""

    text: str
    """As given."""
    program: Literal["timm", "open_clip", "file"]
    """Whose model it is; `file` where only a path is given."""
    model: str = ""
    """Name of the model in that program."""
    tag: str = ""
    """Name of its weights there (open_clip); timm's are part of the model's name."""
    weights: Path | None = None
    """File or folder of the weights; None where the program's own cache has to be looked through."""
    random: bool = False
    """Fresh weights of a fixed seed instead of trained ones."""


def parse_reference(text: str) -> Reference:
    """Reads ``timm:MODEL``, ``open_clip:MODEL[/TAG]``, each also as ``…=FILE`` or ``…@random``, or a path.

    Raises:
        ForeignCheckpointError: no model is named, or a path beside it does not exist.
    """
    program, colon, rest = text.partition(":")
    if not colon or program not in ("timm", "open_clip"):
        return Reference(text=text, program="file", weights=Path(text))
    name, equals, file = rest.partition("=")
    random = name.endswith(_RANDOM)
    name = name.removesuffix(_RANDOM)
    model, _, behind = name.partition("/")
    if not model or (random and (equals or behind)) or (equals and not file):
        raise ForeignCheckpointError(
            f"--ckpt {text}: write {program}:MODEL, {program}:MODEL=FILE or {program}:MODEL{_RANDOM}"
        )
    # Path() makes one slash of two, so an absolute path behind a slash has lost its own.
    beside = next((place for place in (Path(behind), Path(f"/{behind}")) if behind and is_there(place)), None)
    weights = Path(file) if equals else beside
    if weights is not None and not is_there(weights):
        raise ForeignCheckpointError(f"--ckpt {text}: {weights} does not exist; give the file of the model's weights")
    if program == "timm":
        if behind and weights is None:
            raise ForeignCheckpointError(f"--ckpt {text}: {behind} does not exist; timm's tags follow a dot")
        return Reference(text=text, program="timm", model=model, weights=weights, random=random)
    tag = behind if weights is None else ""
    return Reference(text=text, program="open_clip", model=model, tag=tag, weights=weights, random=random)
