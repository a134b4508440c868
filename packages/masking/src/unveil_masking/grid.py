"""The token grid that a mask covers: an image's, or a video clip's; it is never assumed to be square."""

from dataclasses import dataclass

from unveil_masking.errors import GridError

__all__ = ["Grid"]

_MAX_TOKENS = 2**31 - 1  # an index must fit in the low 31 bits of a sort key (see strategies.py)


@dataclass(frozen=True, slots=True)
class Grid:
    """A grid of `rows` × `cols` tokens in row-major order: token `i` sits at row `i // cols`, column `i % cols`.

    A clip has `frames` such grids (temporal slots), one after the other: axes `t`, rows, cols.

    Raises:
        GridError: a side is not a positive integer, or there are more than 2³¹ − 1 tokens.
    """

    rows: int
    """Number of token rows (image height / patch height)."""
    cols: int
    """Number of token columns (image width / patch width)."""
    frames: int = 1
    """Number of temporal slots `t` (frames / tubelet length); 1 for an image."""

    def __post_init__(self) -> None:
        for name, value in (("rows", self.rows), ("cols", self.cols), ("frames", self.frames)):
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise GridError(
                    f"Grid {name}={value!r} is not a positive int. Give the number of tokens along that axis, "
                    "for example Grid(14, 14) for a 224-pixel image with 16-pixel patches."
                )
        if self.num > _MAX_TOKENS:
            raise GridError(
                f"Grid {self} has {self.num} tokens; at most {_MAX_TOKENS} are allowed. "
                "Use larger patches or tile the image."
            )

    @property
    def num(self) -> int:
        """Number of tokens, `frames * rows * cols`."""
        return self.frames * self.rows * self.cols

    @property
    def image(self) -> "Grid":
        """The grid of one temporal slot."""
        return Grid(self.rows, self.cols)

    def __str__(self) -> str:
        """`14×14`, or `8×14×14` for a clip of 8 temporal slots."""
        sides = (self.rows, self.cols) if self.frames == 1 else (self.frames, self.rows, self.cols)
        return "×".join(map(str, sides))
