"""From a strategy's name, or all of them, to a figure. Needs Pillow."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from unveil_masking.grid import Grid
from unveil_masking.resize import ResizeReduction
from unveil_masking.show.captions import LENGTH, TEXT_EXHIBITS, TextExhibit
from unveil_masking.show.errors import ChoiceError
from unveil_masking.show.exhibits import EXHIBITS, Exhibit, check_ratio_applies
from unveil_masking.show.figure import Card, TextCard, figure
from unveil_masking.show.names import ALL, RESIZE
from unveil_masking.show.picture import contrast, painted, read_picture, resized, token_side
from unveil_masking.show.tiles import Scene

__all__ = ["Wish", "gallery"]

_SMALL_TILE, _LARGE_TILE = 112, 182
_SAMPLES, _EPOCHS = (0, 1), (0, 1)
_RESIZE_RATIOS = (0.5, 0.75)


@dataclass(frozen=True, kw_only=True, slots=True)
class Wish:
    """What to show."""

    strategy: str
    """A name, or "all"."""
    image: Path | None
    """The picture; text strategies need none."""
    ratio: float | None
    """Share of tokens to hide; None for each strategy's own."""
    grid: Grid
    """Tokens of the picture."""
    seed: int


def gallery(wish: Wish) -> Image.Image:
    """The figure.

    Raises:
        ChoiceError: no such strategy, an option that does not go with it, or no picture where one is needed.
        PictureError: the picture cannot be read.
        MaskingError: the ratio or the grid does not fit a strategy.
    """
    texts = [exhibit for exhibit in TEXT_EXHIBITS if wish.strategy in (exhibit.name, ALL)]
    if texts and wish.strategy != ALL:
        if wish.ratio is not None:
            raise ChoiceError(f"--ratio does not go with {wish.strategy}, which has a budget of tokens. Leave it out.")
        return figure(f"A budget of {LENGTH} tokens, seed {wish.seed}", [[_text_card(texts[0], wish)]], 1)
    if wish.image is None:
        raise ChoiceError(f"--strategy {wish.strategy} is shown on a picture. Give one with --image FILE.")
    if wish.strategy == ALL:
        return _everything(wish, wish.image, texts)
    side = token_side(wish.grid, _LARGE_TILE)
    picture = read_picture(wish.image, wish.grid, side)
    scene = _scene(wish, picture)
    if wish.strategy == RESIZE:
        card = _resize_card(scene, picture, own=(wish.ratio,) if wish.ratio is not None else _RESIZE_RATIOS)
    else:
        chosen = next(exhibit for exhibit in EXHIBITS if exhibit.name == wish.strategy)
        check_ratio_applies(chosen, wish.ratio)
        card = _card(chosen, scene, picture)
    first = ("picture", Image.fromarray(picture))
    return figure(_title(wish), [[Card(title=card.title, caption=card.caption, tiles=[first, *card.tiles])]], 1)


def _everything(wish: Wish, image: Path, texts: list[TextExhibit]) -> Image.Image:
    picture = read_picture(image, wish.grid, token_side(wish.grid, _SMALL_TILE))
    scene = _scene(wish, picture)
    whole = Card(title="picture", caption="nothing hidden", tiles=[("all tokens", Image.fromarray(picture))])
    masked = [_card(exhibit, scene, picture) for exhibit in EXHIBITS]
    resize = _resize_card(scene, picture, own=_RESIZE_RATIOS)
    captions = [_text_card(exhibit, wish) for exhibit in texts]
    return figure(_title(wish), [[whole, *masked, resize], captions], 2)


def _title(wish: Wish) -> str:
    return f"Masks on a grid of {wish.grid.rows} x {wish.grid.cols} tokens, seed {wish.seed}"


def _scene(wish: Wish, picture: np.ndarray) -> Scene:
    keys = [(sample, epoch) for epoch in _EPOCHS for sample in _SAMPLES]
    return Scene(
        grid=wish.grid,
        sample_ids=np.array([sample for sample, _ in keys]),
        epochs=np.array([epoch for _, epoch in keys]),
        seed=wish.seed,
        ratio=wish.ratio,
        scores=contrast(picture, wish.grid),
    )


def _card(exhibit: Exhibit, scene: Scene, picture: np.ndarray) -> Card:
    shown = exhibit.draw(scene)
    tiles = [painted(picture, mask, scene.grid) for mask in shown.masks]
    return Card(
        title=f"{exhibit.name} ({exhibit.source})",
        caption=shown.caption,
        tiles=list(zip(shown.tiles, tiles, strict=True)),
    )


def _resize_card(scene: Scene, picture: np.ndarray, own: tuple[float, ...]) -> Card:
    reductions = [ResizeReduction(ratio) for ratio in own]
    grids = [reduction.grid(scene.grid) for reduction in reductions]
    return Card(
        title=f"{RESIZE} (CLIPA)",
        caption="no mask: a smaller picture with at most the tokens that a mask of the ratio keeps",
        tiles=[
            (f"{small.rows} x {small.cols}, ratio {ratio:g}", resized(picture, scene.grid, reduction))
            for ratio, small, reduction in zip(own, grids, reductions, strict=True)
        ],
    )


def _text_card(exhibit: TextExhibit, wish: Wish) -> TextCard:
    reading = exhibit.draw(wish.seed)
    return TextCard(title=f"{exhibit.name} ({exhibit.source})", caption=reading.caption, reading=reading)
