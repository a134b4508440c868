"""Planning: the published boundary, intervals against simulation, the choice of cells, and `pretrain plan`."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from unveil_pretrain.cli import main
from unveil_pretrain.errors import PlanError
from unveil_pretrain.planning.boundary import boundaries, judge
from unveil_pretrain.planning.design import Point, choose, grid
from unveil_pretrain.planning.interval import fisher_interval, pearson, published_correlation, published_interval
from unveil_pretrain.planning.plans import read_plan
from unveil_pretrain.planning.published import published_runs
from unveil_pretrain.planning.speed import assumed_speed, measure, speed_of

SWIN = {"objective": "simmim", "encoder": "swinv2_b", "image_size": (192, 192)}


def test_published_table():
    runs = published_runs()
    assert len(runs) == 63
    assert len({(run.model, run.data) for run in runs}) == 21
    # Figures of the table's source, and the two coefficients that are known of it.
    best = max(runs, key=lambda run: run.top1)
    assert (best.model, best.data, best.val_loss, best.top1) == ("g", "ImageNet-22K", 0.4416, 86.53)
    assert published_correlation() == pytest.approx(-0.786, abs=5e-4)
    assert published_correlation(without_overfitting=True) == pytest.approx(-0.956, abs=5e-4)
    losses, top1 = [run.val_loss for run in runs], [run.top1 for run in runs]
    assert published_correlation() == pytest.approx(stats.pearsonr(losses, top1).statistic)


def test_rises_and_falls_of_the_table():
    runs = {(run.model, run.data, run.steps): run.val_loss for run in published_runs()}
    steps = [(runs[m, d, s], runs[m, d, 2 * s]) for m, d, s in runs if (m, d, 2 * s) in runs]
    assert sum(later < earlier for earlier, later in steps) == 28
    assert sum(later > earlier for earlier, later in steps) == 14


def test_boundary_by_hand():
    found = {boundary.model: boundary for boundary in boundaries()}
    # S on 20 %: 250K steps are 1998 passes and better than 125K; 500K are 3996 and worse. L on 20 %: 1998 are worse.
    assert found["S"].highest_without == pytest.approx(250_000 * 2048 / 256_233)
    assert found["S"].lowest_with == pytest.approx(500_000 * 2048 / 256_233, rel=1e-5)
    assert found["L"].lowest_with == pytest.approx(250_000 * 2048 / 256_233)
    assert found["g"].highest_without == pytest.approx(500_000 * 2048 / 1_281_167)


def test_every_judged_run_is_on_its_side():
    runs = {(run.model, run.data, run.steps): run for run in published_runs()}
    for (model, data, steps), longer in runs.items():
        shorter = runs.get((model, data, steps // 2))
        if shorter is None:
            continue
        verdict = judge(
            num_parameters=int(longer.num_parameters), num_images=longer.num_images, epochs=longer.epochs, **SWIN
        )
        rose = longer.val_loss > shorter.val_loss
        assert verdict.outcome == ("over-fits" if rose else "no over-fitting"), (model, data, steps)
        assert not verdict.outside


def test_a_model_left_out_is_interpolated():
    """B, L and H from their neighbours: how often the interpolated boundary calls a published step wrongly."""
    wrong = right = 0
    for left_out in ("B", "L", "H"):
        known = [boundary for boundary in boundaries() if boundary.model != left_out]
        runs = {(run.data, run.steps): run for run in published_runs() if run.model == left_out}
        for (data, steps), longer in runs.items():
            shorter = runs.get((data, steps // 2))
            if shorter is None:
                continue
            outcome = judge(
                num_parameters=int(longer.num_parameters),
                num_images=longer.num_images,
                epochs=longer.epochs,
                known=known,
                **SWIN,
            ).outcome
            rose = longer.val_loss > shorter.val_loss
            right += outcome == ("over-fits" if rose else "no over-fitting")
            wrong += outcome == ("no over-fitting" if rose else "over-fits")
    assert (wrong, right) == (0, 24)  # of 28; the other four are near the boundary


@pytest.mark.parametrize(
    ("change", "outside"),
    [
        ({}, ()),
        ({"num_parameters": 800_000}, ("parameters",)),
        ({"num_images": 1000, "epochs": 20_000.0}, ("images", "epochs")),
        ({"objective": "mae", "encoder": "vit_b16"}, ("objective", "encoder")),
        ({"image_size": (64, 64)}, ("image size",)),
    ],
)
def test_extrapolation_is_said(change, outside):
    base = {"num_parameters": 87_000_000, "num_images": 256_233, "epochs": 500.0, **SWIN}
    verdict = judge(**(base | change))
    assert verdict.outside == outside
    assert ("outside of what was published" in verdict.words()) == bool(outside)


@given(st.floats(49e6, 1060e6), st.floats(1.0, 10_000.0))
def test_more_passes_never_over_fit_less(num_parameters, epochs):
    order = ["no over-fitting", "near the boundary", "over-fits"]

    def at(factor):
        verdict = judge(num_parameters=int(num_parameters), num_images=256_233, epochs=epochs * factor, **SWIN)
        return order.index(verdict.outcome)

    assert at(1.0) <= at(1.3) <= at(4.0)


@pytest.mark.parametrize(("rho", "n"), [(-0.786, 12), (-0.956, 24), (0.0, 8)])
def test_fisher_against_simulation(rho, n):
    """Its interval covers the true coefficient in 95 of 100 samples, and the spread of estimates is as wide."""
    generator = np.random.default_rng(0)
    x = generator.standard_normal((4000, n))
    y = rho * x + math.sqrt(1 - rho**2) * generator.standard_normal((4000, n))
    found = pearson(x, y)
    covered = np.mean([(i := fisher_interval(float(r), n)).low <= rho <= i.high for r in found])
    assert covered == pytest.approx(0.95, abs=0.012)
    low, high = np.quantile(np.arctanh(found), [0.025, 0.975])
    interval = fisher_interval(rho, n)
    assert high - low == pytest.approx(math.atanh(interval.high) - math.atanh(interval.low), rel=0.08)


def test_fisher_against_scipy():
    x = np.arange(12.0)
    y = -x + np.sin(7 * x) * 3
    result = stats.pearsonr(x, y)
    theirs = result.confidence_interval(0.9)
    ours = fisher_interval(result.statistic, 12, confidence=0.9)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high))


def test_more_cells_narrower():
    widths = [published_interval(n).width for n in (6, 12, 24, 63)]
    assert widths == sorted(widths, reverse=True)
    assert published_interval(24, without_overfitting=True).width < published_interval(24).width
    assert published_interval(12) == published_interval(12)


@pytest.mark.parametrize(("correlation", "cells"), [(0.5, 3), (-1.0, 10), (1.5, 10)])
def test_no_interval(correlation, cells):
    with pytest.raises(PlanError, match="at least 4"):
        fisher_interval(correlation, cells)


def test_design_by_hand():
    lengths = (2, 3, 3)
    points = grid(lengths, 1)
    costs = {point: float(1 + point.places[0] * 4 + point.places[2]) for point in points}
    every = choose(points, costs, lengths, math.inf)
    assert not every.dropped
    assert len(every.taken) == 18
    ends = [
        all(place in (0, length - 1) for place, length in zip(point.places, lengths, strict=True))
        for point in every.taken
    ]
    assert ends == [True] * 8 + [False] * 10
    assert every.taken[8].places == (1, 1, 1)  # the centre, where an axis of two has no middle
    few = choose(points, costs, lengths, 12.0)
    assert few.cost <= 12.0
    # The centre would cost 6 and does not fit in what the cheap corners leave; cheaper cells after it do.
    assert [point.places for point in few.taken] == [
        (0, 0, 0), (0, 2, 0), (0, 0, 2), (0, 2, 2), (0, 1, 0), (0, 0, 1),
    ]  # fmt: skip


@given(st.lists(st.integers(1, 4), min_size=1, max_size=3), st.integers(1, 2), st.floats(0.0, 60.0), st.randoms())
def test_design_algebra(lengths, num_seeds, budget, random):
    points = grid(lengths, num_seeds)
    costs = {point: random.uniform(0.1, 9.0) for point in points}
    choice = choose(points, costs, lengths, budget)
    assert sorted((*choice.taken, *choice.dropped), key=repr) == sorted(points, key=repr)
    assert choice.cost <= budget
    assert all(costs[point] > budget - choice.cost for point in choice.dropped)  # nothing dropped still fits
    assert [point.seed for point in choice.taken] == sorted(point.seed for point in choice.taken)


def test_an_empty_axis():
    with pytest.raises(PlanError, match="at least one"):
        grid((2, 0), 1)
    assert grid((1,), 1) == [Point((0,), 0)]


def write_run(folder, num_rows):
    """A run of 16 samples a second, of 1e12 operations each, on two devices."""
    config = {"steps": 20, "batch_size": 8, "objective": {"name": "mae"}, "encoder": "vit_b16", "precision": "bfloat16"}
    (folder / "run.json").write_text(json.dumps({"identity": {"config": config}}))
    rows = [{"step": step, "samples_seen": 8 * step, "seconds": step / 2} for step in range(1, num_rows + 1)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    basis = {"step": 0, "device": "NVIDIA H100", "num_devices": 2, "precision": "bfloat16", "flops_per_sample": 1e12}
    (folder / "cost.jsonl").write_text(json.dumps(basis | {"counted": ["encoder"], "not_counted": []}) + "\n")


def test_speed_measured_scaled_assumed(tmp_path):
    write_run(tmp_path, 5)
    measured = measure(tmp_path)
    assert measured.flops_per_second == pytest.approx(16e12 / 2)
    assert speed_of("mae", "vit_b16", "bfloat16", [measured]).source == "measured"
    assert "another objective" in speed_of("flip", "vit_b16", "bfloat16", [measured]).source
    assert speed_of("mae", "vit_l16", "bfloat16", [measured]).source == "scaled by operations"
    assert speed_of("mae", "vit_b16", "float32", [measured]) is None
    assert assumed_speed("NVIDIA H100", 0.5, "bfloat16").flops_per_second == pytest.approx(989e12 / 2)
    with pytest.raises(PlanError, match="measure a short run"):
        assumed_speed("CPU", 0.5, "float32")
    write_run(tmp_path, 1)
    with pytest.raises(PlanError, match="longer run"):
        measure(tmp_path)


PLAN = ["plan", "--recipes", "tiny_mae", "--steps", "10", "20", "--num-images", "100", "--set", "batch_size=4"]


def test_plan_command(tmp_path, capsys):
    file = tmp_path / "plan.json"
    main([*PLAN, "--on", "NVIDIA H100", "--mfu", "0.5", "--price", "2", "--out", str(file)])
    shown = capsys.readouterr().out
    assert "outside of what was published" in shown
    assert "50% of the peak of NVIDIA H100, an assumption" in shown
    assert "Fisher's z" in shown
    plan = read_plan(file)
    assert len(plan.cells) == 8
    assert plan.cells[0].settings == {"batch_size": "4"}
    assert all(cell.seconds > 0 for cell in plan.cells)
    main([*PLAN, "--json"])
    record = json.loads(capsys.readouterr().out)
    assert len(record["cells"]) == 8
    assert record["cells"][0]["hours"] is None
    flops = [cell["flops"] for cell in record["cells"]]
    main([*PLAN, "--json", "--flops", str(sum(flops) / 2)])
    halved = json.loads(capsys.readouterr().out)
    assert sum(cell["flops"] for cell in halved["cells"]) <= sum(flops) / 2
    assert halved["dropped"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--gpu-hours", "1"], "--measured RUN"),
        (["--gpu-hours", "1", "--flops", "1"], "one budget"),
        (["--flops", "1"], "no cell fits"),
        (["--on", "NVIDIA H100"], "belong together"),
        (["--on", "abacus", "--mfu", "0.5"], "not known"),
        (["--seeds", "1", "1"], "each value once"),
        (["--recipes", "nope"], "no recipe 'nope'"),
        (["--set", "x"], "name=value"),
        (["--gpu-memory", "-1"], "must not be negative"),
        (["--gpu-memory", "0.01"], "what fits: --"),
    ],
)
def test_plan_refusals(words, says, capsys):
    with pytest.raises(SystemExit):
        main([*PLAN, *words])
    error = capsys.readouterr().err
    assert says in error
    assert len(error.strip().splitlines()) == 1
