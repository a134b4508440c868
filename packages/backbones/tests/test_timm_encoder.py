"""Any plain Vision Transformer of timm through one adapter: the same numbers, on any part of the tokens."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.models import create_model, list_models
from unveil_backbones import EncoderSpec, TimmConfig, TimmEncoder, build, create, load, rebuild, save
from unveil_backbones.errors import ConfigError, ImageSizeError, KeepError, ManifestError, UnknownModelError
from unveil_backbones.flops import count_cost

# Every kind of block, of position and of prefix that timm's plain Vision Transformers have; sizes in patches of 16.
KINDS = {
    "test_vit": "class token, learned positions",
    "test_vit2": "register, norm after pooling",
    "test_vit3": "normalised queries, attention pooling",
    "test_vit4": "RMS norm",
    "deit_tiny_distilled_patch16_224": "distillation token",
    "deit3_small_patch16_224": "layer scale, class token without position",
    "vit_tiny_patch16_dinov3_qkvb": "DINOv3's rotation, registers",
    "eva02_tiny_patch14_224": "axial rotation beside learned positions, gated MLP",
    "vit_small_patch16_rope_mixed_224": "a learned rotation for each block",
    "vit_small_patch14_reg4_dinov2": "DINOv2 with registers",
}
FAST = tuple(name for name in KINDS if "tiny" in name or name.startswith("test_vit"))
DEEP = tuple(name for name in KINDS if name not in FAST)


def made(model: str, patches: tuple[int, int] = (4, 4)) -> TimmEncoder:
    """timm's model with few positions and random weights everywhere."""
    patch = 14 if "14" in model else 16
    encoder = create(f"timm:{model}", image_size=(patches[0] * patch, patches[1] * patch)).eval()
    assert isinstance(encoder, TimmEncoder)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return encoder


def timm_twin(encoder: TimmEncoder) -> torch.nn.Module:
    config = encoder.config
    twin = create_model(config.model, num_classes=0, img_size=config.image_size, dynamic_img_size=True).eval()
    missing, unexpected = twin.load_state_dict(encoder.state_dict(), strict=False)
    assert not unexpected
    assert all(name.startswith("attn_pool.") for name in missing)
    return twin


def images_of(encoder: TimmEncoder, rows: int, cols: int) -> torch.Tensor:
    return torch.randn(2, 3, rows * encoder.patch_size, cols * encoder.patch_size)


@pytest.mark.parametrize("model", [*FAST, *(pytest.param(name, marks=pytest.mark.slow) for name in DEEP)])
def test_forward_and_backward_equal_timm_at_its_own_and_other_sizes(model):
    encoder = made(model)
    twin = timm_twin(encoder)
    for grid in ((4, 4), (3, 5)):
        images = images_of(encoder, *grid)
        ours, theirs = encoder.encode(encoder.embed(images), grid), twin.forward_features(images)
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
        # timm averages the class and the distillation token, and has its own kind of attention pooling.
        if "distilled" not in model and twin.attn_pool is None:
            torch.testing.assert_close(encoder(images), twin(images), atol=1e-5, rtol=0)
    weight = torch.randn_like(ours) / ours.numel()
    (ours * weight).sum().backward()
    (theirs * weight).sum().backward()
    gradients = {name: parameter.grad for name, parameter in twin.named_parameters()}
    for name, parameter in encoder.named_parameters():
        if parameter.grad is not None or gradients[name] is not None:
            torch.testing.assert_close(parameter.grad, gradients[name], atol=1e-5, rtol=1e-4, msg=name)


