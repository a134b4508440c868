"""Runs of the objectives with more than encoder and head: teachers, vocabularies and contrasts live through them."""

import json
from dataclasses import replace

import pytest
import torch
from unveil_backbones import load
from unveil_pretrain import loop
from unveil_pretrain.errors import ConfigError
from unveil_pretrain.loop import train
from unveil_pretrain.objectives.beit import BEiTConfig
from unveil_pretrain.objectives.ijepa import IJEPAConfig
from unveil_pretrain.objectives.sparse_simmim import SparseSimMIMConfig
from unveil_pretrain.objectives.splitmask import SplitMaskConfig

OBJECTIVES = {
    "beit": BEiTConfig(min_block=2, vocab_size=20),
    "splitmask": SplitMaskConfig(vocab_size=20, decoder_width=32, decoder_heads=2, negative_pool=5),
    "ijepa": IJEPAConfig(predictor_width=32, predictor_depth=1, predictor_heads=2, momentum=0.5),
    "sparse_simmim": SparseSimMIMConfig(target_window=5, decoder_width=32, decoder_heads=2),
}


@pytest.fixture
def run(mae_config, shards, tmp_path):
    def run(name, out, **given):
        config = replace(
            mae_config,
            objective=OBJECTIVES[name],
            steps=4,
            batch_size=6,
            drop_path=0.1,
            checkpoint_every=2,
            val_images=10,
            gap_images=10,
        )
        if name == "sparse_simmim":
            config = replace(config, encoder="swinv2_tiny", image_size=(64, 64))
        return train(
            config, out=tmp_path / out, train_data=shards[0], val_data=shards[1], log=lambda _: None, device="cpu",
            progress=False, loggers=(), **given,
        )  # fmt: skip

    return run


@pytest.mark.parametrize("name", OBJECTIVES)
def test_an_interrupted_run_continues_to_the_same_bits(name, run, monkeypatch):
    """Teacher and vocabulary come back from the heads; the vocabulary is not drawn again."""
    whole = load(run(name, "whole"))
    plain, steps = loop.train_step, []

    def stops(*given):
        steps.append(1)
        if len(steps) == 4:
            raise KeyboardInterrupt
        return plain(*given)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "train_step", stops)
        with pytest.raises(KeyboardInterrupt):
            run(name, "cut")
    with monkeypatch.context() as patch:
        patch.setattr("unveil_pretrain.patch_vocabulary.draw_vocabulary", None)
        again = load(run(name, "cut"))
    assert again.manifest.step == whole.manifest.step == 4
    for key, value in whole.heads.items():
        assert torch.equal(again.heads[key], value), key
    encoders = (checkpoint.encoder.state_dict() for checkpoint in (whole, again))
    for (key, value), other in zip(next(encoders).items(), next(encoders).values(), strict=True):
        assert torch.equal(value, other), key
    assert again.manifest.passport == whole.manifest.passport


@pytest.mark.parametrize("name", ["splitmask", "ijepa"])
def test_parts_of_a_batch_are_the_whole_batch(name, run):
    """The first losses and gradients; later ones differ by the rounding that AdamW makes of gradients near zero."""
    rows = []
    for size in (0, 4):
        folder = run(name, f"micro{size}", micro_batch_size=size).parents[1]
        rows.append(json.loads((folder / "metrics.jsonl").read_text().splitlines()[0]))
    for key in ("loss", "grad_norm"):
        assert rows[0][key] == pytest.approx(rows[1][key], rel=1e-4), key


def test_a_vocabulary_that_the_data_cannot_fill_is_refused_in_one_line(run, monkeypatch):
    monkeypatch.setitem(OBJECTIVES, "beit", BEiTConfig(vocab_size=5000))
    with pytest.raises(ConfigError, match="vocab_size is 5000, but 24 training images give"):
        run("beit", "large")
