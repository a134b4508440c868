"""What the settings of FLIP change: loss, towers, captions, images, and the head that reconstructs."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from unveil_backbones import BpeTokenizer, WordPieceTokenizer, create
from unveil_pretrain.contrastive import alone, info_nce, sigmoid_loss
from unveil_pretrain.errors import ConfigError
from unveil_pretrain.objectives.base import BuildContext, Inputs
from unveil_pretrain.objectives.flip import FLIPConfig
from unveil_pretrain.objectives.flip_text import TextInput, frequency_table, syntax_table, vocabulary_words

CAPTIONS = ["a red field", "a blue field with two dots", "two green fields", "nothing at all", "a white dot", "dot"]
SMALL = FLIPConfig(text="text_tiny", text_length=8, vocab_size=60, embed_dim=16, negative_pool=3)


def inputs(num=6, *, side=32):
    generator = torch.Generator().manual_seed(0)
    return Inputs(
        images=torch.randn(num, 3, side, side, generator=generator),
        sample_ids=torch.arange(num, dtype=torch.int64) + 7,
        epochs=torch.zeros(num, dtype=torch.int64),
        captions=CAPTIONS[:num],
        all_captions=[(caption, "something else") for caption in CAPTIONS[:num]],
    )


def build(config=SMALL, *, encoder="vit_tiny", side=32, stored_heads=None, tokenizer_json=None, **changes):
    torch.manual_seed(0)
    context = BuildContext(
        encoder=create(encoder, image_size=(side, side)),
        image_size=(side, side),
        captions=lambda most: CAPTIONS[:most],
        tokenizer_json=tokenizer_json,
        stored_heads=stored_heads,
    )
    return replace(config, **changes).build(context).eval()


def seen(objective, batch, **given_):
    """Shapes of what the two towers' first blocks see."""
    found = {}

    def note(name):
        def hook(module, args):
            found.setdefault(name, tuple(args[0].shape))

        return hook

    handles = [
        tower.blocks[0].register_forward_pre_hook(note(name))
        for name, tower in (("image", objective.encoder), ("text", objective.pair.text))
    ]
    with torch.no_grad():
        output = objective(batch, seed=3)
    for handle in handles:
        handle.remove()
    return found, output


class TestLosses:
    @pytest.mark.parametrize("loss", ["infonce", "sigmoid"])
    def test_is_that_of_the_embeddings(self, loss):
        objective, batch = build(loss=loss, loss_chunk=4), inputs()
        with torch.no_grad():
            images, texts = objective.encode_samples(batch, seed=3).embeddings
            scale = objective.pair.logit_scale.exp()
            expected = (
                info_nce(images, texts, scale)
                if loss == "infonce"
                else sigmoid_loss(images, texts, scale, torch.tensor(-10.0))
            )
            torch.testing.assert_close(objective(batch, seed=3).per_sample, expected)

    @torch.no_grad()
    def test_starts_where_the_papers_start(self):
        assert build().pair.logit_scale.exp().item() == pytest.approx(1 / 0.07)
        siglip = build(loss="sigmoid")
        assert siglip.pair.logit_scale.exp().item() == pytest.approx(10.0)
        assert siglip.objective.logit_bias.item() == -10.0
        assert build(initial_scale=20.0).pair.logit_scale.exp().item() == pytest.approx(20.0)

    def test_the_temperature_turns_back_at_its_border(self):
        """Beyond its range the parameter has no gradient; clipped to it after the update, it has one."""
        objective = build()
        with torch.no_grad():
            objective.pair.raw_logit_scale.fill_(5.0)
        objective(inputs(), seed=3).per_sample.mean().backward()
        assert float(objective.pair.raw_logit_scale.grad) == 0.0
        objective.after_update(0.5)
        objective.zero_grad()
        objective(inputs(), seed=3).per_sample.mean().backward()
        assert float(objective.pair.raw_logit_scale.grad) != 0.0

    def test_heads_have_the_names_that_checkpoints_know(self):
        heads = build(loss="sigmoid", reconstruction_weight=0.5, decoder_width=16, decoder_heads=2).heads()
        assert {name.split(".")[0] for name in heads} == {"pair", "objective"}
        assert "objective.logit_bias" in heads


