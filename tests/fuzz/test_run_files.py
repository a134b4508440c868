"""Files of a run of `pretrain`, of plans and of sweeps, and the small languages of its options."""

import json
import shutil
from pathlib import Path

import pytest
from fuzzing import NUM_SLOW, Parser, Place, file_parser, fuzz, in_parts, tree_of
from mutations import mutated_bytes, mutated_json, mutated_text, mutated_tree, mutated_words
from unveil_pretrain.ablation.cells import parse_shape
from unveil_pretrain.commands.flip_eval import _with_spaces
from unveil_pretrain.commands.open_clip_flags import from_open_clip
from unveil_pretrain.comparison import compare_losses
from unveil_pretrain.config import config_to_json
from unveil_pretrain.history import read_history
from unveil_pretrain.planning.plans import read_plan
from unveil_pretrain.planning.speed import measure
from unveil_pretrain.recipes import FLIP_RECIPES, MIM_RECIPES
from unveil_pretrain.record import RunFolder
from unveil_pretrain.replay import _failure
from unveil_pretrain.status import curves_csv, status_of, words_of
from unveil_pretrain.stored_config import config_from_json, config_of_run
from unveil_pretrain.sweeping.folder import SweepFolder
from unveil_pretrain.sweeping.table import read_rows, table, write_summary
from unveil_pretrain.val_table import read_losses


def _json_lines(random, rows):
    """A .jsonl file of damaged rows; the last one may be torn."""
    changed = mutated_tree(random, rows)
    if not isinstance(changed, list):
        return mutated_json(random, rows)
    lines = [json.dumps(row).encode("utf-8", "surrogatepass") for row in changed]
    content = b"\n".join(lines) + b"\n" * random.randint(0, 1)
    return content if random.randint(0, 3) else mutated_bytes(random, content)


def _run_file(place: Place, name: str) -> Parser:
    """One file of a run's folder, by way of everything that shows a run.

    Without the losses of the images, whose two tables took three quarters of the time: `losses_of_images` reads them.
    """
    run = _run_without_tables(place)
    tree = tree_of(run / name)

    def read():
        words = words_of(status_of(run, price_per_hour=2.0))
        curves_csv(run)
        if name in ("run.json", "metrics.jsonl", "cost.jsonl"):
            measure(run)
        return words

    make = _json_lines if name.endswith(".jsonl") else mutated_json
    return file_parser(run / name, lambda random: make(random, tree), read, num_fast=20)


def _run_without_tables(place: Place) -> Path:
    run = place.scratch / "run"
    shutil.copytree(place.good / "image" / "run", run, ignore=shutil.ignore_patterns("*.parquet"))
    return run


def status_of_run_json(place: Place) -> Parser:
    return _run_file(place, "run.json")


def status_of_metrics(place: Place) -> Parser:
    return _run_file(place, "metrics.jsonl")


def status_of_validations(place: Place) -> Parser:
    return _run_file(place, "val.jsonl")


def status_of_costs(place: Place) -> Parser:
    return _run_file(place, "cost.jsonl")


def failure(place: Place) -> Parser:
    run = _run_without_tables(place)
    tree = {"step": 3, "what": "the loss is not finite", "sample_ids": [1, 2], "losses": [None, 1.0],
            "last_checkpoint": "step_00000002", "weights": None}  # fmt: skip

    def read():
        read_history(run)
        words_of(status_of(run))
        return _failure(run)

    return file_parser(run / "failure.json", lambda random: mutated_json(random, tree), read, num_fast=20)


def record_of_a_run(place: Place) -> Parser:
    """What a run reads of its own folder before it goes on."""
    run = place.scratch / "run"
    shutil.copytree(place.good / "image" / "run", run)
    whole = {name: (run / name).read_bytes() for name in ("run.json", "metrics.jsonl", "val.jsonl", "cost.jsonl")}
    trees = {name: tree_of(run / name) for name in whole}

    def make(random):
        name = random.choice(sorted(whole))
        return name, (_json_lines if name.endswith("l") else mutated_json)(random, trees[name])

    def read(given):
        name, content = given
        for other, good in whole.items():
            (run / other).write_bytes(content if other == name else good)
        folder = RunFolder(run)
        folder.claim(trees["run.json"]["identity"], {})
        folder.rewind(2)
        for aside in run.glob("*.damaged*"):
            aside.unlink()
        folder.losses()
        folder.caption_changes()
        folder.num_skipped()

    return Parser(make=make, read=read, num_fast=40)


def settings_of_a_run(place: Place) -> Parser:
    """`config_of_run`, and the settings as JSON again."""
    configs = [MIM_RECIPES["tiny_mae"](), MIM_RECIPES["tiny_simmim"](), FLIP_RECIPES["tiny_flip"]()]
    trees = [json.loads(json.dumps(config_to_json(config))) for config in configs]

    def make(random):
        return json.dumps({"identity": {"config": mutated_tree(random, random.choice(trees))}}).encode()

    return file_parser(
        place.scratch / "run.json", make, lambda: config_to_json(config_of_run(place.scratch)), num_fast=40
    )


