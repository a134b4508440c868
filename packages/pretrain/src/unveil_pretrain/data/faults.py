"""What is wrong when a read fails: a cause that another try may cure, in a few words, or none.

The stores of fsspec bring exceptions of their own (botocore, aiohttp, gcsfs, ...), none of which has to be installed.
So they are known by what they carry (a status of HTTP) or by the names of their classes.
"""

import errno
from collections.abc import Iterator
from typing import Final

__all__ = ["SHORT_READ", "TIME_OUT", "ChangedError", "ShortReadError", "cause_of", "is_denial"]

TIME_OUT: Final = "time-out"
SHORT_READ: Final = "short read"
_CONNECTION: Final = "connection lost"

# Codes that S3 sends with a status that otherwise means a wrong request.
_PASSING_CODES: Final = ("RequestTimeout", "SlowDown", "ThrottlingException", "Throttling", "RequestLimitExceeded")
_PASSING_STATUSES: Final = (408, 425, 429)
_CLASSES: Final = {
    TIME_OUT: ("TimeoutError", "ReadTimeoutError", "ConnectTimeoutError", "ServerTimeoutError"),
    SHORT_READ: (
        "ShortReadError", "ClientPayloadError", "IncompleteRead", "IncompleteReadError", "ResponseStreamingError",
        "ResponseParserError",
    ),
    _CONNECTION: (
        "HTTPClientError", "ClientConnectionError", "EndpointConnectionError", "IncompleteBody",
    ),
}  # fmt: skip
_NUMBERS: Final = {
    errno.EIO: "input/output error",
    errno.ESTALE: "stale file handle",
    errno.ETIMEDOUT: TIME_OUT,
    errno.EHOSTUNREACH: _CONNECTION,
    errno.ENETUNREACH: _CONNECTION,
}
_NO_CREDENTIALS: Final = (
    "PermissionError",
    "NoCredentialsError",
    "PartialCredentialsError",
    "CredentialRetrievalError",
)


class ShortReadError(OSError):
    """A store gave fewer bytes than it was asked for."""


class ChangedError(OSError):
    """An object is no longer the one that was indexed."""


def cause_of(error: BaseException) -> str | None:
    """What happened, where the same request may succeed a moment later; None where it would fail again."""
    for one in _chain(error):
        if isinstance(one, ChangedError):
            return None
        status, code = _status(one)
        if status is not None:
            passes = status >= 500 or status in _PASSING_STATUSES or code in _PASSING_CODES
            return " ".join(filter(None, (str(status), code))) if passes else None
    if any(isinstance(one, ConnectionError) for one in _chain(error)):
        return _CONNECTION
    for one in _chain(error):
        names = {kind.__name__ for kind in type(one).__mro__}
        for cause, classes in _CLASSES.items():
            if names.intersection(classes):
                return cause
        if isinstance(one, OSError) and one.errno in _NUMBERS:
            return _NUMBERS[one.errno]
    return None


def is_denial(error: BaseException) -> bool:
    """Whether a store refused who asks, or nothing said who that is."""
    return any({kind.__name__ for kind in type(one).__mro__}.intersection(_NO_CREDENTIALS) for one in _chain(error))


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error, and what it was raised from."""
    seen: list[BaseException] = []
    following: BaseException | None = error
    while following is not None and following not in seen:
        seen.append(following)
        yield following
        following = following.__cause__ or (None if following.__suppress_context__ else following.__context__)


def _status(error: BaseException) -> tuple[int | None, str]:
    """Status of HTTP and S3's code for it, where the error carries them (botocore's ClientError, aiohttp's)."""
    response: object = getattr(error, "response", None)
    if isinstance(response, dict):
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        code = str(response.get("Error", {}).get("Code", ""))
        return (status if isinstance(status, int) else None), "" if code.isdigit() else code
    status = getattr(error, "status", None)
    return (status if isinstance(status, int) else None), ""
