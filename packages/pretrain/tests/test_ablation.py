"""flip-ablation: cells and their lengths, intervals, tables that keep the three questions apart, and a run of it."""

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats
from unveil_pretrain.ablation import plan
from unveil_pretrain.ablation.cells import Cell, Shape, cells_of, parse_shape
from unveil_pretrain.ablation.compare import compare, in_words
from unveil_pretrain.ablation.plan import Places, config_of, measure_steps, seconds_of_steps, steps_of
from unveil_pretrain.ablation.results import MEAN_RECALL, CellScores, groups_of
from unveil_pretrain.ablation.study import relative_flops
from unveil_pretrain.ablation.tables import tables_of, to_json, to_markdown, to_text
from unveil_pretrain.cli import main
from unveil_pretrain.errors import ConfigError, ResumeError
from unveil_pretrain.recipes import flip_b16, tiny_flip

WHOLE, HALF, HALF_TWICE = Shape(0.0, 1), Shape(0.5, 1), Shape(0.5, 2)


@pytest.mark.parametrize(("text", "shape"), [("0x1", WHOLE), ("0.5", HALF), (".75x4", Shape(0.75, 4))])
def test_cells_are_read(text, shape):
    assert parse_shape(text) == shape


@pytest.mark.parametrize("text", ["", "1x1", "0.5x0", "0.5x1.5", "-0.5", "half"])
def test_other_words_are_no_cells(text):
    with pytest.raises(ConfigError, match="give MASKxBATCH"):
        parse_shape(text)


def test_every_shape_answers_every_question_once():
    cells = cells_of([WHOLE, HALF, HALF_TWICE], equal_time=True, variants=["reconstruct"], seeds=[0, 1])
    assert len({cell.name for cell in cells}) == len(cells) == 2 * (3 + 2 + 1)
    assert cells[0].name == "mask0_batch1x_samples_seed0"
    assert [cell.group for cell in cells[3:6]] == [
        "mask50_batch1x_time", "mask50_batch2x_time", "mask50_batch2x_samples_reconstruct",
    ]  # fmt: skip


@pytest.mark.parametrize("shapes", [[], [WHOLE], [WHOLE, WHOLE]])
def test_an_ablation_compares_something(shapes):
    with pytest.raises(ConfigError):
        cells_of(shapes, equal_time=True, variants=[], seeds=[0])


def test_equal_samples_and_equal_time_by_hand():
    base = replace(tiny_flip(), steps=400, batch_size=32)
    seconds = {WHOLE: 0.4, HALF: 0.2, HALF_TWICE: 0.5}
    steps = {
        (shape, budget): steps_of(Cell(shape=shape, budget=budget), base, WHOLE, seconds)
        for shape in seconds
        for budget in ("samples", "time")
    }
    assert steps == {
        (WHOLE, "samples"): 400, (HALF, "samples"): 400, (HALF_TWICE, "samples"): 200,
        (WHOLE, "time"): 400, (HALF, "time"): 800, (HALF_TWICE, "time"): 320,
    }  # fmt: skip
    with pytest.raises(ConfigError, match="equal time"):
        steps_of(Cell(shape=Shape(0.75, 1), budget="time"), base, WHOLE, seconds)


def test_the_paper_scales_the_rate_with_the_batch_and_keeps_the_warm_up_in_samples():
    base = replace(flip_b16(), batch_size=16_384, steps=156_250, warmup_steps=3_125, checkpoint_every=0)
    cell = Cell(shape=Shape(0.75, 4), budget="samples", seed=3)
    config = config_of(cell, base, reference=WHOLE, steps=steps_of(cell, base, WHOLE, {}))
    assert (config.batch_size, config.steps, config.seed, config.objective.mask_ratio) == (65_536, 39_062, 3, 0.75)
    assert config.lr == 4 * base.lr
    assert config.warmup_steps * config.batch_size == pytest.approx(base.warmup_steps * base.batch_size, rel=1e-3)
    assert config.checkpoint_every == 0


@pytest.mark.parametrize(
    ("variant", "changes"),
    [
        ("reconstruct", {"mask_ratio": 0.5, "reconstruction_weight": 1.0}),
        ("text_random", {"mask_ratio": 0.5, "text_masking": "random", "text_keep": 12}),
        ("text_priority", {"mask_ratio": 0.5, "text_masking": "priority", "text_keep": 12}),
        ("resize", {"mask_ratio": 0.5, "image_reduction": "resize"}),
        ("tuned", {"mask_ratio": 0.0}),
    ],
)
def test_a_variant_changes_what_its_name_says(variant, changes):
    base = replace(tiny_flip(), steps=400)
    cell = Cell(shape=HALF_TWICE, budget="samples", variant=variant)
    config = config_of(cell, base, reference=WHOLE, steps=200)
    assert config.objective == replace(base.objective, **changes)
    assert (config.steps, config.batch_size) == ((20 if variant == "tuned" else 200), 64)
    assert config.base_lr == (base.base_lr / 10 if variant == "tuned" else base.base_lr)


