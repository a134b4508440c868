"""Reports of hostile results in every other form: Markdown, CSV, JSON, SVG, JUnit, and text on a terminal."""

import csv
import io
import json
import re
import xml.etree.ElementTree as ET

import pytest
from hostile_strings import PAYLOADS, hostile_folder, hostile_inclusions

FORMULA = re.compile(r"^\s*[=+@-](?!\d*\.?\d+(e[+-]?\d+)?$)")
CONTROLS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Everything that is written about the hostile results, and the folder above it."""
    from unveil_evalharness.report.write import make_report

    folder = tmp_path_factory.mktemp("hostile") / "a" / "b" / "c" / "d"
    folder.mkdir(parents=True)
    results = hostile_folder(folder / "eval")
    before = _files(folder.parents[3])
    make_report([results], folder / "report", include=hostile_inclusions(folder))
    return folder, _files(folder.parents[3]) - before


def _files(folder):
    return {path for path in folder.rglob("*") if path.is_file()}


def test_every_file_lies_in_the_folder_of_the_report(written):
    folder, files = written
    assert len(files) > 4
    assert all(path.is_relative_to(folder) for path in files)
    names = [path.relative_to(folder / "report").as_posix() for path in files if path.is_relative_to(folder / "report")]
    assert all(re.fullmatch(r"[A-Za-z0-9_./-]+", name) for name in names), names


def test_csv_has_no_formulas(written):
    _, files = written
    tables = [path for path in files if path.suffix == ".csv"]
    assert tables
    for path in tables:
        rows = list(csv.reader(io.StringIO(path.read_text(encoding="utf-8"), newline="")))
        found = [cell for row in rows for cell in row if FORMULA.match(cell)]
        assert found == [], found[:3]
    assert FORMULA.match("=cmd|' /C calc'!A0")
    assert FORMULA.match(" =1+1")
    assert not FORMULA.match("-0.25")


def test_markdown_has_no_markup_of_others(written):
    folder, _ = written
    text = (folder / "report" / "report.md").read_text(encoding="utf-8")
    assert "<" not in text.replace("&lt;", "")
    assert re.search(r"(?<!\\)\]\((?!figures/)", text) is None
    assert CONTROLS.search(text) is None


def test_json_is_json(written):
    folder, _ = written
    content = json.loads((folder / "report" / "report.json").read_text(encoding="utf-8"))
    assert any(text in json.dumps(content["results"], ensure_ascii=False) for text in ("window.struck", "script"))


@pytest.mark.filterwarnings("ignore:Glyph:UserWarning")
def test_a_figure_draws_hostile_words_as_words():
    """Also ``$``, which begins a formula for Matplotlib, and what XML has no place for."""
    from matplotlib.figure import Figure
    from unveil_evalharness.report.palette import plain_lines, svg_bytes

    figure = Figure()
    figure.subplots().set_title(plain_lines(PAYLOADS))
    names = {element.tag.rpartition("}")[2] for element in ET.fromstring(svg_bytes(figure)).iter()}
    assert "path" in names
    assert names.isdisjoint({"script", "a", "image", "foreignObject", "animate", "iframe"}), names


def _report():
    from unveil_evalharness.gate.decide import Finding, GateReport
    from unveil_evalharness.gate.policy import Margin, Policy

    findings = tuple(
        Finding(group=text, name=text, status="not_comparable", words=f"{text} is not there") for text in PAYLOADS
    )
    return GateReport(
        baseline=PAYLOADS[2],
        candidate=PAYLOADS[0],
        policy=Policy(default=Margin(absolute=0.01)),
        findings=findings,
        warnings=PAYLOADS,
    )


def test_a_gates_junit_and_job_summary_hold_text_only():
    from unveil_evalharness.gate.junit import as_junit
    from unveil_evalharness.gate.render import as_markdown

    report = _report()
    root = ET.fromstring(as_junit(report))
    assert {element.tag for element in root.iter()} <= {
        "testsuites", "testsuite", "properties", "property", "testcase", "failure", "error", "skipped",
        "system-out", "system-err",
    }  # fmt: skip
    assert len(list(root.iter("testcase"))) == len(PAYLOADS)
    text = as_markdown(report)
    body = "\n".join(line.removeprefix("> ") for line in text.splitlines())
    assert "<" not in body.replace("&lt;", "")
    assert re.search(r"(?<!\\)\]\(", body) is None
    assert CONTROLS.search(body) is None


def test_what_goes_to_a_terminal_moves_no_cursor(tmp_path):
    import contextlib

    from unveil_backbones.terminal import SafeStream, visible
    from unveil_evalharness.results import read_rows
    from unveil_evalharness.table import format_table

    rows = read_rows(hostile_folder(tmp_path / "eval") / "results.jsonl")
    stream = io.StringIO()
    with contextlib.redirect_stdout(SafeStream(stream)):
        print(format_table(rows))
        print(*PAYLOADS, sep="\n")
        print("\x1b[1mbold\x1b[0m and a bar\r\x1b[A")
    assert (
        CONTROLS.search(stream.getvalue().replace("\x1b[1m", "").replace("\x1b[0m", "").replace("\x1b[A", "")) is None
    )
    assert "\\x1b]0;title\\x07" in stream.getvalue()
    assert visible("a\x1b]52;c;aGk=\x07\nb\u202ec") == "a\\x1b]52;c;aGk=\\x07\\nb\\u202ec"
    assert visible("plain ± text") == "plain ± text"


def test_the_searches_of_this_file_can_fail():
    assert CONTROLS.search("a\x1b[31m")
    assert CONTROLS.search("\u202e")
    assert re.search(r"(?<!\\)\]\((?!figures/)", "[x](javascript:1)")
