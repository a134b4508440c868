"""The published sets: what is in them, how over-fitting is told, and how a sweep's summary becomes the same table."""

from pathlib import Path
from types import SimpleNamespace

import polars as pl
import pytest
from unveil_evalharness.errors import ResultsError, UsageError
from unveil_evalharness.published import COLUMNS, PUBLISHED, mark_overfitting, read_published, read_summary, reader

SUMMARY = """\
cell,recipe,objective,encoder,fraction,unique_samples,steps,seed,epochs,val_loss,val_loss_min,passport,checkpoint_sha256
a,mim,simmim,vit_tiny,0.5,100,10,0,6.4,0.5,0.5,p,aa
b,mim,simmim,vit_tiny,0.5,100,20,0,12.8,0.6,0.55,p,bb
c,mim,simmim,vit_tiny,0.5,100,20,1,12.8,0.4,0.4,p,cc
d,mim,simmim,vit_tiny,0.5,100,40,0,,,,,
"""


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_set_has_the_same_columns_and_one_row_per_run_and_metric(name: str) -> None:
    runs = read_published(name)
    assert tuple(runs.columns) == COLUMNS
    assert not runs.select("run", "metric").is_duplicated().any()
    assert runs["value"].null_count() == 0
    assert runs.schema["overfitted"] == pl.Boolean


def test_63_runs_and_which_of_them_overfitted() -> None:
    runs = read_published("xie2023")
    assert (len(runs), runs["pair"].n_unique()) == (63, 21)
    overfitted = runs.filter("overfitted")
    assert (len(overfitted), overfitted["pair"].n_unique(), runs["pair_overfits"].sum()) == (14, 9, 27)
    assert set(overfitted["pair"]) == {
        *(f"SwinV2-{model} × ImageNet-1K {share}" for model in "SBL" for share in ("10%", "20%")),
        "SwinV2-H × ImageNet-1K 20%", "SwinV2-H × ImageNet-1K 50%", "SwinV2-g × ImageNet-1K 50%",
    }  # fmt: skip
    assert runs["samples_seen"].max() == 500_000 * 2048


def test_flip_has_its_scaling_table_and_no_loss() -> None:
    runs = read_published("flip2023")
    assert runs["loss"].null_count() == len(runs)
    assert runs["overfitted"].null_count() == len(runs)
    zero_shot = runs.filter((pl.col("metric") == "imagenet_zs.acc1") & (pl.col("table") == "Table 8"))
    assert zero_shot["value"].to_list() == [74.3, 75.5, 75.8, 73.9, 77.6, 78.8]
    assert len(runs.filter(pl.col("table") == "Table 8")) == 6 * 10
    assert len(runs.filter(pl.col("table") == "Table 4")) == 25 * 4


def test_means_of_table_4_are_the_papers() -> None:
    """The means over the 25 sets that the reference computed: a slip of one digit in 25 would show."""
    means = (
        read_published("flip2023").filter(pl.col("table") == "Table 4").group_by("method").agg(pl.col("value").mean())
    )
    found = dict(means.iter_rows())
    assert {name: round(value, 1) for name, value in found.items()} == {
        "CLIP": 65.6, "OpenCLIP": 63.6, "CLIP-repro": 64.3, "FLIP": 66.0
    }  # fmt: skip


def test_unknown_set_names_the_known_ones() -> None:
    with pytest.raises(UsageError, match="xie2023"):
        read_published("xie2032")


def test_a_changed_digit_is_noticed_and_line_ends_of_windows_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = (Path(reader.__file__).parent / "xie2023.csv").read_bytes()
    monkeypatch.setattr(reader, "resources", SimpleNamespace(files=lambda _: tmp_path))
    (tmp_path / "xie2023.csv").write_bytes(content.replace(b"\n", b"\r\n"))
    assert len(read_published("xie2023")) == 63
    (tmp_path / "xie2023.csv").write_bytes(content.replace(b"0.4820", b"0.4821"))
    with pytest.raises(ResultsError, match=r"xie2023\.csv is not the table of xie2023 .* install unveil-evalharness"):
        read_published("xie2023")
    with pytest.raises(ResultsError, match=r"cannot read .*flip2023\.csv"):
        read_published("flip2023")


def test_overfitting_compares_with_every_shorter_run_of_the_pair() -> None:
    runs = pl.DataFrame(
        {
            "pair": ["a", "a", "a", "a", "b", "b", "c"],
            "steps": [3, 1, 2, 4, 1, 2, 1],
            "loss": [0.45, 0.5, 0.4, 0.39, 0.3, None, 0.1],
        }
    )
    marked = mark_overfitting(runs)
    assert marked["overfitted"].to_list() == [True, False, False, False, False, None, False]
    assert marked["pair_overfits"].to_list() == [True, True, True, True, False, None, False]


def test_summary_of_a_sweep_becomes_the_same_table(tmp_path: Path) -> None:
    path = tmp_path / "summary.csv"
    path.write_text(SUMMARY)
    runs = read_summary(path)
    assert tuple(runs.columns)[: len(COLUMNS)] == COLUMNS
    assert runs["run"].to_list() == ["a", "b", "c"]  # d has not finished
    assert runs["overfitted"].to_list() == [False, True, False]  # c is another seed, compared with nothing
    assert runs["pair"].n_unique() == 1
    assert runs["samples_seen"].to_list() == [640, 1280, 1280]
    assert runs["loss_min"].to_list() == [0.5, 0.55, 0.4]


def test_what_is_not_a_summary_is_named(tmp_path: Path) -> None:
    (tmp_path / "other.csv").write_text("cell,steps\na,1\n")
    with pytest.raises(ResultsError, match="no column encoder"):
        read_summary(tmp_path / "other.csv")
    with pytest.raises(ResultsError, match="cannot read"):
        read_summary(tmp_path / "nowhere.csv")
