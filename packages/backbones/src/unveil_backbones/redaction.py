"""Takes secrets out of text before it is written or printed: of URLs, options, headers, and of this environment.

What counts as a secret: the user part of a URL, values whose name says so (``token=``, ``--api-key``,
``X-Amz-Signature``), long values in the query of a URL, and the values of environment variables with such names.
A name is a promise that a person made; a secret under a harmless name cannot be told from other text.
The standard library only.
"""

import os
import re
from collections.abc import Mapping, Sequence
from typing import Final, TypeVar, cast
from urllib.parse import quote, quote_plus

__all__ = ["HIDDEN", "has_secret", "is_secret_name", "redact", "redact_command", "redact_record"]

HIDDEN: Final = "***"
"""What stands in place of a secret."""

_SHORTEST = 6
"""Characters of an environment variable's value below which replacing it would garble ordinary words."""
_LONG_VALUE = 20
"""Characters from which a value in a URL's query is taken for a key, whatever its name."""

# A model has tokens of its own (mask token, pad token): only these are keys.
_ACCESS_WORDS = (
    r"(?:access|api|app|auth|bearer|csrf|deploy|github|gitlab|hf|hub|id|login|oauth|personal|refresh|sas|secret"
    r"|security|service|session|user|wandb)[-_]?token"
)
_WORDS = (
    rf"pass(?:word|wd|phrase)|secret|{_ACCESS_WORDS}|credential|signature|api[-_]?key|access[-_]?key|account[-_]?key"
    r"|private[-_]?key|wandb[-_]?key|sas[-_]?key|connection[-_]?string|authorization"
)
_SECRET_NAME = re.compile(
    rf"{_WORDS}|^token$|^auth$|(?:^|[-_])(?:key|pwd|pat|sig|sas|dsn)$|^awsaccesskeyid$", re.IGNORECASE
)
_MODEL_WORDS = r"(?:mask|pad|class|cls|unk|unknown|eos|bos|sep|text|image|special|register|prefix)[-_]token"
_ENVIRONMENT_NAME = re.compile(rf"(?!{_MODEL_WORDS}$)[\w]*[-_]token$", re.IGNORECASE)
# PWD is where a shell is, and pwd= in a URL is not.
_PUBLIC_NAME = re.compile(
    r"_FILE$|_PATH$|_DIR$|^GOOGLE_APPLICATION_CREDENTIALS$|^SSH_AUTH_SOCK$|(?-i:^PWD$)", re.IGNORECASE
)

_USER = re.compile(
    r"(?P<scheme>\b[a-z][a-z0-9+.-]{1,20}:/{1,2})"  # one slash where it went through a path
    # A password with a slash is no valid URL, and is written all the same; a port is digits.
    r"(?:[^\s/?#'\"<>@:]{0,200}:(?!\d{1,5}(?:/|$))[^\s'\"<>@]{0,500}|[^\s/?#'\"<>]{0,500})@",
    re.IGNORECASE,
)
_QUERY = re.compile(r"(?P<lead>[?&;](?P<name>[\w.%~-]{1,80})=)(?P<value>[^\s&;#'\"<>,)\]}]+)")
_NAMED = re.compile(
    rf"(?P<lead>(?:(?:{_WORDS})[\w-]{{0,20}}|\btoken(?==))['\"]?\s{{0,3}}[=:]\s{{0,3}}(?:(?:bearer|basic|token)\s{{1,3}})?)"
    r"(?P<value>'[^'\n]{0,4096}'|\"[^\"\n]{0,4096}\"|[^\s'\",;&)\]}]{1,4096})",
    re.IGNORECASE,
)
_BEARER = re.compile(r"(?P<lead>\b(?:bearer|basic)\s+)(?P<value>[A-Za-z0-9._~+/=-]{12,})", re.IGNORECASE)
_OPTION = re.compile(r"^--?(?P<name>[A-Za-z][\w.-]*)(?P<value>=.*)?$", re.DOTALL)
# Not secrets, whatever stands before them.
_HARMLESS = frozenset({"none", "null", "true", "false", HIDDEN, f"'{HIDDEN}'", f'"{HIDDEN}"'})