def test_variants_belong_to_the_masked_cells_with_a_larger_batch():
    def varied(shapes):
        cells = cells_of(shapes, equal_time=False, variants=["tuned"], seeds=[0])
        return [cell.shape for cell in cells if cell.variant == "tuned"]

    assert varied([WHOLE, HALF, HALF_TWICE]) == [HALF_TWICE]
    assert varied([WHOLE, HALF]) == [HALF]


def test_operations_of_cells_do_not_depend_on_the_batch():
    flops = relative_flops(flip_b16(), [WHOLE, HALF, HALF_TWICE])
    assert flops[WHOLE] == 1.0
    assert 0.5 < flops[HALF] == flops[HALF_TWICE] < 0.6


def test_seconds_of_a_step_leave_the_first_out(tmp_path):
    rows = [{"step": step, "seconds": seconds} for step, seconds in ((1, 5.0), (2, 6.0), (3, 8.0))]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert seconds_of_steps(tmp_path) == [1.0, 2.0]
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "seconds": 5.0}\n')
    with pytest.raises(ResumeError, match="has 1 steps"):
        seconds_of_steps(tmp_path)


def test_the_seconds_of_a_shape_are_the_median_of_its_steps_in_all_rounds(monkeypatch, tmp_path):
    """Rounds go from shape to shape, and one slow step or a slow round moves nothing."""
    order, took = [], iter([[9, 2, 2, 2], [9, 1, 1, 1], [9, 2, 30, 2], [9, 1, 1, 1], [9, 5, 5, 2], [9, 5, 5, 5]])

    def trained(places, config, folder, initial=None):
        order.append(folder.name)
        folder.mkdir(parents=True)
        times = np.cumsum(next(took)).tolist()
        rows = [json.dumps({"step": step, "seconds": seconds}) for step, seconds in enumerate(times, start=1)]
        (folder / "metrics.jsonl").write_text("\n".join(rows) + "\n")

    monkeypatch.setattr(Places, "train", trained)
    places = Places(out=tmp_path, train_data="", val_data="", device="cpu", num_workers=0, log=print)
    found = measure_steps([WHOLE, HALF], tiny_flip(), places, reference=WHOLE, steps=3, rounds=3)
    assert found == {WHOLE: 2.0, HALF: 1.0}
    assert order == [f"{shape}_round{number}" for number in range(3) for shape in (WHOLE, HALF)]


def test_intervals_are_those_of_scipys_bootstrap():
    generator = np.random.default_rng(1)
    a = generator.normal(size=80)
    b = a + generator.normal(0.3, 0.4, size=80)
    ours = compare(a, b)
    theirs = stats.bootstrap(
        (b - a,), np.mean, n_resamples=4000, method="percentile", rng=np.random.default_rng(2)
    ).confidence_interval
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.02)
    assert ours.value == pytest.approx((b - a).mean())
    assert ours.standard_error == pytest.approx(stats.sem(b - a))


def test_pairing_tells_what_unpaired_intervals_cannot():
    a = np.random.default_rng(0).normal(size=100)
    difference = compare(a, a + 0.01)
    assert difference.told
    assert in_words(difference, higher_is_better=True) == "better"
    assert in_words(difference, higher_is_better=False) == "worse"
    assert in_words(compare(a, a), higher_is_better=True) == "no difference can be told"
    with pytest.raises(ConfigError, match="cannot be paired"):
        compare(a, a[:50])


def scored(shape, budget, recall, *, seed=0, variant="plain", views=("full",)):
    names = (MEAN_RECALL, "contrastive_loss", *(f"{way}_recall_{k}" for way in ("text", "image") for k in (1, 5, 10)))
    values = {f"{view}/{name}": np.full(20, recall) + np.arange(20) % 2 * 0.1 for view in views for name in names}
    cell = Cell(shape=shape, budget=budget, seed=seed, variant=variant)
    return CellScores(cell=cell, batch_size=8 * shape.multiple, steps=10, seconds=5.0, samples=80, values=values)


