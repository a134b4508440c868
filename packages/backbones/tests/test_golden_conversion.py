"""Files in the references' own layouts become encoders with the references' recorded results.

No reference and no download is needed: a file is written with the recorded names, shapes and formula, as the authors'
programs would write it, converted by the public ``convert``, loaded, and run (docs/numerical-truth.md).
"""

import json
import math
from functools import cache
from pathlib import Path

import golden_numbers as numbers
import pytest
import torch
from safetensors.torch import save_file
from unveil_backbones import CoverageError, convert, ensure_torchvision, load, load_pair
from unveil_backbones.position import sin_cos_position

ensure_torchvision()


@cache
def golden(family):
    return numbers.read_golden(Path(__file__).parent / "golden" / f"{family}.json")["cases"]


def coordinates(window, pretrained):
    """Swin V2, section 3.2, equation 4, of every distance within a window: what its files hold as a buffer."""
    places = torch.arange(1 - window, window, dtype=torch.float64) * 8 / ((pretrained or window) - 1)
    spaced = torch.sign(places) * torch.log2(1 + places.abs()) / 3
    return torch.stack(torch.meshgrid(spaced, spaced, indexing="ij"), dim=-1)[None].float()


def fixed(name, recorded, settings):
    """A tensor that no formula fills, by its definition, checked against what is recorded of it."""
    shape = recorded["shape"]
    if name.endswith("relative_position_index"):
        return torch.zeros(shape, dtype=torch.int64)
    if name.endswith("attn_mask"):
        return torch.zeros(shape)
    if name.endswith("relative_coords_table"):
        pretrained = settings.get("pretrained_window_sizes", [0, 0, 0, 0])[int(name.split("layers.")[1][0])]
        value = coordinates((shape[1] + 1) // 2, pretrained)
    elif not recorded["norm"]:
        value = torch.zeros(shape)
    else:
        side = math.isqrt(shape[1] - 1)
        found = sin_cos_position(side, side, shape[2], base_rows=side, base_cols=side)
        value = torch.cat([torch.zeros(1, shape[2]), found])[None]
    assert numbers.output_difference(name, value, recorded) < 1e-6
    return value


def state(case):
    buffers = {name: fixed(name, recorded, case["settings"]) for name, recorded in case["fixed"].items()}
    return numbers.weights(case["shapes"]) | buffers


def pth(case, folder, entry="model"):
    """A file as a training program of the authors leaves it: weights among other things."""
    path = folder / "checkpoint.pth"
    torch.save({entry: state(case), "epoch": 799, "max_accuracy": 0.0}, path)
    return path


def loaded(path, folder, **details):
    convert(path, folder / "converted", **details)
    return load(folder / "converted").encoder.eval()


def report(family, name, forward):
    print(f"golden: converted {family} {name} torch.float32 forward {forward:.1e}")


def tokens(encoder, case):
    images = numbers.noise("images", case["given"]["images"]).float()
    keep = torch.tensor(case["given"]["keep"]) if "keep" in case["given"] else None
    with torch.no_grad():
        return encoder.encode(encoder.embed(images, keep), encoder.grid(*images.shape[-2:]))


@pytest.mark.parametrize(
    "name", ["tiny_64", "narrow_192_window12", "narrow_224_window14", "narrow_256_window16_of_8", "non_square"]
)
def test_swin_files_tell_their_windows(name, tmp_path):
    case = golden("swinv2")[name]
    size = tuple(case["settings"]["img_size"])
    details = {"image_size": size} if size[0] != size[1] else {}
    encoder = loaded(pth(case, tmp_path), tmp_path, **details)
    assert encoder.config.image_size == size
    forward = numbers.output_difference("encoded", tokens(encoder, case), case["outputs"]["encoded"])
    report("swinv2", name, forward)
    assert forward <= numbers.bound(case, "forward", torch.float32)


@pytest.mark.parametrize("name", ["simmim_tiny_47", "simmim_192_47"])
def test_simmims_pretraining_files(name, tmp_path):
    case = golden("swinv2")[name]
    encoder = loaded(pth(case, tmp_path), tmp_path)
    assert encoder.config.image_size == tuple(case["settings"]["img_size"])
    images = numbers.pictures(case["given"]["images"]).float()
    units, unit = torch.tensor(case["given"]["hidden_units"]), case["settings"]["unit"]
    hidden = units.repeat_interleave(unit, 1).repeat_interleave(unit, 2).flatten(1)[:, :, None].bool()
    mask_token = numbers.weight("encoder.mask_token", case["shapes"]["encoder.mask_token"])
    with torch.no_grad():
        mixed = torch.where(hidden, mask_token, encoder.embed(images))
        encoded = encoder.encode(mixed, encoder.grid(*images.shape[-2:]))
    maps = encoded.transpose(1, 2).unflatten(2, (images.shape[2] // 32, -1))
    forward = numbers.output_difference("encoded", maps, case["outputs"]["encoded"])
    report("simmim", name, forward)
    assert forward <= numbers.bound(case, "forward", torch.float32)


@pytest.mark.parametrize("name", ["encoder_tiny_32_normalised", "encoder_narrow_224"])
def test_maes_pretraining_files(name, tmp_path):
    case = golden("mae")[name]
    encoder = loaded(pth(case, tmp_path), tmp_path, num_heads=case["settings"]["num_heads"])
    assert encoder.config.position == "sincos"
    forward = numbers.output_difference("latent", tokens(encoder, case), case["outputs"]["latent"])
    report("mae", name, forward)
    assert forward <= numbers.bound(case, "forward", torch.float32)


@pytest.mark.parametrize("name", ["plain_70x70", "chunked_70x70", "registers_70x70", "registers_56x112"])
def test_dinov2s_files(name, tmp_path):
    case = golden("dinov2")[name]
    encoder = loaded(pth(case, tmp_path, "teacher"), tmp_path, num_heads=case["settings"]["num_heads"])
    found = tokens(encoder, case)
    parts = {"x_norm_clstoken": found[:, 0], "x_norm_patchtokens": found[:, encoder.num_prefix_tokens :]}
    forward = max(numbers.output_difference(part, value, case["outputs"][part]) for part, value in parts.items())
    report("dinov2", name, forward)
    assert forward <= numbers.bound(case, "forward", torch.float32)


def pair_difference(folder, case):
    with torch.no_grad():
        pair = load_pair(folder)[0].eval()
        images = numbers.noise("images", case["given"]["images"]).float()
        outputs = {"image": pair.encode_image(images), "text": pair.encode_text(torch.tensor(case["given"]["ids"]))}
    return max(numbers.output_difference(part, value, case["outputs"][part]) for part, value in outputs.items())


def test_open_clips_files(tmp_path):
    pytest.importorskip("open_clip", reason="pip install 'unveil-backbones[clip]': the pair's tokenizer")
    case = golden("open_clip")["small"]
    torch.save({"state_dict": {f"module.{name}": value for name, value in state(case).items()}}, tmp_path / "clip.pt")
    convert(tmp_path / "clip.pt", tmp_path / "converted")
    forward = pair_difference(tmp_path / "converted", case)
    report("open_clip", "small", forward)
    assert forward <= numbers.bound(case, "forward", torch.float32)


def written(case, folder):
    """A folder as transformers' save_pretrained leaves it."""
    folder.mkdir()
    save_file(state(case), folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(case["settings"]))
    return folder


def test_transformers_clip(tmp_path):
    pytest.importorskip("open_clip", reason="pip install 'unveil-backbones[clip]': the pair's tokenizer")
    case = golden("huggingface")["clip"]
    convert(written(case, tmp_path / "theirs"), tmp_path / "converted")
    forward = pair_difference(tmp_path / "converted", case)
    report("huggingface", "clip", forward)
    assert forward <= numbers.bound(case, "forward", torch.float32)


@pytest.mark.parametrize("name", ["vit", "vit_mae", "swinv2_64", "swinv2_128"])
def test_transformers_folders(name, tmp_path):
    case = golden("huggingface")[name]
    found = tokens(loaded(written(case, tmp_path / "theirs"), tmp_path), case)
    forward = numbers.output_difference("tokens", found, case["outputs"]["tokens"])
    report("huggingface", name, forward)
    assert forward <= numbers.bound(case, "forward", torch.float32)


def test_a_missing_tensor_is_no_conversion(tmp_path):
    case = golden("mae")["encoder_tiny_32_normalised"]
    tensors = state(case)
    del tensors["blocks.1.attn.proj.bias"]
    torch.save({"model": tensors}, tmp_path / "checkpoint.pth")
    with pytest.raises(CoverageError, match=r"blocks\.1\.attn\.proj\.bias"):
        convert(tmp_path / "checkpoint.pth", tmp_path / "converted", num_heads=2)


@pytest.mark.parametrize("name", ["layers.1.blocks.1.attn.cpb_mlp.0.weight", "layers.2.downsample.norm.bias"])
def test_a_change_of_one_tensor_of_the_file_is_noticed(name, tmp_path):
    case = golden("swinv2")["tiny_64"]
    tensors = state(case)
    tensors[name] = tensors[name] + 1e-2 * numbers.noise("change", tensors[name].shape).float()
    torch.save({"model": tensors}, tmp_path / "checkpoint.pth")
    encoder = loaded(tmp_path / "checkpoint.pth", tmp_path)
    forward = numbers.output_difference("encoded", tokens(encoder, case), case["outputs"]["encoded"])
    assert forward > 10 * numbers.bound(case, "forward", torch.float32)
