"""The checkpoint contract: bit-exact round trips, and a named refusal for everything that is not what it claims."""

import errno
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from unveil_backbones import EncoderSpec, _files, create, load, load_pair, read_manifest, save, train_state
from unveil_backbones._files import file_sha256
from unveil_backbones.errors import (
    BackboneError,
    CheckpointError,
    CheckpointExistsError,
    CheckpointNotFoundError,
    CheckpointWriteError,
    FormatVersionError,
    HashMismatchError,
    ManifestError,
    NotAPairError,
    TensorMismatchError,
    TruncatedError,
    UnknownArchitectureError,
    UnknownModelError,
    UnsafePathError,
)


def rewrite_manifest(folder: Path, **members) -> None:
    file = folder / "manifest.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **members}))


def rewrite_tensors(folder: Path, tensors: dict, name: str = "encoder.safetensors") -> None:
    """Other tensors, honestly hashed."""
    save_file(tensors, folder / name)
    files = json.loads((folder / "manifest.json").read_text())["files"]
    rewrite_manifest(folder, files={**files, name: file_sha256(folder / name)})


@pytest.mark.parametrize("name", ["vit_tiny", "swinv2_tiny"])
def test_round_trip_is_bit_exact(tmp_path, manifest_for, name):
    encoder = create(name, image_size=(96, 64), drop_path=0.1)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    heads = {"objective.weight": torch.randn(3, 4).t(), "objective.steps": torch.tensor(7)}
    path = save(tmp_path / "out", encoder=encoder, manifest=manifest_for(encoder), heads=heads)
    checkpoint = load(path)
    assert checkpoint.encoder.spec == encoder.spec
    assert checkpoint.encoder.state_dict().keys() == encoder.state_dict().keys()
    assert all(torch.equal(value, checkpoint.encoder.state_dict()[key]) for key, value in encoder.state_dict().items())
    assert all(torch.equal(value, checkpoint.heads[key]) for key, value in heads.items())
    images = torch.randn(1, 3, 64, 96)
    assert torch.equal(checkpoint.encoder(images), encoder.eval()(images))
    assert not checkpoint.encoder.training


def test_the_directory_holds_what_the_contract_says(saved):
    files = {file.relative_to(saved).as_posix() for file in saved.rglob("*") if file.is_file()}
    assert files == {"manifest.json", "encoder.safetensors", "heads.safetensors", "train_state/optimiser.bin"}
    manifest = read_manifest(saved)
    assert manifest.files == {name: file_sha256(saved / name) for name in files - {"manifest.json"}}
    assert set(load_file(saved / "encoder.safetensors")) == set(create("vit_tiny").state_dict())


def test_a_run_directory_stands_for_its_newest_checkpoint(saved):
    assert load(saved.parent.parent).path == saved


def test_equal_models_make_equal_files(tmp_path, manifest_for):
    encoder = create("vit_tiny")
    for name in ("one", "two"):
        save(tmp_path / name, encoder=encoder, manifest=manifest_for(encoder))
    assert load(tmp_path / "one").sha256 == load(tmp_path / "two").sha256


def test_parameters_that_share_memory_are_saved(tmp_path, manifest_for):
    encoder = create("vit_tiny")
    shared = torch.ones(4)
    path = save(
        tmp_path / "out",
        encoder=encoder,
        manifest=manifest_for(encoder),
        heads={"a": shared, "b": shared, "c": shared[:2]},
    )
    assert load(path).heads["c"].tolist() == [1, 1]


# ---------------------------------------------------------------------------------------------------- refusals of save


def test_an_existing_checkpoint_is_never_overwritten(saved, manifest_for):
    before = (saved / "manifest.json").read_bytes()
    encoder = create("vit_tiny")
    with pytest.raises(CheckpointExistsError, match="exists; a checkpoint is never overwritten"):
        save(saved, encoder=encoder, manifest=manifest_for(encoder))
    assert (saved / "manifest.json").read_bytes() == before


def test_the_manifest_has_to_describe_the_encoder(tmp_path, manifest_for):
    vit, swin = create("vit_tiny"), create("swinv2_tiny")
    with pytest.raises(ManifestError, match=r"describes .*swinv2_tiny.*the encoder is .*vit_tiny"):
        save(tmp_path / "out", encoder=vit, manifest=manifest_for(swin))
    with pytest.raises(ManifestError, match=r"counts 5 parameters, the encoder has \d+"):
        save(tmp_path / "out", encoder=vit, manifest=replace(manifest_for(vit), num_parameters=5))
    assert list(tmp_path.iterdir()) == []


