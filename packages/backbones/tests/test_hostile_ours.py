"""Checkpoint directories made to harm: each is refused by name before anything in it grows or is built."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from unveil_backbones import create, load, load_pair, save, verify
from unveil_backbones._files import file_sha256
from unveil_backbones.errors import CheckpointError, ManifestError, NonFiniteError, TensorMismatchError, UnsafePathError
from unveil_backbones.timm_encoder import timm_preset


@pytest.mark.parametrize("name", ["encoder.safetensors", "manifest.json"])
def test_links_out_of_a_checkpoint_of_ours_are_refused(saved, tmp_path, name):
    (saved / name).rename(tmp_path / name)
    (saved / name).symlink_to(tmp_path / name)
    with pytest.raises(UnsafePathError, match=r"is a link to .*copy the checkpoint with its links followed"):
        load(saved)
    assert not verify(saved).ok


def rewrite_manifest(folder: Path, change) -> None:
    record = json.loads((folder / "manifest.json").read_text())
    change(record)
    (folder / "manifest.json").write_text(json.dumps(record))


def replace_tensor(folder: Path, file: str, name: str, value: torch.Tensor) -> None:
    """Another tensor, honestly hashed: the one who changes a file may change the manifest as well."""
    save_file({**load_file(folder / file), name: value}, folder / file)
    rewrite_manifest(folder, lambda record: record["files"].update({file: file_sha256(folder / file)}))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_our_weights_have_to_be_numbers(saved, saved_pair, bad):
    replace_tensor(saved, "encoder.safetensors", "norm.bias", torch.full((128,), bad))
    with pytest.raises(NonFiniteError, match=r"encoder.safetensors: NaN or infinite values in norm.bias"):
        load(saved)
    path, _, _ = saved_pair
    replace_tensor(path, "heads.safetensors", "pair.raw_logit_scale", torch.tensor(bad))
    with pytest.raises(NonFiniteError, match=r"heads.safetensors: NaN or infinite values in pair.raw_logit_scale"):
        load_pair(path)


@pytest.mark.parametrize("kind", [torch.int64, torch.float64, torch.float8_e4m3fn])
def test_our_weights_have_to_be_of_their_type(saved, kind):
    replace_tensor(saved, "encoder.safetensors", "norm.bias", torch.ones(128).to(kind))
    with pytest.raises(TensorMismatchError, match=r"norm.bias: \(128,\) \w+ instead of \(128,\) float32"):
        load(saved)


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"width": 2**20}, TensorMismatchError),
        ({"depth": 10**6}, TensorMismatchError),
        ({"mlp_ratio": 1e6}, TensorMismatchError),
        ({"width": 10**30}, ManifestError),
        ({"width": 10**400}, ManifestError),
        ({"image_size": [2**20, 2**20]}, ManifestError),
        ({"image_size": [-8, 64]}, ManifestError),
        ({"mlp_ratio": -0.5}, ManifestError),
        ({"num_heads": -4}, ManifestError),
        ({"num_heads": 0}, ManifestError),
    ],
)
def test_a_manifest_of_a_giant_model_is_not_built(saved, fields, error):
    rewrite_manifest(saved, lambda record: record["encoder"]["config"].update(fields))
    with pytest.raises(error):
        load(saved)


def test_a_manifest_of_giant_windows_is_not_built(tmp_path, manifest_for):
    encoder = create("swinv2_tiny")
    path = save(tmp_path / "swin", encoder=encoder, manifest=manifest_for(encoder))
    config = {"image_size": [8192, 8192], "window_sizes": [2048] * 4}
    rewrite_manifest(path, lambda record: record["encoder"]["config"].update(config))
    with pytest.raises(ManifestError, match="would fill the memory; windows are at most 64"):
        load(path)


def test_a_manifest_of_a_giant_model_of_timm_is_not_built(saved):
    spec = {"name": "timm:vit_7b_patch16_dinov3", "config": timm_preset("vit_7b_patch16_dinov3").to_json()}
    rewrite_manifest(saved, lambda record: record.update(encoder=spec))
    with pytest.raises(TensorMismatchError, match=r"has at least 67\d{8} weights, the file beside it \d+"):
        load(saved)


def test_a_giant_text_tower_is_not_built(saved_pair):
    path, _, _ = saved_pair
    rewrite_manifest(path, lambda record: record["text"]["config"].update({"vocab_size": 2**23, "width": 2**14}))
    with pytest.raises(TensorMismatchError, match="text_tiny has at least"):
        load_pair(path)


@pytest.mark.parametrize("text", ["1e999", "-1e999", "NaN", "Infinity", "9" * 400, "9" * 5000])
def test_numbers_beyond_numbers_are_refused(saved, text):
    file = saved / "manifest.json"
    record = json.loads(file.read_text())
    file.write_text(json.dumps({**record, "device_seconds": "HERE"}).replace('"HERE"', text))
    with pytest.raises(ManifestError):
        load(saved)


def test_doubled_keys_deep_nesting_and_giant_manifests_are_refused(saved):
    file = saved / "manifest.json"
    good = file.read_text()
    file.write_text(good.rstrip()[:-1] + ', "step": 7}')
    with pytest.raises(ManifestError, match=r"gives \['step'\] more than once"):
        load(saved)
    file.write_text('{"a":' * 100_000)
    with pytest.raises(CheckpointError):
        load(saved)
    with file.open("w") as stream:
        stream.truncate(65 * 2**20)
    with pytest.raises(ManifestError, match="has 68157440 bytes, a manifest at most"):
        load(saved)
