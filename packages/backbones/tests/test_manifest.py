"""The manifest: complete, typed, versioned, and never a way out of its directory."""

import hashlib
import json
from dataclasses import replace

import pytest
from unveil_backbones import (
    Manifest,
    Preprocessing,
    TextSpec,
    checkpoint_sha256,
    create,
    read_manifest,
    resolve_checkpoint,
)
from unveil_backbones.errors import (
    CheckpointNotFoundError,
    FormatVersionError,
    ManifestError,
    TruncatedError,
    UnsafePathError,
)


@pytest.fixture
def manifest(manifest_for) -> Manifest:
    return replace(manifest_for(create("swinv2_tiny")), files={"encoder.safetensors": "0" * 64})


def changed(manifest: Manifest, **members) -> str:
    return json.dumps({**json.loads(manifest.to_json()), **members})


def test_json_keeps_everything(manifest):
    assert Manifest.from_json(manifest.to_json()) == manifest
    richer = replace(
        manifest,
        text=TextSpec("text_tiny", {"width": 8}),
        flops=1e18,
        git_commit="abc",
        val=(),
        passport=None,
        preprocessing=Preprocessing(image_size=(32, 64), crop_fraction=0.875, interpolation="bilinear"),
    )
    assert Manifest.from_json(richer.to_json()) == richer
    assert richer.to_json() == Manifest.from_json(richer.to_json()).to_json()


def test_label_is_short_and_tells_runs_apart(manifest):
    assert manifest.label == "simmim swinv2_tiny u=64 s=200"


def test_newer_and_impossible_formats_are_refused(manifest):
    message = "manifest.json has format 2, this unveil-backbones reads 1; upgrade unveil-backbones"
    with pytest.raises(FormatVersionError, match=message):
        # A newer format may have other fields: the version has to be looked at first.
        Manifest.from_json(changed(manifest, format_version=2, surprise=True))
    with pytest.raises(FormatVersionError, match="format 0; formats start at 1"):
        Manifest.from_json(changed(manifest, format_version=0))


@pytest.mark.parametrize("name", ["encoder", "step", "val", "passport", "versions", "mask"])
def test_missing_fields_are_named(manifest, name):
    members = json.loads(manifest.to_json())
    del members[name]
    with pytest.raises(ManifestError, match=f"manifest.json has no field '{name}'"):
        Manifest.from_json(json.dumps(members))


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"step": "200"}, r"manifest.json.step is '200'; it has to be an integer"),
        ({"val": [{"step": 1}]}, r"manifest.json.val\[0\] has no field 'loss'"),
        ({"encoder": {"name": "x"}}, r"manifest.json.encoder has no field 'config'"),
        ({"encoder": [1]}, r"manifest.json.encoder is \[1\]; it has to be a JSON object"),
        ({"versions": {"torch": 2}}, r"versions.torch is 2; it has to be a string"),
        ({"preprocessing": {}}, r"preprocessing has no field 'image_size'"),
        ({"files": {"a": "123"}}, r"gives '123' for 'a'; a SHA-256 has 64 hexadecimal digits"),
        ({"surprise": 1}, r"unknown fields \['surprise'\]"),
        ({"created": "x" * 10, "data_hash": ["y" * 200]}, r"data_hash is \['y+\.\.\.; it has to be a string"),
    ],
)
def test_wrong_fields_are_named(manifest, members, message):
    with pytest.raises(ManifestError, match=message):
        Manifest.from_json(changed(manifest, **members))


@pytest.mark.parametrize("text", ["", "{", '{"format_version": 1', "[1, 2"])
def test_half_a_manifest_is_called_truncated(text):
    with pytest.raises(TruncatedError, match=r"here is not complete JSON .*copy the checkpoint again"):
        Manifest.from_json(text, "here")


def test_json_that_is_no_object_is_refused():
    with pytest.raises(ManifestError, match="it has to be a JSON object"):
        Manifest.from_json("[1, 2]")


@pytest.mark.parametrize(
    "name",
    ["../encoder.safetensors", "/etc/passwd", "a/../../b", "a\\..\\b", "C:/x", "", "./a", "a//b", "a/", ".."],
)
def test_file_names_that_leave_the_directory_are_refused(manifest, name):
    with pytest.raises(UnsafePathError, match=r"names the file .* stay inside the checkpoint"):
        Manifest.from_json(changed(manifest, files={name: "0" * 64}))


@pytest.mark.parametrize("name", ["encoder.safetensors", "train_state/rank0/data.bin", "a..b", "..a"])
def test_ordinary_file_names_are_read(manifest, name):
    assert Manifest.from_json(changed(manifest, files={name: "0" * 64})).files == {name: "0" * 64}


def test_values_without_json_form_are_refused_when_written(manifest):
    (point,) = manifest.val
    with pytest.raises(ManifestError, match=r"u=64 s=200 holds a value without JSON form .*diverged run"):
        replace(manifest, val=(replace(point, loss=float("nan")),)).to_json()
    with pytest.raises(ManifestError, match="without JSON form"):
        replace(manifest, mask={"ratio": [{1, 2}]}).to_json()


def test_a_checkpoint_is_found_by_itself_and_by_its_run(saved, manifest):
    run = saved.parent.parent
    assert resolve_checkpoint(saved) == saved
    assert resolve_checkpoint(str(run)) == saved
    for name in ("step_00001000", "step_0900", "step_99999999_tmp"):
        (saved.parent / name).mkdir()
        (saved.parent / name / "manifest.json").write_text(manifest.to_json())
    (saved.parent / "step_00002000").mkdir()  # without a manifest: not a checkpoint
    assert resolve_checkpoint(run).name == "step_00001000"
    assert read_manifest(run) == manifest


def test_a_checkpoint_is_named_by_the_hash_of_its_manifest(saved):
    assert checkpoint_sha256(saved) == hashlib.sha256((saved / "manifest.json").read_bytes()).hexdigest()


def test_paths_without_a_checkpoint_are_answered(tmp_path):
    with pytest.raises(CheckpointNotFoundError, match=r"nothing does not exist; give a checkpoint directory"):
        resolve_checkpoint(tmp_path / "nothing")
    with pytest.raises(CheckpointNotFoundError, match=r"holds neither manifest.json nor checkpoints/step_"):
        read_manifest(tmp_path)


def test_a_manifest_that_is_no_text_is_refused(tmp_path):
    (tmp_path / "manifest.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(TruncatedError, match="is not text"):
        read_manifest(tmp_path)