def assert_untouched(saved: Path) -> None:
    assert [entry.name for entry in saved.parent.iterdir()] == [saved.name]
    assert load(saved).manifest.step == 200


def test_a_device_without_space_leaves_earlier_checkpoints_and_no_residue(saved, manifest_for):
    encoder = create("vit_tiny")

    def fill_the_disk(folder: Path) -> None:
        with Path("/dev/full").open("wb") as stream:
            stream.write(b"moments")

    with pytest.raises(CheckpointWriteError, match=r"could not be written .*No space left.*free space or choose"):
        save(saved.parent / "step_00000300", encoder=encoder, manifest=manifest_for(encoder), extra=fill_the_disk)
    assert_untouched(saved)


def test_a_folder_that_cannot_be_flushed_behind_the_rename_leaves_no_residue(saved, manifest_for, monkeypatch):
    def flush(path: Path) -> None:
        if path == saved.parent:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    encoder = create("vit_tiny")
    monkeypatch.setattr(_files, "_flush", flush)
    with pytest.raises(CheckpointWriteError, match="could not be written"):
        save(saved.parent / "step_00000300", encoder=encoder, manifest=manifest_for(encoder))
    assert_untouched(saved)


def test_tensors_that_do_not_fit_the_disk_leave_no_residue(saved, manifest_for):
    """A real failure inside safetensors, which raises no OSError: for a moment files may not grow beyond 100 kB."""
    resource = pytest.importorskip("resource", reason="limits of the process are a Unix matter")
    encoder = create("vit_tiny")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(
            CheckpointWriteError, match=r"encoder.safetensors could not be written .*free space or choose"
        ):
            save(saved.parent / "step_00000300", encoder=encoder, manifest=manifest_for(encoder))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert_untouched(saved)


def test_a_target_below_a_file_is_refused(tmp_path, manifest_for):
    (tmp_path / "file").write_text("")
    encoder = create("vit_tiny")
    with pytest.raises(CheckpointWriteError, match="choose a writable folder"):
        save(tmp_path / "file" / "out", encoder=encoder, manifest=manifest_for(encoder))


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="the superuser may write everywhere")
def test_a_read_only_folder_is_refused(saved, manifest_for):
    encoder = create("vit_tiny")
    saved.parent.chmod(0o555)
    try:
        with pytest.raises(CheckpointWriteError, match="choose a writable folder"):
            save(saved.parent / "step_00000300", encoder=encoder, manifest=manifest_for(encoder))
    finally:
        saved.parent.chmod(0o755)
    assert_untouched(saved)


def test_what_the_caller_raises_passes_and_leaves_no_residue(saved, manifest_for):
    encoder = create("vit_tiny")

    def interrupted(folder: Path) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        save(saved.parent / "step_00000300", encoder=encoder, manifest=manifest_for(encoder), extra=interrupted)
    assert_untouched(saved)


def test_a_diverged_run_leaves_no_residue(saved, manifest_for):
    encoder = create("vit_tiny")
    manifest = replace(manifest_for(encoder), device_seconds=float("inf"))
    with pytest.raises(ManifestError, match="without JSON form"):
        save(saved.parent / "step_00000300", encoder=encoder, manifest=manifest)
    assert_untouched(saved)


def test_nothing_is_visible_under_its_name_before_it_is_whole(tmp_path, manifest_for):
    encoder = create("vit_tiny")
    seen = []
    path = tmp_path / "checkpoints" / "step_00000001"
    save(
        path, encoder=encoder, manifest=manifest_for(encoder), extra=lambda folder: seen.append((folder, path.exists()))
    )
    ((folder, existed),) = seen
    assert not existed
    assert folder.parent == path.parent
    assert folder.name.startswith(".")
    assert path.stat().st_mode & 0o777 == tmp_path.joinpath("checkpoints").stat().st_mode & 0o777


# ---------------------------------------------------------------------------------------------------- refusals of load


def test_a_newer_format_is_refused(saved):
    rewrite_manifest(saved, format_version=2)
    with pytest.raises(FormatVersionError, match="has format 2, this unveil-backbones reads 1; upgrade"):
        load(saved)


