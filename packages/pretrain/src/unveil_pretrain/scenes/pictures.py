"""What all writers share: the stream of drawn scenes of one role and split, and JPEG encoding."""

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image

from unveil_pretrain.scenes.digits import DigitBank, Split
from unveil_pretrain.scenes.layout import Scene, SceneStyle, plan_scene
from unveil_pretrain.scenes.render import Rendered, render

__all__ = ["Picture", "Role", "encode_jpeg", "pictures"]

_JPEG_QUALITY = 92


@dataclass(frozen=True, slots=True, kw_only=True)
class Role:
    """One use of scenes, such as "pairs": how they look and how many there are.

    Attributes:
        name: Part of the key of every scene, so that two roles never hold the same one.
        style: Size and contents.
        counts: Number of scenes per split.
        labelled: Cycle the class of the first digit through 0 to 9.
    """

    name: str
    style: SceneStyle
    counts: dict[Split, int]
    labelled: bool = False


@dataclass(frozen=True, slots=True)
class Picture:
    """A scene with its number in the stream and its pixels."""

    index: int
    scene: Scene
    drawn: Rendered


def pictures(
    role: Role, split: Split, bank: DigitBank, *, seed: int, advance: Callable[[], object]
) -> Iterator[Picture]:
    """All pictures of one role and split, in order; `advance` is called once for each."""
    for index in range(role.counts[split]):
        label = index % 10 if role.labelled else None
        scene = plan_scene(role.style, bank, seed=seed, stream=f"{role.name}/{split}", index=index, label=label)
        yield Picture(index, scene, render(scene, bank))
        advance()


def encode_jpeg(image: np.ndarray) -> bytes:
    """A JPEG of uint8 [h, w, 3]; colour is kept at full resolution, small pictures would smear otherwise."""
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "JPEG", quality=_JPEG_QUALITY, subsampling=0)
    return stream.getvalue()
