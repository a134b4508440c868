"""Unmasked tuning: begins with another run's weights, says so, and resumes like any run."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from unveil_backbones import load
from unveil_pretrain.cli import main
from unveil_pretrain.errors import ConfigError, DivergedError, ResumeError
from unveil_pretrain.loop import train
from unveil_pretrain.objectives.flip import FLIP
from unveil_pretrain.recipes import FLIP_RECIPES, SCALING_AXES, flip_b16, tiny_clip, tiny_flip, tiny_flip75, unmasked
from unveil_pretrain.recipes.flip import FLIP_CELLS
from unveil_pretrain.replay import replay


def run(config, out, shards, **settings):
    train_data, val_data = shards
    return train(
        config, out=out, train_data=train_data, val_data=val_data, log=lambda _: None, device="cpu", progress=False,
        loggers=(), **settings,
    )  # fmt: skip


@pytest.fixture(scope="module")
def before(flip_config, shards, tmp_path_factory):
    """A masked run with a reconstruction head, which the stage leaves behind."""
    objective = replace(
        flip_config.objective, reconstruction_weight=0.5, decoder_width=16, decoder_depth=1, decoder_heads=2
    )
    return run(replace(flip_config, objective=objective), tmp_path_factory.mktemp("masked") / "run", shards)


@pytest.fixture(scope="module")
def stage(flip_config):
    return replace(unmasked(flip_config), steps=4, warmup_steps=1, validate_every=2, checkpoint_every=2)


@pytest.fixture(scope="module")
def tuned(before, stage, shards, tmp_path_factory):
    return run(stage, tmp_path_factory.mktemp("tuned") / "run", shards, initial=before)


class TestTuning:
    def test_begins_with_the_weights_and_a_fresh_optimiser(self, before, stage, shards, tmp_path):
        """One step of a tiny rate leaves the weights where they were."""
        still = replace(stage, steps=1, base_lr=1e-12, warmup_steps=0, weight_decay=0.0)
        after = load(run(still, tmp_path / "run", shards, initial=before))
        source = load(before)
        for name, value in source.encoder.state_dict().items():
            torch.testing.assert_close(after.encoder.state_dict()[name], value, rtol=0, atol=1e-9)
        assert after.heads.keys() == {name for name in source.heads if not name.startswith("objective.")}
        assert after.tokenizer_json == source.tokenizer_json
        assert after.manifest.step == 1

    def test_the_source_is_part_of_the_run_and_of_its_checkpoints(self, before, tuned):
        source = load(before).sha256
        assert load(tuned).manifest.initial == source
        assert load(before).manifest.initial is None
        assert json.loads((tuned.parents[1] / "run.json").read_text())["identity"]["initial"] == source

    def test_sees_whole_images(self, tuned):
        manifest = load(tuned).manifest
        assert manifest.realised_ratio == 0.0
        assert manifest.tokens_seen == manifest.samples_seen * 16

    def test_continues_after_an_interruption(self, before, stage, tuned, shards, tmp_path, monkeypatch):
        from unveil_pretrain import loop

        right, calls = loop.train_step, []

        def interrupted(*given):
            calls.append(1)
            if len(calls) == 4:
                raise KeyboardInterrupt
            return right(*given)

        monkeypatch.setattr(loop, "train_step", interrupted)
        out = tmp_path / "run"
        with pytest.raises(KeyboardInterrupt):
            run(stage, out, shards, initial=before)
        monkeypatch.undo()
        again, whole = load(run(stage, out, shards, initial=before)), load(tuned)
        for name, value in whole.encoder.state_dict().items():
            assert torch.equal(again.encoder.state_dict()[name], value), name
        for name, value in whole.heads.items():
            assert torch.equal(again.heads[name], value), name

    def test_another_source_is_another_run(self, stage, tuned, shards):
        with pytest.raises(ResumeError, match="initial"):
            run(stage, tuned.parents[1], shards)

    def test_another_encoder_is_refused_by_name(self, before, stage, shards, tmp_path):
        with pytest.raises(ConfigError, match=r"encoder.*(depth|width)"):
            run(replace(stage, encoder="vit_ti16"), tmp_path / "run", shards, initial=before)

    def test_another_text_tower_is_refused_by_name(self, before, stage, shards, tmp_path):
        other = replace(stage, objective=replace(stage.objective, attend_padding=False))
        with pytest.raises(ConfigError, match="text tower"):
            run(other, tmp_path / "run", shards, initial=before)

    def test_a_missing_head_is_refused_by_name(self, before, stage, shards, tmp_path):
        other = replace(stage, objective=replace(stage.objective, loss="sigmoid"))
        with pytest.raises(ConfigError, match=r"objective\.logit_bias"):
            run(other, tmp_path / "run", shards, initial=before)

    def test_another_resolution_is_no_other_encoder(self, before, stage, shards, tmp_path):
        larger = replace(stage, image_size=(64, 64), steps=1)
        assert load(run(larger, tmp_path / "run", shards, initial=before)).manifest.preprocessing.image_size == (64, 64)


class TestCommand:
    def line(self, capsys, *flags):
        with pytest.raises(SystemExit) as stop:
            main(["flip", "tiny_flip", *map(str, flags)])
        assert stop.value.code == 2
        return capsys.readouterr().err

    def test_the_stage_needs_a_checkpoint(self, capsys, shards, tmp_path):
        where = ("--out", tmp_path / "run", "--train-data", shards[0], "--val-data", shards[1])
        assert "--from" in self.line(capsys, *where, "--stage", "unmasked")

    def test_flags_win_over_the_stages_defaults(self, monkeypatch, tmp_path):
        from unveil_pretrain.commands import flip

        seen = []
        monkeypatch.setattr(
            flip, "start", lambda config, place, command, *, initial: seen.append((config, initial)) or 0
        )
        flags = ["--out", "o", "--train-data", "t", "--val-data", "v", "--from", "c", "--stage", "unmasked"]
        flip.run(["tiny_flip", *flags, "--steps", "7"])
        config, initial = seen[0]
        assert (config.steps, config.objective.mask_ratio, str(initial)) == (7, 0.0, "c")
        assert config.base_lr == unmasked(tiny_flip()).base_lr


class TestRecipes:
    def test_the_papers_cells(self):
        """Tables 9 and 10: 2 kinds × 3 models × 2 data sets × 4 lengths."""
        assert len(FLIP_CELLS) == 48
        cell = FLIP_CELLS["flip_l16_laion2b_12.8b"]()
        assert (cell.encoder, cell.objective.text, cell.objective.embed_dim) == ("vit_l16", "text_l", 768)
        assert (cell.base_lr, cell.batch_size, cell.weight_decay, cell.betas) == (2e-6, 65_536, 0.2, (0.9, 0.95))
        assert cell.steps * cell.batch_size == pytest.approx(12.8e9, rel=1e-5)
        assert cell.warmup_steps * cell.batch_size == pytest.approx(51.2e6, rel=1e-3)
        assert cell.lr == pytest.approx(5.12e-4, rel=1e-3)
        assert flip_b16().lr == pytest.approx(1.02e-3, rel=5e-3)
        huge = FLIP_CELLS["flip_h14_laion400m_12.8b"]()
        assert huge.warmup_steps * huge.batch_size == pytest.approx(256e6, rel=1e-3)
        clip = FLIP_CELLS["clip_l16_laion400m_2.56b"]()
        assert (clip.objective.mask_ratio, clip.batch_size) == (0.0, 16_384)
        assert clip.lr == pytest.approx(2.6e-4, rel=0.02)

    def test_the_papers_tuning(self):
        tuning = unmasked(flip_b16())
        assert tuning.base_lr == pytest.approx(4e-8)
        assert tuning.steps * tuning.batch_size == pytest.approx(128e6, rel=1e-3)
        assert tuning.warmup_steps * tuning.batch_size == pytest.approx(25.6e6, rel=3e-3)
        assert tuning.objective.mask_ratio == 0.0

    def test_the_axes_of_scaling_change_one_thing_each(self):
        base, *others = (FLIP_RECIPES[name]() for name in SCALING_AXES.values())
        by_name = dict(zip(list(SCALING_AXES)[1:], others, strict=True))
        assert by_name["model"].encoder != base.encoder
        assert by_name["data"] == replace(base, base_lr=2e-6)
        assert by_name["schedule"] == replace(base, steps=by_name["schedule"].steps)
        assert by_name["all"].encoder == by_name["model"].encoder
        assert by_name["all"].steps == by_name["schedule"].steps

    def test_the_tiny_recipes_show_as_many_samples(self):
        recipes = (tiny_clip(), tiny_flip(), tiny_flip75())
        assert len({recipe.steps * recipe.batch_size for recipe in recipes}) == 1
        assert [recipe.objective.mask_ratio for recipe in recipes] == [0.0, 0.5, 0.75]


def test_a_failure_before_the_first_checkpoint_is_computed_again(before, stage, shards, tmp_path, monkeypatch):
    """The replay needs the vocabulary of the run that this one began with: it is found where run.json says."""
    source, out = tmp_path / "source", tmp_path / "run"
    shutil.copytree(before, source)
    forward = FLIP.encode_samples

    def poisoned(self, inputs, *, seed):
        return forward(self, replace(inputs, images=inputs.images * torch.nan), seed=seed)

    with monkeypatch.context() as patch:
        patch.setattr(FLIP, "encode_samples", poisoned)
        with pytest.raises(DivergedError, match="step 0"):
            run(replace(stage, gap_images=0), out, shards, initial=source)
        assert replay(out, device=torch.device("cpu")).failed_again
    found = replay(out, device=torch.device("cpu"))
    assert (found.step, found.exact, found.failed_again) == (0, True, False)
    source.rename(tmp_path / "elsewhere")
    with pytest.raises(ResumeError, match=r"began with .*source, which cannot be loaded .*put it back"):
        replay(out, device=torch.device("cpu"))
    record = json.loads((out / "run.json").read_text())
    (out / "run.json").write_text(json.dumps({**record, "initial": str(tmp_path / "elsewhere"), "identity": {
        **record["identity"], "initial": "0" * 64,
    }}))  # fmt: skip
    with pytest.raises(ResumeError, match="put the first back"):
        replay(out, device=torch.device("cpu"))
    del record["initial"]
    (out / "run.json").write_text(json.dumps(record))
    with pytest.raises(ResumeError, match=r"run\.json does not say where that is"):
        replay(out, device=torch.device("cpu"))
