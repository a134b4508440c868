"""How much a file may ask for: pixels of an image, and the depth of JSON. The standard library only.

A few hundred bytes can announce an image of terabytes or lists within lists until Python gives up. What a file
announces is looked at before anything is reserved for it.
"""

import json
import os
from collections.abc import Mapping
from typing import Any, Final

from unveil_backbones.errors import ConfigError, TooManyPixelsError

__all__ = ["DEFAULT_MAX_PIXELS", "PIXELS_VARIABLE", "check_pixels", "max_image_pixels", "parse_json", "refusal"]

PIXELS_VARIABLE: Final = "UNVEIL_MAX_IMAGE_PIXELS"
"""Environment variable with another limit, for whoever has larger images; processes that are started inherit it."""

DEFAULT_MAX_PIXELS: Final = 89_478_485
"""Where Pillow begins to warn of decompression bombs: 256 MiB of RGB."""


def max_image_pixels(environment: Mapping[str, str] | None = None) -> int:
    """The most pixels, height times width, that an image may have.

    Args:
        environment: Where `PIXELS_VARIABLE` is looked for; this process's by default.

    Raises:
        ConfigError: The variable is no positive whole number.
    """
    given = (os.environ if environment is None else environment).get(PIXELS_VARIABLE, "")
    if not given:
        return DEFAULT_MAX_PIXELS
    if not (given.isascii() and given.isdigit() and len(given) <= 15 and int(given) > 0):
        raise ConfigError(f"{PIXELS_VARIABLE} is {given[:40]!r}; give a positive whole number of pixels, or unset it")
    return int(given)


def check_pixels(width: int, height: int) -> None:
    """Refuse an image that is larger than `max_image_pixels`.

    Raises:
        TooManyPixelsError: It is.
        ConfigError: As `max_image_pixels`.
    """
    limit = max_image_pixels()
    if width * height > limit:
        raise TooManyPixelsError(refusal(f"{width} x {height} pixels", limit))


def refusal(announced: str, limit: int) -> str:
    """What is said of an image that announces more than the limit."""
    return (
        f"{announced}, at most {limit} are decoded, since a few bytes can announce any size; "
        f"if the image is really that large, set {PIXELS_VARIABLE}"
    )


def parse_json(text: str | bytes) -> Any:
    """What `json.loads` gives, and a ValueError for everything that is not JSON, also for what is nested too deeply.

    Raises:
        ValueError: The text is no JSON, holds a number of thousands of digits, or lists within lists without end.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("lists or objects are nested too deeply") from None