def mask_strategies(place: Place) -> Parser:
    """Masks that manifests and settings describe."""
    trees = [config_to_json(recipe())["objective"] for recipe in (MIM_RECIPES["tiny_mae"], MIM_RECIPES["tiny_simmim"])]
    base = json.loads(json.dumps(config_to_json(MIM_RECIPES["tiny_mae"]())))

    def make(random):
        return {**base, "objective": mutated_tree(random, json.loads(json.dumps(random.choice(trees))))}

    return Parser(make=make, read=config_from_json, num_fast=40)


def losses_of_images(place: Place) -> Parser:
    run = place.scratch / "run"
    shutil.copytree(place.good / "image" / "run", run)
    file = run / "val" / "step_00000004.parquet"
    whole, before = file.read_bytes(), read_losses(run, 2)
    return file_parser(
        file, lambda random: mutated_bytes(random, whole), lambda: compare_losses(before, read_losses(run, 4)),
        num_fast=40,
    )  # fmt: skip


def passport_of_a_run(place: Place) -> Parser:
    run = place.scratch / "run"
    shutil.copytree(place.good / "image" / "run", run)
    file = run / "val" / "passport.json"
    tree = tree_of(file)
    return file_parser(file, lambda random: mutated_json(random, tree), lambda: read_losses(run, 4), num_fast=40)


def plan(place: Place) -> Parser:
    cell = {"recipe": "tiny_mae", "steps": 10, "fraction": 0.5, "seed": 1, "settings": {"encoder": "vit_tiny"},
            "name": "a", "flops": 1e9, "seconds": 2.0, "verdict": "ok", "command": "mim"}  # fmt: skip
    tree = {"cells": [cell, {"recipe": "tiny_flip", "steps": 3, "command": "flip"}], "num_images": 10,
            "notes": ["x"], "format_version": 1}  # fmt: skip
    file = place.scratch / "plan.json"

    def read():
        found = read_plan(file)
        found.to_json()
        return [cell.flags(num_images=10, lists=Path("lists")) + cell.flags(num_images=10) for cell in found.cells]

    return file_parser(file, lambda random: mutated_json(random, tree), read)


def _sweep_file(place: Place, name: str) -> Parser:
    folder = place.scratch / "sweep"
    shutil.copytree(place.good / "sweep", folder)
    tree = tree_of(folder / name)

    def read():
        sweep = SweepFolder(folder)
        sweep.data()
        rows = read_rows(sweep, sweep.states())
        write_summary(sweep, rows)
        return table(rows)

    make = _json_lines if name.endswith(".jsonl") else mutated_json
    return file_parser(folder / name, lambda random: make(random, tree), read, num_fast=40)


def diary_of_a_sweep(place: Place) -> Parser:
    return _sweep_file(place, "sweep.jsonl")


def data_of_a_sweep(place: Place) -> Parser:
    return _sweep_file(place, "sweep.json")


def plan_of_a_sweep(place: Place) -> Parser:
    return _sweep_file(place, "plan.json")


def outcome_of_a_cell(place: Place) -> Parser:
    return _sweep_file(place, "outcomes/failed.json")


def metrics_of_a_cell(place: Place) -> Parser:
    return _sweep_file(place, "cells/done/metrics.jsonl")


def validations_of_a_cell(place: Place) -> Parser:
    return _sweep_file(place, "cells/done/val.jsonl")


def shapes_of_an_ablation(place: Place) -> Parser:
    return Parser(make=lambda random: mutated_text(random, random.choice(("0.5x2", "0x1"))), read=parse_shape)


def words_of_open_clip(place: Place) -> Parser:
    good = ["--workers=3", "--precision", "amp_bf16", "--wd", "0.1", "--lr", "1", "--views", "full,masked"]
    return Parser(
        make=lambda random: mutated_words(random, good[: random.randint(0, 8)], good),
        read=lambda words: _with_spaces(from_open_clip(words)),
    )


PARSERS = {
    function.__name__: function
    for function in (
        status_of_run_json, status_of_metrics, status_of_validations, status_of_costs, failure, record_of_a_run,
        settings_of_a_run, mask_strategies, losses_of_images, passport_of_a_run, plan, diary_of_a_sweep,
        data_of_a_sweep, plan_of_a_sweep, outcome_of_a_cell, metrics_of_a_cell, validations_of_a_cell,
        shapes_of_an_ablation, words_of_open_clip,
    )
}  # fmt: skip

PARTS = dict.fromkeys(PARSERS, 2)
"""Tests that share the ten thousand of a slow parser, so that several cores can take them."""


@pytest.mark.parametrize("name", PARSERS)
def test_some_inputs(name, place):
    parser = PARSERS[name](place)
    fuzz(parser, parser.num_fast)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "part", "num_parts"), in_parts(PARSERS, PARTS))
def test_ten_thousand_inputs(name, part, num_parts, place):
    fuzz(PARSERS[name](place), NUM_SLOW // num_parts, part=part)
