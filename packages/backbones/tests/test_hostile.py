"""Files made to harm: each is refused by name, and nothing in it runs or grows."""

import collections
import io
import os
import pickle
import struct
import tarfile
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from unveil_backbones import convert, inspect, load_foreign, verify
from unveil_backbones.conversion.reading import read_tensors
from unveil_backbones.errors import (
    CheckpointError,
    CheckpointNotFoundError,
    ConvertError,
    CoverageError,
    NonFiniteError,
    TensorMismatchError,
    TruncatedError,
    UnsafeFileError,
    UnsafePathError,
)

KNOWN = {"image_size": (32, 32), "num_heads": 4}


def vit_state() -> dict[str, torch.Tensor]:
    return VisionTransformer(img_size=32, patch_size=8, embed_dim=32, depth=2, num_heads=4, num_classes=0).state_dict()


def refused(path: Path, error: type[Exception], message: str, **details) -> None:
    """Refused by each of the three ways in, with the same error, and without a trace of output."""
    with pytest.raises(error, match=message):
        convert(path, path.parent / "out", **{**KNOWN, **details})
    assert not (path.parent / "out").exists()
    assert not verify(path).ok
    assert isinstance(verify(path).problems[0], str)


def test_the_unharmed_file_is_accepted(tmp_path):
    """Without this, every refusal below could have another reason than the harm."""
    torch.save(vit_state(), tmp_path / "vit.pth")
    assert convert(tmp_path / "vit.pth", tmp_path / "out", **KNOWN).path.is_dir()


# ---------------------------------------------------------------------------------------------------------------- code


class Attack:
    """Runs a command when it is unpickled without restriction."""

    def __init__(self, marker: Path) -> None:
        self.command = f"touch {marker}"

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.mark.parametrize("writer", ["archive", "legacy", "pickle", "protocol 4"])
def test_code_in_a_pickle_is_not_run(tmp_path, writer):
    marker, path = tmp_path / "ran", tmp_path / "vit.pth"
    content = {"model": vit_state(), "epoch": Attack(marker)}
    if writer == "archive":
        torch.save(content, path)
    elif writer == "legacy":
        torch.save(content, path, _use_new_zipfile_serialization=False)
    elif writer == "pickle":
        path.write_bytes(pickle.dumps(Attack(marker), protocol=2))
    else:
        torch.save(content, path, pickle_protocol=4)
    refused(path, UnsafeFileError, r"holds more than tensors \(.*\); nothing of it was run; do not use a file")
    with pytest.raises(UnsafeFileError):
        inspect(path)
    assert not marker.exists()


def test_this_attack_would_have_run(tmp_path):
    pickle.loads(pickle.dumps(Attack(tmp_path / "ran")))
    assert (tmp_path / "ran").exists()


def test_an_unpatched_reader_is_not_trusted(tmp_path, monkeypatch):
    """PyTorch before 2.6 can be made to run code although weights_only is set."""
    torch.save(vit_state(), tmp_path / "vit.pth")
    monkeypatch.setattr(torch, "__version__", "2.5.1+cpu")
    refused(tmp_path / "vit.pth", UnsafeFileError, "2.5.1.* can be made to run code .*upgrade to PyTorch 2.6")


@pytest.mark.filterwarnings("ignore:.*TorchScript:UserWarning", "ignore::DeprecationWarning")
def test_torchscript_holds_code(tmp_path):
    torch.jit.save(torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2)), tmp_path / "jit.pt")
    refused(tmp_path / "jit.pt", UnsafeFileError, "is a TorchScript archive, which holds code")


def test_a_tar_archive_is_refused(tmp_path):
    with tarfile.open(tmp_path / "old.pth", "w") as archive:
        entry = tarfile.TarInfo("../../evil")
        entry.size = 3
        archive.addfile(entry, io.BytesIO(b"abc"))
    refused(tmp_path / "old.pth", ConvertError, "is a tar archive")


@pytest.mark.parametrize(
    "content", [b"hello", b"\x80\x02}q\x00.", b"\x80\x02K\x05.", b"\x80\x02]q\x00.", b"<html>" * 99]
)
def test_files_that_hold_no_weights(tmp_path, content):
    (tmp_path / "file.pth").write_bytes(content)
    with pytest.raises(CheckpointError):
        read_tensors(tmp_path / "file.pth")
    refused(tmp_path / "file.pth", CheckpointError, "file.pth")


