"""Five sentences about one scene, in different words; each names digits, colours, sizes, places and the background."""

from typing import Final

from unveil_pretrain.scenes.layout import Item, Scene

__all__ = ["NUM_CAPTIONS", "captions_for"]

NUM_CAPTIONS: Final = 5

_BACKGROUND: Final = {
    "stripes": ("striped", "stripes"),
    "checks": ("checked", "checks"),
    "dots": ("dotted", "dots"),
    "noise": ("blotchy", "blotches"),
    "gradient": ("smooth", "a smooth gradient"),
    "waves": ("wavy", "waves"),
    "bricks": ("brick", "bricks"),
    "rings": ("ringed", "rings"),
}
_SIZE_SYNONYM: Final = {"small": "little", "medium": "middle-sized", "large": "big", "huge": "giant"}
_NUMBER_WORDS: Final = ("no digits", "one digit", "two digits", "three digits", "four digits", "five digits")


def captions_for(scene: Scene) -> tuple[str, ...]:
    """`NUM_CAPTIONS` captions, the first in the plainest form; digits are named from the largest to the smallest."""
    items = sorted((item for item in scene.items if not item.crowd), key=lambda item: -item.height)
    adjective, noun = _BACKGROUND[scene.textures[0]]
    if len(scene.textures) == 2:
        other_adjective, other_noun = _BACKGROUND[scene.textures[1]]
        adjective, noun = f"half {adjective} and half {other_adjective}", f"{noun} and {other_noun}"
    plain = _listed([f"a {item.size} {item.colour} {item.name} {_place(item)}" for item in items])
    swapped = _listed([f"a {_SIZE_SYNONYM[item.size]} {item.name} in {item.colour} {_place(item)}" for item in items])
    located = ", ".join(f"{item.position} a {item.size} {item.colour} {item.digit}" for item in items)
    short = _listed([f"{item.colour} {item.name} ({_SIZE_SYNONYM[item.size]}, {item.position})" for item in items])
    counted = _listed([f"{item.size} {item.name}, {item.colour}, {_place(item)}" for item in items])
    count = _NUMBER_WORDS[min(len(items), 5)]
    return (
        f"{plain} on a {adjective} background",
        f"over {noun}: {swapped}",
        f"a {adjective} picture with {located}",
        f"{short} drawn on {noun}",
        f"{count} on a {adjective} ground: {counted}",
    )


def _place(item: Item) -> str:
    match item.position:
        case "centre":
            return "in the centre"
        case "left" | "right":
            return f"on the {item.position}"
        case _:
            return f"at the {item.position}"


def _listed(parts: list[str]) -> str:
    """Parts joined by commas and a last "and"."""
    if len(parts) < 2:
        return "".join(parts) or "nothing"
    return ", ".join(parts[:-1]) + " and " + parts[-1]