@pytest.mark.parametrize("model", [*FAST, *DEEP])
def test_every_kind_embeds_and_encodes_any_part_in_any_order(model):
    """Rotary models need the places: a permutation of tokens and places permutes the result and nothing else."""
    encoder, grid = made(model), (3, 5)
    images, prefix = images_of(encoder, *grid), encoder.num_prefix_tokens
    order = torch.stack([torch.randperm(15) for _ in range(2)])
    with torch.no_grad():
        tokens = encoder.embed(images)
        gathered = torch.take_along_dim(tokens, order[..., None], 1)
        torch.testing.assert_close(encoder.embed(images, order), gathered, atol=1e-5, rtol=0)
        encoder.set_optimisations(())
        assert torch.equal(encoder.embed(images, order), gathered)
        plain, permuted = encoder.encode(tokens, grid), encoder.encode(gathered, grid, order)
        expected = torch.take_along_dim(plain[:, prefix:], order[..., None], 1)
        torch.testing.assert_close(permuted[:, prefix:], expected, atol=1e-5, rtol=0)
        torch.testing.assert_close(permuted[:, :prefix], plain[:, :prefix], atol=1e-5, rtol=0)
        keep = order[:, :6]
        part = encoder.encode(encoder.embed(images, keep), grid, keep)
        again = encoder.encode(gathered[:, :6], grid, keep)
    assert part.shape == (2, prefix + 6, encoder.width)
    torch.testing.assert_close(part, again, atol=1e-5, rtol=0)


@pytest.mark.parametrize("model", ["eva02_tiny_patch14_224", "vit_small_patch16_rope_mixed_224"])
def test_a_part_equals_timms_patch_dropout(model):
    """timm drops patches with rotations when training; its choice is repeated here as ``keep``."""
    encoder = made(model)
    twin = create_model(
        model, num_classes=0, img_size=encoder.config.image_size, dynamic_img_size=True, patch_drop_rate=0.5
    )
    twin.load_state_dict(encoder.state_dict())
    kept = []
    twin.patch_drop.register_forward_hook(lambda _, __, output: kept.append(output[1]))
    images = images_of(encoder, 4, 4)
    with torch.no_grad():
        theirs = twin.train().forward_features(images)
        ours = encoder.encode(encoder.embed(images, kept[0]), (4, 4), kept[0])
    assert kept[0].shape == (2, 8)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 10**6), num=st.integers(1, 15))
def test_hidden_pixels_leave_no_trace(seed, num):
    encoder = create("timm:test_vit", image_size=64).eval()
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(1, 3, 48, 80, generator=generator)
    keep = torch.randperm(15, generator=generator)[None, :num]
    seen = torch.zeros(1, 15, dtype=torch.bool).scatter(1, keep, True).reshape(1, 1, 3, 5)
    seen = seen.repeat_interleave(16, 2).repeat_interleave(16, 3)
    other = torch.where(seen, images, torch.full_like(images, torch.nan))
    with torch.inference_mode():
        results = [encoder.encode_pooled(encoder.embed(picture, keep), (3, 5), keep) for picture in (images, other)]
    assert torch.equal(*results)


def test_rotary_models_need_the_places_of_a_part():
    encoder = made("vit_tiny_patch16_dinov3_qkvb")
    with pytest.raises(KeepError, match=r"got 7 of 16 tokens and no `keep`; its blocks depend on the tokens' places"):
        encoder.encode(torch.zeros(1, 7, 192), (4, 4))
    assert encoder.needs_keep
    assert not made("test_vit").needs_keep


def test_the_preset_is_timms():
    config = create("timm:test_vit").config
    assert config == TimmConfig(model="test_vit", image_size=(160, 160), patch_size=16, pooling="cls")
    assert create("timm:vit_small_patch16_rope_mixed_224").config.pooling == "cls"
    assert create("timm:test_vit2").config.pooling == "mean"
    with torch.device("meta"):  # 384 pixels are 27.4 patches of 14, of which timm takes 27
        assert create("timm:vit_so400m_patch14_siglip_384").config.image_size == (378, 378)


