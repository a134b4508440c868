"""What to build: numbers and sizes of digit scenes."""

from dataclasses import asdict, dataclass
from pathlib import Path

from unveil_pretrain.errors import ConfigError
from unveil_pretrain.scenes.digits import Split
from unveil_pretrain.scenes.layout import SceneStyle
from unveil_pretrain.scenes.pictures import Role

__all__ = ["ScenesConfig"]

_MIN_SIDE = 32


@dataclass(frozen=True, kw_only=True, slots=True)
class ScenesConfig:
    """Digit scenes in all layouts, below one folder. A count of 0 leaves that part out."""

    out: Path
    """Folder to create: shards/, imagenet/, coco/, ade20k/ and scenes.json."""
    num_train: int = 2000
    """Training images in shards/images, and as many pairs in shards/pairs."""
    num_val: int = 400
    """Validation images in shards/images, and as many pairs in shards/pairs."""
    image_size: int | tuple[int, int] = 64
    """Side, or height and width, of the images in shards/ and imagenet/, in pixels."""
    num_classification_train: int = 2000
    """Training images in imagenet/, spread evenly over ten classes."""
    num_classification_val: int = 500
    """Validation images in imagenet/."""
    num_detection_train: int = 240
    """Training images in coco/."""
    num_detection_val: int = 80
    """Validation images in coco/."""
    num_segmentation_train: int = 240
    """Training images in ade20k/."""
    num_segmentation_val: int = 80
    """Validation images in ade20k/."""
    dense_image_size: int | tuple[int, int] = 128
    """Side, or height and width, of the images in coco/ and ade20k/, in pixels."""
    samples_per_shard: int = 500
    """Samples in each tar file of shards/."""
    seed: int = 0
    """Every scene is a function of this seed, its role, its split and its number."""

    def __post_init__(self) -> None:
        """Refuse negative counts, tiny images and empty shards."""
        for name, value in asdict(self).items():
            if name.startswith("num_") and value < 0:
                raise ConfigError(f"{name} is {value}; give 0 (leave that part out) or more")
        for name, size in (("image_size", self.image_size), ("dense_image_size", self.dense_image_size)):
            if min(_sides(size)) < _MIN_SIDE:
                raise ConfigError(f"{name} is {size}; digits need at least {_MIN_SIDE} pixels on each side")
        if self.samples_per_shard < 1:
            raise ConfigError(f"samples_per_shard is {self.samples_per_shard}; give at least 1")

    def roles(self) -> dict[str, Role]:
        """The five uses of scenes, by the folder they fill."""
        height, width = _sides(self.image_size)
        plain = SceneStyle(height=height, width=width, min_items=1, max_items=3)
        paired = SceneStyle(height=height, width=width, min_items=1, max_items=2)
        labelled = SceneStyle(height=height, width=width, min_items=1, max_items=2, dominant=True)
        height, width = _sides(self.dense_image_size)
        detection = SceneStyle(
            height=height, width=width, min_items=1, max_items=5, crowd_share=0.12, divided_share=0.3
        )
        segmentation = SceneStyle(height=height, width=width, min_items=1, max_items=4, divided_share=0.6)
        many: dict[Split, int] = {"train": self.num_train, "val": self.num_val}
        return {
            "shards/images": Role(name="images", style=plain, counts=many),
            "shards/pairs": Role(name="pairs", style=paired, counts=many),
            "imagenet": Role(
                name="imagenet",
                style=labelled,
                counts={"train": self.num_classification_train, "val": self.num_classification_val},
                labelled=True,
            ),
            "coco": Role(
                name="coco",
                style=detection,
                counts={"train": self.num_detection_train, "val": self.num_detection_val},
            ),
            "ade20k": Role(
                name="ade20k",
                style=segmentation,
                counts={"train": self.num_segmentation_train, "val": self.num_segmentation_val},
            ),
        }

    def recorded(self) -> dict[str, object]:
        """All settings but the folder, as JSON keeps them."""
        settings: dict[str, object] = asdict(self)
        del settings["out"]
        settings["image_size"] = list(_sides(self.image_size))
        settings["dense_image_size"] = list(_sides(self.dense_image_size))
        return settings


def _sides(size: int | tuple[int, int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else size