class TestTowers:
    def test_the_causal_tower_is_clips(self):
        pytest.importorskip("open_clip", reason="open_clip_torch brings CLIP's vocabulary")
        objective = build(tokenizer="bpe", text_length=77)
        assert isinstance(objective.tokenizer, BpeTokenizer)
        config = objective.pair.text.config
        assert (config.vocab_size, config.length, config.causal, config.pooling) == (49_408, 77, True, "eot")
        shapes, _ = seen(objective, inputs())
        lengths = (objective.tokenizer(CAPTIONS).argmax(1) + 1).sum()
        assert shapes["text"] == (int(lengths), 128)  # real pieces only, of 6 × 77

    def test_padding_is_seen_or_hidden_as_the_settings_say(self):
        attended, hidden = build(), build(attend_padding=False)
        pieces = int((attended.tokenizer(CAPTIONS) != 0).sum())
        assert seen(attended, inputs())[0]["text"] == (6 * 8, 128)
        assert seen(hidden, inputs())[0]["text"] == (pieces, 128)

    def test_a_given_vocabulary_is_used(self, tmp_path):
        file = tmp_path / "vocab.txt"
        file.write_text("[PAD]\n[UNK]\na\nred\nfield\n")
        objective = build(vocabulary=str(file))
        assert isinstance(objective.tokenizer, WordPieceTokenizer)
        assert objective.tokenizer(["a red field"]).tolist() == [[2, 3, 4, 0, 0, 0, 0, 0]]

    def test_a_checkpoints_tokenizer_has_to_fit(self):
        with pytest.raises(ConfigError, match="text_length"):
            build(text_length=9, tokenizer_json=build().tokenizer_json)


class TestImages:
    @pytest.mark.parametrize(("ratio", "kept"), [(0.0, 16), (0.5, 8), (0.75, 4), (0.7, 4)])
    def test_kept_patches_are_rounded_down(self, ratio, kept):
        shapes, output = seen(build(mask_ratio=ratio), inputs())
        assert shapes["image"] == (6, 1 + kept, 128)
        assert output.num_tokens == 6 * kept

    def test_resizing_leaves_as_many_tokens_and_no_mask(self):
        objective = build(image_reduction="resize", mask_ratio=0.75)
        shapes, output = seen(objective, inputs())
        assert shapes["image"] == (6, 1 + 4, 128)
        assert output.num_tokens == 6 * 4
        assert objective.card().mask["strategy"] == "resize"
        with torch.no_grad():
            other = replace(inputs(), epochs=torch.ones(6, dtype=torch.int64))
            assert torch.equal(objective(inputs(), seed=3).per_sample, objective(other, seed=4).per_sample)


class TestReconstruction:
    def test_is_maes_loss_with_its_weight(self):
        plain = build()
        with_head = build(reconstruction_weight=0.5, decoder_width=16, decoder_heads=2)
        encoded = with_head.encode_samples(inputs(), seed=3)
        between = with_head.compare(encoded.embeddings, first=0, gather=alone)
        assert encoded.own is not None
        torch.testing.assert_close(with_head(inputs(), seed=3).per_sample, between + encoded.own)
        head = with_head.objective.reconstruction
        encoded.own.sum().backward()
        assert head.decoder.mask_token.grad is not None
        assert with_head.pair.text.token_embed.weight.grad is None
        # Normalised patches have variance 1: a decoder that knows nothing errs by about 1.
        assert 0.4 < float(encoded.own.detach().mean()) / 0.5 * 0.5 < 2.0
        assert plain.encode_samples(inputs(), seed=3).own is None

    def test_validation_tells_it_apart(self):
        with torch.no_grad():
            objective = build(reconstruction_weight=0.5, decoder_width=16, decoder_heads=2)
            losses = objective.score_samples(inputs(), seed=3, chunk_size=4).losses
            assert list(losses) == ["loss", "reconstruction", "unmasked"]

    @pytest.mark.parametrize("wrong", [{"mask_ratio": 0.0}, {"image_reduction": "resize"}])
    def test_needs_dropped_patches(self, wrong):
        with pytest.raises(ConfigError, match="no patch is dropped"):
            replace(SMALL, reconstruction_weight=1.0, **wrong)


class TestValidation:
    def test_ranks_whole_images_against_all_captions(self):
        objective = build()
        with torch.no_grad():
            scored = objective.score_samples(inputs(), seed=3, chunk_size=4)
        assert scored.rows["images_"].shape == (6, 16)
        assert scored.rows["texts"].shape == (12, 16)
        assert {"text_recall_1", "image_recall_10"} <= objective.set_scores(scored.rows).keys()

    def test_unmasked_is_the_loss_of_whole_images(self):
        masked, whole = build(), build(mask_ratio=0.0)
        whole.load_state_dict(masked.state_dict())
        with torch.no_grad():
            mine = masked.validation_losses(inputs(), seed=3, chunk_size=6)
            theirs = whole.validation_losses(inputs(), seed=3, chunk_size=6)
        torch.testing.assert_close(mine["unmasked"], theirs["loss"])
        torch.testing.assert_close(theirs["unmasked"], theirs["loss"])

    def test_later_masks_give_the_masked_view_alone(self):
        second = replace(inputs(), epochs=torch.ones(6, dtype=torch.int64))
        with torch.no_grad():
            scored = build().score_samples(second, seed=3, chunk_size=6)
        assert list(scored.losses) == ["loss"]
        assert not scored.rows

    def test_masked_captions_are_whole_in_the_unmasked_view(self):
        plain, masked = build(), build(text_masking="random", text_keep=2)
        with torch.no_grad():
            one, other = (o.validation_losses(inputs(), seed=3, chunk_size=6) for o in (plain, masked))
        torch.testing.assert_close(one["unmasked"], other["unmasked"])
        assert not torch.allclose(one["loss"], other["loss"])
        assert masked.card().mask["text"] == "random"


