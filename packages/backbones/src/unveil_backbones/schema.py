"""The JSON schema of ``manifest.json``, made from the dataclasses that read and write it (standard library only).

``manifest.schema.json`` beside this module is its text, published for readers that are not Python; a test holds both
equal. A schema cannot say everything: ``read_manifest`` also refuses doubled keys and links that leave the directory.
"""

import ast
import dataclasses
import inspect
import itertools
import json
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unveil_backbones._json import JSON
from unveil_backbones.manifest import FORMAT_VERSION, Manifest, Passport

__all__ = ["SCHEMA_FILE", "make_schema", "manifest_schema"]

SCHEMA_FILE = Path(__file__).with_name("manifest.schema.json")
"""The published text."""

_OPTIONAL = ("origin", "initial", "num_masks", "objective_settings")
"""Fields that earlier writers of the same format did not have."""

_PLAIN: Mapping[Any, str] = types.MappingProxyType({str: "string", int: "integer", float: "number", bool: "boolean"})
_NAME = r"^(?!\.{1,2}(/|$))(?!.*/\.{0,2}(/|$))[^/\\:][^\\:]*$"
"""A relative path that neither climbs nor means different things on different systems."""


def manifest_schema() -> dict[str, JSON]:
    """Return the published JSON schema of ``manifest.json`` (draft 2020-12)."""
    return json.loads(SCHEMA_FILE.read_text(encoding="utf-8"))


def make_schema() -> dict[str, JSON]:
    """Make the schema from the dataclasses; maintainers write its text to ``SCHEMA_FILE`` after a change of fields."""
    schema = _of_class(Manifest)
    properties = typing.cast(dict[str, Any], schema["properties"])
    properties["format_version"] = {**properties["format_version"], "const": FORMAT_VERSION}
    properties["files"] = {
        **properties["files"],
        "propertyNames": {"pattern": _NAME},
        "additionalProperties": {"type": "string", "pattern": "^[0-9a-f]{64}$"},
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"manifest.json of an Unveil checkpoint, format {FORMAT_VERSION}",
        **schema,
    }


def _of_class(kind: type) -> dict[str, JSON]:
    hints, said = typing.get_type_hints(kind), _docstrings(kind)
    names = [field.name for field in dataclasses.fields(kind)]
    return {
        "type": "object",
        "properties": {name: {"description": said[name], **_of_type(hints[name])} for name in names},
        "required": [name for name in names if kind not in (Manifest, Passport) or name not in _OPTIONAL],
        "additionalProperties": False,
    }


def _of_type(hint: Any) -> dict[str, Any]:
    """Return the schema of one annotation; only the kinds that manifests have."""
    if hint in _PLAIN:
        return {"type": _PLAIN[hint]}
    if dataclasses.is_dataclass(hint):
        return _of_class(typing.cast(type, hint))
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint == JSON:
        return {}
    if origin is types.UnionType:
        return {"anyOf": [_of_type(kind) for kind in arguments if kind is not types.NoneType] + [{"type": "null"}]}
    if origin in (dict, Mapping):
        return {"type": "object", "additionalProperties": _of_type(arguments[1])}
    if arguments[-1] is Ellipsis:
        return {"type": "array", "items": _of_type(arguments[0])}
    return {"type": "array", "items": _of_type(arguments[0]), "minItems": len(arguments), "maxItems": len(arguments)}


def _docstrings(kind: type) -> dict[str, str]:
    """What stands below each field in the source."""
    (definition,) = ast.parse(inspect.getsource(kind)).body
    body = typing.cast(ast.ClassDef, definition).body
    return {
        field.target.id: " ".join(text.value.value.split())
        for field, text in itertools.pairwise(body)
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        if isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant) and isinstance(text.value.value, str)
    }
