"""Every optimisation computes the same as timm's way, in outputs and gradients, and can be switched off."""

import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import scaled_dot_product_attention
from unveil_backbones import VitConfig, VitEncoder
from unveil_backbones.errors import ConfigError, TokenCountError, UnknownLayerError
from unveil_backbones.vit_attention import MOST_EXPLICIT_TOKENS, attend

CLIP = VitConfig(
    image_size=(32, 48),
    patch_size=8,
    width=32,
    depth=3,
    num_heads=2,
    pooling="cls",
    position="learned",
    class_position=True,
    num_registers=2,
    layer_scale=0.3,
    pre_norm=True,
    patch_bias=False,
    activation="quick_gelu",
    drop_path=0.4,
)
NAMES = tuple(VitEncoder.OPTIMISATIONS)


def step(encoder, images, keep, optimisations, *, checkpoint=False):
    """Pooled vectors and all gradients of one step in training mode; drop path draws the same numbers each time."""
    encoder.set_optimisations(optimisations)
    encoder.checkpoint_blocks = checkpoint
    encoder.zero_grad()
    torch.manual_seed(1)
    vectors = encoder.encode_pooled(encoder.embed(images, keep), encoder.grid(*images.shape[-2:]))
    (vectors * torch.linspace(-1, 1, vectors.numel()).view_as(vectors)).sum().backward()
    return vectors.detach(), {name: parameter.grad.clone() for name, parameter in encoder.named_parameters()}


@pytest.mark.parametrize("checkpoint", [False, True])
@pytest.mark.parametrize("on", [*((name,) for name in NAMES), NAMES], ids=lambda on: "+".join(on))
@pytest.mark.parametrize("config", [CLIP, replace(CLIP, pooling="mean_all", position="sincos", class_position=False)])
def test_outputs_and_gradients_equal_those_without_optimisations(config, on, checkpoint):
    encoder = VitEncoder(config).train()
    images, keep = torch.randn(3, 3, 48, 32), torch.rand(3, 24).argsort(1)[:, :9]
    vectors, gradients = step(encoder, images, keep, ())
    fast, fast_gradients = step(encoder, images, keep, on, checkpoint=checkpoint)
    torch.testing.assert_close(fast, vectors, atol=1e-5, rtol=0)
    for name, gradient in gradients.items():
        torch.testing.assert_close(fast_gradients[name], gradient, atol=1e-5, rtol=1e-4, msg=name)


def test_the_comparison_above_sees_a_drop_path_of_its_own():
    encoder = VitEncoder(CLIP).train()
    images, keep = torch.randn(3, 3, 48, 32), torch.rand(3, 24).argsort(1)[:, :9]
    vectors, _ = step(encoder, images, keep, ())
    torch.manual_seed(2)
    other = encoder.encode_pooled(encoder.embed(images, keep), (6, 4))
    assert not torch.allclose(other, vectors, atol=1e-3)


