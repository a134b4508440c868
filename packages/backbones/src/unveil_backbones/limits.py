"""How much a file may ask for: pixels of an image, depth and characters of JSON and TOML. The standard library only.

A few hundred bytes can announce an image of terabytes or lists within lists until Python gives up. What a file
announces is looked at before anything is reserved for it.
"""

import json
import os
import re
import tomllib
from collections.abc import Mapping
from typing import Any, Final

from unveil_backbones.errors import ConfigError, TooManyPixelsError

__all__ = [
    "DEFAULT_MAX_PIXELS",
    "PIXELS_VARIABLE",
    "check_pixels",
    "max_image_pixels",
    "parse_json",
    "parse_toml",
    "refusal",
]

PIXELS_VARIABLE: Final = "UNVEIL_MAX_IMAGE_PIXELS"
"""Environment variable with another limit, for whoever has larger images; processes that are started inherit it."""

_HALF: Final = re.compile("[\ud800-\udfff]")

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


def parse_json(text: str | bytes, *, keep_halves: bool = False) -> Any:
    r"""What `json.loads` gives, and a ValueError for everything that is not JSON, also for what is nested too deeply.

    JSON can spell half of a surrogate pair (``"\ud83d"``), which is no character: no file can hold it as text, no name
    of a file or column of a table can have it (RFC 8259, section 8.2). U+FFFD stands in its place, as for bytes that
    are no UTF-8.

    Args:
        text: The JSON.
        keep_halves: For a reader that cleans its texts itself.

    Raises:
        ValueError: The text is no JSON, holds a number of thousands of digits, or lists within lists without end.
    """
    try:
        whole = text if isinstance(text, str) else text.decode(json.detect_encoding(text), "surrogatepass")
        value = json.loads(whole)
        return value if keep_halves or not _may_hold_halves(whole) else _without_halves(value)
    except RecursionError:
        raise ValueError("lists or objects are nested too deeply") from None


def parse_toml(text: str) -> dict[str, Any]:
    """What `tomllib.loads` gives, and a ValueError for everything that is not TOML, also for what is nested too deeply.

    Raises:
        ValueError: The text is no TOML, holds a number of thousands of digits, or lists within lists without end.
    """
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ValueError("lists or tables are nested too deeply") from None


def _may_hold_halves(text: str) -> bool:
    """Whether it is worth looking: files of hundreds of megabytes are read, and hardly one has such an escape."""
    if "\\ud" in text or "\\uD" in text:
        return True
    return not text.isascii() and _HALF.search(text) is not None


def _without_halves(value: Any) -> Any:
    if isinstance(value, str):
        return _HALF.sub("\ufffd", value)
    if isinstance(value, list):
        return [_without_halves(part) for part in value]
    if isinstance(value, dict):
        return {_without_halves(name): _without_halves(part) for name, part in value.items()}
    return value
