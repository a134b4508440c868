"""A pickle that leaves a mark when it is run, handed to every place that reads a file from outside: no mark is left."""

import json
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch


class Bomb:
    """Runs when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


@pytest.fixture
def marker(tmp_path):
    return tmp_path / "ran"


@pytest.fixture
def bomb(marker):
    return Bomb(marker)


def disguises(folder: Path, bomb: Bomb) -> list[Path]:
    """The same pickle as every kind of file that is or may hold one."""
    folder.mkdir()
    plain = pickle.dumps({"model": bomb, "state_dict": bomb})
    files = {
        "plain.pth": plain, "plain.pt": plain, "plain.bin": plain, "named.safetensors": plain,
        "protocol0.pth": pickle.dumps({"model": bomb}, protocol=0),
        "results.jsonl": plain, "samples.parquet": plain, "baseline.toml": plain, "shard.tar": plain,
        "image.png": plain, "tokenizer.json": plain, "list.txt": plain, "numbers.npz": plain,
    }  # fmt: skip
    for name, content in files.items():
        (folder / name).write_bytes(content)
    torch.save({"model": {"x": torch.zeros(2)}, "args": bomb}, folder / "zip.pth")
    torch.save({"model": bomb}, folder / "legacy.pth", _use_new_zipfile_serialization=False)
    np.save(folder / "objects.npy", np.array([bomb], dtype=object), allow_pickle=True)
    with zipfile.ZipFile(folder / "archive.npz", "w") as archive:
        archive.write(folder / "objects.npy", "about.npy")
    return sorted(folder.iterdir())


def test_the_bomb_goes_off_where_it_is_unpickled(tmp_path, bomb, marker):
    for file in disguises(tmp_path / "x", bomb):
        if file.name == "plain.pth":
            pickle.loads(file.read_bytes())
    assert marker.is_dir()
    marker.rmdir()
    torch.load(tmp_path / "x" / "zip.pth", weights_only=False)  # noqa: TID251  to see it go off
    assert marker.is_dir()


@pytest.mark.parametrize("kind", ["simmim", "mae", "timm", "open_clip", "dino", "huggingface"])
def test_checkpoints_of_other_programs(kind, tmp_path, bomb, marker):
    import unveil_backbones
    from unveil_backbones.errors import BackboneError

    for file in disguises(tmp_path / "x", bomb):
        with pytest.raises(BackboneError):
            unveil_backbones.convert(file, tmp_path / "out", format=kind)
    assert not marker.exists()
    assert not (tmp_path / "out").exists()


def test_a_checkpoint_of_ours_with_pickles_for_files(tmp_path, bomb, marker):
    import unveil_backbones
    from unveil_backbones._files import file_sha256
    from unveil_backbones.manifest import Manifest, Preprocessing
    from unveil_evalharness.engine.interim import read_interim

    encoder = unveil_backbones.create("vit_tiny", image_size=32)
    manifest = Manifest(
        encoder=encoder.spec, preprocessing=Preprocessing(image_size=(32, 32), mean=(0.5,) * 3, std=(0.5,) * 3),
        objective="mae", mask={}, realised_ratio=0.5, seed=0, step=1, samples_seen=1, unique_samples=1, tokens_seen=1,
        device_seconds=1.0, data_hash="0" * 16, num_parameters=encoder.num_parameters, versions={},
        created="2024-01-01T00:00:00+00:00",
    )  # fmt: skip
    path = unveil_backbones.save(tmp_path / "step_00000001", encoder=encoder, manifest=manifest)
    evil = pickle.dumps({"model": bomb})
    (path / "encoder.safetensors").write_bytes(evil)
    content = json.loads((path / "manifest.json").read_text())
    content["files"]["encoder.safetensors"] = file_sha256(path / "encoder.safetensors")
    (path / "manifest.json").write_text(json.dumps(content))
    with pytest.raises(unveil_backbones.CheckpointError):
        unveil_backbones.load(path)
    (path / "manifest.json").write_bytes(evil)
    with pytest.raises(unveil_backbones.CheckpointError):
        unveil_backbones.load(path)
    work = tmp_path / "work"
    work.mkdir()
    torch.save({"model": bomb}, work / "interim-00000001.pth")
    pointer = {"file": "interim-00000001.pth", "sha256": file_sha256(work / "interim-00000001.pth"), "iteration": 1}
    (work / "interim.json").write_text(json.dumps({**pointer, "plan": "p"}))
    found = read_interim(work, plan="p")
    assert found.refused
    assert not found.state
    assert not marker.exists()


def test_training_states(tmp_path, bomb, marker):
    from unveil_pretrain.train_state import TRAIN_STATE, load_train_state

    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    folder = tmp_path / "step_00000001"
    (folder / TRAIN_STATE).mkdir(parents=True)
    for name in ("optimizer.safetensors", "position.json", ".metadata", "__0_0.distcp"):
        (folder / TRAIN_STATE / name).write_bytes(pickle.dumps({"x": bomb}))
    with pytest.raises(ValueError, match=r"."):
        load_train_state(folder, model=model, optimizer=optimizer)
    assert not marker.exists()


def test_data_and_results(tmp_path, bomb, marker):
    from unveil_backbones import WordPieceTokenizer
    from unveil_evalharness.compare.outcomes import read_samples
    from unveil_evalharness.gate import read_baseline
    from unveil_evalharness.results import read_rows
    from unveil_evalharness.tasks.imagenet_ft.data import open_image
    from unveil_pretrain.data import ShardDataset
    from unveil_pretrain.data.decode import decode
    from unveil_pretrain.data.lists import read_list

    readers = [
        read_samples, read_baseline, read_rows, open_image, read_list,
        lambda file: ShardDataset(str(file)),
        lambda file: decode(file.read_bytes(), "here"),
        lambda file: WordPieceTokenizer.from_json(file.read_bytes().decode("latin-1")),
    ]  # fmt: skip
    for file in disguises(tmp_path / "x", bomb):
        for reader in readers:
            try:
                reader(file)
            except (ValueError, OSError):
                continue
    assert not marker.exists()
    with pytest.raises((ValueError, OSError)):
        np.load(tmp_path / "x" / "archive.npz", allow_pickle=False)["about"]
    assert not marker.exists()


def test_the_allow_list_for_mmengine_opens_no_door(tmp_path, bomb, marker):
    """Its checkpoints need `getattr`; what stands in for it serves one class only."""
    pytest.importorskip("mmengine", reason="mmengine is not installed")
    from unveil_evalharness.compat.checkpoints import allow_mmengine_checkpoints

    allow_mmengine_checkpoints()
    for file in disguises(tmp_path / "x", bomb):
        if file.suffix != ".pth":
            continue
        with pytest.raises(Exception, match=r"."):
            torch.load(file, weights_only=True)  # noqa: TID251  the thing itself
    assert not marker.exists()
