"""The validation loss depends on the model, the images and the frozen masks, and on nothing else."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from unveil_pretrain.data import ImageDataset, ShardDataset, val_batches
from unveil_pretrain.errors import ConfigError, DivergedError
from unveil_pretrain.objectives.base import Scored
from unveil_pretrain.objectives.simmim import SimMIM
from unveil_pretrain.record import RunFolder
from unveil_pretrain.run import assemble
from unveil_pretrain.scoring import count_validations, record_validation
from unveil_pretrain.sources import open_data
from unveil_pretrain.train_state import Position
from unveil_pretrain.val_table import read_losses
from unveil_pretrain.validate import KeyOrder, evaluate, summarise


def assert_same(here, there):
    assert here.keys() == there.keys()
    for view, values in here.items():
        assert np.array_equal(values, there[view]), view


@pytest.fixture
def run_of(tmp_path, shards):
    def make(config):
        data = open_data(config, train_data=shards[0], val_data=shards[1])
        return assemble(config, data, RunFolder(tmp_path), None, device=torch.device("cpu"), num_workers=0)[0]

    return make


def score(run, validation=None):
    return evaluate(run.objective, validation or run.validation, run.normalise, bfloat16=False)


def test_mean_and_standard_error_by_hand():
    found = summarise(np.array([1.0, 2.0, 6.0]))
    assert found.loss == 3.0
    assert found.standard_error == pytest.approx(math.sqrt(7.0 / 3.0))  # variance (4 + 1 + 9) / 2 = 7
    assert found.num_images == 3
    assert summarise(np.array([5.0])).standard_error == 0.0


def test_images_that_share_negatives_count_as_one_where_there_are_enough_pools():
    """Ten pools of two whose means are 0 ... 9: variance 82.5 / 9; nine pools say too little of their spread."""
    values = np.repeat(np.arange(10.0), 2) + np.tile([-0.25, 0.25], 10)
    pools = np.arange(20) // 2
    assert summarise(values, pools).standard_error == pytest.approx(math.sqrt(82.5 / 9 / 10))
    assert summarise(values, pools).num_images == 20
    fewer = summarise(values[:18], pools[:18])
    assert fewer.standard_error == pytest.approx(values[:18].std(ddof=1) / math.sqrt(18))


@pytest.mark.parametrize("kind", ["simmim_config", "flip_config"])
def test_the_loss_does_not_depend_on_the_batch_size(kind, request, run_of):
    run = run_of(request.getfixturevalue(kind))
    scores = [score(run, replace(run.validation, batch_size=size)).scores() for size in (1, 3, 10)]
    for one in scores:
        for view in one:
            assert one[view].loss == pytest.approx(scores[0][view].loss, rel=1e-6)
            assert one[view].standard_error == pytest.approx(scores[0][view].standard_error, rel=1e-5)
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
    here, there = (score(run, item) for item in (run.validation, order))
    assert here.keys == there.keys
    assert_same(here.losses, there.losses)


def test_validation_leaves_the_model_as_it_was(simmim_config, run_of):
    run = run_of(simmim_config)
    before = {name: value.clone() for name, value in run.objective.state_dict().items()}
    first = score(run)
    assert run.objective.training
    assert_same(first.losses, score(run).losses)  # no stochastic depth
    assert all(torch.equal(value, before[name]) for name, value in run.objective.state_dict().items())
    assert all(parameter.grad is None for parameter in run.objective.parameters())


def test_another_mask_seed_gives_another_loss_and_another_passport(simmim_config, run_of):
    run, other = run_of(simmim_config), run_of(replace(simmim_config, val_mask_seed=5))
    assert score(run).score().loss != score(other).score().loss
    assert run.passport.first_difference(other.passport) == "mask_seed"


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"val_images": 6}, "images_hash"),
        ({"precision": "bfloat16"}, "dtype"),
        ({"image_size": (32, 64)}, "image_size"),
        ({"val_masks": 2}, "num_masks"),
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
    exact, low = (
        evaluate(run.objective, run.validation, run.normalise, bfloat16=flag).score().loss for flag in (False, True)
    )
    assert low == pytest.approx(exact, rel=0.02)
    assert low != exact


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


def test_the_loss_of_an_image_is_the_mean_over_its_masks(simmim_config, run_of):
    """Mask j is that of epoch key j: seen by scoring the images under each of them alone."""
    run = run_of(replace(simmim_config, val_masks=3))
    inputs = run.normalise(next(val_batches(run.validation.samples, batch_size=10)))
    run.objective.eval()
    with torch.no_grad():
        singles = [
            run.objective(replace(inputs, epochs=torch.full_like(inputs.epochs, draw)), seed=1_000_003).per_sample
            for draw in range(3)
        ]
    found = score(run, replace(run.validation, batch_size=10)).losses["loss"]
    assert np.allclose(found, torch.stack(singles).double().mean(0).numpy(), rtol=1e-6)
    assert not np.allclose(found, singles[0].numpy(), rtol=1e-3)
    assert run.passport.num_masks == 3


class WithSetScores(SimMIM):
    """Says of every sample whether its loss is above the median, which takes the whole set to know."""

    def score_samples(self, inputs, *, seed, chunk_size):
        losses = self.validation_losses(inputs, seed=seed, chunk_size=chunk_size)
        views = {"epoch": inputs.epochs.double()} if int(inputs.epochs[0]) == 0 else {}
        return Scored(losses={**losses, **views}, rows={"loss": losses["loss"][:, None]})

    def set_scores(self, rows):
        losses = rows["loss"][:, 0]
        return {"above_median": (losses > losses.median()).float()}


def test_scores_over_the_whole_set_are_kept_and_recorded(simmim_config, run_of, tmp_path):
    run = run_of(replace(simmim_config, val_masks=2))
    run.objective.__class__ = WithSetScores
    found = evaluate(run.objective, run.validation, run.normalise, bfloat16=False, set_scores=True)
    assert found.set_scores["above_median"].sum() == 5  # of 10; the median is the lower one of the middle
    assert found.losses["epoch"].tolist() == [0.0] * 10  # a view that only the first mask gives
    assert score(run).set_scores == {}
    record_validation(run, Position(step=2, samples_seen=10))
    (row,) = (json.loads(line) for line in (tmp_path / "val.jsonl").read_text().splitlines())
    assert row["above_median"] == 0.5
    assert row["above_median_standard_error"] == pytest.approx(math.sqrt(10 / 9 * 0.25 / 10))
    assert read_losses(tmp_path, 2, view="above_median").values.sum() == 5


def test_a_row_says_what_its_table_holds(flip_config, run_of, tmp_path):
    run = run_of(flip_config)
    record_validation(run, Position(step=2, samples_seen=12))
    (row,) = (json.loads(line) for line in (tmp_path / "val.jsonl").read_text().splitlines())
    masked, whole = (read_losses(tmp_path, 2, view=view).values for view in ("loss", "unmasked"))
    train = read_losses(tmp_path, 2, split="train").values
    assert (row["step"], row["samples_seen"], row["epochs"], row["alarm"]) == (2, 12, 0.5, None)
    assert row["loss"] == masked.mean()
    assert row["unmasked_gap"] == pytest.approx((masked - whole).mean(), abs=1e-15)
    assert row["unmasked_gap_standard_error"] == pytest.approx((masked - whole).std(ddof=1) / math.sqrt(8))
    assert row["gap"] == row["loss"] - train.mean()
    assert row["gap_standard_error"] == pytest.approx(math.hypot(row["standard_error"], row["train_standard_error"]))
    assert row["passport"] == run.passport.hash
    kept = read_losses(tmp_path, 2)
    assert kept.passport == run.passport
    assert kept.keys == tuple(f"{number:06d}" for number in range(100, 108))
    assert kept.groups.tolist() == [0, 0, 0, 0, 1, 1, 1, 1]


def test_a_loss_that_is_no_number_is_not_recorded(simmim_config, run_of, tmp_path):
    run = run_of(simmim_config)
    with torch.no_grad():
        run.objective.mask_token.fill_(math.nan)
    with pytest.raises(DivergedError, match="validation loss is not finite at step 4"):
        record_validation(run, Position(step=4))
    assert not (tmp_path / "val.jsonl").exists()
    assert not (tmp_path / "val").exists()


@pytest.mark.parametrize(
    ("steps", "every", "checkpoint"), [(6, 2, 3), (6, 4, 0), (7, 2, 0), (10, 5, 5), (9, 10, 4), (12, 4, 6)]
)
def test_the_number_of_validations_of_a_run(simmim_config, steps, every, checkpoint):
    config = replace(simmim_config, steps=steps, validate_every=every, checkpoint_every=checkpoint)
    done = [
        step
        for step in range(1, steps + 1)
        if step == steps or step % every == 0 or (checkpoint > 0 and step % checkpoint == 0)
    ]
    assert count_validations(config) == len(done)


SHARED = """
import json
import sys
from dataclasses import replace
from pathlib import Path
import torch
from unveil_pretrain import recipes
from unveil_pretrain.errors import DataError
from unveil_pretrain.record import RunFolder
from unveil_pretrain.run import assemble
from unveil_pretrain.sources import open_data
from unveil_pretrain.validate import evaluate
from unveil_pretrain.world import joined, world_of_environment

