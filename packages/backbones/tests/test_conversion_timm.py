"""timm's files become encoders with the same outputs, and encoders become folders that timm itself loads."""

import json
from dataclasses import replace

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from timm.models.swin_transformer_v2 import SwinTransformerV2
from timm.models.vision_transformer import VisionTransformer
from unveil_backbones import (
    ConvertError,
    CoverageError,
    NotExpressibleError,
    Preprocessing,
    SwinConfig,
    SwinEncoder,
    VitConfig,
    VitEncoder,
    convert,
    load,
    save,
)

VIT = {"img_size": (32, 48), "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 4, "num_classes": 5}
SWIN = {"img_size": 64, "embed_dim": 32, "depths": (1, 1, 1, 1), "num_heads": (1, 2, 4, 8), "window_size": 4}
PLAIN = VitConfig(image_size=(32, 48), patch_size=8, width=32, depth=2, num_heads=4)
VARIANTS = {
    "mae": PLAIN,
    "mean of all": replace(PLAIN, pooling="mean_all"),
    "deit": replace(PLAIN, position="learned", class_position=True, pooling="cls"),
    "without class token": replace(PLAIN, position="learned", class_token=False),
    "registers": replace(PLAIN, position="learned", num_registers=3, layer_scale=1e-5, pooling="cls"),
    "clip": replace(
        PLAIN,
        position="learned",
        class_position=True,
        pooling="cls",
        pre_norm=True,
        patch_bias=False,
        activation="quick_gelu",
        norm_epsilon=1e-5,
    ),
    "no bias": replace(PLAIN, qkv_bias=False, mlp_ratio=3.0),
}
SWIN_CONFIG = SwinConfig(
    image_size=(64, 96),
    width=32,
    depths=(1, 2, 1, 1),
    num_heads=(1, 2, 4, 8),
    window_sizes=(4, 4, 4, 4),
    pretrained_window_sizes=((8, 8), (8, 8), (4, 4), (2, 2)),
)


def shaken(module: torch.nn.Module) -> torch.nn.Module:
    """Every weight different from every other, so that no two can be swapped unnoticed."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return module.eval()


def encoder_of(config):
    return shaken(VitEncoder(config) if isinstance(config, VitConfig) else SwinEncoder(config))


@pytest.fixture
def checkpoint(tmp_path, manifest_for):
    """Saves an encoder as a checkpoint of ours."""

    def make(encoder, **preprocessing):
        manifest = manifest_for(encoder)
        size = encoder.config.image_size
        manifest = replace(manifest, preprocessing=Preprocessing(image_size=size, **preprocessing))
        return save(tmp_path / "ours", encoder=encoder, manifest=manifest, heads={"objective.weight": torch.zeros(2)})

    return make


def test_a_vision_transformer_gives_timms_outputs_and_says_what_was_dropped(tmp_path):
    peer = shaken(VisionTransformer(**VIT, global_pool="token"))
    torch.save(peer.state_dict(), tmp_path / "vit.pth")
    done = convert(tmp_path / "vit.pth", tmp_path / "out", image_size=(32, 48), num_heads=4)
    ours = load(tmp_path / "out")
    images = torch.randn(2, 3, 32, 48)
    expected = peer.forward_head(peer.forward_features(images), pre_logits=True)
    torch.testing.assert_close(ours.encoder(images), expected, atol=1e-5, rtol=0)
    origin = ours.manifest.origin
    assert origin == done.coverage
    assert origin.dropped == {"the classifier": ("head.bias", "head.weight")}
    assert (origin.num_used, origin.num_filled) == (len(peer.state_dict()) - 2,) * 2
    assert origin.format == done.source_format == "timm"
    assert origin.source == "vit.pth"
    assert {"step", "seed", "objective"} <= set(origin.unknown)
    assert ours.manifest.label == "unknown vit of vit.pth"


def test_a_swin_transformer_gives_timms_outputs(tmp_path):
    peer = shaken(SwinTransformerV2(**SWIN, num_classes=7))
    save_file(peer.state_dict(), tmp_path / "swin.safetensors")
    with pytest.raises(ConvertError, match="stores neither windows nor image size; give --window and --image-size"):
        convert(tmp_path / "swin.safetensors", tmp_path / "out")
    convert(tmp_path / "swin.safetensors", tmp_path / "out", window=4, image_size=(64, 64))
    images = torch.randn(2, 3, 64, 64)
    expected = peer.forward_head(peer.forward_features(images), pre_logits=True)
    torch.testing.assert_close(load(tmp_path / "out").encoder(images), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("config", [*VARIANTS.values(), SWIN_CONFIG], ids=[*VARIANTS, "swin"])
def test_the_way_to_timm_and_back_is_bit_exact_and_timm_itself_agrees(tmp_path, checkpoint, config):
    encoder = encoder_of(config)
    path = checkpoint(encoder, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4), interpolation="bilinear", crop_fraction=0.9)
    done = convert(path, tmp_path / "timm", to="timm")
    assert done.left_out == ("objective.weight",)
    convert(tmp_path / "timm", tmp_path / "back")
    back = load(tmp_path / "back")
    assert back.encoder.config == config
    assert back.manifest.preprocessing == load(path).manifest.preprocessing
    state = encoder.state_dict()
    assert back.encoder.state_dict().keys() == state.keys()
    assert all(torch.equal(value, state[name]) for name, value in back.encoder.state_dict().items())
    peer = timm.create_model(f"local-dir:{tmp_path / 'timm'}", pretrained=True).eval()
    images = torch.randn(2, 3, *config.image_size)
    torch.testing.assert_close(peer(images), encoder(images), atol=1e-5, rtol=0)
    assert list(peer.pretrained_cfg["mean"]) == [0.5, 0.4, 0.3]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (replace(VARIANTS["clip"], patch_bias=True), "patch projection has a bias exactly if no norm precedes"),
        (replace(VARIANTS["deit"], num_registers=2), "no position for the class token beside register tokens"),
        (replace(PLAIN, norm_epsilon=1e-4), r"norm_epsilon 0.0001; timm's models have 1e-06, 1e-05"),
        (replace(SWIN_CONFIG, window_sizes=(4, 4, 4, 2)), r"windows \(4, 4, 4, 2\); timm's models have one"),
    ],
)
def test_what_timm_cannot_say_is_refused_and_nothing_is_written(tmp_path, checkpoint, config, message):
    path = checkpoint(encoder_of(config))
    with pytest.raises(NotExpressibleError, match=message):
        convert(path, tmp_path / "timm", to="timm")
    assert not (tmp_path / "timm").exists()


def test_architecture_names_of_timm_tell_windows(tmp_path):
    """swinv2_*_window12to16_192to256: pre-trained with window 12 at 192 pixels, used with 16 at 256."""
    torch.manual_seed(0)
    peer = SwinTransformerV2(
        img_size=256,
        window_size=16,
        embed_dim=32,
        depths=(1, 1, 1, 1),
        num_heads=(1, 2, 4, 8),
        num_classes=0,
        pretrained_window_sizes=(12, 12, 12, 6),
    )
    folder = tmp_path / "hub"
    folder.mkdir()
    save_file(shaken(peer).state_dict(), folder / "model.safetensors")
    config = {"architecture": "swinv2_base_window12to16_192to256", "num_classes": 0}
    (folder / "config.json").write_text(json.dumps(config))
    convert(folder, tmp_path / "out")
    ours = load(tmp_path / "out").encoder
    assert ours.config.image_size == (256, 256)
    assert ours.config.pretrained_window_sizes == ((12, 12), (12, 12), (12, 12), (6, 6))
    images = torch.randn(1, 3, 256, 256)
    with torch.no_grad():
        torch.testing.assert_close(ours(images), peer(images), atol=1e-5, rtol=0)


def test_coverage_is_complete_or_refused(tmp_path):
    state = VisionTransformer(**VIT).state_dict()
    known = {"image_size": (32, 48), "num_heads": 4}
    torch.save({**state, "surprise.weight": torch.zeros(2)}, tmp_path / "more.pth")
    with pytest.raises(CoverageError, match=r"1 tensors neither used nor knowingly dropped \(surprise.weight\)"):
        convert(tmp_path / "more.pth", tmp_path / "out", **known)
    torch.save({name: value for name, value in state.items() if name != "norm.bias"}, tmp_path / "less.pth")
    with pytest.raises(CoverageError, match=r"1 needed and missing \(norm.bias\)"):
        convert(tmp_path / "less.pth", tmp_path / "out", **known)
    assert not (tmp_path / "out").exists()


def test_a_norm_after_pooling_is_refused_with_its_reason(tmp_path):
    torch.save(VisionTransformer(**VIT, global_pool="avg").state_dict(), tmp_path / "vit.pth")
    with pytest.raises(NotExpressibleError, match=r"norms after pooling \(fc_norm\)"):
        convert(tmp_path / "vit.pth", tmp_path / "out", image_size=(32, 48))


@pytest.mark.parametrize(
    "name",
    [pytest.param("vit_medium_patch16_rope_reg1_gap_256", marks=pytest.mark.slow), "deit_tiny_distilled_patch16_224"],
)
def test_models_beyond_the_plain_one_become_encoders_on_timms_modules(tmp_path, name):
    torch.manual_seed(0)
    peer = timm.create_model(name, num_classes=3).eval()
    folder = tmp_path / "hub"
    folder.mkdir()
    save_file(peer.state_dict(), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"architecture": name, "num_classes": 3}))
    done = convert(folder, tmp_path / "ours")
    assert done.coverage.num_dropped in (2, 4)
    ours = load(tmp_path / "ours")
    assert ours.manifest.encoder.name == f"timm:{name}"
    images = torch.randn(1, 3, *peer.patch_embed.img_size)
    with torch.no_grad():
        grid = ours.encoder.grid(*images.shape[2:])
        tokens = ours.encoder.encode(ours.encoder.embed(images), grid)
        torch.testing.assert_close(tokens, peer.forward_features(images), atol=1e-5, rtol=0)
    convert(tmp_path / "ours", tmp_path / "theirs", to="timm")
    loaded = timm.create_model(f"local-dir:{tmp_path / 'theirs'}", pretrained=True, num_classes=0).eval()
    state = ours.encoder.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in loaded.state_dict().items())


def test_a_name_of_timm_can_be_given_and_has_to_be_one(tmp_path):
    peer = shaken(timm.create_model("vit_tiny_patch16_224", num_classes=3, img_size=(32, 48)))
    torch.save(peer.state_dict(), tmp_path / "vit.pth")
    convert(tmp_path / "vit.pth", tmp_path / "out", arch="timm:vit_tiny_patch16_224", image_size=(32, 48))
    encoder = load(tmp_path / "out").encoder
    assert encoder.spec.name == "timm:vit_tiny_patch16_224"
    images = torch.randn(1, 3, 32, 48)
    expected = peer.forward_head(peer.forward_features(images), pre_logits=True)
    torch.testing.assert_close(encoder(images), expected, atol=1e-5, rtol=0)
    with pytest.raises(ConvertError, match="timm has no model 'vit_tinny_patch16_224'; near it are"):
        convert(tmp_path / "vit.pth", tmp_path / "wrong", arch="timm:vit_tinny_patch16_224")


def test_a_preset_is_recognised_and_checked(tmp_path, checkpoint, manifest_for):
    encoder = encoder_of(replace(PLAIN, width=128, image_size=(64, 64), depth=4))
    path = checkpoint(encoder)
    convert(path, tmp_path / "timm", to="timm")
    convert(tmp_path / "timm", tmp_path / "back")
    assert load(tmp_path / "back").manifest.encoder.name == "vit_tiny"
    with pytest.raises(ConvertError, match=r"not 'vit_b16': its shapes are .*leave `arch` out"):
        convert(tmp_path / "timm", tmp_path / "wrong", arch="vit_b16")
    with pytest.raises(ConvertError, match=r"arch 'resnet50'; a Vision Transformer is one of vit_tiny"):
        convert(tmp_path / "timm" / "model.safetensors", tmp_path / "wrong", arch="resnet50")


def test_half_precision_is_widened_exactly(tmp_path):
    state = {name: value.half() for name, value in VisionTransformer(**VIT).state_dict().items()}
    torch.save({"model": state, "epoch": 3}, tmp_path / "vit.pth")
    convert(tmp_path / "vit.pth", tmp_path / "out", image_size=(32, 48), num_heads=4)
    tensors = load_file(tmp_path / "out" / "encoder.safetensors")
    assert all(torch.equal(tensors[name], state[name].float()) for name in tensors)


def test_a_checkpoint_of_ours_needs_no_format_and_no_copy(tmp_path, checkpoint):
    path = checkpoint(encoder_of(PLAIN))
    with pytest.raises(ConvertError, match="is a checkpoint of ours already; give another format: timm, open_clip"):
        convert(path, tmp_path / "out")
    with pytest.raises(ConvertError, match="whose manifest says what it is; give only `to`"):
        convert(path, tmp_path / "out", to="timm", num_heads=4)
    with pytest.raises(ConvertError, match="whose manifest says what it is"):
        convert(path, tmp_path / "out", to="timm", format="mae")