T = TypeVar("T")


def is_secret_name(name: str) -> bool:
    """Whether a value of this name (an option, a parameter, an environment variable) is a secret."""
    if _PUBLIC_NAME.search(name) is not None:
        return False
    return _SECRET_NAME.search(name) is not None or _ENVIRONMENT_NAME.fullmatch(name) is not None


def redact(text: str, environment: Mapping[str, str] | None = None) -> str:
    """The text without secrets; text without any comes back as it was.

    Args:
        text: A message, an address, a traceback.
        environment: Variables whose values are secrets if their names say so; those of this process by default.
    """
    for value in _values(os.environ if environment is None else environment):
        if value in text:
            text = text.replace(value, HIDDEN)
    if ":/" in text:
        text = _USER.sub(lambda found: f"{found['scheme']}{HIDDEN}@", text)
    if "=" in text or ":" in text:
        text = _QUERY.sub(_without_parameter, text)
        text = _NAMED.sub(_without_value, text)
    return _BEARER.sub(_without_value, text)


def redact_command(words: Sequence[str], environment: Mapping[str, str] | None = None) -> list[str]:
    """A command line without secrets: ``--api-key X`` and ``--api-key=X`` lose X, every word is redacted."""
    shown: list[str] = []
    hide_next = False
    for word in words:
        option = _OPTION.match(word)
        if hide_next and option is None:
            shown.append(HIDDEN)
            hide_next = False
            continue
        secret = option is not None and is_secret_name(option["name"].replace(".", "-"))
        hide_next = secret and option is not None and option["value"] is None
        if secret and option is not None and option["value"] is not None:
            shown.append(word[: option.start("value")] + f"={HIDDEN}")
        else:
            shown.append(redact(word, environment))
    return shown


def redact_record(value: T, environment: Mapping[str, str] | None = None) -> T:
    """A JSON value with every string in it redacted, and hidden where its own key names a secret; a new one."""
    return cast(T, _redacted(value, environment))


def has_secret(text: str) -> bool:
    """Whether `redact` would change the text by its own form, whatever the environment holds."""
    return redact(text, {}) != text


def _redacted(value: object, environment: Mapping[str, str] | None) -> object:
    if isinstance(value, str):
        return redact(value, environment)
    if isinstance(value, Mapping):
        entries = cast(Mapping[object, object], value)
        return {
            key: HIDDEN
            if isinstance(entry, str) and entry and is_secret_name(str(key))
            else _redacted(entry, environment)
            for key, entry in entries.items()
        }
    if isinstance(value, list | tuple):
        items = cast(Sequence[object], value)
        if all(isinstance(item, str) for item in items):
            return redact_command(cast(Sequence[str], items), environment)
        return [_redacted(item, environment) for item in items]
    return value


def _values(environment: Mapping[str, str]) -> list[str]:
    """Secrets of the environment as they may appear, the longest first: as they are, and as a URL writes them."""
    found: set[str] = set()
    for name, value in environment.items():
        if len(value) >= _SHORTEST and not value.isdigit() and "://" not in value and is_secret_name(name):
            found |= {value, quote(value, safe=""), quote_plus(value)}
    return sorted(found, key=lambda value: (-len(value), value))


def _without_parameter(found: re.Match[str]) -> str:
    secret = is_secret_name(found["name"].lower().removeprefix("x-amz-").removeprefix("x-goog-"))
    return found["lead"] + (HIDDEN if secret or len(found["value"]) >= _LONG_VALUE else found["value"])


def _without_value(found: re.Match[str]) -> str:
    value = found["value"]
    if value.lower() in _HARMLESS:
        return found[0]
    quotes = value[0] if value[0] in "'\"" else ""
    return f"{found['lead']}{quotes}{HIDDEN}{quotes}"