def test_settings_and_rebuilding_change_what_they_say():
    encoder = create("timm:test_vit", image_size=(64, 96), drop_path=0.2, pooling="mean_all")
    assert encoder.spec.config["image_size"] == [64, 96]
    assert encoder.pooling == "mean_all"
    assert create("timm:test_vit", image_size=64, patch_size=8).grid(64, 32) == (8, 4)
    again = rebuild(
        encoder, TimmConfig(model="test_vit", image_size=(64, 96), patch_size=16, pooling="cls", drop_path=0.5)
    )
    rates = [getattr(block.drop_path1, "drop_prob", 0.0) for block in again.blocks]
    assert rates[0] == 0.0
    assert rates[-1] == pytest.approx(0.5)
    assert all(torch.equal(value, encoder.state_dict()[name]) for name, value in again.state_dict().items())


@pytest.mark.parametrize("model", ["test_vit2", "vit_tiny_patch16_dinov3_qkvb"])
def test_a_checkpoint_brings_the_model_back(tmp_path, manifest_for, model):
    encoder = made(model)
    path = save(tmp_path / "step_00000001", encoder=encoder, manifest=manifest_for(encoder))
    loaded = load(path).encoder
    assert (loaded.spec, loaded.config) == (encoder.spec, encoder.config)
    images = images_of(encoder, 3, 5)
    assert torch.equal(loaded(images), encoder(images))


def test_counting_costs_works():
    spec = create("timm:test_vit", image_size=64).spec
    whole, part = count_cost(spec), count_cost(spec, num_kept=4)
    assert 0.25 < part.multiply_adds / whole.multiply_adds < 0.35  # 5 of 17 tokens


@pytest.mark.parametrize("name", ["vit_bas_patch16_224", "hf-hub:timm/vit_base_patch16_224", "resnet_of_ones_own"])
def test_unknown_models_are_answered_with_their_neighbours_and_never_looked_for_elsewhere(name):
    with pytest.raises(UnknownModelError, match=rf"timm has no model '{name}'; .*choose one, as timm:<model>") as error:
        create(f"timm:{name}")
    if name.startswith("vit"):
        assert "vit_base_patch16_224" in str(error.value)


def test_tags_name_the_weights_that_may_be_filled_in_later():
    tagged = create("timm:test_vit.r160_in1k")
    assert tagged.spec.name == "timm:test_vit.r160_in1k"
    assert tagged.config.image_size == (160, 160)
    with pytest.raises(UnknownModelError, match=r"near it are test_vit\.r160_in1k"):
        create("timm:test_vit.r160_in2k")


@pytest.mark.parametrize(
    "model", ["convnext_tiny", "swin_tiny_patch4_window7_224", "vit_small_r26_s32_224", "beit_base_patch16_224"]
)
def test_models_that_need_the_whole_image_are_refused(model):
    assert model in list_models()
    message = (
        rf"timm's '{model}' cannot run on a part of its tokens; its plain .* can \(vit_\*, .*hiera_\* and swinv2_\*"
    )
    with pytest.raises(UnknownModelError, match=message):
        create(f"timm:{model}")


def test_wrong_specs_are_refused():
    spec = create("timm:test_vit").spec
    with pytest.raises(ManifestError, match="'timm:test_vit2' has a configuration of timm's 'test_vit'"):
        build(EncoderSpec("timm:test_vit2", spec.config))
    with pytest.raises(UnknownModelError, match="timm has no model 'gone'"):
        build(EncoderSpec("timm:gone", {**spec.config, "model": "gone"}))
    with pytest.raises(ConfigError, match="has no class token to pool"):
        create("timm:test_vit2", pooling="cls")
    with pytest.raises(ImageSizeError, match="multiples of 16; resize or pad to height 64 or 80 and width 64"):
        create("timm:test_vit", image_size=(70, 64))
    with pytest.raises(ImageSizeError, match="multiples of 16"):
        create("timm:test_vit").embed(torch.zeros(1, 3, 64, 70))
    with pytest.raises(ConfigError, match="at least one pixel"):
        create("timm:test_vit", patch_size=0)
    with pytest.raises(ImageSizeError, match="height 16 and width 16"):
        create("timm:test_vit", image_size=0)
