"""ImageFolder layout: <split>/<class>/<name>.jpg, one folder per class of the dominant digit."""

from collections.abc import Iterable
from pathlib import Path

from unveil_pretrain.scenes.digits import DIGIT_NAMES
from unveil_pretrain.scenes.pictures import Picture, encode_jpeg

__all__ = ["write_imagenet"]


def write_imagenet(folder: Path, split: str, stream: Iterable[Picture]) -> None:
    """Write one split; the class is the first digit of each scene."""
    for name in DIGIT_NAMES:
        (folder / split / name).mkdir(parents=True, exist_ok=True)
    for picture in stream:
        label = picture.scene.items[0].name
        path = folder / split / label / f"{label}_{picture.index:06d}.jpg"
        path.write_bytes(encode_jpeg(picture.drawn.image))