def test_the_three_questions_have_a_table_each():
    cells = [
        scored(WHOLE, "samples", 0.3), scored(WHOLE, "samples", 0.5, seed=1),
        scored(HALF, "samples", 0.4, views=("full", "masked")), scored(HALF_TWICE, "samples", 0.6),
        scored(HALF, "time", 0.1), scored(HALF, "samples", 0.45, variant="reconstruct"),
    ]  # fmt: skip
    tables = tables_of(groups_of(cells), WHOLE, {WHOLE: 1.0, HALF: 0.5}, {WHOLE: 1.0, HALF: 0.5})
    titles = [table.title for table in tables]
    assert [title.split(":")[0].split(" (")[0] for title in titles] == [
        "All cells", "Equal batch, equal samples", "Equal samples, larger batch", "Equal time",
        "What reconstruct changes in the same cell", "How images are seen at inference",
    ]  # fmt: skip
    by = dict(zip(titles, tables, strict=True))
    batch, time = (next(by[t] for t in titles if t.startswith(s)) for s in ("Equal batch", "Equal time"))
    # Against the mean over the reference's two seeds, 0.4.
    assert batch.rows[0][0] == "mask50_batch1x_samples"
    assert batch.rows[0][1:4] == ("+0.0", "[+0.0, +0.0]", "no difference can be told")
    assert (time.rows[0][1], time.rows[0][3], time.rows[0][6]) == ("-30.0", "worse", "better")
    assert tables[0].rows[1][6] == "0.50×"
    assert tables[0].rows[2][6] == "?"
    assert tables[0].records[0]["seeds"] == 2
    text, page, record = to_text(tables), to_markdown(tables), to_json(tables)
    assert all(title in text and title in page for title in titles)
    assert json.loads(json.dumps(record))[1]["rows"][0]["against"] == "mask0_batch1x_samples"
    assert tables_of({}, WHOLE, {}, {}) == []


FLAGS = (
    "--steps", "2", "--batch-size", "4", "--image-size", "32", "32", "--warmup-steps", "1", "--validate-every", "2",
    "--gap-images", "0", "--negative-pool", "5", "--text-length", "8", "--vocab-size", "64", "--embed-dim", "16",
    "--cells", "0x1", "0.5x2", "--calibration-steps", "1", "--device", "cpu",
)  # fmt: skip


def ablate(out, shards, *flags):
    main(["flip-ablation", "tiny_flip", "--out", str(out), "--train-data", shards[0], "--val-data", shards[1],
          *FLAGS, *flags])  # fmt: skip


def test_a_dry_run_writes_nothing(tmp_path, shards, capsys):
    ablate(tmp_path / "a", shards, "--dry-run")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "3 runs; the reference is mask0_batch1x_samples_seed0"
    assert "batch 8, 1 steps, 8 samples" in lines[2]
    assert "steps from the measured time" in lines[3]
    assert not (tmp_path / "a").exists()


def test_cells_are_runs_that_continue_and_are_compared(tmp_path, shards, capsys):
    out = tmp_path / "a"
    ablate(out, shards, "--no-equal-time", "--variants", "tuned")
    first = capsys.readouterr()
    assert "Equal samples, larger batch" in first.out
    assert "What tuned changes in the same cell" in first.out
    assert json.loads((out / "results.json").read_text())["failures"] == {}
    assert (out / "tables.md").read_text().startswith("**All cells")
    run = json.loads((out / "cells" / "mask50_batch2x_samples_seed0" / "run.json").read_text())
    assert run["identity"]["config"]["batch_size"] == 8
    ablate(out, shards, "--no-equal-time", "--variants", "tuned")
    again = capsys.readouterr()
    assert again.out == first.out
    assert again.err.count("is finished") == 3
    with pytest.raises(SystemExit):
        ablate(out, shards, "--no-equal-time", "--base-lr", "0.5")
    assert "base_lr is 0.5 now and was" in capsys.readouterr().err


def test_a_failed_cell_does_not_stop_the_others(tmp_path, shards, capsys):
    out = tmp_path / "a"
    (out / "cells" / "mask0_batch1x_samples_seed0").mkdir(parents=True)
    (out / "cells" / "mask0_batch1x_samples_seed0" / "stranger.txt").write_text("not a run")
    with pytest.raises(SystemExit) as caught:
        ablate(out, shards, "--no-equal-time")
    assert caught.value.code == 1
    shown = capsys.readouterr().out
    assert "failed: mask0_batch1x_samples_seed0: " in shown
    assert "mask50_batch2x_samples" in shown.split("failed:")[0]


@pytest.mark.slow
def test_equal_time_measures_once_and_keeps_what_it_measured(tmp_path, shards, capsys, monkeypatch):
    out = tmp_path / "a"
    ablate(out, shards)
    assert "Equal time" in capsys.readouterr().out
    seconds = json.loads((out / "ablation.json").read_text())["seconds_per_step"]
    assert set(seconds) == {"mask0_batch1x", "mask50_batch2x"}
    assert all(value > 0 for value in seconds.values())
    monkeypatch.setattr(plan, "measure_steps", None)
    ablate(out, shards)
    assert json.loads((out / "ablation.json").read_text())["seconds_per_step"] == seconds
