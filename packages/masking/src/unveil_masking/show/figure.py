"""Cards with a title and tiles, and the figure they are laid out on. Needs Pillow."""

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

from unveil_masking.show.captions import Reading

__all__ = ["Card", "TextCard", "figure"]

_GAP = 4
_MARGIN = 12
_TITLE, _SMALL = 15, 11
_LINE = 16
_WHITE, _BLACK, _GREY = (255, 255, 255), (20, 20, 24), (110, 114, 122)
_KEPT, _REMOVED, _REMOVED_TEXT = (198, 222, 245), (240, 240, 242), (170, 172, 178)


@dataclass(frozen=True, kw_only=True, slots=True)
class Card:
    """Tiles side by side under a title."""

    title: str
    caption: str
    tiles: Sequence[tuple[str, Image.Image]]
    """What each is, and its picture; all of one size."""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        width, height = self.tiles[0][1].size
        return len(self.tiles) * (width + _GAP) - _GAP, height + _heading() + _SMALL + 5

    def paint(self, draw: ImageDraw.ImageDraw, canvas: Image.Image, left: int, top: int) -> None:
        """Paint the card with its upper left corner there."""
        _write_heading(draw, self.title, self.caption, left, top)
        for label, tile in self.tiles:
            canvas.paste(tile, (left, top + _heading()))
            draw.text((left, top + _heading() + tile.height + 1), label, _GREY, font=ImageFont.load_default(_SMALL))
            left += tile.width + _GAP


@dataclass(frozen=True, kw_only=True, slots=True)
class TextCard:
    """Lines of words under a title: those that stay in boxes, those that are removed pale."""

    title: str
    caption: str
    reading: Reading

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        width = max(sum(_word_width(word) for word in line) for line in self.reading.words)
        return width, _heading() + len(self.reading.words) * (_LINE + 2)

    def paint(self, draw: ImageDraw.ImageDraw, canvas: Image.Image, left: int, top: int) -> None:
        """Paint the card with its upper left corner there; the canvas is not needed."""
        _write_heading(draw, self.title, self.caption, left, top)
        top += _heading()
        for words, mask in zip(self.reading.words, self.reading.masks.tolist(), strict=True):
            place = left
            for word, removed in zip(words, mask, strict=True):
                right = place + _word_width(word) - 2
                draw.rectangle((place, top, right, top + _LINE - 2), fill=_REMOVED if removed else _KEPT)
                colour = _REMOVED_TEXT if removed else _BLACK
                draw.text((place + 3, top + 1), word, colour, font=ImageFont.load_default(_SMALL))
                place = right + 2
            top += _LINE + 2


def figure(title: str, groups: Sequence[Sequence[Card | TextCard]], columns: int) -> Image.Image:
    """All cards on one white figure.

    Args:
        title: First line.
        groups: What to show, row by row; a group begins a row of its own.
        columns: Cards side by side.
    """
    column = max(card.size[0] for cards in groups for card in cards)
    rows = [cards[first : first + columns] for cards in groups for first in range(0, len(cards), columns)]
    heights = [max(card.size[1] for card in row) for row in rows]
    wide = ImageFont.load_default(_TITLE).getlength(title)
    needed = max(len(row) for row in rows) * (column + 2 * _MARGIN)
    shape = (max(needed, int(wide) + 2 * _MARGIN), sum(heights) + (len(rows) + 1) * _MARGIN + 24)
    canvas = Image.new("RGB", shape, _WHITE)
    draw = ImageDraw.Draw(canvas)
    draw.text((_MARGIN, _MARGIN), title, _BLACK, font=ImageFont.load_default(_TITLE))
    top = _MARGIN + 28
    for row, height in zip(rows, heights, strict=True):
        for place, card in enumerate(row):
            card.paint(draw, canvas, _MARGIN + place * (column + 2 * _MARGIN), top)
        top += height + _MARGIN
    return canvas


def _heading() -> int:
    return _TITLE + _SMALL + 10


def _write_heading(draw: ImageDraw.ImageDraw, title: str, caption: str, left: int, top: int) -> None:
    draw.text((left, top), title, _BLACK, font=ImageFont.load_default(_TITLE))
    draw.text((left, top + _TITLE + 3), caption, _GREY, font=ImageFont.load_default(_SMALL))


def _word_width(word: str) -> int:
    return int(ImageFont.load_default(_SMALL).getlength(word)) + 8
