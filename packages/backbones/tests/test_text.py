"""Text towers: FLIP's (bidirectional, token 0 pooled, padding attended), CLIP's (causal, end of text), and sizes."""

import subprocess
import sys
from dataclasses import replace
from functools import partial

import pytest
import torch
from timm.layers.activations import QuickGELU
from timm.models.vision_transformer import Block
from torch import nn
from unveil_backbones import TextConfig, TextSpec, TextTower, build_text, create_text
from unveil_backbones.errors import ConfigError, ManifestError, TokenCountError, UnknownModelError

CONFIG = TextConfig(vocab_size=20, length=6, width=16, depth=2, num_heads=2)

CLIP = replace(CONFIG, causal=True, pooling="eot", norm_epsilon=1e-5)
# 19 is the end of text; the last caption has two.
CAPTIONS = torch.tensor([[1, 2, 19, 0, 0, 0], [4, 5, 6, 7, 8, 19], [1, 19, 0, 0, 0, 0], [1, 9, 9, 9, 19, 19]])


@pytest.fixture
def tower() -> TextTower:
    return TextTower(CONFIG).eval()


def by_timm(tower: TextTower, ids: torch.Tensor) -> torch.Tensor:
    """The tower's tokens, computed by timm's own blocks with the tower's weights."""
    config = tower.config
    act = QuickGELU if config.activation == "quick_gelu" else nn.GELU
    tokens = tower.token_embed(ids) + tower.pos_embed[:, : ids.shape[1]]
    for block in tower.blocks:
        norm = partial(nn.LayerNorm, eps=config.norm_epsilon)
        reference = Block(config.width, config.num_heads, qkv_bias=True, act_layer=act, norm_layer=norm)
        reference.load_state_dict(block.state_dict())
        tokens = reference(tokens, is_causal=config.causal)
    return tower.norm(tokens)


def test_the_default_tower_is_timms_blocks_and_the_first_token(tower):
    ids = torch.randint(0, 20, (3, 6))
    vectors = tower(ids)
    assert vectors.shape == (3, 16)
    torch.testing.assert_close(vectors, by_timm(tower, ids)[:, 0])
    assert not torch.allclose(vectors, by_timm(tower, ids)[:, 1])


@pytest.mark.parametrize("activation", ["gelu", "quick_gelu"])
def test_the_causal_tower_is_timms_blocks_and_the_end_of_text(activation):
    tower = TextTower(replace(CLIP, activation=activation)).eval()
    ends = CAPTIONS.argmax(dim=1)
    assert ends.tolist() == [2, 5, 1, 4]
    torch.testing.assert_close(tower(CAPTIONS), by_timm(tower, CAPTIONS)[torch.arange(4), ends])


def test_the_activation_makes_a_difference():
    plain, quick = (TextTower(replace(CLIP, activation=name)) for name in ("gelu", "quick_gelu"))
    quick.load_state_dict(plain.state_dict())
    assert not torch.equal(plain(CAPTIONS), quick(CAPTIONS))


def test_nothing_after_the_end_of_text_matters_and_everything_before_does():
    tower = TextTower(CLIP).eval()
    after, before = CAPTIONS.clone(), CAPTIONS.clone()
    after[0, 3:] = 7
    before[0, 1] = 3
    assert torch.allclose(tower(after), tower(CAPTIONS), atol=1e-6)
    assert not torch.allclose(tower(before)[0], tower(CAPTIONS)[0])


def test_hidden_padding_does_not_matter_and_a_caption_of_padding_alone_is_finite():
    tower = TextTower(replace(CONFIG, attend_padding=False)).eval()
    ids = torch.tensor([[5, 6, 7, 0, 0, 0], [0, 0, 0, 0, 0, 0]])
    vectors = tower(ids)
    assert vectors.isfinite().all()
    torch.testing.assert_close(vectors[:1], tower(torch.tensor([[5, 6, 7]])))
    attends = TextTower(CONFIG).eval()
    attends.load_state_dict(tower.state_dict())
    assert not torch.allclose(attends(ids[:1]), vectors[:1])


def results(tower: TextTower, ids: torch.Tensor, positions: torch.Tensor | None = None) -> list[torch.Tensor]:
    """Vectors, and the gradients of a function of them with respect to every parameter."""
    tower.zero_grad()
    vectors = tower(ids, positions)
    (vectors * torch.linspace(-1, 2, vectors.numel()).view_as(vectors)).sum().backward()
    gradients = [parameter.grad for parameter in tower.parameters()]
    assert all(gradient is not None for gradient in gradients)
    return [vectors.detach(), *gradients]


