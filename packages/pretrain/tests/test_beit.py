"""The vocabulary of patches, and token prediction on it, against values worked out by hand."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from unveil_backbones import create
from unveil_masking import Grid
from unveil_pretrain.errors import ConfigError
from unveil_pretrain.losses import token_cross_entropy
from unveil_pretrain.objectives.base import BuildContext, Inputs
from unveil_pretrain.objectives.beit import BEiTConfig
from unveil_pretrain.patch_vocabulary import PatchVocabulary, draw_vocabulary, vocabulary_for
from unveil_pretrain.sample_images import images_of_samples
from unveil_pretrain.targets import patchify

CONFIG = BEiTConfig(mask_ratio=0.4, min_block=2, vocab_size=12)


def pictures(num=6, side=32, seed=0):
    return torch.randn(num, 3, side, side, generator=torch.Generator().manual_seed(seed))


def inputs(num=4):
    return Inputs(pictures(num, seed=1), torch.arange(num) + 7, torch.zeros(num, dtype=torch.int64), None)


def context(stored=None, encoder="vit_tiny", side=32):
    torch.manual_seed(0)
    return BuildContext(
        encoder=create(encoder, image_size=(side, side)),
        image_size=(side, side),
        captions=lambda _: [],
        tokenizer_json=None,
        images=lambda most: iter(pictures()[:most].split(2)),
        stored_heads=stored,
    )


@pytest.fixture(scope="module")
def beit():
    return CONFIG.build(context()).eval()


def test_the_nearest_patch_by_cosine_by_hand():
    vocabulary = PatchVocabulary(torch.tensor([[1.0, 0.0], [0.6, 0.8], [-1.0, 0.0]]))
    patches = torch.tensor([[[2.0, 0.1], [0.1, 0.1], [-3.0, 1.0], [0.0, 5.0]]])
    # Cosines of (0.1, 0.1): 0.71, 0.99, -0.71. Of (-3, 1): -0.95, -0.32, 0.95. Of (0, 5): 0, 0.8, 0.
    assert vocabulary(patches).tolist() == [[0, 1, 2, 1]]


@given(st.integers(0, 2**31 - 1))
def test_brighter_or_darker_patches_of_one_direction_are_one_token(seed):
    generator = torch.Generator().manual_seed(seed)
    entries = torch.nn.functional.normalize(torch.randn(9, 5, generator=generator), dim=1)
    patches = torch.randn(1, 4, 5, generator=generator)
    vocabulary = PatchVocabulary(entries)
    expected = torch.nn.functional.cosine_similarity(patches[0, :, None], entries[None], dim=2).argmax(1)
    assert torch.equal(vocabulary(patches * 7.0)[0], expected)


def test_an_entry_of_the_vocabulary_is_its_own_token():
    entries = draw_vocabulary([pictures()], 8, 12)
    assert PatchVocabulary(entries)(entries[None] * 3.0).tolist() == [list(range(12))]


def test_a_vocabulary_is_of_different_patches_of_the_images_and_does_not_depend_on_batches():
    images = pictures()
    entries = draw_vocabulary([images], 8, 40)
    assert torch.equal(entries, draw_vocabulary(images.split(1), 8, 40))
    torch.testing.assert_close(entries.norm(dim=1), torch.ones(40))
    every = torch.nn.functional.normalize(patchify(images, 8).flatten(0, 1), dim=1)
    found = (entries @ every.T).amax(1)
    torch.testing.assert_close(found, torch.ones(40))
    assert (entries @ entries.T - 2 * torch.eye(40)).amax() < 0.999
    # The first choices of all six images come first.
    owner = (entries @ every.T).argmax(1) // 16
    assert owner[:6].tolist() == [0, 1, 2, 3, 4, 5]


def test_equal_and_empty_patches_are_passed_over():
    images = torch.zeros(2, 3, 16, 16)
    images[0, :, 8:] = 1.0  # two equal patches, and two that are zero
    assert draw_vocabulary([images], 8, 1).shape == (1, 192)
    with pytest.raises(ConfigError, match="give 1 different patches; give a vocab_size of at most 1,"):
        draw_vocabulary([images], 8, 2)
    with pytest.raises(ConfigError, match="there are none"):
        draw_vocabulary([], 8, 2)


def test_cross_entropy_by_hand():
    logits = torch.tensor([[[0.0, math.log(3.0)], [0.0, 0.0]], [[math.log(4.0), 0.0], [0.0, math.log(9.0)]]])
    tokens = torch.tensor([[1, 0], [1, 1]])
    # -log 3/4 and -log 1/2; -log 1/5 and -log 9/10.
    expected = [(math.log(4 / 3) + math.log(2)) / 2, (math.log(5) + math.log(10 / 9)) / 2]
    assert token_cross_entropy(logits, tokens).tolist() == pytest.approx(expected)


def test_loss_against_the_definition(beit):
    batch = inputs()
    grid = Grid(4, 4)
    partition = beit.strategy.sample(grid, batch.sample_ids, seed=3, epoch=batch.epochs)
    encoder = beit.encoder
    with torch.no_grad():
        patches = encoder.patch_embed(batch.images)
        hidden = torch.where(partition.mask[:, :, None], beit.mask_token, patches) + encoder.positions((4, 4))
        probabilities = beit.head(encoder.encode(hidden, (4, 4))[:, 1:]).softmax(-1)
        found = beit(batch, seed=3)
    expected = []
    for sample in range(4):
        losses = []
        for patch in np.flatnonzero(partition.mask[sample].numpy()):
            pixels = patchify(batch.images, 8)[sample, patch]
            cosines = torch.nn.functional.cosine_similarity(pixels[None], beit.vocabulary.patches)
            losses.append(-math.log(probabilities[sample, patch, int(cosines.argmax())]))
        expected.append(sum(losses) / len(losses))
    assert partition.num_hidden == 6  # floor(0.4 · 16)
    assert found.per_sample.tolist() == pytest.approx(expected, rel=1e-4)
    assert found.num_tokens == 4 * 16


def test_a_sample_is_alone(beit):
    batch = inputs()
    order = torch.tensor([2, 0, 3, 1])
    shuffled = replace(
        batch, images=batch.images[order], sample_ids=batch.sample_ids[order], epochs=batch.epochs[order]
    )
    one = replace(batch, images=batch.images[2:3], sample_ids=batch.sample_ids[2:3], epochs=batch.epochs[2:3])
    with torch.no_grad():
        losses = beit(batch, seed=3).per_sample
        torch.testing.assert_close(beit(shuffled, seed=3).per_sample, losses[order])
        torch.testing.assert_close(beit(one, seed=3).per_sample, losses[2:3])


def test_hidden_pixels_do_not_reach_the_encoder(beit):
    batch = inputs()
    partition = beit.strategy.sample(Grid(4, 4), batch.sample_ids, seed=3, epoch=batch.epochs)
    hidden = partition.mask.view(-1, 1, 4, 4).repeat_interleave(8, 2).repeat_interleave(8, 3)
    other = replace(batch, images=torch.where(hidden, torch.randn_like(batch.images), batch.images))
    seen = []
    handle = beit.head.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    with torch.no_grad():
        beit(batch, seed=3)
        beit(other, seed=3)
    handle.remove()
    torch.testing.assert_close(seen[0], seen[1])


def test_the_vocabulary_travels_with_the_checkpoint_and_stands_in_the_passport(beit):
    heads = beit.heads()
    assert torch.equal(heads["objective.vocabulary.patches"], beit.vocabulary.patches)
    stored = {name: value.clone() for name, value in heads.items()}
    stored["objective.vocabulary.patches"] = stored["objective.vocabulary.patches"].flip(0)

    def refuse(most):
        raise AssertionError(f"{most} images were asked for")

    again = CONFIG.build(replace(context(stored), images=refuse))
    again.load_heads(stored)
    assert torch.equal(again.vocabulary.patches, beit.vocabulary.patches.flip(0))
    assert beit.vocabulary.content_hash != again.vocabulary.content_hash
    assert beit.card().target_normalisation == f"patch_vocabulary 12 {beit.vocabulary.content_hash}"
    assert beit.card().target_normalisation != again.card().target_normalisation


def test_the_vocabulary_neither_learns_nor_decays(beit):
    assert "vocabulary.patches" not in dict(beit.named_parameters())
    beit.zero_grad()
    beit(inputs(), seed=3).per_sample.mean().backward()
    assert all(parameter.grad is not None for parameter in beit.parameters())


def test_a_build_without_images_says_so():
    bare = BuildContext(
        encoder=create("vit_tiny", image_size=(32, 32)), image_size=(32, 32), captions=lambda _: [], tokenizer_json=None
    )
    with pytest.raises(ConfigError, match="3 training images are wanted"):
        vocabulary_for(bare, 12)


@pytest.mark.parametrize(
    ("encoder", "what"), [("swinv2_tiny", "merges patches of 4 pixels into tokens of 32"), ("hiera_tiny", "overlap")]
)
def test_encoders_without_a_token_per_patch_are_refused(encoder, what):
    with pytest.raises(ConfigError, match=what):
        CONFIG.build(context(encoder=encoder, side=64))


@pytest.mark.parametrize(("field", "value"), [("mask_ratio", 1.0), ("min_block", 0), ("vocab_size", 1)])
def test_settings_out_of_range_are_refused(field, value):
    with pytest.raises(ConfigError, match=field):
        BEiTConfig(**{field: value})


class FewImages:
    """A data set of flat pictures, whose brightness is ten times their index."""

    sample_ids = np.arange(20, dtype=np.int64) * 7
    content_hash = "0" * 64

    def __len__(self):
        return 20

    def val_example(self, index):
        from unveil_pretrain.data.datasets import Example

        return Example(torch.full((3, 8, 8), 10 * index, dtype=torch.uint8), index, None)


def test_sampled_images_are_a_seeded_subset_as_the_encoder_sees_them():
    images = images_of_samples(FewImages(), seed=3, mean=(0.5, 0.5, 0.5), std=(0.25, 0.5, 1.0))
    few, more = (torch.cat(list(images(most))) for most in (5, 11))
    assert few.shape == (5, 3, 8, 8)
    brightness = [round(float(value) * 25.5 + 12.75) for value in few[:, 1, 0, 0] / 2]
    indices = [round(float((picture[1, 0, 0] * 0.5 + 0.5) * 25.5)) for picture in few]
    assert indices == sorted(indices)
    assert len(set(indices)) == 5 == len(brightness)
    torch.testing.assert_close(few[:, 0], few[:, 2] * 4)
    assert {float(value) for value in few[:, 0, 0, 0]} <= {float(value) for value in more[:, 0, 0, 0]}
    other = torch.cat(list(images_of_samples(FewImages(), seed=4, mean=(0.5,) * 3, std=(0.25, 0.5, 1.0))(5)))
    assert not torch.equal(few, other)
