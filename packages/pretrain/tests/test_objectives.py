"""What each objective sees, predicts and learns from."""

from dataclasses import replace

import pytest
import torch
from unveil_backbones import create
from unveil_masking import Grid, take
from unveil_pretrain.errors import ConfigError
from unveil_pretrain.losses import masked_l1
from unveil_pretrain.objectives.base import BuildContext, Inputs
from unveil_pretrain.objectives.flip import FLIPConfig
from unveil_pretrain.objectives.mae import MAEConfig
from unveil_pretrain.objectives.simmim import SimMIMConfig

CAPTIONS = ["a red field", "a blue field", "two green fields", "nothing at all", "a white dot", "a black dot"]


def inputs(num=4, *, side=32, captions=None, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return Inputs(
        images=torch.randn(num, 3, side, side, generator=generator),
        sample_ids=torch.arange(num, dtype=torch.int64) + 7,
        epochs=torch.zeros(num, dtype=torch.int64),
        captions=captions,
    )


def build(config, encoder="vit_tiny", side=32):
    torch.manual_seed(0)
    context = BuildContext(
        encoder=create(encoder, image_size=(side, side)),
        image_size=(side, side),
        captions=lambda most: CAPTIONS[:most],
        tokenizer_json=None,
    )
    return config.build(context)


@pytest.fixture(scope="module")
def simmim():
    return build(SimMIMConfig(mask_unit=8, target_window=0), "swinv2_tiny").eval()


@pytest.fixture(scope="module")
def mae():
    return build(MAEConfig(decoder_width=32, decoder_depth=1, decoder_heads=2)).eval()


@pytest.fixture(scope="module")
def flip():
    config = FLIPConfig(text="text_tiny", text_length=6, vocab_size=60, embed_dim=16, negative_pool=3)
    return build(config).eval()


def hidden_pixels(objective, batch, patch):
    grid = Grid(*objective.encoder.grid(*batch.images.shape[-2:]))
    partition = objective.strategy.sample(grid, batch.sample_ids, seed=3, epoch=batch.epochs)
    mask = partition.mask.reshape(-1, grid.rows, grid.cols)
    return mask.repeat_interleave(patch, 1).repeat_interleave(patch, 2), partition


class TestSimMIM:
    def test_hides_whole_units_and_counts_them_up(self, simmim):
        mask, partition = hidden_pixels(simmim, inputs(), 4)
        units = mask.reshape(4, 4, 8, 4, 8)
        assert torch.equal(units.amax(dim=(2, 4)), units.amin(dim=(2, 4)))
        assert units.amax(dim=(2, 4)).sum(dim=(1, 2)).tolist() == [10] * 4  # ceil(0.6 · 16)
        assert simmim.card().realised_ratio == partition.ratio == 10 / 16

    def test_hidden_pixels_do_not_reach_the_encoder(self, simmim):
        batch = inputs()
        mask, _ = hidden_pixels(simmim, batch, 4)
        other = replace(batch, images=torch.where(mask[:, None], torch.randn_like(batch.images), batch.images))
        with torch.no_grad():
            loss, changed = (simmim(item, seed=3).per_sample for item in (batch, other))
            expected = self.loss_from_prediction(simmim, batch, other, mask)
        assert not torch.allclose(loss, changed)  # the targets changed
        torch.testing.assert_close(changed, expected)  # the predictions did not

    @staticmethod
    def loss_from_prediction(simmim, batch, other, mask):
        """The loss of predictions made from `batch` against the pixels of `other`."""
        kept = {}
        handle = simmim.head.register_forward_hook(lambda _, __, output: kept.update(prediction=output))
        simmim(batch, seed=3)
        handle.remove()
        prediction = torch.nn.functional.pixel_shuffle(kept["prediction"], 32)
        return masked_l1(prediction, other.images, mask)

    def test_visible_pixels_are_no_targets(self, simmim):
        """With a head that ignores its input, only hidden pixels move the loss."""
        batch = inputs()
        mask, _ = hidden_pixels(simmim, batch, 4)
        constant = build(SimMIMConfig(mask_unit=8, target_window=0), "swinv2_tiny").eval()
        torch.nn.init.zeros_(constant.head.weight)
        torch.nn.init.zeros_(constant.head.bias)
        with torch.no_grad():
            loss = constant(batch, seed=3).per_sample
        expected = (batch.images.abs() * mask[:, None]).sum(dim=(1, 2, 3)) / mask.sum(dim=(1, 2)) / 3
        torch.testing.assert_close(loss, expected)

    def test_gradients_reach_encoder_head_and_mask_token(self, simmim):
        simmim.zero_grad()
        simmim(inputs(), seed=3).per_sample.mean().backward()
        assert simmim.mask_token.grad.abs().sum() > 0
        assert simmim.head.weight.grad.abs().sum() > 0
        assert all(parameter.grad is not None for parameter in simmim.encoder.parameters())

    def test_wide_images_keep_their_rows_and_columns(self):
        wide = build(SimMIMConfig(mask_unit=16), "swinv2_tiny").eval()
        batch = Inputs(torch.randn(2, 3, 32, 64), torch.arange(2), torch.zeros(2, dtype=torch.int64), None)
        with torch.no_grad():
            output = wide(batch, seed=0)
        assert output.per_sample.shape == (2,)
        assert output.num_tokens == 2 * 8 * 16

    def test_settings_that_do_not_fit_are_refused(self):
        with pytest.raises(ConfigError, match="patches of hiera_tiny overlap"):
            build(SimMIMConfig(), "hiera_tiny", side=64)
        with pytest.raises(ConfigError, match="multiple of 4"):
            build(SimMIMConfig(mask_unit=6), "swinv2_tiny")
        with pytest.raises(ConfigError, match="does not tile"):
            build(SimMIMConfig(mask_unit=24), "swinv2_tiny")
        with pytest.raises(ConfigError, match="odd"):
            SimMIMConfig(target_window=8)
        with pytest.raises(ConfigError, match="mask_ratio"):
            SimMIMConfig(mask_ratio=1.0)


class TestMAE:
    def test_the_encoder_sees_kept_patches_only(self, mae):
        seen = []
        handle = mae.encoder.blocks[0].register_forward_pre_hook(lambda _, args: seen.append(args[0].shape[1]))
        with torch.no_grad():
            output = mae(inputs(), seed=3)
        handle.remove()
        assert seen == [1 + 4]  # class token, and int(16 · 0.25) patches
        assert output.num_tokens == 4 * 4

    def test_hidden_pixels_do_not_reach_the_encoder(self, mae):
        batch = inputs()
        mask, _ = hidden_pixels(mae, batch, 8)
        other = replace(batch, images=torch.where(mask[:, None], torch.randn_like(batch.images), batch.images))
        predictions = []
        handle = mae.decoder.predict.register_forward_hook(lambda _, __, output: predictions.append(output))
        with torch.no_grad():
            mae(batch, seed=3)
            mae(other, seed=3)
        handle.remove()
        torch.testing.assert_close(predictions[0], predictions[1])

    def test_the_target_is_the_hidden_patches_normalised(self, mae):
        """With predictions of zero the loss is the mean square of the normalised hidden patches: (p − 1) / p."""
        silent = build(MAEConfig(decoder_width=32, decoder_depth=1, decoder_heads=2)).eval()
        torch.nn.init.zeros_(silent.decoder.predict.weight)
        torch.nn.init.zeros_(silent.decoder.predict.bias)
        with torch.no_grad():
            loss = silent(inputs(), seed=3).per_sample
        torch.testing.assert_close(loss, torch.full((4,), 191 / 192), rtol=1e-4, atol=0)

    def test_places_of_hidden_patches_are_told_apart(self, mae):
        """Mask tokens differ by position only, so predictions for two hidden patches must differ."""
        predictions = []
        handle = mae.decoder.predict.register_forward_hook(lambda _, __, output: predictions.append(output))
        with torch.no_grad():
            mae(inputs(), seed=3)
        handle.remove()
        assert (predictions[0][:, 0] - predictions[0][:, 1]).abs().max() > 1e-3

    def test_swin_is_refused(self):
        with pytest.raises(ConfigError, match="vit encoder"):
            build(MAEConfig(), "swinv2_tiny")
        with pytest.raises(ConfigError, match="decoder_width"):
            MAEConfig(decoder_width=30, decoder_heads=4)


class TestFLIP:
    def test_half_of_the_patches_are_dropped_and_the_text_is_whole(self, flip):
        seen = []
        handle = flip.encoder.blocks[0].register_forward_pre_hook(lambda _, args: seen.append(args[0].shape[1]))
        with torch.no_grad():
            output = flip(inputs(6, captions=CAPTIONS), seed=3)
        handle.remove()
        assert seen == [1 + 8]
        assert output.num_tokens == 6 * 8

    def test_loss_against_the_definition(self, flip):
        batch = inputs(6, captions=CAPTIONS)
        with torch.no_grad():
            sides = flip.encoder.grid(32, 32)
            partition = flip.strategy.sample(Grid(*sides), batch.sample_ids, seed=3, epoch=0)
            images = flip.pair.encode_image_tokens(take(flip.encoder.embed(batch.images), partition), sides)
            texts = flip.pair.encode_text(flip.tokenizer(CAPTIONS))
            logits = images @ texts.T / 0.07
            expected = -(logits.log_softmax(1).diagonal() + logits.log_softmax(0).diagonal()) / 2
            torch.testing.assert_close(flip(batch, seed=3).per_sample, expected, rtol=1e-4, atol=1e-5)

    def test_validation_pools_do_not_depend_on_the_chunks(self, flip):
        batch = inputs(6, captions=CAPTIONS)
        with torch.no_grad():
            by_chunk = [flip.validation_losses(batch, seed=3, chunk_size=size) for size in (1, 4, 6)]
            first = replace(
                batch,
                images=batch.images[:3],
                sample_ids=batch.sample_ids[:3],
                epochs=batch.epochs[:3],
                captions=CAPTIONS[:3],
            )
            alone = flip.validation_losses(first, seed=3, chunk_size=3)
        for losses in by_chunk:
            for view in ("loss", "unmasked"):
                torch.testing.assert_close(losses[view], by_chunk[2][view], rtol=1e-5, atol=1e-6)
                torch.testing.assert_close(losses[view][:3], alone[view], rtol=1e-5, atol=1e-6)
        assert not torch.allclose(alone["loss"], alone["unmasked"])

    def test_the_temperature_is_learned_and_clipped(self, flip):
        flip.zero_grad()
        flip(inputs(6, captions=CAPTIONS), seed=3).per_sample.mean().backward()
        assert flip.pair.raw_logit_scale.grad.abs() > 0
        assert all(parameter.grad is not None for parameter in flip.parameters())
        with torch.no_grad():
            raw = flip.pair.raw_logit_scale.clone()
            flip.pair.raw_logit_scale.fill_(9.0)
            assert float(flip.pair.logit_scale.exp()) == pytest.approx(100.0)
            flip.after_update(0.5)
            assert float(flip.pair.raw_logit_scale.exp()) == pytest.approx(100.0)
            flip.pair.raw_logit_scale.copy_(raw)

    def test_positions_and_embeddings_do_not_decay(self, flip):
        exempt = flip.no_weight_decay()
        assert {"pair.text.pos_embed", "pair.encoder.cls_token"} <= exempt
        assert exempt <= {name for name, _ in flip.named_parameters()}

    def test_images_without_captions_are_refused(self, flip):
        with pytest.raises(ConfigError, match="pairs"):
            flip(inputs(), seed=0)

    def test_swin_can_be_trained_without_masking_only(self):
        with pytest.raises(ConfigError, match="mask_ratio 0"):
            build(FLIPConfig(text="text_tiny", vocab_size=60), "swinv2_tiny")
        with pytest.raises(ConfigError, match="negative_pool"):
            FLIPConfig(negative_pool=1)


@pytest.mark.parametrize("fixture", ["simmim", "mae", "flip"])
class TestEvery:
    def batch(self, fixture):
        return inputs(6, captions=CAPTIONS if fixture == "flip" else None)

    def test_masks_follow_seed_and_epoch(self, fixture, request):
        objective, batch = request.getfixturevalue(fixture), self.batch(fixture)
        with torch.no_grad():
            one, same = (objective(batch, seed=1).per_sample for _ in range(2))
            other_seed = objective(batch, seed=2).per_sample
            other_epoch = objective(replace(batch, epochs=batch.epochs + 1), seed=1).per_sample
        assert torch.equal(one, same)
        assert not torch.allclose(one, other_seed)
        assert not torch.allclose(one, other_epoch)

    def test_heads_are_everything_but_the_encoder(self, fixture, request):
        objective = request.getfixturevalue(fixture)
        heads = objective.heads()
        assert len(heads) + len(objective.encoder.state_dict()) == len(objective.state_dict())
        assert all(name.startswith("pair." if fixture == "flip" else "objective.") for name in heads)
        zeros = {name: torch.zeros_like(value) for name, value in heads.items()}
        before = {name: value.clone() for name, value in heads.items()}
        objective.load_heads(zeros)
        assert all(not value.any() for value in objective.heads().values())
        objective.load_heads(before)
        with pytest.raises(ConfigError, match="do not fit"):
            objective.load_heads({**before, "objective.more": torch.zeros(1)})


@pytest.mark.parametrize("off", [None, "hidden_cells", "running_sums"])
@pytest.mark.parametrize("unit", [32, 16])
def test_optimisations_of_simmim_change_neither_loss_nor_gradients(off, unit):
    """At 64 x 96 pixels final cells are 2 x 3; units of 16 pixels hide parts of them, and all cells are decoded."""
    objective = build(SimMIMConfig(mask_unit=unit, target_window=9), "swinv2_tiny", side=64).train()
    with torch.no_grad():
        for parameter in objective.parameters():  # SwinV2's last norms begin at zero
            parameter.add_(0.1 * torch.randn_like(parameter))
    images = inputs().images.repeat(1, 1, 2, 3)
    batch = replace(inputs(), images=images + 0.1 * torch.randn_like(images))
    results = []
    for names in ((), set(objective.OPTIMISATIONS) - {off}):
        objective.set_optimisations(names)
        objective.encoder.set_optimisations(set(objective.encoder.OPTIMISATIONS) if names else ())
        objective.zero_grad()
        loss = objective(batch, seed=3).per_sample
        loss.mean().backward()
        results.append([loss.detach(), *(parameter.grad.clone() for parameter in objective.parameters())])
    for fast, slow in zip(results[1], results[0], strict=True):
        scale = slow.abs().max()
        torch.testing.assert_close(fast / scale, slow / scale, atol=2e-5, rtol=0)


def test_hidden_cells_alone_are_decoded():
    objective, seen = build(SimMIMConfig(target_window=0), "swinv2_tiny", side=64), []
    plain = objective.encoder.encode_at
    objective.encoder.encode_at = lambda *given: seen.append(plain(*given).shape) or plain(*given)
    batch = inputs(side=64)
    objective(batch, seed=3)
    objective.set_optimisations(["running_sums"])
    objective(batch, seed=3)
    assert seen == [(4, 3, 256)]  # 3 = ceil(0.6 · 4) hidden cells, in the first of the two runs


def test_unknown_optimisations_are_refused():
    objective = build(SimMIMConfig(), "swinv2_tiny")
    assert objective.optimisations == {"running_sums", "hidden_cells"}
    with pytest.raises(ConfigError, match=r"no optimisations \['warp'\]; it has: running_sums, hidden_cells"):
        objective.set_optimisations(["warp"])