@settings(max_examples=15, deadline=None)
@given(num=st.integers(1, 40), asked=st.integers(1, 40), heads=st.integers(1, 3), seed=st.integers(0, 9999))
def test_explicit_attention_is_pytorchs(num, asked, heads, seed):
    generator = torch.Generator().manual_seed(seed)
    packed = torch.randn(2, num, 2, heads, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    query = torch.randn(2, asked, heads, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(2, asked, heads * 4, generator=generator, dtype=torch.float64)
    (attend(query, packed, explicit=True) * weight).sum().backward()
    ours = [query.grad.clone(), packed.grad.clone()]
    query.grad = packed.grad = None
    parts = [query, *packed.unbind(2)]
    expected = scaled_dot_product_attention(*(part.transpose(1, 2) for part in parts)).transpose(1, 2).flatten(2)
    (expected * weight).sum().backward()
    torch.testing.assert_close(attend(query, packed, explicit=True), expected)
    torch.testing.assert_close(ours, [query.grad, packed.grad])


def test_explicit_attention_has_the_gradient_of_finite_differences():
    packed = torch.randn(2, 3, 3, 2, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda given: attend(None, given, explicit=True), (packed,))


def test_many_tokens_use_pytorchs_kernel():
    def saved(num):
        packed = torch.randn(1, num, 3, 1, 4, requires_grad=True)
        return type(attend(None, packed, explicit=True).grad_fn).__name__

    assert saved(MOST_EXPLICIT_TOKENS) == "_ExplicitAttentionBackward"
    assert saved(MOST_EXPLICIT_TOKENS + 1) != "_ExplicitAttentionBackward"


def test_kept_patches_do_not_read_the_others():
    encoder = VitEncoder(CLIP).eval()
    images, keep = torch.randn(1, 3, 32, 48), torch.tensor([[7, 0, 23]])
    torn = torch.full_like(images, torch.nan)
    for index in keep[0].tolist():
        row, col = index // 6 * 8, index % 6 * 8
        torn[:, :, row : row + 8, col : col + 8] = images[:, :, row : row + 8, col : col + 8]
    kept = encoder.embed(torn, keep)
    torch.testing.assert_close(kept, encoder.embed(images)[:, keep[0]], atol=1e-5, rtol=0)
    encoder.set_optimisations(())
    with torch.no_grad():
        encoder.patch_embed.proj.weight.zero_()
    assert encoder.embed(torn, keep).shape == (1, 3, 32)


def test_the_last_block_computes_one_token():
    encoder = VitEncoder(CLIP).eval()
    seen = []
    handle = encoder.blocks[-1].mlp.register_forward_hook(lambda _, __, output: seen.append(output.shape[1]))
    images = torch.randn(1, 3, 32, 48)
    encoder(images)
    encoder.set_optimisations(())
    encoder(images)
    handle.remove()
    assert seen == [1, 27]


@pytest.mark.parametrize("rows", [slice(0, 1), slice(3, None), slice(2, 5)])
def test_a_block_for_some_rows_is_the_block(rows):
    block = VitEncoder(CLIP).blocks[1].eval()
    tokens = torch.randn(2, 9, 32)
    torch.testing.assert_close(block(tokens, rows=rows), block(tokens)[:, rows], atol=1e-5, rtol=0)


def test_bfloat16_autocast_is_as_near_to_float32_as_without_optimisations():
    encoder = VitEncoder(replace(CLIP, drop_path=0.0))
    images, keep = torch.randn(3, 3, 32, 48), torch.rand(3, 24).argsort(1)[:, :9]
    exact, _ = step(encoder, images, keep, ())
    errors = []
    for names in ((), NAMES):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            vectors, gradients = step(encoder, images, keep, names)
        errors.append((vectors.float() - exact).pow(2).mean().sqrt())
        assert all(gradient.isfinite().all() for gradient in gradients.values())
    assert 0 < errors[1] < 1.5 * errors[0]


def test_switches_are_named_and_listed():
    encoder = VitEncoder(CLIP)
    assert encoder.optimisations == frozenset(NAMES)
    encoder.set_optimisations(["kept_patches"])
    assert encoder.optimisations == {"kept_patches"}
    with pytest.raises(ConfigError, match=r"no optimisations \['warp'\]; it has: kept_patches"):
        encoder.set_optimisations(["warp"])


def test_too_many_kept_patches_are_refused():
    with pytest.raises(TokenCountError, match="25 tokens for a grid of 4 x 6"):
        VitEncoder(CLIP).embed(torch.zeros(1, 3, 32, 48), torch.zeros(1, 25, dtype=torch.int64))


def test_intermediates_by_module_path():
    encoder = VitEncoder(CLIP).eval()
    images = torch.randn(2, 3, 32, 48)
    assert encoder.intermediate_names() == ("blocks.0", "blocks.1", "blocks.2", "norm")
    found = encoder.intermediates(images, ["norm", "blocks.0.attn.qkv", "blocks.2"])
    torch.testing.assert_close(found["norm"], encoder.encode(encoder.embed(images), (4, 6)))
    torch.testing.assert_close(encoder.norm(found["blocks.2"]), found["norm"])
    assert found["blocks.0.attn.qkv"].shape == (2, 27, 96)
    assert not encoder.blocks[2]._forward_hooks
    with pytest.raises(UnknownLayerError, match=r"has no layers \['blocks.9'\]; it has blocks.0, "):
        encoder.intermediates(images, ["blocks.9"])
    with pytest.raises(UnknownLayerError, match=r"layers \['blocks'\] .* gave no tensor"):
        encoder.intermediates(images, ["blocks"])


def test_block_names_are_the_blocks():
    encoder = VitEncoder(CLIP)
    modules = dict(encoder.named_modules())
    assert [modules[name] for name in encoder.block_names()] == list(encoder.blocks)


@pytest.mark.slow
def test_the_compiler_keeps_one_graph_with_kept_patches_and_a_pooled_last_block():
    """In a process of its own: the run-time checks of these tests are not made for the compiler."""
    code = """
import torch
from unveil_backbones import VitConfig, VitEncoder
config = VitConfig(image_size=(32, 32), patch_size=8, width=32, depth=2, num_heads=2, pooling="cls", position="learned")
encoder = VitEncoder(config)
images, keep = torch.randn(2, 3, 32, 32), torch.rand(2, 16).argsort(1)[:, :5]
run = lambda images, keep: encoder.encode_pooled(encoder.embed(images, keep), (4, 4))
compiled = torch.compile(run, backend="aot_eager", fullgraph=True)
torch.testing.assert_close(compiled(images, keep), run(images, keep), atol=1e-5, rtol=0)
run(images, keep).sum().backward()
plain = [parameter.grad.clone() for parameter in encoder.parameters()]
encoder.zero_grad()
compiled(images, keep).sum().backward()
torch.testing.assert_close([parameter.grad for parameter in encoder.parameters()], plain, atol=1e-4, rtol=1e-4)
"""
    subprocess.run([sys.executable, "-c", code], check=True)
