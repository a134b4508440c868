"""A checkpoint in parts: whole or not at all, verified, and refused by name where whole weights are wanted."""

import pytest
from unveil_backbones import create, load, train_state, verify
from unveil_backbones.errors import HashMismatchError, ManifestError, ShardedCheckpointError
from unveil_backbones.sharded import open_sharded, save_sharded


@pytest.fixture
def sharded(tmp_path, saved):
    """The directory of a checkpoint whose parts are no tensors: this package does not read them."""
    manifest, encoder = load(saved).manifest, load(saved).encoder

    def fill(folder):
        for name in ("weights", "train_state"):
            (folder / name).mkdir()
            (folder / name / "part").write_bytes(name.encode())

    return save_sharded(tmp_path / "step_00000100", encoder=encoder, manifest=manifest, fill=fill, tokenizer_json="{}")


def test_parts_are_listed_and_verified(sharded):
    opened = open_sharded(sharded)
    assert set(opened.manifest.files) == {"weights/part", "train_state/part", "tokenizer.json"}
    assert (opened.weights / "part").read_bytes() == b"weights"
    assert opened.tokenizer_json == "{}"
    assert (train_state(sharded) / "part").read_bytes() == b"train_state"
    assert verify(sharded).ok
    (sharded / "weights" / "part").write_bytes(b"other")
    with pytest.raises(HashMismatchError, match="weights/part"):
        open_sharded(sharded)
    assert not verify(sharded).ok


@pytest.mark.parametrize(("part", "read"), [("weights", open_sharded), ("train_state", train_state)])
def test_parts_of_another_checkpoint_are_refused(sharded, part, read):
    """Whoever reads parts takes all that lie in the folder, and the last of two that say the same."""
    (sharded / part / "notes.txt").write_text("no tensors")
    read(sharded)
    (sharded / part / "shard-00009.safetensors").write_bytes(b"")
    with pytest.raises(HashMismatchError, match=rf"{part}/shard-00009\.safetensors is not listed in manifest\.json"):
        read(sharded)


def test_whole_weights_are_not_to_be_had(sharded, saved):
    with pytest.raises(ShardedCheckpointError, match=r"pretrain export .*step_00000100 --out DIR"):
        load(sharded)
    with pytest.raises(ManifestError, match="lists no weights/"):
        open_sharded(saved)


def test_the_manifest_has_to_describe_the_encoder(saved, tmp_path):
    other = create("vit_s16", image_size=(32, 32))
    with pytest.raises(ManifestError, match="the manifest describes"):
        save_sharded(tmp_path / "x", encoder=other, manifest=load(saved).manifest, fill=lambda folder: None)
    assert not (tmp_path / "x").exists()
