"""The validation loss depends on the model, the images and the frozen masks, and on nothing else."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from unveil_pretrain.data import ImageDataset, ShardDataset
from unveil_pretrain.errors import ConfigError
from unveil_pretrain.record import RunFolder
from unveil_pretrain.run import assemble
from unveil_pretrain.sources import open_data
from unveil_pretrain.validate import KeyOrder, evaluate, summarise


@pytest.fixture
def run_of(tmp_path, shards):
    def make(config):
        data = open_data(config, train_data=shards[0], val_data=shards[1])
        return assemble(config, data, RunFolder(tmp_path), None, device=torch.device("cpu"), num_workers=0)[0]

    return make


def test_mean_and_standard_error_by_hand():
    score = summarise(torch.tensor([1.0, 2.0, 6.0], dtype=torch.float64))
    assert score.loss == 3.0
    assert score.standard_error == pytest.approx(math.sqrt(7.0 / 3.0))  # variance (4 + 1 + 9) / 2 = 7
    assert score.num_images == 3
    assert summarise(torch.tensor([5.0])).standard_error == 0.0


@pytest.mark.parametrize("kind", ["simmim_config", "flip_config"])
def test_the_loss_does_not_depend_on_the_batch_size(kind, request, run_of):
    run = run_of(request.getfixturevalue(kind))
    scores = [
        evaluate(run.objective, replace(run.validation, batch_size=size), run.normalise, bfloat16=False)
        for size in (1, 3, 10)
    ]
    for score in scores:
        for view in score:
            assert score[view].loss == pytest.approx(scores[0][view].loss, rel=1e-6)
            assert score[view].standard_error == pytest.approx(scores[0][view].standard_error, rel=1e-5)
    assert scores[0]["loss"].num_images == (10 if kind == "simmim_config" else 8)  # two pools of 4 of 10 pairs
    assert set(scores[0]) == ({"loss"} if kind == "simmim_config" else {"loss", "unmasked"})


def test_the_loss_does_not_depend_on_the_order_or_number_of_shards(flip_config, shards, shard_writer, tmp_path, run_of):
    whole = ShardDataset(shards[1])
    files = {
        key: {extension: whole.read(index)[extension] for extension in whole.extensions(index)}
        for index, key in enumerate(whole.keys)
    }
    keys = list(files)
    shard_writer(tmp_path / "b.tar", {key: files[key] for key in reversed(keys[:5])})
    shard_writer(tmp_path / "a.tar", {key: files[key] for key in keys[5:]})
    run = run_of(flip_config)
    moved = open_data(flip_config, train_data=shards[0], val_data=str(tmp_path / "{a,b}.tar")).val
    order = replace(run.validation, samples=KeyOrder(moved, multiple_of=4))
    here, there = (evaluate(run.objective, item, run.normalise, bfloat16=False) for item in (run.validation, order))
    assert here == there


def test_validation_leaves_the_model_as_it_was(simmim_config, run_of):
    run = run_of(simmim_config)
    before = {name: value.clone() for name, value in run.objective.state_dict().items()}
    first = evaluate(run.objective, run.validation, run.normalise, bfloat16=False)
    assert run.objective.training
    assert first == evaluate(run.objective, run.validation, run.normalise, bfloat16=False)  # no stochastic depth
    assert all(torch.equal(value, before[name]) for name, value in run.objective.state_dict().items())
    assert all(parameter.grad is None for parameter in run.objective.parameters())


def test_another_mask_seed_gives_another_loss_and_another_passport(simmim_config, run_of):
    run, other = run_of(simmim_config), run_of(replace(simmim_config, val_mask_seed=5))
    losses = [
        evaluate(item.objective, item.validation, item.normalise, bfloat16=False)["loss"] for item in (run, other)
    ]
    assert losses[0].loss != losses[1].loss
    assert run.passport.first_difference(other.passport) == "mask_seed"


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"val_images": 6}, "images_hash"),
        ({"precision": "bfloat16"}, "dtype"),
        ({"image_size": (32, 64)}, "image_size"),
    ],
)
def test_passports_differ_in_what_was_changed(simmim_config, run_of, change, field):
    difference = run_of(simmim_config).passport.first_difference(run_of(replace(simmim_config, **change)).passport)
    assert difference == field


def test_settings_of_training_do_not_change_the_passport(simmim_config, run_of):
    changed = replace(simmim_config, steps=9, batch_size=4, base_lr=1.0, num_unique=8, seed=3)
    assert run_of(simmim_config).passport.hash == run_of(changed).passport.hash


def test_bfloat16_is_close_and_finite(simmim_config, run_of):
    run = run_of(simmim_config)
    exact, low = (evaluate(run.objective, run.validation, run.normalise, bfloat16=flag) for flag in (False, True))
    assert low["loss"].loss == pytest.approx(exact["loss"].loss, rel=0.02)
    assert low["loss"].loss != exact["loss"].loss


def test_the_gap_scores_training_images_of_the_subset(simmim_config, run_of):
    run = run_of(replace(simmim_config, num_unique=5))
    assert run.gap is not None
    assert set(run.gap.samples.sample_ids.tolist()) == set(run.data.train.sample_ids.tolist())


def test_too_few_training_pairs_for_a_pool_leave_the_gap_out(flip_config, run_of):
    assert run_of(replace(flip_config, num_unique=3)).gap is None
    assert run_of(replace(flip_config, gap_images=0)).gap is None


def test_too_few_validation_pairs_for_a_pool_are_refused(flip_config, run_of):
    objective = replace(flip_config.objective, negative_pool=11)
    with pytest.raises(ConfigError, match="pool of at most 10"):
        run_of(replace(flip_config, objective=objective))


def test_key_order_is_that_of_the_keys(shards):
    data = ImageDataset(ShardDataset(shards[1]), image_size=(32, 32))
    order = KeyOrder(data, multiple_of=4)
    assert len(order) == 8
    assert np.array_equal(order.sample_ids, data.sample_ids[:8])  # the shard is written in key order
    assert order.content_hash != KeyOrder(data, multiple_of=5).content_hash
