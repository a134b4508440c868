"""timm agrees forward and backward on converted weights: files of the references, once as ours and once as timm's.

Parity on random weights is in test_swin.py, test_vit.py, test_hiera.py and test_timm_encoder.py.
"""

from functools import cache
from pathlib import Path

import golden_numbers as numbers
import pytest
import timm
import torch
from unveil_backbones import convert, load
from unveil_backbones.position import sin_cos_position

CLOSE = {torch.float64: 1e-11, torch.float32: 1e-5}


@cache
def golden(family):
    return numbers.read_golden(Path(__file__).parent / "golden" / f"{family}.json")["cases"]


# Made by formula under the recorded names. Without the buffers of the authors' files, windows have to be given.
FILES = {
    "swin": ("swinv2", "tiny_64", {"window": 4, "image_size": (64, 64)}),
    "swin 12": ("swinv2", "narrow_192_window12", {"window": 12, "image_size": (192, 192)}),
    "dino": ("dinov2", "plain_70x70", {"num_heads": 3}),
    "clip": ("open_clip", "small", {}),
}


def both(name, folder):
    """The converted encoder, and timm's model of the folder that is written for it."""
    family, case, details = FILES[name]
    path = folder / "checkpoint.pth"
    torch.save({"model": numbers.weights(golden(family)[case]["shapes"])}, path)
    convert(path, folder / "ours", **details)
    convert(path, folder / "timm", to="timm", **details)
    peer = timm.create_model(f"local-dir:{folder / 'timm'}", pretrained=True, num_classes=0).eval()
    return load(folder / "ours").encoder.eval(), peer


def compare(encoder, peer, images):
    """Largest absolute differences of vectors, and of all gradients of a mean over them, as losses are means."""
    ours, theirs = images.clone().requires_grad_(), images.clone().requires_grad_()
    found, wanted = encoder(ours), peer(theirs)
    for vector in (found, wanted):
        (numbers.probed({"vector": vector}) / vector.numel()).backward()
    expected = {key: parameter.grad for key, parameter in peer.named_parameters() if parameter.requires_grad}
    expected |= {"images": theirs.grad}
    gradients = {key: parameter.grad for key, parameter in encoder.named_parameters()} | {"images": ours.grad}
    # Fixed positions are a parameter of timm's and none of ours.
    assert expected.keys() - gradients.keys() <= {"pos_embed"}
    assert gradients.keys() <= expected.keys()
    backward = max((value - expected[key]).abs().max().item() for key, value in gradients.items())
    return (found - wanted).abs().max().item(), backward


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", FILES)
def test_forward_and_backward(name, dtype, tmp_path):
    encoder, peer = both(name, tmp_path)
    images = numbers.noise("images", (2, 3, *encoder.config.image_size)).to(dtype)
    forward, backward = compare(encoder.to(dtype), peer.to(dtype), images)
    print(f"golden: timm {name} {dtype} forward {forward:.1e} backward {backward:.1e}")
    assert max(forward, backward) <= CLOSE[dtype]


@pytest.mark.parametrize("size", [(42, 70), (98, 98), (56, 112)])
def test_learned_positions_at_other_sizes(size, tmp_path):
    encoder, peer = both("dino", tmp_path)
    peer.set_input_size(size)
    images = numbers.noise("images", (2, 3, *size)).float()
    with torch.no_grad():
        forward = (encoder(images) - peer(images)).abs().max().item()
    print(f"golden: timm dino {size[0]}x{size[1]} torch.float32 forward {forward:.1e}")
    assert forward <= CLOSE[torch.float32]


def test_one_changed_weight_of_timms_file_is_noticed(tmp_path):
    encoder, peer = both("swin", tmp_path)
    with torch.no_grad():
        peer.layers[1].blocks[1].attn.cpb_mlp[0].weight += 1e-2
        images = numbers.noise("images", (2, 3, 64, 64)).float()
        assert (encoder(images) - peer(images)).abs().max() > 10 * CLOSE[torch.float32]


def test_mae_whose_table_is_a_parameter_of_timms(tmp_path):
    case = golden("mae")["encoder_narrow_224"]
    state = numbers.weights(case["shapes"])
    for name, width in (("pos_embed", 48), ("decoder_pos_embed", 32)):
        table = sin_cos_position(14, 14, width, base_rows=14, base_cols=14)
        state[name] = torch.cat([torch.zeros(1, width), table])[None]
    torch.save({"model": state}, tmp_path / "mae.pth")
    convert(tmp_path / "mae.pth", tmp_path / "ours", num_heads=3)
    convert(tmp_path / "mae.pth", tmp_path / "timm", to="timm", num_heads=3)
    peer = timm.create_model(f"local-dir:{tmp_path / 'timm'}", pretrained=True, num_classes=0).eval()
    images = numbers.noise("images", (2, 3, 224, 224)).float()
    forward, backward = compare(load(tmp_path / "ours").encoder.eval(), peer, images)
    print(f"golden: timm mae torch.float32 forward {forward:.1e} backward {backward:.1e}")
    assert max(forward, backward) <= CLOSE[torch.float32]
