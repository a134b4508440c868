"""A short hash of everything that defines a number: task, task version and protocol.

Two numbers with different fingerprints were measured differently and never share a column.
"""

import dataclasses
import hashlib
import json
from typing import Any

from unveil_evalharness.errors import ProtocolError

__all__ = ["canonical_json", "fingerprint", "protocol_fields"]


def protocol_fields(protocol: Any) -> dict[str, Any]:
    """The fields of a protocol dataclass as JSON values (tuples become lists).

    Raises:
        ProtocolError: `protocol` is not a frozen dataclass, or a field is not a JSON value.
    """
    if not dataclasses.is_dataclass(protocol) or isinstance(protocol, type):
        raise ProtocolError(f"a protocol must be an instance of a frozen dataclass, got {type(protocol).__name__}")
    if not _is_frozen(type(protocol)):
        raise ProtocolError(f"{type(protocol).__name__} must be a frozen dataclass: its hash would outlive a change")
    return json.loads(canonical_json(dataclasses.asdict(protocol)))


def _is_frozen(kind: type) -> bool:
    return vars(kind)["__dataclass_params__"].frozen


def canonical_json(value: Any) -> str:
    """`value` as JSON with sorted keys and no spaces; not-a-number and other types are refused.

    Raises:
        ProtocolError: the value has no JSON form.
    """
    try:
        return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=True)
    except (TypeError, ValueError) as error:
        raise ProtocolError(
            f"a protocol may hold only numbers, strings, booleans, None and tuples or dicts of them: {error}"
        ) from error


def fingerprint(task: str, version: int, protocol: Any) -> str:
    """The first 16 hex digits of the SHA-256 over task name, task version and all protocol fields.

    Args:
        task: task name, such as ``"imagenet_ft"``.
        version: the task's version; raised whenever its code may change a number.
        protocol: the task's frozen protocol dataclass.

    Raises:
        ProtocolError: see `protocol_fields`.
    """
    text = canonical_json({"task": task, "version": version, "protocol": protocol_fields(protocol)})
    return hashlib.sha256(text.encode("ascii")).hexdigest()[:16]
