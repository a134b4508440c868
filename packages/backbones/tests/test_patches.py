"""Other patches for a trained encoder: enlarged patches see an enlarged image as the old ones saw the image."""

import pytest
import torch
from torch.nn.functional import interpolate
from unveil_backbones import FeaturePyramid, VitConfig, VitEncoder, build, create
from unveil_backbones.errors import ConfigError
from unveil_backbones.patches import with_patch_size


def vit14() -> VitEncoder:
    return VitEncoder(VitConfig(image_size=(28, 42), patch_size=14, width=32, depth=1, num_heads=2), "vit_h14").eval()


def enlarged(images: torch.Tensor, rows: int, cols: int, old: int, new: int) -> torch.Tensor:
    """Each patch enlarged by itself, as the derivation has it."""
    patches = images.unfold(2, old, old).unfold(3, old, old).permute(0, 2, 3, 1, 4, 5).reshape(-1, 3, old, old)
    patches = interpolate(patches, size=(new, new), mode="bicubic", antialias=True)
    grid = patches.reshape(-1, rows, cols, 3, new, new).permute(0, 3, 1, 4, 2, 5)
    return grid.reshape(-1, 3, rows * new, cols * new)


@pytest.mark.parametrize("patch", [16, 20])
def test_larger_patches_see_an_enlarged_image_as_before(patch):
    encoder = vit14()
    changed = with_patch_size(encoder, patch)
    images = torch.randn(2, 3, 28, 42)
    other = enlarged(images, 2, 3, 14, patch)
    torch.testing.assert_close(changed.embed(other), encoder.embed(images), atol=1e-4, rtol=0)
    torch.testing.assert_close(changed(other), encoder(images), atol=1e-4, rtol=0)


def test_everything_else_stays():
    encoder = vit14().train()
    changed = with_patch_size(encoder, 16)
    assert (changed.spec.name, changed.config.image_size, changed.training) == ("vit", (32, 48), True)
    assert build(changed.spec).patch_size == 16
    for name, value in encoder.state_dict().items():
        assert torch.equal(changed.state_dict()[name], value) or name == "patch_embed.proj.weight"


def test_timms_models_change_too_and_then_have_a_pyramid():
    encoder = create("timm:vit_small_patch14_reg4_dinov2", image_size=28)
    with pytest.raises(ConfigError, match=r"\(14,\); .*change the patches with `with_patch_size\(encoder, 16\)`"):
        FeaturePyramid(encoder)
    changed = with_patch_size(encoder, 16)
    assert changed.config.image_size == (32, 32)
    assert changed.num_prefix_tokens == 5
    maps = FeaturePyramid(changed)(torch.randn(1, 3, 32, 64))
    assert [tuple(one.shape[2:]) for one in maps] == [(8, 16), (4, 8), (2, 4), (1, 2)]


def test_what_cannot_change_is_refused():
    for name in ("swinv2_tiny", "hiera_tiny"):
        with pytest.raises(ConfigError, match=f"{name} has stages of fixed strides"):
            with_patch_size(create(name), 8)
    with pytest.raises(ConfigError, match="at least one pixel"):
        with_patch_size(vit14(), 0)
