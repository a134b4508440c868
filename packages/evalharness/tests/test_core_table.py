"""The table, to the letter."""

import json
from dataclasses import replace

import pytest
from unveil_evalharness.certainty import ALIKE_NOTE
from unveil_evalharness.results import ResultRow
from unveil_evalharness.table import format_table, rows_as_json, table_notes

ROW = ResultRow(
    checkpoint="a",
    checkpoint_sha256="a" * 64,
    label="mae vit",
    task="toy",
    task_version=3,
    suite="quick",
    protocol="0123abcd0123abcd",
    status="ok",
    metric="toy.score",
    main=True,
    value=0.5,
    baseline=0.25,
    standard_error=0.03125,
    n=40,
    seed=0,
    data_hash="d",
)


def test_the_table():
    rows = [
        ROW,
        replace(ROW, metric="toy.loss", higher_is_better=False, value=12.34567, baseline=None, standard_error=None),
        replace(ROW, label="flip|x", task="other", metric="other.score", status="failed", value=None, n=0),
    ]
    rows[2] = replace(rows[2], baseline=None, standard_error=None)
    assert format_table(rows) == "\n".join(
        [
            "| Checkpoint | Task  | Version | Protocol | Metric |   |   Value |   | Stderr | Baseline |  n | Status |",
            "|------------|-------|--------:|----------|--------|---|--------:|---|-------:|---------:|---:|--------|",
            "| mae vit    | toy   |       3 | 0123abcd | score  | ↑ |  0.5000 | ± | 0.0312 |   0.2500 | 40 | ok     |",
            "|            |       |         |          | loss   | ↓ | 12.3457 | ± |    N/A |          | 40 | ok     |",
            "| flip\\|x    | other |       3 | 0123abcd |        |   |         |   |        |          |    | failed |",
        ]
    )


def test_a_standard_error_of_zero_where_all_items_came_out_alike_is_no_certainty():
    for value in (0.0, 1.0):
        rows = [ROW, replace(ROW, metric="toy.other", value=value, standard_error=0.0)]
        assert table_notes(rows) == [ALIKE_NOTE]
        assert ALIKE_NOTE not in format_table(rows)
    for row in (
        replace(ROW, value=0.5, standard_error=0.0),
        replace(ROW, value=1.0, standard_error=None),
        replace(ROW, value=1.0, standard_error=0.01),
        replace(ROW, value=0.0, standard_error=0.0, unit="nats"),
        replace(ROW, value=None, standard_error=None, status="failed"),
    ):
        assert table_notes([row]) == []


@pytest.mark.parametrize("n", [20, 500, 50_000])
def test_the_distance_that_the_note_names_is_the_exact_one_sided_end(n):
    end = 1 - 0.05 ** (1 / n)
    assert end < 3 / n < 1.1 * end


def status_of(row):
    return format_table([row]).splitlines()[-1].split("|")[-2].strip()


def test_a_value_that_does_not_beat_chance_says_so():
    assert status_of(replace(ROW, value=0.31)) == "ok, at chance"
    assert status_of(replace(ROW, value=0.32)) == "ok"
    assert status_of(replace(ROW, value=0.1, higher_is_better=False)) == "ok"
    assert status_of(replace(ROW, value=0.5, higher_is_better=False)) == "ok, at chance"


def test_a_metric_without_any_image_has_no_value():
    """COCO's AP of large objects, where there is none: no score at chance, but none at all."""
    none = replace(ROW, metric="toy.large", value=0.0, baseline=0.0, standard_error=None, n=0)
    line = format_table([ROW, none]).splitlines()[-1]
    cells = [cell.strip() for cell in line.split("|")]
    assert cells[5:-1] == ["large", "↑", "N/A", "", "N/A", "0.0000", "0", "ok, no such images"]


def test_limited_and_not_applicable_rows_say_so():
    assert status_of(replace(ROW, limited=True, limit=8)) == "ok, limited to 8"
    assert status_of(replace(ROW, status="not_applicable", value=None)) == "not applicable"


def column(table, name):
    header, _, *lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()]
    return [line[header.index(name)] for line in lines]


def test_several_seeds_have_a_column_and_a_mean_with_its_error_over_seeds():
    rows = [replace(ROW, seed=seed, value=value) for seed, value in ((0, 0.5), (1, 0.52), (2, 0.54))]
    table = format_table(rows)
    assert column(table, "Seed") == ["0", "1", "2", "mean"]
    assert column(table, "Value") == ["0.5000", "0.5200", "0.5400", "0.5200"]
    # The standard deviation is 0.02; over the root of three seeds it is 0.01155.
    assert column(table, "Stderr") == ["0.0312"] * 3 + ["0.0115"]
    assert column(table, "Status")[-1] == "ok, over 3 seeds"


def test_seeds_that_agree_do_not_make_a_mean_better_than_chance():
    rows = [replace(ROW, seed=seed, value=0.3) for seed in (0, 1)]
    table = format_table(rows)
    assert column(table, "Stderr")[-1] == "0.0000"
    assert column(table, "Status")[-1] == "ok, at chance, over 2 seeds"


def test_a_failed_seed_takes_no_part_in_the_mean_and_one_seed_has_none():
    rows = [ROW, replace(ROW, seed=1, value=None, status="failed")]
    assert column(format_table(rows), "Seed") == ["0", "1"]
    table = format_table([*rows, replace(ROW, seed=2, value=0.7)])
    assert column(table, "Value") == ["0.5000", "", "0.7000", "0.6000"]


def test_the_means_of_two_checkpoints_stand_behind_their_own_seeds():
    rows = [replace(ROW, label=label, seed=seed) for label in "ab" for seed in (0, 1)]
    table = format_table([replace(row, checkpoint_sha256=row.label * 64) for row in rows])
    assert column(table, "Checkpoint") == ["a", "", "", "b", "", ""]
    assert column(table, "Seed") == ["0", "1", "mean"] * 2


def test_repeats_are_one_line_with_the_spread_between_them():
    rows = [ROW, replace(ROW, repeat=1, value=0.51), replace(ROW, metric="toy.loss")]
    table = format_table(rows)
    assert column(table, "Value") == ["0.5000", "0.5000"]
    assert column(table, "A/A") == ["0.0100", ""]
    assert "A/A" not in format_table([ROW])


def test_numbers_of_two_protocols_never_share_a_column():
    other = replace(ROW, protocol="feed" * 4, value=0.9)
    first, second = format_table([ROW, other]).split("\n\nProtocols ")
    assert first.startswith("Protocols toy 0123abcd0123abcd\n\n| Checkpoint")
    assert second.startswith("toy feedfeedfeedfeed\n\n| Checkpoint")
    assert "0.9000" not in first
    assert "0.5000" not in second


def test_another_checkpoint_with_the_same_task_repeats_the_task():
    lines = format_table([ROW, replace(ROW, label="second")]).splitlines()
    assert [cell.strip() for cell in lines[-1].split("|")[1:4]] == ["second", "toy", "3"]


def test_json_holds_every_field():
    assert [ResultRow(**fields) for fields in json.loads(rows_as_json([ROW]))] == [ROW]
