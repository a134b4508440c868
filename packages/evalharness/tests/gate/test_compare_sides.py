"""Which folder, which checkpoint, which outcomes: what can be paired and what is refused by name."""

from dataclasses import replace

import numpy as np
import polars
import pytest
from unveil_evalharness.compare import difference as contrasts
from unveil_evalharness.compare import outcomes
from unveil_evalharness.compare.measured import check_comparable, gather
from unveil_evalharness.compare.pairing import Tables
from unveil_evalharness.compare.select import choose_metrics, matching
from unveil_evalharness.compare.sides import read_side, read_sides
from unveil_evalharness.errors import NotComparableError, ResultsError, UsageError
from unveil_evalharness.results import append_rows

SETTINGS = contrasts.Settings(num_resamples=200)
HALF = np.arange(40) % 2 == 0


@pytest.fixture
def two_checkpoints(write_side, tmp_path):
    write_side(tmp_path / "out", {0: HALF}, sha="a")
    return write_side(tmp_path / "out", {0: ~HALF, 1: ~HALF}, sha="b")


def test_a_folder_with_one_checkpoint_needs_no_name(write_side, tmp_path):
    side = read_side(str(write_side(tmp_path / "out", {0: HALF, 3: HALF})))
    assert side.name == "mae a"
    (one,) = side.measured
    assert (one.values, one.seeds, one.spread) == ((0.5, 0.5), (0, 3), 0.0)


@pytest.mark.parametrize("selector", ["bbbb", "b" * 12, "mae b", "runs/b"])
def test_a_checkpoint_is_named_by_hash_label_or_path(two_checkpoints, selector):
    assert read_side(f"{two_checkpoints}:{selector}").checkpoints == ("b" * 64,)


@pytest.mark.parametrize(
    ("selector", "message"),
    [("", "holds 2 checkpoints"), (":mae", "holds 2 checkpoints"), (":nothing", "no checkpoint is called 'nothing'")],
)
def test_what_may_be_meant_is_listed(two_checkpoints, selector, message):
    with pytest.raises(UsageError, match=message) as raised:
        read_side(f"{two_checkpoints}{selector}")
    assert "mae a (aaaaaaaaaaaa)" in str(raised.value)


def test_folders_that_are_none_are_refused(tmp_path):
    with pytest.raises(UsageError, match="has no results"):
        read_side(str(tmp_path))
    (tmp_path / "results.jsonl").write_text("")
    with pytest.raises(UsageError, match="holds no results"):
        read_side(str(tmp_path))
    (tmp_path / "results.jsonl").write_text("{}\n")
    with pytest.raises(ResultsError):
        read_side(str(tmp_path))
    with pytest.raises(UsageError, match="no output folder"):
        read_sides([])


def test_several_checkpoints_may_be_one_side(two_checkpoints):
    side = read_sides([f"{two_checkpoints}:mae a", f"{two_checkpoints}:mae b"])
    (one,) = side.measured
    assert len(one.values) == len(one.samples) == 3
    assert side.name == "mae a, mae b"


def test_a_folder_whose_name_holds_a_colon_is_taken_as_it_is(write_side, tmp_path):
    assert read_side(str(write_side(tmp_path / "out:1", {0: HALF}))).name == "mae a"


def test_a_failed_task_gives_its_reason(write_side, tmp_path, blank):
    a = read_side(str(write_side(tmp_path / "a", {0: HALF})))
    append_rows(tmp_path / "b" / "results.jsonl", [replace(blank, status="failed", value=None, error="out of disk")])
    b = read_side(str(tmp_path / "b"))
    assert choose_metrics(a, b, (), everything=False) == ["imagenet_ft.acc1"]
    with pytest.raises(NotComparableError, match=r"the second side .* has no value; its task failed: out of disk"):
        matching(a, b, "imagenet_ft.acc1")
    with pytest.raises(UsageError, match="did you mean imagenet_ft"):
        choose_metrics(a, b, ("imagenet",), everything=False)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task_version": 2}, "task version differs, 1 against 2"),
        ({"protocol": "f" * 16, "suite": "full"}, r"protocol fingerprint differs, 0123456789abcdef \(quick\) against"),
        ({"data_hash": "e" * 16}, "data hash differs, dddddddddddddddd against eeeeeeeeeeeeeeee"),
        ({"limit": 10, "limited": True}, "limit differs, none against 10"),
        ({"unit": "percent"}, "unit differs"),
        ({"higher_is_better": False}, "direction differs"),
    ],
)
def test_what_was_measured_otherwise_is_refused_by_name(write_side, tmp_path, changes, message):
    a = read_side(str(write_side(tmp_path / "a", {0: HALF})))
    b = read_side(str(write_side(tmp_path / "b", {0: HALF}, sha="b", **changes)))
    with pytest.raises(NotComparableError, match=message):
        check_comparable(a.measured[0], b.measured[0])


