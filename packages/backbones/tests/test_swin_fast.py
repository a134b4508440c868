"""Every optimisation of SwinV2 computes the same as timm's way, in outputs and gradients, and can be switched off."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from unveil_backbones import SwinConfig, SwinEncoder
from unveil_backbones.errors import ConfigError
from unveil_backbones.swin import clamped_windows
from unveil_backbones.swin_attention import attend_rows, choose, cosine_attention
from unveil_backbones.swin_bias import bias_of_pairs, position_bias, position_tables
from unveil_backbones.swin_windows import make_plan

NAMES = tuple(SwinEncoder.OPTIMISATIONS)
DEFAULT = tuple(name for name in NAMES if name not in SwinEncoder.UNMEASURED)


def build(drop_path=0.0) -> SwinEncoder:
    torch.manual_seed(0)
    config = SwinConfig(
        image_size=(64, 64),
        width=8,
        depths=(2, 2, 2, 2),
        num_heads=(1, 2, 4, 8),
        window_sizes=(4, 4, 4, 4),
        pretrained_window_sizes=clamped_windows((64, 64), 4, (4, 4, 4, 4)),
        drop_path=drop_path,
    )
    encoder = SwinEncoder(config)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return encoder


def step(encoder, images, places, optimisations, *, checkpoint=False):
    """Wanted tokens and all gradients of one step in training mode; drop path draws the same numbers each time."""
    encoder.set_optimisations(optimisations)
    encoder.checkpoint_blocks = checkpoint
    encoder.zero_grad()
    torch.manual_seed(1)
    found = encoder.encode_at(encoder.embed(images), encoder.grid(*images.shape[-2:]), places)
    (found * torch.linspace(-1, 1, found.numel()).view_as(found)).sum().backward()
    return found.detach(), {name: parameter.grad.clone() for name, parameter in encoder.named_parameters()}


@pytest.mark.parametrize("size", [(64, 64), (96, 160)])
@pytest.mark.parametrize("on", [*((name,) for name in NAMES), DEFAULT], ids=lambda on: "+".join(on))
def test_outputs_and_gradients_equal_those_without_optimisations(on, size):
    encoder, images = build(drop_path=0.3).train(), torch.randn(2, 3, *size)
    places = torch.tensor([[3, 0], [1, 2]])
    tokens, gradients = step(encoder, images, places, ())
    fast, fast_gradients = step(encoder, images, places, on, checkpoint=on == DEFAULT)
    torch.testing.assert_close(fast, tokens, atol=1e-5, rtol=0)
    for name, gradient in gradients.items():
        scale = gradient.abs().max().clamp(min=1.0)
        torch.testing.assert_close(fast_gradients[name] / scale, gradient / scale, atol=2e-5, rtol=0, msg=name)


def test_all_but_the_unmeasured_are_on_at_first_and_unknown_ones_are_refused():
    encoder = build()
    assert encoder.optimisations == frozenset(DEFAULT)
    assert "triton_attention" not in encoder.optimisations
    with pytest.raises(ConfigError, match=r"no optimisations \['warp'\]; it has: window_order"):
        encoder.set_optimisations(["warp"])


def test_the_last_block_feeds_forward_the_wanted_tokens_only():
    encoder, seen = build(), []
    encoder.layers[3].blocks[1].mlp.register_forward_hook(lambda _, __, output: seen.append(output.shape[1]))
    tokens, places = encoder.embed(torch.randn(1, 3, 64, 64)), torch.tensor([[2]])
    encoder.encode_at(tokens, (16, 16), places)
    encoder.set_optimisations(())
    encoder.encode_at(tokens, (16, 16), places)
    assert seen == [1, 4]


def test_ways_of_attention_are_chosen_by_switch_and_device():
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    assert [choose(DEFAULT, device) for device in (cpu, cuda)] == ["fused", "sdpa"]
    assert [choose(NAMES, device) for device in (cpu, cuda)] == ["fused", "triton"]
    assert [choose(("fused_attention",), device) for device in (cpu, cuda)] == ["fused", "folded"]
    assert [choose((), device) for device in (cpu, cuda)] == ["plain", "plain"]


def attention_inputs(images, regions, tokens, heads, seed):
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64, requires_grad=True)

    groups = 1 if regions is None else len(regions)
    scale = draw(heads, 1, 1)
    with torch.no_grad():
        scale.add_(4.0)  # some of them are above the clamp at log 100 = 4.6
    return draw(images * groups, tokens, 3, heads, 4), scale, draw(heads, tokens, tokens)


@settings(max_examples=15, deadline=None)
@given(
    images=st.integers(1, 3),
    tokens=st.integers(1, 9),
    heads=st.integers(1, 3),
    shifted=st.booleans(),
    kind=st.sampled_from(["folded", "fused", "sdpa"]),
    seed=st.integers(0, 9999),
)
def test_every_way_of_attention_is_the_plain_one(images, tokens, heads, shifted, kind, seed):
    regions = torch.arange(2 * tokens).view(2, tokens).remainder(3).to(torch.int8) if shifted else None
    given_inputs = attention_inputs(images, regions, tokens, heads, seed)
    expected = cosine_attention(*given_inputs, regions, kind="plain")
    weight = torch.linspace(-1, 1, expected.numel(), dtype=torch.float64).view_as(expected)
    expected_gradients = torch.autograd.grad((expected * weight).sum(), given_inputs)
    found = cosine_attention(*given_inputs, regions, kind=kind)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(torch.autograd.grad((found * weight).sum(), given_inputs), expected_gradients)


def test_attention_of_some_rows_is_those_rows():
    qkv, scale, bias = attention_inputs(2, None, 6, 3, seed=5)
    rows = torch.tensor([[5, 0, 1], [2, 2, 4]])
    whole = cosine_attention(qkv, scale, bias, None, kind="plain")
    query = torch.take_along_dim(qkv[:, :, 0], rows[:, :, None, None], 1)
    found = attend_rows(query, qkv[:, :, 1:], scale, bias, rows)
    torch.testing.assert_close(found, torch.take_along_dim(whole, rows[:, :, None], 1))


def test_tables_of_a_stage_hold_the_bias_of_each_block():
    encoder = build().double()
    plans = make_plan(
        (16, 16), (4,) * 4, ((4, 4),) * 4, (2,) * 4, window_order=True, merge_gather=True, device=torch.device("cpu")
    )
    networks = [block.attn.cpb_mlp for block in encoder.layers[1].blocks]
    geometry = plans[1].blocks[0].geometry
    weights = [weight for network in networks for weight in network.parameters()]
    each = torch.stack([position_bias(network, geometry, 2) for network in networks])
    tables = position_tables(networks, geometry)
    together = torch.stack([bias_of_pairs(table, geometry) for table in tables])
    torch.testing.assert_close(together, each)
    noise = torch.randn_like(each)
    torch.testing.assert_close(
        torch.autograd.grad((together * noise).sum(), weights), torch.autograd.grad((each * noise).sum(), weights)
    )
