"""SimMIM's and Swin V2's own ``.pth``: windows, image size and merging are read from the file itself.

The files are made from timm's model, whose buffers are computed by timm; timm's own filter for the authors' files has
to accept them, so that they are in the authors' layout by more than our word.
"""

import argparse
import re
import sys
import types

import pytest
import torch
from timm.models.swin_transformer_v2 import SwinTransformerV2, checkpoint_filter_fn
from unveil_backbones import ConvertError, CoverageError, NotExpressibleError, convert, load


class CfgNode(dict):
    """Settings as yacs pickles them; yacs itself is not needed, neither here nor where files are read."""


CfgNode.__module__ = "yacs.config"


def peer(image_size: int, window: int, pretrained=(0, 0, 0, 0)) -> SwinTransformerV2:
    torch.manual_seed(0)
    model = SwinTransformerV2(
        img_size=image_size,
        window_size=window,
        embed_dim=32,
        depths=(2, 2, 2, 1),
        num_heads=(1, 2, 4, 8),
        num_classes=3,
        pretrained_window_sizes=pretrained,
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return model.eval()


def authors_layout(model: SwinTransformerV2) -> dict[str, torch.Tensor]:
    """Merging belongs to the stage before, buffers are saved, the classifier has another name."""
    named = {**dict(model.named_buffers()), **model.state_dict()}
    renamed = {}
    for name, value in named.items():
        if name.endswith("k_bias"):
            continue
        name = re.sub(r"layers\.(\d)\.downsample", lambda found: f"layers.{int(found[1]) - 1}.downsample", name)
        renamed[name.replace("head.fc.", "head.")] = value
    return renamed


def pretraining(model: SwinTransformerV2) -> dict[str, torch.Tensor]:
    plain = {f"encoder.{name}": v for name, v in authors_layout(model).items() if not name.startswith("head.")}
    decoder = {"decoder.0.weight": torch.randn(3072, 256, 1, 1), "decoder.0.bias": torch.randn(3072)}
    return {**plain, "encoder.mask_token": torch.randn(1, 1, 32), **decoder}


def outputs(model: SwinTransformerV2, images: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model.forward_head(model.forward_features(images), pre_logits=True)


def test_timm_takes_these_files_for_the_authors():
    model = peer(64, 4)
    fresh = peer(64, 4)
    filtered = checkpoint_filter_fn({"model": authors_layout(model)}, fresh)
    assert not fresh.load_state_dict(filtered, strict=False).missing_keys
    images = torch.randn(1, 3, 64, 64)
    assert torch.equal(outputs(fresh, images), outputs(model, images))


@pytest.mark.parametrize(
    ("image_size", "window", "pretrained"),
    [(64, 4, (0, 0, 0, 0)), (192, 12, (0, 0, 0, 0)), (256, 16, (12, 12, 12, 6)), (64, 16, (0, 0, 0, 0))],
)
def test_outputs_equal_and_nothing_has_to_be_told(tmp_path, image_size, window, pretrained):
    model = peer(image_size, window, pretrained)
    torch.save({"model": authors_layout(model), "max_accuracy": 84.2}, tmp_path / "swin.pth")
    done = convert(tmp_path / "swin.pth", tmp_path / "out")
    assert done.source_format == "simmim"
    assert done.coverage.dropped["the classifier"] == ("head.bias", "head.weight")
    assert done.coverage.assumed == {}
    ours = load(tmp_path / "out").encoder
    images = torch.randn(1, 3, image_size, image_size)
    with torch.no_grad():
        torch.testing.assert_close(ours(images), outputs(model, images), atol=1e-5, rtol=0)
    if any(pretrained):
        assert [rows for rows, _ in ours.config.pretrained_window_sizes] == list(pretrained)


def test_pretraining_files_keep_their_decoder_and_mask_token(tmp_path, monkeypatch):
    model = peer(64, 4)
    content = {
        "model": pretraining(model),
        "optimizer": {"state": {}, "param_groups": []},
        "epoch": 799,
        "config": CfgNode(TRAIN=CfgNode(EPOCHS=800), DATA=CfgNode(MASK_RATIO=0.6)),
        "args": argparse.Namespace(batch_size=128),
    }
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "yacs", types.ModuleType("yacs"))
        patch.setitem(sys.modules, "yacs.config", types.ModuleType("yacs.config"))
        sys.modules["yacs.config"].CfgNode = CfgNode
        torch.save(content, tmp_path / "simmim.pth")
    assert "yacs" not in sys.modules
    done = convert(tmp_path / "simmim.pth", tmp_path / "out")
    assert not any("decoder" in reason for reason in done.coverage.dropped)
    heads, state = load(tmp_path / "out").heads, content["model"]
    assert torch.equal(heads["objective.mask_token"], state["encoder.mask_token"][0, 0])
    assert torch.equal(heads["objective.head.weight"], state["decoder.0.weight"])
    assert torch.equal(heads["objective.head.bias"], state["decoder.0.bias"])
    manifest = load(tmp_path / "out").manifest
    assert manifest.objective_settings == {"mask_unit": 32, "mask_ratio": 0.6, "target_window": 47}
    assert manifest.objective == "simmim"
    assert "objective" not in manifest.origin.unknown
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(load(tmp_path / "out").encoder(images), outputs(model, images), atol=1e-5, rtol=0)


def test_files_without_buffers_need_windows(tmp_path):
    state = {k: v for k, v in authors_layout(peer(64, 4)).items() if "relative" not in k and "attn_mask" not in k}
    torch.save(state, tmp_path / "swin.pth")
    with pytest.raises(ConvertError, match="give --window and --image-size, or --arch with one of swinv2_tiny"):
        convert(tmp_path / "swin.pth", tmp_path / "out")
    done = convert(tmp_path / "swin.pth", tmp_path / "out", window=4, image_size=(64, 64))
    assert done.coverage.assumed == {"window": 4, "image_size": [64, 64]}


def test_a_file_that_does_not_tell_its_image_size_asks_for_it(tmp_path):
    state = {k: v for k, v in authors_layout(peer(192, 12)).items() if "attn_mask" not in k}
    torch.save(state, tmp_path / "swin.pth")
    with pytest.raises(ConvertError, match=r"does not tell its image size; give it \(--image-size HEIGHT WIDTH\)"):
        convert(tmp_path / "swin.pth", tmp_path / "out")
    convert(tmp_path / "swin.pth", tmp_path / "out", image_size=(192, 192))
    assert load(tmp_path / "out").encoder.config.window_sizes == (12, 12, 12, 12)


def test_version_1_is_refused_by_name(tmp_path):
    state = {
        "patch_embed.proj.weight": torch.zeros(32, 3, 4, 4),
        "layers.0.blocks.0.norm1.weight": torch.zeros(32),
        "layers.0.blocks.0.attn.relative_position_bias_table": torch.zeros(49, 1),
    }
    torch.save({"model": state}, tmp_path / "swin.pth")
    with pytest.raises(NotExpressibleError, match="is a Swin Transformer of version 1"):
        convert(tmp_path / "swin.pth", tmp_path / "out")


def test_another_format_than_the_real_one_is_refused(tmp_path):
    """timm's merging is one stage later: its file is not one of the authors', and the reverse."""
    model = peer(64, 4)
    torch.save(authors_layout(model), tmp_path / "authors.pth")
    torch.save(model.state_dict(), tmp_path / "timm.pth")
    with pytest.raises(CoverageError, match=r"layers.0.downsample"):
        convert(tmp_path / "authors.pth", tmp_path / "out", format="timm")
    with pytest.raises(CoverageError, match=r"missing \(layers.0.downsample"):
        convert(tmp_path / "timm.pth", tmp_path / "out", format="simmim", window=4, image_size=(64, 64))