def test_of_several_conditions_the_equal_ones_are_paired(write_side, tmp_path):
    a = read_side(str(write_side(tmp_path / "a", {0: HALF})))
    write_side(tmp_path / "b", {0: HALF[:10]}, sha="b", limit=10, limited=True)
    b = read_side(str(write_side(tmp_path / "b", {0: HALF}, sha="b")))
    ((before, after),) = matching(a, b, "imagenet_ft.acc1")
    assert (before.limit, after.limit) == (None, None)


def test_other_items_under_one_data_hash_are_refused(write_side, tmp_path):
    a = read_side(str(write_side(tmp_path / "a", {0: HALF})))
    folder = write_side(tmp_path / "b", {0: HALF}, sha="b")
    (file,) = (folder / "samples").iterdir()
    table = polars.read_parquet(file)
    for change, message in (
        (table.with_columns(image=polars.col("image").str.replace("00000", "other")), "1 items are on the first side"),
        (table.with_columns(image=polars.lit("same.jpg")), "occurs more than once"),
    ):
        change.write_parquet(file)
        with pytest.raises(NotComparableError, match=message):
            contrasts.contrast(a.measured[0], read_side(str(folder)).measured[0], settings=SETTINGS)
    file.write_bytes(b"no parquet")
    with pytest.raises(NotComparableError, match="cannot read the outcomes"):
        contrasts.contrast(a.measured[0], read_side(str(folder)).measured[0], settings=SETTINGS)


@pytest.mark.parametrize("how", ["not kept", "lost", "another value", "no key"])
def test_unpaired_only_when_it_must_and_said(write_side, tmp_path, how):
    a = read_side(str(write_side(tmp_path / "a", {0: HALF})))
    folder = write_side(tmp_path / "b", {0: ~HALF}, sha="b", keep=how != "not kept")
    for file in (folder / "samples").iterdir():
        table = polars.read_parquet(file)
        if how == "lost":
            file.unlink()
        if how == "another value":
            table.with_columns(correct=polars.lit(value=True)).write_parquet(file)
        if how == "no key":
            table.rename({"image": "number"}).write_parquet(file)
    one = contrasts.contrast(a.measured[0], read_side(str(folder)).measured[0], settings=SETTINGS)
    assert not one.paired
    assert one.cautions[0].startswith("compared UNPAIRED")
    assert one.sampling_error == pytest.approx(np.sqrt(2 * 0.25 / 40))
    assert one.p_value == pytest.approx(1.0)


def test_nothing_that_says_how_sure_is_refused(write_side, tmp_path):
    sides = [
        read_side(str(write_side(tmp_path / sha, {0: HALF}, sha=sha, keep=False, standard_error=None))).measured[0]
        for sha in "ab"
    ]
    with pytest.raises(NotComparableError, match="how sure"):
        contrasts.contrast(*sides, settings=SETTINGS)


def test_ranks_become_recalls_with_the_image_as_cluster():
    samples = polars.DataFrame(
        {
            "key": ["a#0", "a#1", "b#0", "a", "b"],
            "direction": ["image", "image", "image", "text", "text"],
            "image_key": ["a", "a", "b", "a", "b"],
            "rank": [1, 6, 5, 2, 1],
        }
    )
    image = outcomes.mean_outcomes(samples, "zs_retrieval.image_recall@5")
    assert image is not None
    assert image.values.tolist() == [1.0, 0.0, 1.0]
    assert image.clusters.tolist() == ["a", "a", "b"]
    text = outcomes.mean_outcomes(samples, "zs_retrieval.text_recall@1")
    assert text is not None
    assert text.values.tolist() == [0.0, 1.0]
    assert text.clusters is None
    assert outcomes.mean_outcomes(samples, "zs_retrieval.sound_recall@1") is None
    assert outcomes.mean_outcomes(samples, "zs_retrieval.median") is None


def test_gathering_skips_what_has_no_value(blank, tmp_path):
    rows = [blank, replace(blank, status="failed", value=None), replace(blank, seed=1, samples="samples/x.parquet")]
    (one,) = gather(rows, tmp_path)
    assert one.samples == (None, tmp_path / "samples/x.parquet")


def test_tables_are_read_once(write_side, tmp_path):
    one = read_side(str(write_side(tmp_path / "a", {0: HALF}))).measured[0]
    tables = Tables()
    first = tables.of(one)
    one.samples[0].unlink()
    assert tables.of(one)[0] is first[0]
