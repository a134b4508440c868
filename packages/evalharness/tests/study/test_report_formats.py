"""Report formats for programs, and tables that are too long for a page."""

import csv
import io
import json

import pytest
from unveil_evalharness.cli import main
from unveil_evalharness.report.content import Content
from unveil_evalharness.report.html_table import MAX_ROWS, table_html
from unveil_evalharness.report.machine import table_csv, to_json
from unveil_evalharness.report.tables import Cell, Table, table_file
from unveil_evalharness.report.write import FORMATS, write_content


def long_table(num_rows: int) -> Table:
    rows = tuple((Cell(text=f"run {index}"), Cell(text=f"{index}.0", value=float(index))) for index in range(num_rows))
    return Table(title="Long & wide", header=("run", "value"), rows=rows)


def test_json_and_csv_hold_the_rows_numbers(study, manifest, tmp_path) -> None:
    for number in range(5):
        study.add(manifest(0.5 - 0.01 * number, step=number + 1), {"imagenet_ft.acc1": 0.4 + 0.01 * number})
    out = ("--output", str(tmp_path / "out"))
    assert main(["report", str(study.folder), *out, "--format", "json,csv", "--no-figures"]) == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["report.csv", "report.json"]
    content = json.loads((tmp_path / "out" / "report.json").read_text())
    values = [row["value"] for row in study.rows()]
    assert [row[2] for row in content["results"]["rows"][:-1]] == values
    assert content["correlation"]["strata"][0]["column"]["metric"] == "imagenet_ft.acc1"
    read = list(csv.DictReader(io.StringIO((tmp_path / "out" / "report.csv").read_text())))
    assert [float(row["value"]) for row in read] == values


@pytest.mark.parametrize("given", ["pdf", "html,xml", ""])
def test_unknown_formats_are_refused_in_one_line(study, manifest, tmp_path, capsys, given) -> None:
    study.add(manifest(0.5), {"imagenet_ft.acc1": 0.4})
    assert main(["report", str(study.folder), "--output", str(tmp_path / "out"), f"--format={given}"]) == 2
    assert "html, md, json, csv" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_results_and_a_published_set_are_not_mixed(tmp_path, capsys) -> None:
    assert main(["report", str(tmp_path), "--published", "xie2023"]) == 2
    assert "not both" in capsys.readouterr().err


def test_a_long_table_is_cut_on_the_page_and_whole_beside_it(tmp_path) -> None:
    table = long_table(MAX_ROWS + 3)
    content = Content(title="t", answers=(), overview=table, sections=())
    write_content(content, tmp_path, formats=FORMATS, figures=False, csv=lambda: "", extra={})
    page = (tmp_path / "report.html").read_text()
    assert page.count("<tr>") == MAX_ROWS + 1
    assert f"The first {MAX_ROWS:,} of {MAX_ROWS + 3:,} rows" in page
    assert f'href="{table_file(table)}"' in page
    assert len((tmp_path / table_file(table)).read_text().splitlines()) == MAX_ROWS + 4
    assert f"of {MAX_ROWS + 3:,} rows" in (tmp_path / "report.md").read_text()
    assert len(json.loads((tmp_path / "report.json").read_text())["results"]["rows"]) == MAX_ROWS + 3


def test_a_short_table_is_neither_cut_nor_written_beside() -> None:
    assert "The first" not in table_html(long_table(MAX_ROWS))


def test_spreadsheets_get_no_formulas() -> None:
    row = (Cell(text="=cmd()"), Cell(text="−1.0", value=-1.0), Cell(text="@x"))
    lines = table_csv(Table(title="t", header=("a", "b", "c"), rows=(row,))).splitlines()
    assert lines[1] == "'=cmd(),-1.0,'@x"


def test_numbers_that_are_not_finite_are_words_in_json() -> None:
    table = Table(title="t", header=("a",), rows=((Cell(text="nan", value=float("nan")),),))
    content = Content(title="t", answers=(), overview=table, sections=())
    assert json.loads(to_json(content, {}))["results"]["rows"] == [["nan"]]
