"""Tables of any kind: which columns mean what, what is refused with its row, and sweeps with their results."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from unveil_evalharness.cli import main
from unveil_evalharness.correlate.correlation import correlate_points
from unveil_evalharness.correlate.load import load
from unveil_evalharness.correlate.table import Roles, points_of_table
from unveil_evalharness.errors import NotComparableError, ResultsError, UsageError
from unveil_evalharness.published import read_published

ROWS = """name,size,err,acc,passes
a,s,0.50,70,1
b,s,0.40,72,2
c,m,0.45,71,1
d,m,0.30,75,2
e,l,0.35,74.5,1
f,l,0.20,80,2
"""


def write(path: Path, text: str = ROWS) -> Path:
    path.write_text(text)
    return path


def run(*arguments: object) -> int:
    return main(["correlate", *map(str, arguments), "--num-resamples", "200"])


def test_a_csv_and_the_same_parquet_give_the_same_answer(tmp_path: Path, capsys) -> None:
    path = write(tmp_path / "runs.csv")
    pl.read_csv(path).write_parquet(tmp_path / "runs.parquet")
    pl.read_csv(path).write_ndjson(tmp_path / "runs.jsonl")
    strata = []
    for name in ("runs.csv", "runs.parquet", "runs.jsonl"):
        columns = ("--x", "err", "--y", "acc", "--group", "size", "--control", "log_passes")
        assert run(tmp_path / name, *columns, "--json") == 0
        strata.append(json.loads(capsys.readouterr().out)["strata"])
    assert strata[0] == strata[1] == strata[2]
    (stratum,) = strata[0]
    assert stratum["statistics"]["spearman"]["value"] == pytest.approx(-1.0)
    assert stratum["study"]["partial"]["controls"] == ["log passes"]
    assert [part["name"] for part in stratum["study"]["parts"]] == ["s", "m", "l"]
    assert stratum["study"]["within"]["num_models"] == 3


@pytest.mark.parametrize("cell", ["NaN", "inf", "high"])
def test_what_is_not_a_number_is_named_with_its_row(tmp_path: Path, capsys, cell: str) -> None:
    path = write(tmp_path / "runs.csv", ROWS.replace("0.45", cell))
    assert run(path, "--x", "err", "--y", "acc") == 2
    assert f"row 4: err is '{cell}', not a finite number" in capsys.readouterr().err


def test_empty_cells_leave_their_row_out_aloud(tmp_path: Path, capsys) -> None:
    path = write(tmp_path / "runs.csv", ROWS.replace("0.45", ""))
    assert run(path, "--x", "err", "--y", "acc") == 0
    assert "Left out of acc: c: row 4 has no err" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--x", "eror", "--y", "acc"), "no column 'eror'; did you mean err?"),
        ((), "name its columns with --x and --y"),
        (("--x", "err", "--y", "acc", "--control", "log_size"), "size is 's', not a finite number"),
        (("--x", "err", "--y", "acc", "--cluster", "nothing"), "no column 'nothing'"),
    ],
)
def test_columns_that_are_not_there_are_named(tmp_path: Path, capsys, arguments, message: str) -> None:
    assert run(write(tmp_path / "runs.csv"), *arguments) == 2
    assert message in capsys.readouterr().err


def test_few_rows_and_constant_columns_are_refused_by_name(tmp_path: Path, capsys) -> None:
    few = write(tmp_path / "few.csv", "\n".join(ROWS.splitlines()[:5]))
    assert run(few, "--x", "err", "--y", "acc") == 3
    assert "refused: too_few_points" in capsys.readouterr().out
    assert run(write(tmp_path / "runs.csv"), "--x", "err", "--y", "acc", "--group", "size") == 0
    assert "refused: too_few_points" in capsys.readouterr().out  # of each size by itself
    flat = write(tmp_path / "flat.csv", "x,y\n" + "1,2\n" * 6)
    assert run(flat, "--x", "x", "--y", "y") == 3
    out = capsys.readouterr().out
    assert "refused: constant_loss" in out
    assert "nan" not in out.lower()


def test_one_table_at_a_time_and_damaged_ones_are_named(tmp_path: Path, capsys) -> None:
    one, two = write(tmp_path / "one.csv"), write(tmp_path / "two.csv")
    with pytest.raises(UsageError, match="one table at a time"):
        load([one, two], published="", roles=Roles(x="err", y=("acc",)))
    assert run(write(tmp_path / "bad.parquet"), "--x", "err", "--y", "acc") == 2
    assert "cannot read" in capsys.readouterr().err


def long_table() -> pl.DataFrame:
    generator = np.random.default_rng(0)
    loss = np.round(0.5 - 0.02 * np.arange(8), 3)
    return pl.DataFrame(
        {
            "run": [f"r{i}" for i in range(8)] * 2,
            "metric": ["a.acc"] * 8 + ["b.error"] * 8,
            "loss": [*loss, *loss],
            "value": [*(1 - loss + 0.001 * generator.random(8)), *(loss + 0.001 * generator.random(8))],
            "higher_is_better": [True] * 8 + [False] * 8,
        }
    )


def test_a_long_table_needs_no_options_and_knows_which_way_is_up() -> None:
    points = points_of_table(long_table(), Roles(x="loss"), source="t")
    first, second = correlate_points(points, outputs=(), num_resamples=200).strata
    assert (first.column.metric, second.column.metric) == ("a.acc", "b.error")
    assert first.statistics.spearman.value < -0.9
    assert second.statistics.spearman.value > 0.9
    for stratum in (first, second):
        assert "A lower validation loss goes with a better" in stratum.answer
        assert stratum.verdict.code == "usable"
        assert stratum.study.choices.overall.accuracy > 0.9


@pytest.mark.parametrize(
    ("name", "field"), [("passport", "passport"), ("protocol", "protocol"), ("data_hash", "data_hash")]
)
def test_rows_measured_otherwise_do_not_share_axes(name: str, field: str) -> None:
    table = long_table().filter(pl.col("metric") == "a.acc")
    table = pl.concat([table, table]).with_columns(pl.Series(name, ["p"] * 8 + ["q"] * 8))
    points = points_of_table(table, Roles(x="loss"), source="t")
    assert [len(members) for members in points.strata.values()] == [8, 8]
    with pytest.raises(NotComparableError, match=f"differ in {field}"):
        correlate_points(points, outputs=(), joint=True)


def test_few_models_are_not_resampled_but_their_pairs_are() -> None:
    runs = read_published("xie2023")
    some = runs.filter(pl.col("model").is_in(["SwinV2-S", "SwinV2-B"]))

    def clusters(table: pl.DataFrame, **options: str) -> set[str]:
        points = points_of_table(table, Roles(x="loss", **options), source="t")
        return {point.cluster for members in points.strata.values() for point in members}

    assert clusters(runs) == set(runs["model"])
    assert clusters(some) == set(some["pair"])
    assert clusters(some.head(6)) == {""}
    assert clusters(some, cluster="model") == {"SwinV2-S", "SwinV2-B"}


def test_a_sweep_with_its_results_is_one_table(study, manifest, tmp_path: Path, capsys) -> None:
    lines = ["cell,encoder,fraction,steps,seed,val_loss,val_loss_min,passport,checkpoint_sha256,unique_samples,epochs"]
    for seed in (0, 1):
        for step in (100, 200, 400, 800):
            loss = 0.6 - 0.0002 * step + 0.003 * seed
            sha256 = study.add(manifest(loss, step=step, seed=seed), {"imagenet_ft.acc1": 1 - loss + 0.001 * seed})
            lines.append(f"c{step}-{seed},vit_tiny,1.0,{step},{seed},{loss},{loss},p,{sha256},2000,1")
    path = write(tmp_path / "summary.csv", "\n".join(lines))
    assert run(path, study.folder, "--json") == 0
    (stratum,) = json.loads(capsys.readouterr().out)["strata"]
    assert stratum["column"]["metric"] == "imagenet_ft.acc1"
    assert stratum["study"]["noise"]["kind"] == "training"
    assert stratum["study"]["noise"]["value"]["degrees"] == 4
    assert stratum["study"]["steps"]["falling"]["num_gained"] == 6
    assert run(path, study.folder, "--x", "loss_min", "--joint") == 0
    write(path, "\n".join(line.replace(",p,", ",p,x") for line in lines))
    assert run(path, study.folder) == 2
    assert "no checkpoint of the sweep has results" in capsys.readouterr().err


def add_losses(study, manifest, *, passports) -> None:
    """Six checkpoints with a fine-tuned score and a loss that was measured again."""
    for number, passport in enumerate(passports):
        made = manifest(0.5, step=100 + number)
        value = 0.3 - 0.01 * number
        study.add(made, {"imagenet_ft.acc1": 0.5 + 0.05 * number + 0.01 * (number % 2)})
        name = f"tables/{number}-passport.parquet"
        study.add(
            made, {"val_loss.loss": value}, higher_is_better=False, main=True, baseline=1.0, tables={"passport": name}
        )
        if passport is not None:
            (study.folder / "tables").mkdir(exist_ok=True)
            values = [passport, '"simmim"', json.dumps({"unit": passport})]
            table = pl.DataFrame({"field": ["hash", "objective", "mask"], "value": values})
            table.write_parquet(study.folder / name)


def test_a_loss_measured_again_takes_the_place_of_the_manifests(study, manifest, capsys) -> None:
    add_losses(study, manifest, passports=["p"] * 6)
    assert run(study.folder) == 3  # the manifests all say 0.5
    assert "refused: constant_loss" in capsys.readouterr().out
    assert run(study.folder, "--x", "val_loss", "--joint") == 0
    out = capsys.readouterr().out
    assert "A lower validation loss goes with a better imagenet_ft.acc1 (Spearman −" in out
    assert "val_loss.loss" not in out.splitlines()[2]


def test_losses_of_two_passports_are_kept_apart_also_when_measured_again(study, manifest, capsys) -> None:
    add_losses(study, manifest, passports=["p"] * 3 + ["q"] * 2 + [None])
    assert run(study.folder, "--x", "val_loss", "--joint") == 3
    assert "differ in mask.unit" in capsys.readouterr().err
    assert run(study.folder, "--x", "val_loss") == 3
    out = capsys.readouterr().out
    assert out.count("refused: too_few_points") == 2
    assert "it has no result of val_loss (with its passport)" in out


def test_another_metric_may_be_what_one_judges_by(study, manifest, capsys) -> None:
    for number in range(6):
        study.add(
            manifest(None, step=100 + number),
            {"imagenet_ft.acc1": 0.5 + 0.05 * number, "knn.acc1": 0.2 + 0.04 * number + 0.001 * (number % 2)},
        )
    assert run(study.folder, "--x", "knn.acc1") == 0
    out = capsys.readouterr().out
    assert "A higher knn.acc1 goes with a better imagenet_ft.acc1 (Spearman 1.00" in out
    assert "validation loss" not in out


def test_groups_of_output_folders_are_known_ones(demo_study, capsys) -> None:
    assert run(demo_study.folder, "--metric", "ade20k_seg.mIoU", "--cluster", "data", "--control", "log_steps") == 0
    capsys.readouterr()
    assert run(demo_study.folder, "--group", "colour") == 2
    assert "no group 'colour'" in capsys.readouterr().err
    assert run(demo_study.folder, "--control", "log_colour") == 2


def test_frozen_roles() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Roles(x="a").x = "b"
    with pytest.raises(ResultsError, match="no column or metric"):
        points_of_table(long_table(), Roles(x="lost"), source="t")
