"""The text tower: bidirectional, token 0 pooled, padding attended, as in FLIP."""

import pytest
import torch
from unveil_backbones import TextConfig, TextSpec, TextTower, build_text, create_text
from unveil_backbones.errors import ConfigError, ManifestError, TokenCountError, UnknownModelError

CONFIG = TextConfig(vocab_size=20, length=6, width=16, depth=2, num_heads=2)


@pytest.fixture
def tower() -> TextTower:
    return TextTower(CONFIG).eval()


def test_shape_and_the_position_pooled(tower):
    ids = torch.randint(0, 20, (3, 6))
    vectors = tower(ids)
    assert vectors.shape == (3, 16)
    tokens = tower.blocks(tower.token_embed(ids) + tower.pos_embed)
    assert torch.equal(vectors, tower.norm(tokens)[:, 0])


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


def test_flip_b_has_the_published_size():
    # Table 9: 12 layers, width 512, 53M parameters with the BERT vocabulary of 30,522 and 32 positions.
    with torch.device("meta"):
        tower = create_text("text_b", 30522, 32)
    assert round(sum(parameter.numel() for parameter in tower.parameters()) / 1e6) == 53


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
