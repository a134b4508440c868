"""What a scene holds, before any pixel is drawn: a pure function of (seed, stream name, index) and a style."""

import hashlib
from dataclasses import dataclass
from typing import Final

import numpy as np

from unveil_pretrain.scenes.digits import DIGIT_NAMES, DigitBank
from unveil_pretrain.scenes.textures import TEXTURES

__all__ = ["COLOURS", "POSITIONS", "SIZES", "Item", "Scene", "SceneStyle", "plan_scene", "scene_generator"]

COLOURS: Final = {
    "red": (0.86, 0.12, 0.14),
    "orange": (0.98, 0.53, 0.08),
    "yellow": (0.98, 0.90, 0.18),
    "green": (0.12, 0.66, 0.22),
    "blue": (0.13, 0.30, 0.90),
    "purple": (0.58, 0.16, 0.72),
    "white": (0.97, 0.97, 0.97),
    "black": (0.05, 0.05, 0.05),
}
"""Red, green and blue in [0, 1]."""

SIZES: Final = {"small": (0.23, 0.29), "medium": (0.34, 0.42), "large": (0.50, 0.60), "huge": (0.66, 0.84)}
"""Height of a digit as a share of the image's shorter side."""

POSITIONS: Final = {
    "top left": (0.22, 0.22),
    "top": (0.5, 0.22),
    "top right": (0.78, 0.22),
    "left": (0.22, 0.5),
    "centre": (0.5, 0.5),
    "right": (0.78, 0.5),
    "bottom left": (0.22, 0.78),
    "bottom": (0.5, 0.78),
    "bottom right": (0.78, 0.78),
}
"""Centre of a digit: share of the width from the left and of the height from the top."""

_JITTER: Final = 0.05
_MAX_OVERLAP: Final = 0.15
_TRIES: Final = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneStyle:
    """How scenes of one kind look.

    Attributes:
        height: Pixels.
        width: Pixels.
        min_items: Fewest digits.
        max_items: Most digits.
        dominant: The first digit is huge and any other small: a scene with one label.
        crowd_share: Share of scenes with a group of tiny digits of one class, too dense to be told apart.
        divided_share: Share of scenes whose background is two textures along a line.
    """

    height: int
    width: int
    min_items: int
    max_items: int
    dominant: bool = False
    crowd_share: float = 0.0
    divided_share: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One digit in a scene; lengths in pixels, `centre` as (column, row), `crowd` for members of a group."""

    digit: int
    source: int
    colour: str
    size: str
    position: str
    height: float
    centre: tuple[float, float]
    tilt: float
    crowd: bool = False

    @property
    def name(self) -> str:
        """The digit in words."""
        return DIGIT_NAMES[self.digit]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """Everything a picture is drawn from; items are listed back to front."""

    height: int
    width: int
    textures: tuple[str, ...]
    items: tuple[Item, ...]
    entropy: int


def scene_generator(seed: int, stream: str, index: int) -> np.random.Generator:
    """A generator of its own for one scene, keyed by a hash of its coordinates: no scene depends on another."""
    digest = hashlib.blake2b(f"{seed}/{stream}/{index}".encode(), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "big")))


def plan_scene(
    style: SceneStyle, bank: DigitBank, *, seed: int, stream: str, index: int, label: int | None = None
) -> Scene:
    """Place digits of `bank` in a scene.

    Args:
        style: Size of the image and what it may hold.
        bank: Digits of the scene's split.
        seed: Seed of the whole build.
        stream: Role and split, such as "pairs/train"; different streams hold different scenes.
        index: Number of the scene in its stream.
        label: Class of the first digit; drawn when None.
    """
    rng = scene_generator(seed, stream, index)
    num_textures = 2 if rng.random() < style.divided_share else 1
    textures = tuple(str(kind) for kind in rng.choice(TEXTURES, size=num_textures, replace=False))
    crowd = _crowd(style, bank, rng) if rng.random() < style.crowd_share else []
    items: list[Item] = []
    for number in range(int(rng.integers(style.min_items, style.max_items + 1))):
        digit = label if label is not None and number == 0 else int(rng.integers(10))
        sizes = tuple(SIZES)[:3] if not style.dominant else ("huge",) if number == 0 else ("small",)
        item = _place(style, bank, rng, digit, sizes, [*crowd, *items])
        if item is not None:
            items.append(item)
    return Scene(
        height=style.height,
        width=style.width,
        textures=textures,
        items=(*crowd, *items),
        entropy=int(rng.integers(2**62)),
    )


def _place(
    style: SceneStyle, bank: DigitBank, rng: np.random.Generator, digit: int, sizes: tuple[str, ...], others: list[Item]
) -> Item | None:
    """A digit where it overlaps the others only slightly; None when no such place was found for any but the first."""
    for _ in range(_TRIES):
        size = str(rng.choice(sizes))
        taken = {other.position for other in others}
        free = [name for name in POSITIONS if name not in taken and (size != "huge" or name == "centre")]
        item = _item(style, bank, rng, digit, size, str(rng.choice(free or list(POSITIONS))))
        if all(_overlap(item, other) <= _MAX_OVERLAP for other in others):
            return item
    return None


def _item(style: SceneStyle, bank: DigitBank, rng: np.random.Generator, digit: int, size: str, position: str) -> Item:
    low, high = SIZES[size]
    height = float(rng.uniform(low, high)) * min(style.height, style.width)
    x, y = POSITIONS[position]
    centre_x = (x + rng.uniform(-_JITTER, _JITTER)) * style.width
    centre_y = (y + rng.uniform(-_JITTER, _JITTER)) * style.height
    margin = height / 2 + 1  # keeps the whole digit inside
    return Item(
        digit=digit,
        source=int(rng.choice(bank.of_class(digit))),
        colour=str(rng.choice(list(COLOURS))),
        size=size,
        position=position,
        height=height,
        centre=(
            float(np.clip(centre_x, margin, style.width - margin)),
            float(np.clip(centre_y, margin, style.height - margin)),
        ),
        tilt=float(rng.uniform(-12, 12)),
    )


def _overlap(first: Item, second: Item) -> float:
    """Intersection of the two bounding boxes over the smaller one's area; digits are about 0.8 as wide as high."""
    sides = [0.0, 0.0]
    for axis, share in ((0, 0.8), (1, 1.0)):
        distance = abs(first.centre[axis] - second.centre[axis])
        reach = share * (first.height + second.height) / 2
        sides[axis] = min(max(0.0, reach - distance), share * min(first.height, second.height))
    return sides[0] * sides[1] / (0.8 * min(first.height, second.height) ** 2)


def _crowd(style: SceneStyle, bank: DigitBank, rng: np.random.Generator) -> list[Item]:
    """Five to eight tiny digits of one class and colour, close together."""
    short = min(style.height, style.width)
    digit, colour = int(rng.integers(10)), str(rng.choice(list(COLOURS)))
    position = str(rng.choice(list(POSITIONS)))
    x, y = POSITIONS[position]
    sources = bank.of_class(digit)
    members = []
    for _ in range(int(rng.integers(5, 9))):
        height = float(rng.uniform(0.1, 0.13)) * short
        offset_x, offset_y = rng.uniform(-0.13, 0.13, size=2) * short
        members.append(
            Item(
                digit=digit,
                source=int(rng.choice(sources)),
                colour=colour,
                size="small",
                position=position,
                height=height,
                centre=(float(x * style.width + offset_x), float(y * style.height + offset_y)),
                tilt=float(rng.uniform(-12, 12)),
                crowd=True,
            )
        )
    return members
