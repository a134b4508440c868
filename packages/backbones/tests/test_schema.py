"""The published schema accepts every manifest that is written, and refuses what the reader refuses."""

import json
import re
from dataclasses import replace

import pytest
from unveil_backbones import CoverageReport, Manifest, TextSpec, convert, create, load, manifest_schema
from unveil_backbones.errors import BackboneError
from unveil_backbones.schema import SCHEMA_FILE, make_schema

TYPES = {
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "object": dict,
    "array": list,
    "null": type(None),
}


def is_of(value, name: str) -> bool:
    return isinstance(value, TYPES[name]) and (name == "boolean" or not isinstance(value, bool))


def problems(value, schema: dict, where: str = "manifest") -> list[str]:
    """The part of JSON schema that the published one uses."""
    if "anyOf" in schema:
        tried = [problems(value, choice, where) for choice in schema["anyOf"]]
        return [] if any(not found for found in tried) else tried[0]
    found = (
        [] if is_of(value, schema.get("type", "null")) or "type" not in schema else [f"{where} is no {schema['type']}"]
    )
    if found:
        return found
    if "const" in schema and value != schema["const"]:
        found.append(f"{where} is not {schema['const']}")
    if "pattern" in schema and not re.search(schema["pattern"], value):
        found.append(f"{where} does not match")
    if isinstance(value, dict):
        known = schema.get("properties", {})
        found += [f"{where}.{name} is missing" for name in schema.get("required", []) if name not in value]
        for name, item in value.items():
            rest = schema.get("additionalProperties", {})
            if name not in known and rest is False:
                found.append(f"{where}.{name} is unknown")
                continue
            found += problems(name, schema.get("propertyNames", {}), f"{where} name {name}")
            found += problems(item, known.get(name, rest), f"{where}.{name}")
    if isinstance(value, list):
        low, high = schema.get("minItems", 0), schema.get("maxItems", len(value))
        found += [] if low <= len(value) <= high else [f"{where} has {len(value)} items"]
        for index, item in enumerate(value):
            found += problems(item, schema.get("items", {}), f"{where}[{index}]")
    return found


@pytest.fixture
def manifest(manifest_for) -> Manifest:
    encoder = create("vit_tiny")
    plain = manifest_for(encoder, text=TextSpec("text_tiny", {"width": 8}))
    return replace(plain, files={"encoder.safetensors": "0" * 64, "train_state/a.bin": "f" * 64}, flops=1e18)


def test_the_published_text_is_made_from_the_code():
    """After a change of fields: `python -m unveil_backbones schema` shows the old one; make_schema() the new one."""
    assert json.loads(SCHEMA_FILE.read_text(encoding="utf-8")) == make_schema() == manifest_schema()
    assert all(field["description"] for field in manifest_schema()["properties"].values())


def test_every_manifest_that_is_written_is_valid(manifest, saved, saved_pair, tmp_path):
    report = CoverageReport(
        format="mae",
        source="mae.pth",
        source_sha256="0" * 64,
        num_used=3,
        num_filled=3,
        dropped={"the classifier": ("head.weight",)},
        assumed={"num_heads": 12, "image_size": [224, 224], "norm_epsilon": 1e-6, "pooling": "cls"},
        unknown=("step",),
    )
    bare = replace(manifest, text=None, flops=None, val=(), passport=None, mask={})
    several = replace(manifest, passport=replace(manifest.passport, num_masks=4))
    for one in (manifest, bare, several, replace(manifest, origin=report)):
        assert problems(json.loads(one.to_json()), manifest_schema()) == []
    convert(saved, tmp_path / "timm", to="timm")
    converted = convert(tmp_path / "timm", tmp_path / "ours").path
    for folder in (saved, saved_pair[0], converted):
        assert problems(json.loads((folder / "manifest.json").read_text()), manifest_schema()) == []
    assert load(converted).manifest.origin is not None


def changes() -> dict[str, dict]:
    return {
        "unknown field": {"surprise": 1},
        "newer format": {"format_version": 2},
        "text for a number": {"step": "200"},
        "a fraction of a step": {"step": 1.5},
        "true for a number": {"seed": True},
        "null for a text": {"created": None},
        "one side": {"preprocessing": {"image_size": [64]}},
        "not a hash": {"files": {"a": "123"}},
        "climbing": {"files": {"../a": "0" * 64}},
        "climbing inside": {"files": {"a/../../b": "0" * 64}},
        "absolute": {"files": {"/etc/passwd": "0" * 64}},
        "backslash": {"files": {"a\\b": "0" * 64}},
        "drive": {"files": {"C:/a": "0" * 64}},
        "empty part": {"files": {"a//b": "0" * 64}},
        "folder": {"files": {"a/": "0" * 64}},
        "here": {"files": {"./a": "0" * 64}},
        "no name": {"files": {"": "0" * 64}},
        "versions": {"versions": {"torch": 2}},
        "point": {"val": [{"step": 1}]},
        "encoder": {"encoder": {"name": "x"}},
    }


@pytest.mark.parametrize("members", changes().values(), ids=changes())
def test_schema_and_reader_refuse_the_same(manifest, members):
    record = {**json.loads(manifest.to_json()), **members}
    assert problems(record, manifest_schema())
    with pytest.raises(BackboneError):
        Manifest.from_json(json.dumps(record))


def test_every_field_but_origin_is_required_by_both(manifest):
    record = json.loads(manifest.to_json())
    for name in record:
        less = {key: value for key, value in record.items() if key != name}
        assert problems(less, manifest_schema()) == [f"manifest.{name} is missing"]
        with pytest.raises(BackboneError, match=f"has no field '{name}'"):
            Manifest.from_json(json.dumps(less))
    assert "origin" not in record


@pytest.mark.parametrize("name", ["encoder.safetensors", "train_state/rank0/data.bin", "a..b", "..a", ".hidden/x"])
def test_ordinary_names_are_accepted_by_both(manifest, name):
    record = {**json.loads(manifest.to_json()), "files": {name: "0" * 64}}
    assert problems(record, manifest_schema()) == []
    assert Manifest.from_json(json.dumps(record)).files == record["files"]


def test_a_full_validator_agrees(manifest):
    """The one above knows only what is used; where jsonschema is installed, it has the last word."""
    jsonschema = pytest.importorskip("jsonschema", reason="pip install jsonschema, to validate by it")
    validator = jsonschema.Draft202012Validator(manifest_schema())
    validator.check_schema(manifest_schema())
    record = json.loads(manifest.to_json())
    validator.validate(record)
    for members in changes().values():
        assert list(validator.iter_errors({**record, **members})), members