def test_a_truncated_tensor_file_is_refused(saved):
    file = saved / "encoder.safetensors"
    for size in (file.stat().st_size - 1, 100, 3, 0):
        os.truncate(file, size)
        with pytest.raises(TruncatedError, match=f"ends too early \\({size} bytes\\); copy the checkpoint again"):
            load(saved)


def test_a_truncated_manifest_is_refused(saved):
    os.truncate(saved / "manifest.json", 200)
    with pytest.raises(TruncatedError, match="not complete JSON"):
        load(saved)


@pytest.mark.parametrize("name", ["encoder.safetensors", "heads.safetensors"])
def test_a_missing_file_is_refused(saved, name):
    (saved / name).unlink()
    with pytest.raises(TruncatedError, match=f"{name} is missing although the manifest lists it"):
        load(saved)


@pytest.mark.parametrize("position", [20, -1])
def test_a_changed_byte_is_noticed_in_the_header_and_in_the_numbers(saved, position):
    file = saved / "encoder.safetensors"
    content = bytearray(file.read_bytes())
    content[position] ^= 1
    file.write_bytes(content)
    with pytest.raises(HashMismatchError, match="the file was changed after it was written"):
        load(saved)


def test_a_file_that_is_no_tensors_is_refused(saved):
    (saved / "encoder.safetensors").write_bytes((18).to_bytes(8, "little") + b"not tensors at all" * 10)
    files = read_manifest(saved).files
    rewrite_manifest(saved, files={**files, "encoder.safetensors": file_sha256(saved / "encoder.safetensors")})
    with pytest.raises(HashMismatchError, match="is not a safetensors file"):
        load(saved)


def test_a_checkpoint_without_encoder_is_refused(saved):
    rewrite_manifest(saved, files={})
    with pytest.raises(ManifestError, match=r"lists no encoder.safetensors; every checkpoint has one"):
        load(saved)


def test_missing_unexpected_and_misshapen_tensors_are_named(saved):
    tensors = load_file(saved / "encoder.safetensors")
    rewrite_tensors(saved, {name: tensor for name, tensor in tensors.items() if name != "norm.bias"})
    with pytest.raises(TensorMismatchError, match=r"missing norm.bias; unexpected none; of another shape or type none"):
        load(saved)
    rewrite_tensors(saved, {**tensors, "head.weight": torch.zeros(2)})
    with pytest.raises(TensorMismatchError, match=r"missing none; unexpected head.weight;"):
        load(saved)
    rewrite_tensors(saved, {**tensors, "norm.bias": torch.zeros(3)})
    with pytest.raises(TensorMismatchError, match=r"norm.bias: \(3,\) float32 instead of \(128,\) float32"):
        load(saved)
    rewrite_tensors(saved, {**tensors, "norm.bias": tensors["norm.bias"].double()})
    with pytest.raises(TensorMismatchError, match=r"norm.bias: \(128,\) float64 instead of \(128,\) float32"):
        load(saved)
    rewrite_tensors(saved, {"a": torch.zeros(1)})
    with pytest.raises(TensorMismatchError, match=r"missing blocks.0.* and \d+ more; unexpected a;"):
        load(saved)


def test_narrower_numbers_are_widened_without_loss(saved):
    tensors = {name: tensor.bfloat16() for name, tensor in load_file(saved / "encoder.safetensors").items()}
    rewrite_tensors(saved, tensors)
    loaded = load(saved).encoder.state_dict()
    assert all(torch.equal(loaded[name], tensor.float()) for name, tensor in tensors.items())


def test_another_architecture_is_refused(saved):
    spec = read_manifest(saved).encoder
    rewrite_manifest(saved, encoder={"name": "convnext_tiny", "config": spec.config})
    with pytest.raises(UnknownArchitectureError, match=r"'convnext_tiny' is unknown; this version builds .*; upgrade"):
        load(saved)
    assert issubclass(UnknownArchitectureError, CheckpointError)
    assert issubclass(UnknownArchitectureError, UnknownModelError)


def test_a_name_with_the_configuration_of_another_family_is_refused(saved):
    rewrite_manifest(saved, encoder={"name": "swinv2_tiny", "config": read_manifest(saved).encoder.config})
    with pytest.raises(ManifestError, match="has no field"):
        load(saved)


def test_another_size_of_the_same_family_is_refused(saved):
    spec = EncoderSpec("vit_tiny", {**read_manifest(saved).encoder.config, "width": 64})
    rewrite_manifest(saved, encoder={"name": spec.name, "config": spec.config})
    with pytest.raises(TensorMismatchError, match="of another shape or type"):
        load(saved)