def losses(kind, batch_size, *, damaged=()):
    config = replace(getattr(recipes, kind)(), image_size=(32, 32), batch_size=batch_size, gap_images=8)
    if kind == "tiny_flip":
        config = replace(config, objective=replace(config.objective, negative_pool=2, vocab_size=64))
    data = open_data(config, train_data=sys.argv[1], val_data=sys.argv[2])
    run = assemble(config, data, RunFolder(Path("nowhere")), None, device=device, world=world)[0]
    if world.rank in damaged:
        def refuse(index):
            raise DataError("damaged")
        data.val.val_example = refuse
    found = evaluate(run.objective, run.validation, run.normalise, bfloat16=False, world=world)
    return {view: values.tolist() for view, values in found.losses.items()}

device = torch.device("cpu")
with joined(world_of_environment(), device) as world:
    said = [losses("tiny_mae", 2), losses("tiny_flip", 4), losses("tiny_mae", 10)]
    try:
        said.append(losses("tiny_mae", 2, damaged=[1]))
    except DataError as error:
        said.append(str(error))
    print(json.dumps(said))
"""


def test_several_processes_give_the_losses_of_one_bit_for_bit(shards, in_processes):
    """Five batches for two processes; three; and a single one, which leaves a process without. Then a damaged image."""
    (one,), two = ([json.loads(said) for said in in_processes(num, SHARED, *shards)] for num in (1, 2))
    assert two[0][:3] == two[1][:3] == one[:3]
    assert [len(losses["loss"]) for losses in one[:3]] == [10, 10, 10]
    assert [said[3] for said in two] == ["damaged", "damaged"]  # also in the process that could read its own
    assert one[3] == one[0]
