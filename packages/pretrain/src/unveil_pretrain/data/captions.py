"""Captions of a sample: found in its files, repaired where that is safe, and every repair counted.

Captions come from the list "captions" of the .json, or else from the .txt, or else from "caption" of the .json: the
three places where img2dataset and caption sets write them. Web captions arrive with broken bytes, markup, control
characters and lengths of whole pages. None of that ends a run, and none of it goes unsaid: a sample is shown with a
usable text, and `CaptionCounts` says what was done to it. Only a sample that has no text at all cannot be used.
"""

import html
import re
from collections.abc import Mapping
from dataclasses import asdict, astuple, dataclass
from typing import Final

from unveil_backbones.limits import parse_json

from unveil_pretrain.errors import ConfigError, DataError

__all__ = ["MAX_CHARACTERS", "Caption", "CaptionCounts", "CaptionReading", "captions_of", "read_captions"]

MAX_CHARACTERS: Final = 1000
"""Longer captions are cut here, far above what 77 word pieces hold, so that no page of text reaches the tokenizer."""

_TAG: Final = re.compile(r"</?[A-Za-z][^<>]*>|<!--.*?-->", re.DOTALL)
# C0 and C1 controls but for white space, byte-order marks, noncharacters, and halves of surrogate pairs, which "\ud83d"
# in JSON gives and which no tokenizer takes.
_CONTROL: Final = re.compile("[\x00-\x08\x0e-\x1b\x7f-\x9f\ufeff\ufffe\uffff\ud800-\udfff]")
_REPLACEMENT: Final = "\ufffd"


@dataclass(frozen=True, slots=True)
class CaptionCounts:
    """What happened to captions; counts of several samples are added.

    Attributes:
        shown: Captions that were used.
        repaired: Of these, from a file with bytes that are no UTF-8, or beside a .json that cannot be parsed.
        cleaned: Of these, with markup, HTML entities or control characters removed.
        cut: Of these, longer than the most characters allowed.
        dropped: Entries of caption lists that are empty or no text; their samples are shown with another caption.
    """

    shown: int = 0
    repaired: int = 0
    cleaned: int = 0
    cut: int = 0
    dropped: int = 0

    def __add__(self, other: "CaptionCounts") -> "CaptionCounts":
        return CaptionCounts(*(mine + theirs for mine, theirs in zip(astuple(self), astuple(other), strict=True)))

    def __bool__(self) -> bool:
        """Whether anything happened besides showing captions as they are."""
        return bool(self.changes())

    def changes(self) -> dict[str, int]:
        """What was changed, as columns of metrics.jsonl ("captions_cut"); counts of 0 are left out."""
        return {f"captions_{name}": count for name, count in asdict(self).items() if count and name != "shown"}


@dataclass(frozen=True, slots=True)
class Caption:
    """A usable text (not empty, one line, no control characters), and whether it was cleaned or cut."""

    text: str
    cleaned: bool
    cut: bool


@dataclass(frozen=True, slots=True)
class CaptionReading:
    """The captions of one sample.

    Attributes:
        captions: The usable ones in stored order; empty where the sample has none.
        repaired: Whether broken bytes were replaced or a broken .json was passed over.
        dropped: Entries that are empty or no text.
        problem: Why there is no caption, for messages; empty where there is one.
    """

    captions: tuple[Caption, ...]
    repaired: bool
    dropped: int
    problem: str

    @property
    def texts(self) -> tuple[str, ...]:
        """The usable texts in stored order."""
        return tuple(caption.text for caption in self.captions)

    def counts_of(self, choice: int) -> CaptionCounts:
        """What is to be counted when caption number `choice` is shown."""
        caption = self.captions[choice]
        return CaptionCounts(1, int(self.repaired), int(caption.cleaned), int(caption.cut), self.dropped)


def read_captions(files: Mapping[str, bytes], *, max_characters: int = MAX_CHARACTERS) -> CaptionReading:
    """The captions of a sample, whatever its files hold; never raises for what is in them.

    Args:
        files: The sample's files by extension.
        max_characters: Longer captions are cut here, after cleaning.

    Raises:
        ConfigError: `max_characters` is not positive.
    """
    if max_characters < 1:
        raise ConfigError(f"max_caption_characters is {max_characters}; give at least 1, for example {MAX_CHARACTERS}")
    record, bad_json, bad_bytes = _parse(files.get("json"))
    listed, dropped = _usable(_entries(record, "captions"), max_characters)
    if not listed and "txt" in files:
        text, replaced = _decode(files["txt"])
        listed, empty = _usable([text], max_characters)
        bad_bytes, dropped = bad_bytes or replaced, dropped + empty
    if not listed:
        listed, more = _usable(_entries(record, "caption"), max_characters)
        dropped += more
    problem = "" if listed else _problem(files, bad_json)
    return CaptionReading(listed, bad_json or bad_bytes, dropped, problem)


def captions_of(files: Mapping[str, bytes], where: str, *, max_characters: int = MAX_CHARACTERS) -> tuple[str, ...]:
    """The usable captions of one sample.

    Raises:
        DataError: there is none; names the sample as `where` does.
        ConfigError: as `read_captions`.
    """
    reading = read_captions(files, max_characters=max_characters)
    if not reading.captions:
        raise DataError(f"{where}: {reading.problem}")
    return reading.texts


def _parse(data: bytes | None) -> tuple[Mapping[str, object], bool, bool]:
    """The object in a .json (empty where there is none), whether it cannot be parsed, whether bytes were replaced."""
    if data is None:
        return {}, False, False
    text, replaced = _decode(data)
    try:
        parsed = parse_json(text, keep_halves=True)  # `_clean` takes them out, and counts them
    except ValueError:
        return {}, True, replaced
    return (parsed if isinstance(parsed, dict) else {}), False, replaced


def _decode(data: bytes) -> tuple[str, bool]:
    """Text of UTF-8 bytes, broken ones replaced by U+FFFD, and whether there were any."""
    try:
        return data.decode("utf-8"), False
    except UnicodeDecodeError:
        return data.decode("utf-8", errors="replace"), True


def _entries(record: Mapping[str, object], key: str) -> list[object]:
    found = record.get(key)
    if found is None:
        return []
    return found if isinstance(found, list) else [found]


def _usable(entries: list[object], max_characters: int) -> tuple[tuple[Caption, ...], int]:
    """The captions among these entries, and how many entries are none."""
    cleaned = [_clean(entry, max_characters) for entry in entries if isinstance(entry, str)]
    captions = tuple(caption for caption in cleaned if caption is not None)
    return captions, len(entries) - len(captions)


def _clean(text: str, max_characters: int) -> Caption | None:
    # Nobody reads a page: what follows costs no more for a caption of megabytes. Markup may take most of it.
    bounded = text[: 16 * max_characters]
    readable = _CONTROL.sub(" ", _TAG.sub(" ", html.unescape(html.unescape(bounded))))
    joined = " ".join(readable.split())
    if not joined.replace(_REPLACEMENT, "").strip():
        return None
    short = joined[:max_characters].rstrip()
    cut = len(joined) > max_characters or len(text) > len(bounded)
    return Caption(short, cleaned=joined != " ".join(bounded.split()), cut=cut)


def _problem(files: Mapping[str, bytes], bad_json: bool) -> str:
    if bad_json:
        return "no caption: the .json cannot be read as JSON; write it again as UTF-8, add a .txt, or remove the sample"
    found = "has no text in them" if {"txt", "json"} & files.keys() else "has neither"
    return f'no caption (it {found}); give a .txt, or a .json with {{"captions": ["..."]}}, or remove the sample'