@pytest.mark.parametrize(
    ("config", "names"),
    [
        (CONFIG, ["last_block"]),
        (replace(CONFIG, pooling="eot"), ["last_block"]),
        *(
            (config, names)
            for config in (CLIP, replace(CONFIG, attend_padding=False))
            for names in (["last_block"], ["cut"], ["pack"], ["cut", "last_block"], ["pack", "last_block"])
        ),
    ],
)
def test_optimisations_change_neither_vectors_nor_gradients(config, names):
    tower = TextTower(config).double()
    tower.set_optimisations([])
    plain = results(tower, CAPTIONS)
    tower.set_optimisations(names)
    assert tower.optimisations == frozenset(names)
    for ours, wanted in zip(results(tower, CAPTIONS), plain, strict=True):
        torch.testing.assert_close(ours, wanted, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("config", [CONFIG, CLIP, replace(CONFIG, attend_padding=False)])
def test_pieces_keep_the_places_that_are_given(config):
    """The usual places change nothing; others do, and equally with and without optimisations."""
    tower = TextTower(config).double()
    usual = torch.arange(5).expand(4, 5)
    ids = CAPTIONS[:, [0, 1, 2, 3, 5]]
    for ours, wanted in zip(results(tower, ids, usual), results(tower, ids), strict=True):
        torch.testing.assert_close(ours, wanted, rtol=1e-10, atol=1e-12)
    moved = torch.tensor([[0, 2, 3, 4, 5], [1, 2, 3, 4, 5], [0, 1, 3, 4, 5], [0, 1, 2, 4, 5]])
    fast = results(tower, ids, moved)
    tower.set_optimisations([])
    for ours, wanted in zip(fast, results(tower, ids, moved), strict=True):
        torch.testing.assert_close(ours, wanted, rtol=1e-10, atol=1e-12)
    assert not torch.allclose(fast[0], results(tower, ids)[0])


def test_that_comparison_would_notice_a_cut_in_a_tower_that_reads_padding():
    tower = TextTower(CONFIG).double()
    whole, cut = results(tower, CAPTIONS), results(tower, CAPTIONS[:, :5])
    with pytest.raises(AssertionError):
        torch.testing.assert_close(whole[0], cut[0], rtol=1e-10, atol=1e-12)


def rows_computed(names: list[str], ids: torch.Tensor, config: TextConfig = CLIP) -> list[int]:
    """Rows that the last linear layer of each block is given."""
    tower, rows = TextTower(config), []
    tower.set_optimisations(names)
    for block in tower.blocks:
        block.mlp.fc2.register_forward_hook(lambda _, given, __: rows.append(given[0].shape[0]))
    tower(ids)
    return rows


def test_optimisations_leave_out_the_work_that_they_say():
    short = CAPTIONS[[0, 2, 3]]  # 3, 2 and 5 tokens of 6
    assert rows_computed([], short) == [18, 18]
    assert rows_computed(["cut"], short) == [15, 15]
    assert rows_computed(["pack"], short) == [10, 10]
    assert rows_computed(["pack", "last_block"], short) == [10, 3]
    padded = torch.tensor([[5, 6, 7, 0, 0, 0], [0, 0, 0, 0, 0, 0]])  # 3 tokens, and the one that is pooled
    assert rows_computed(["cut"], padded, replace(CONFIG, attend_padding=False)) == [6, 6]
    assert rows_computed(["pack"], padded, replace(CONFIG, attend_padding=False)) == [4, 4]
    assert rows_computed(["cut", "pack"], padded, CONFIG) == [12, 12]


def test_unknown_optimisations_are_refused(tower):
    assert tower.optimisations == {"last_block", "cut", "pack"}
    with pytest.raises(ConfigError, match=r"text has no optimisations \['fast'\]; it has: last_block, cut, pack"):
        tower.set_optimisations(["fast"])


@pytest.mark.parametrize("config", [CONFIG, CLIP])
def test_checkpointed_blocks_give_the_same_gradients(config):
    tower = TextTower(config)
    plain = results(tower, CAPTIONS)
    tower.checkpoint_blocks = True
    for ours, wanted in zip(results(tower, CAPTIONS), plain, strict=True):
        torch.testing.assert_close(ours, wanted)
    assert tower.block_names() == ("blocks.0", "blocks.1")
    assert all(
        tower.get_submodule(name) is block for name, block in zip(tower.block_names(), tower.blocks, strict=True)
    )


@pytest.mark.parametrize("config", [CONFIG, CLIP])
def test_no_captions_give_no_vectors(config):
    assert TextTower(config)(torch.zeros(0, 6, dtype=torch.int64)).shape == (0, 16)


def test_attention_is_bidirectional_and_padding_is_attended(tower):
    ids = torch.tensor([[5, 6, 7, 0, 0, 0]])
    last_word, padding = ids.clone(), ids.clone()
    last_word[0, 2] = 9
    padding[0, 5] = 3
    assert not torch.allclose(tower(ids), tower(last_word))
    assert not torch.allclose(tower(ids), tower(padding))


def test_order_of_words_matters(tower):
    assert not torch.allclose(tower(torch.tensor([[5, 6, 7]])), tower(torch.tensor([[5, 7, 6]])))


def test_captions_of_a_batch_do_not_mix(tower):
    ids = torch.randint(0, 20, (4, 6))
    torch.testing.assert_close(tower(ids)[1:2], tower(ids[1:2]))


def test_weight_decay_spares_biases_norms_and_positions(tower):
    spared = tower.no_weight_decay()
    assert {"pos_embed", "norm.weight", "blocks.1.mlp.fc1.bias"} <= spared
    assert not {"token_embed.weight", "blocks.0.attn.qkv.weight"} & spared


@pytest.mark.parametrize("name", ["text_tiny", "text_s"])
def test_presets_are_rebuilt_from_their_specs(name):
    tower = create_text(name, 50, 7)
    again = build_text(tower.spec)
    assert (again.spec, again.config) == (tower.spec, tower.config)
    assert again(torch.zeros(1, 7, dtype=torch.int64)).shape == (1, tower.width)


def test_configurations_of_older_checkpoints_have_the_older_behaviour():
    old = {"vocab_size": 20, "length": 6, "width": 16, "depth": 2, "num_heads": 2, "mlp_ratio": 4.0}
    assert TextConfig.from_json(old) == CONFIG
    assert TextConfig.from_json(CLIP.to_json()) == CLIP
    with pytest.raises(ManifestError, match="has no field 'length'"):
        TextConfig.from_json({name: value for name, value in old.items() if name != "length"})
    with pytest.raises(ManifestError, match="pooling is 'last'; it has to be one of 'first', 'eot'"):
        TextConfig.from_json({**old, "pooling": "last"})


@pytest.mark.parametrize("length", [0, 7])
def test_captions_of_a_wrong_length_are_refused(tower, length):
    with pytest.raises(TokenCountError, match=f"captions of {length} word pieces; it takes 1 to 6"):
        tower(torch.zeros(1, length, dtype=torch.int64))


def test_unknown_towers_and_impossible_shapes_are_refused():
    with pytest.raises(UnknownModelError, match=r"text tower 'bert' is unknown; there are text_tiny, text_s"):
        create_text("bert", 10, 4)
    with pytest.raises(UnknownModelError, match="'bert' is unknown; this version builds"):
        build_text(TextSpec("bert", {}))
    with pytest.raises(ManifestError, match=r"text.config has no field 'vocab_size'"):
        build_text(TextSpec("text_tiny", {}))
    with pytest.raises(ConfigError, match="the width is a multiple of the heads"):
        TextConfig(vocab_size=20, length=6, width=10, depth=2, num_heads=4)
    with pytest.raises(ConfigError, match="at least 1"):
        create_text("text_tiny", 0, 4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"norm_epsilon": 0.0}, "norm_epsilon 0.0; it has to be positive"),
        ({"causal": True}, 'use pooling="eot"'),
        ({"causal": True, "pooling": "eot", "attend_padding": False}, "leave attend_padding out"),
        ({"pad_id": 20}, "pad_id 20; it has to be one of the 20 pieces"),
        ({"num_heads": 0}, "heads are at least 1"),
    ],
)
def test_contradictory_configurations_are_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        replace(CONFIG, **change)


@pytest.mark.parametrize(
    ("field", "message"),
    [("pooling", "pooling 'x'; there are first, eot"), ("activation", "activation 'x'; there are gelu, quick_gelu")],
)
def test_unknown_words_are_refused_where_no_type_checker_runs(field, message):
    shape = "vocab_size=9, length=6, width=8, depth=2, num_heads=2"
    code = f"from unveil_backbones import TextConfig; TextConfig({shape}, {field}='x')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert f"ConfigError: {message}" in done.stderr