# --------------------------------------------------------------------------------------------------------------- bombs


def rewritten(source: Path, target: Path, change, compression: int = zipfile.ZIP_STORED) -> None:
    """Copy an archive entry by entry; ``change(name, data)`` returns the entries to write instead."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", compression) as new:
        for entry in old.infolist():
            for name, data in change(entry.filename, old.read(entry)):
                new.writestr(name, data)


@pytest.fixture
def archive(tmp_path) -> Path:
    torch.save(vit_state(), tmp_path / "good.pth")
    return tmp_path / "good.pth"


def test_compressed_archives_are_refused_before_they_expand(tmp_path, archive):
    path = tmp_path / "bomb.pth"
    rewritten(archive, path, lambda name, data: [(name, b"\0" * 10**6)], zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 10**6
    refused(path, UnsafeFileError, "compresses .*PyTorch never does, and such an archive may expand without end")


def test_overlapping_entries_are_refused(tmp_path, archive):
    """Many names in the directory for the same bytes: small on disk, endless when read."""
    path = tmp_path / "bomb.pth"
    with zipfile.ZipFile(path, "w") as new:
        new.writestr("a/data/0", b"\0" * 10**5)
        first = new.infolist()[0]
        for index in range(1, 50):
            twin = zipfile.ZipInfo(f"a/data/{index}")
            twin.file_size = twin.compress_size = first.file_size
            twin.CRC, twin.header_offset, twin.compress_type = first.CRC, first.header_offset, first.compress_type
            new.filelist.append(twin)
            new.NameToInfo[twin.filename] = twin
        new._didModify = True
    refused(path, UnsafeFileError, "its entries overlap")


@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")
def test_two_entries_of_one_name_are_refused(tmp_path, archive):
    path = tmp_path / "twice.pth"
    rewritten(archive, path, lambda name, data: [(name, data)] * (2 if name.endswith("data.pkl") else 1))
    refused(path, UnsafeFileError, "holds two entries of one name")


def test_views_larger_than_their_storage_are_refused(tmp_path):
    torch.save({**vit_state(), "norm.bias": torch.zeros(1).expand(10**6, 10**6)}, tmp_path / "vit.pth")
    refused(tmp_path / "vit.pth", UnsafeFileError, r"norm.bias has 4000000000000 bytes in a smaller storage")


def test_a_thousand_names_for_one_tensor_are_refused(tmp_path):
    shared = torch.zeros(1000)
    torch.save({f"blocks.{index}.weight": shared for index in range(1000)}, tmp_path / "vit.pth")
    refused(tmp_path / "vit.pth", UnsafeFileError, "bytes, its tensors 4000000")


def test_a_storage_larger_than_its_entry_is_refused(tmp_path):
    """Reading beyond the entry would show other memory of the process."""
    torch.save({"w": torch.zeros(4)}, tmp_path / "small.pth")
    million = b"J" + struct.pack("<i", 10**6)

    def change(name: str, data: bytes) -> list[tuple[str, bytes]]:
        return [(name, data.replace(b"K\x04tq", million + b"tq").replace(b"K\x04\x85", million + b"\x85"))]

    rewritten(tmp_path / "small.pth", tmp_path / "large.pth", change)
    assert b"J" + struct.pack("<i", 10**6) in (tmp_path / "large.pth").read_bytes()
    refused(tmp_path / "large.pth", TruncatedError, "cannot be read")


@pytest.mark.parametrize("size", [2**40, 33 * 2**20])
def test_a_huge_safetensors_header_is_not_read(tmp_path, size):
    (tmp_path / "vit.safetensors").write_bytes(struct.pack("<Q", size) + b"{}")
    refused(tmp_path / "vit.safetensors", UnsafeFileError, f"announces a header of {size} bytes; at most")


def test_a_small_file_of_a_giant_model_is_not_built(tmp_path):
    state = vit_state()
    state["patch_embed.proj.weight"] = torch.zeros(20_000, 3, 1, 1)
    state["blocks.0.mlp.fc1.weight"] = torch.zeros(80_000, 1)
    state |= {f"blocks.{index}.norm1.weight": torch.zeros(1) for index in range(2000)}
    torch.save(state, tmp_path / "vit.pth")
    refused(tmp_path / "vit.pth", CoverageError, r"the model that its shapes describe at least 9\d{12}")


def test_a_giant_window_is_not_built(tmp_path):
    state = {
        "patch_embed.proj.weight": torch.zeros(32, 3, 4, 4),
        "layers.0.downsample.reduction.weight": torch.zeros(1),
    }
    for stage in range(4):
        stem = f"layers.{stage}.blocks.0."
        state[f"{stem}norm1.weight"] = torch.zeros(1)
        state[f"{stem}attn.logit_scale"] = torch.zeros(1, 1, 1)
        state[f"{stem}mlp.fc1.weight"] = torch.zeros(128, 32)
        state[f"{stem}attn.relative_coords_table"] = torch.ones(1, 399, 399, 2)
    state["padding"] = torch.zeros(10**6)
    torch.save(state, tmp_path / "swin.pth")
    with pytest.raises(ConvertError, match="window 200; it is between 1 and 64"):
        load_foreign(tmp_path / "swin.pth")


# --------------------------------------------------------------------------------------------------------------- paths


@pytest.mark.parametrize("name", ["../../evil", "/etc/evil", "a\\..\\evil", "C:/evil", "good/../../evil"])
def test_archive_entries_that_leave_are_refused(tmp_path, archive, name):
    path = tmp_path / "evil.pth"
    rewritten(archive, path, lambda old, data: [(old, data), *([(name, b"x")] if old.endswith("pkl") else [])])
    refused(path, UnsafePathError, "names the entry .*; entries stay inside")


def test_links_out_of_a_foreign_folder_are_refused(tmp_path):
    (tmp_path / "folder").mkdir()
    save_file(vit_state(), tmp_path / "secret.safetensors")
    (tmp_path / "folder" / "model.safetensors").symlink_to(tmp_path / "secret.safetensors")
    refused(tmp_path / "folder", UnsafePathError, "is a link to .*files of a checkpoint stay inside it")
    (tmp_path / "folder" / "model.safetensors").unlink()
    save_file(vit_state(), tmp_path / "folder" / "model.safetensors")
    (tmp_path / "folder" / "config.json").symlink_to("/etc/passwd")
    refused(tmp_path / "folder", UnsafePathError, "is a link to /etc/passwd")


# ------------------------------------------------------------------------------------------------------ damaged files


def test_truncated_archives_are_refused_at_every_length(tmp_path, archive):
    content = archive.read_bytes()
    path = tmp_path / "short.pth"
    for size in (0, 1, 4, 100, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:size])
        with pytest.raises((TruncatedError, UnsafeFileError)):
            read_tensors(path)
    path.write_bytes(content[: len(content) // 2])
    refused(path, TruncatedError, r"no readable archive directory .*copy it again")
    path.write_bytes(b"")
    refused(path, TruncatedError, "is empty; copy it again")


def test_truncated_legacy_pickles_are_refused(tmp_path):
    torch.save(vit_state(), tmp_path / "whole.pth", _use_new_zipfile_serialization=False)
    content = (tmp_path / "whole.pth").read_bytes()
    for size in (1, 30, 500, len(content) // 2, len(content) - 1):
        (tmp_path / "short.pth").write_bytes(content[:size])
        with pytest.raises((TruncatedError, UnsafeFileError)):
            read_tensors(tmp_path / "short.pth")


def test_truncated_safetensors_are_refused(tmp_path):
    save_file(vit_state(), tmp_path / "whole.safetensors")
    content = (tmp_path / "whole.safetensors").read_bytes()
    for size in (0, 3, 50, len(content) - 1):
        (tmp_path / "short.safetensors").write_bytes(content[:size])
        refused(tmp_path / "short.safetensors", TruncatedError, "copy")


def raw_safetensors(path: Path, header: str, data: bytes) -> None:
    path.write_bytes(struct.pack("<Q", len(header)) + header.encode() + data)


@pytest.mark.parametrize(
    "header",
    [
        '{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}',
        '{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
        '{"a":{"dtype":"F32","shape":[9],"data_offsets":[0,8]}}',
        '{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,800]}}',
        '{"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,8]}}',
        '{"a":{"dtype":"X99","shape":[2],"data_offsets":[0,8]}}',
        '["a"]',
        "{}",
    ],
    ids=["doubled name", "overlap", "larger shape", "beyond the end", "overflow", "unknown type", "list", "nothing"],
)
def test_dishonest_safetensors_headers_are_refused(tmp_path, header):
    raw_safetensors(tmp_path / "vit.safetensors", header, b"\0" * 8)
    refused(tmp_path / "vit.safetensors", CheckpointError, "is not a whole safetensors file|holds no tensors")


def test_folders_and_files_in_each_others_place(tmp_path):
    (tmp_path / "folder.pth").mkdir()
    with pytest.raises(CheckpointNotFoundError, match=r"holds neither a manifest\.json nor one of model"):
        convert(tmp_path / "folder.pth", tmp_path / "out")
    with pytest.raises(CheckpointNotFoundError, match="is not a file"):
        read_tensors(tmp_path / "folder.pth")
    (tmp_path / "model.safetensors").mkdir()
    with pytest.raises(CheckpointNotFoundError):
        convert(tmp_path, tmp_path / "out")
    for ask in (inspect, verify):
        with pytest.raises(CheckpointNotFoundError, match="does not exist"):
            ask(tmp_path / "nothing")


@pytest.mark.parametrize("content", ["[]", "{", '{"a": ' * 50_000, "\ud83d"])
def test_configurations_that_are_no_objects_are_refused(tmp_path, content):
    save_file(vit_state(), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_bytes(content.encode("utf-8", "surrogatepass"))
    with pytest.raises(ConvertError, match="take the model's own"):
        convert(tmp_path, tmp_path / "out")


# ------------------------------------------------------------------------------------------------------------ weights


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("ending", ["pth", "safetensors"])
def test_weights_that_are_no_numbers_are_refused(tmp_path, bad, ending):
    state = vit_state()
    state["blocks.1.norm1.weight"][3] = bad
    path = tmp_path / f"vit.{ending}"
    torch.save(state, path) if ending == "pth" else save_file(state, path)
    refused(path, NonFiniteError, "NaN or infinite values in blocks.1.norm1.weight")


def other_types() -> dict[str, torch.Tensor]:
    one = torch.ones(32)
    types = (torch.int64, torch.float64, torch.bool, torch.complex64, torch.float8_e4m3fn, torch.uint8)
    return {str(kind): one.to(kind) for kind in types}


@pytest.mark.parametrize("tensor", other_types().values(), ids=other_types())
def test_other_types_are_refused(tmp_path, tensor):
    torch.save({**vit_state(), "norm.bias": tensor}, tmp_path / "vit.pth")
    refused(tmp_path / "vit.pth", TensorMismatchError, r"norm.bias: \(32,\) \w+ instead of \(32,\) float32")


def test_tensors_that_are_not_plain_are_refused(tmp_path):
    torch.save({**vit_state(), "norm.bias": torch.eye(32).to_sparse()}, tmp_path / "vit.pth")
    refused(tmp_path / "vit.pth", CheckpointError, "plain tensors|holds more than tensors")


SHAPES = [(), (0,), (31,), (32, 1), (1, 32), (3, 5, 7), (2, 2, 2, 2, 2)]


@pytest.mark.parametrize(
    "name", ["patch_embed.proj.weight", "pos_embed", "cls_token", "blocks.0.mlp.fc1.weight", "norm.bias"]
)
def test_wrong_shapes_are_refused_wherever_they_are(tmp_path, name):
    for index, shape in enumerate(SHAPES):
        state = {**vit_state(), name: torch.zeros(shape)}
        torch.save(state, tmp_path / f"{index}.pth")
        for layout in ("timm", "mae", "dino"):
            with pytest.raises(CheckpointError):
                load_foreign(tmp_path / f"{index}.pth", format=layout)


def test_ordered_dictionaries_and_parameters_are_read(tmp_path):
    state = collections.OrderedDict((k, nn.Parameter(v)) for k, v in vit_state().items())
    torch.save(state, tmp_path / "vit.pth")
    assert convert(tmp_path / "vit.pth", tmp_path / "out", **KNOWN).coverage.num_dropped == 0