def test_an_impossible_configuration_is_refused(saved):
    config = read_manifest(saved).encoder.config
    rewrite_manifest(saved, encoder={"name": "vit_tiny", "config": {**config, "num_heads": 3}})
    with pytest.raises(ManifestError, match=r"manifest.json: width 128 with 3 heads"):
        load(saved)
    rewrite_manifest(saved, encoder={"name": "vit_tiny", "config": {**config, "image_size": [65, 64]}})
    with pytest.raises(ManifestError, match=r"manifest.json: VitConfig got an image of 65 x 64"):
        load(saved)


def test_names_that_lead_out_of_the_directory_are_refused(saved, tmp_path):
    shutil.copy(saved / "encoder.safetensors", tmp_path / "run" / "outside.safetensors")
    files = read_manifest(saved).files
    rewrite_manifest(saved, files={**files, "../../outside.safetensors": files["encoder.safetensors"]})
    with pytest.raises(UnsafePathError, match="stay inside the checkpoint"):
        load(saved)


def test_every_refusal_is_one_error_tree():
    assert issubclass(CheckpointError, BackboneError)
    assert issubclass(BackboneError, ValueError)


# ------------------------------------------------------------------------------------------------------- train state


def test_train_state_is_verified_when_asked_for(saved):
    assert (train_state(saved.parent.parent) / "optimiser.bin").read_bytes() == b"moments"
    (saved / "train_state" / "optimiser.bin").write_bytes(b"other")
    assert load(saved).manifest.step == 200
    with pytest.raises(HashMismatchError, match=r"optimiser.bin has SHA-256"):
        train_state(saved)


def test_an_exported_checkpoint_can_be_read_but_not_resumed(saved, tmp_path, manifest_for):
    shutil.rmtree(saved / "train_state")
    assert load(saved).manifest.step == 200
    with pytest.raises(TruncatedError, match=r"optimiser.bin is missing"):
        train_state(saved)
    encoder = create("vit_tiny")
    exported = save(tmp_path / "exported", encoder=encoder, manifest=manifest_for(encoder))
    with pytest.raises(CheckpointNotFoundError, match="has no train_state; it can be evaluated but not resumed"):
        train_state(exported)


# -------------------------------------------------------------------------------------------------------------- pairs


def test_a_pair_is_restored_bit_exactly(saved_pair):
    path, pair, tokenizer = saved_pair
    restored, pieces = load_pair(path)
    assert not restored.training
    captions = ["a red zero", "two threes above"]
    assert torch.equal(pieces(captions), tokenizer(captions))
    assert torch.equal(restored.encode_text(pieces(captions)), pair.encode_text(tokenizer(captions)))
    images = torch.randn(2, 3, 64, 64)
    assert torch.equal(restored.encode_image(images), pair.encode_image(images))
    assert torch.equal(restored.logit_scale, pair.logit_scale)


def test_a_checkpoint_without_text_tower_is_not_a_pair(saved, saved_pair):
    with pytest.raises(NotAPairError, match=r"simmim vit_tiny u=64 s=200\) has no text tower .*pretrain flip"):
        load_pair(saved)
    path, _, _ = saved_pair
    rewrite_tensors(path, {"objective.x": torch.zeros(1)}, "heads.safetensors")
    with pytest.raises(NotAPairError):
        load_pair(path)


def test_a_pair_without_a_tensor_is_refused(saved_pair):
    path, _, _ = saved_pair
    heads = load_file(path / "heads.safetensors")
    rewrite_tensors(path, {k: v for k, v in heads.items() if k != "pair.text.norm.bias"}, "heads.safetensors")
    with pytest.raises(TensorMismatchError, match=r"heads.safetensors: missing text.norm.bias"):
        load_pair(path)


def test_unknown_and_impossible_text_towers_are_refused(saved_pair):
    path, _, _ = saved_pair
    config = read_manifest(path).text.config
    rewrite_manifest(path, text={"name": "bert", "config": config})
    with pytest.raises(UnknownArchitectureError, match="text tower 'bert' is unknown"):
        load_pair(path)
    rewrite_manifest(path, text={"name": "text_tiny", "config": {**config, "num_heads": 5}})
    with pytest.raises(ManifestError, match="the width is a multiple of the heads"):
        load_pair(path)