class TestMaskedCaptions:
    @given(
        st.sampled_from(["random", "priority", "truncate", "random_content", "block"]),
        st.integers(1, 8),
        st.integers(0, 99),
    )
    @settings(max_examples=25)
    def test_so_many_pieces_stay_in_their_order(self, masking, num_kept, seed):
        tokenizer = WordPieceTokenizer.train(CAPTIONS, 60, length=8)
        text = TextInput(tokenizer, causal=False, masking=masking, num_kept=num_kept)
        ids, ones = tokenizer(CAPTIONS), torch.ones(6, dtype=torch.int64)
        kept, places = text.masked(CAPTIONS, sample_ids=ones.cumsum(0), epochs=ones, seed=seed, table=None)
        assert kept.shape == (6, num_kept)
        assert (places is not None) == (masking in ("random", "priority"))
        if places is not None:
            assert torch.equal(ids.take_along_dim(places, 1), kept)
            assert bool((places.diff(dim=1) > 0).all())

    def test_flips_ways_keep_the_places_of_the_pieces(self):
        """With all pieces kept nothing changes; with positions numbered anew, dropping the first would."""
        whole, masked = build(), build(text_masking="random", text_keep=8)
        with torch.no_grad():
            torch.testing.assert_close(masked(inputs(), seed=3).per_sample, whole(inputs(), seed=3).per_sample)
            ids = whole.tokenizer(CAPTIONS)
            moved = whole.pair.encode_text(ids[:, 1:], torch.arange(1, 8).expand(6, 7))
            anew = whole.pair.encode_text(ids[:, 1:])
        assert not torch.allclose(moved, anew, atol=1e-4)

    def test_end_of_text_stays(self):
        pytest.importorskip("open_clip", reason="open_clip_torch brings CLIP's vocabulary")
        objective = build(tokenizer="bpe", text_length=16, text_masking="random", text_keep=3)
        kept, _ = objective.text_input.masked(
            CAPTIONS, sample_ids=inputs().sample_ids, epochs=inputs().epochs, seed=1, table=None
        )
        assert bool((kept[:, 0] == 49_406).all())
        assert bool((kept == 49_407).any(1).all())

    def test_rare_words_stay(self):
        tokenizer = WordPieceTokenizer.train(CAPTIONS, 90, length=8)
        table = frequency_table(tokenizer, CAPTIONS, threshold=1e-3)
        words = vocabulary_words(tokenizer)
        assert table[words.index("a")] < table[words.index("nothing")]
        assert len(table) == tokenizer.vocab_size

    def test_nouns_stay_and_tables_travel_with_the_checkpoint(self, tmp_path):
        tags = tmp_path / "tags.tsv"
        tags.write_text("dot\tNN\nfield\tNN\nwhite\tJJ\nred\tJJ\n")
        objective = build(vocab_size=90, text_masking="syntax", text_keep=1, text_tags=str(tags))
        batch = inputs()
        kept, places = objective.text_input.masked(
            CAPTIONS, sample_ids=batch.sample_ids, epochs=batch.epochs, seed=0, table=objective.objective.text_table
        )
        words = vocabulary_words(objective.tokenizer)
        assert (words[kept[0]], words[kept[4]], places) == ("field", "dot", None)
        again = build(
            vocab_size=90, text_masking="syntax", text_keep=1, text_tags="gone.tsv", stored_heads=objective.heads(),
            tokenizer_json=objective.tokenizer_json,
        )  # fmt: skip
        assert torch.equal(again.objective.text_table, objective.objective.text_table)

    @pytest.mark.parametrize(
        ("content", "said"), [("dot NN\n", "tabulator"), ("", "tabulator"), (None, "cannot be read")]
    )
    def test_a_bad_file_of_tags_is_refused(self, tmp_path, content, said):
        file = tmp_path / "tags.tsv"
        if content is not None:
            file.write_text(content)
        with pytest.raises(ConfigError, match=said):
            syntax_table(WordPieceTokenizer.train(CAPTIONS, 60, length=8), file)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"mask_ratio": 1.0}, "mask_ratio"),
        ({"text_masking": "random", "text_keep": 9}, "text_keep"),
        ({"text_masking": "syntax", "text_keep": 4}, "text_tags"),
        ({"text_tags": "x"}, "text_tags"),
        ({"tokenizer": "bpe", "attend_padding": False}, "attend_padding"),
        ({"initial_scale": 101.0}, "initial_scale"),
        ({"reconstruction_weight": float("nan")}, "reconstruction_weight"),
        ({"decoder_width": 30}, "decoder_width"),
        ({"text_threshold": 0.0}, "text_threshold"),
        ({"loss_chunk": 0}, "loss_chunk"),
    ],
)
def test_settings_that_cannot_work_are_refused_by_name(wrong, said):
    with pytest.raises(ConfigError, match=said):
        replace(SMALL, **wrong)
