"""Sections of the report: verdicts, forecasts, comparisons from files, pictures and tables from beside the rows."""

import json

import numpy as np
import polars
import pytest
from unveil_evalharness.certainty import ALIKE_NOTE
from unveil_evalharness.cli import main
from unveil_evalharness.errors import ResultsError
from unveil_evalharness.output import write_gallery, write_samples
from unveil_evalharness.report.published import make_published_report
from unveil_evalharness.report.sections.comparisons import comparison_sections
from unveil_evalharness.report.sections.samples import outcome_table
from unveil_evalharness.report.write import make_report
from unveil_evalharness.task import Picture


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    return make_published_report("xie2023", tmp_path_factory.mktemp("x"), formats=("html", "json"), figures=False)


def content_of(study, tmp_path, **options):
    return make_report([study.folder], tmp_path / "out", formats=("json",), figures=False, **options).content


def section(content, key):
    return next(section for section in content.sections if section.key == key)


def test_published_report_answers_with_the_verdict_and_the_sources_offset(published) -> None:
    answer = published.content.answers[0]
    assert answer.verdict == "usable one-sided"
    assert answer.tone == "warn"
    assert answer.text.startswith("The validation loss ranks these 63 runs with Spearman −0.90 [−0.95, −0.79]")
    assert "a falling one is informative, a rising one is not" in answer.text
    assert "do not use it across data sources" in answer.text
    tables = {table.title.partition(": ")[2]: table for table in section(published.content, "correlation").folded}
    steps = [row[1].text for row in tables["steps, conditions, offsets, noise"].rows]
    assert steps[:2] == ["28 of 28 gained", "7 of 14 gained (Fisher's p = 0.00013)"]
    groups = {row[1].text: row[4].value for row in tables["each group by itself"].rows}
    assert groups["ImageNet-1K 10%"] == pytest.approx(0.548, abs=5e-4)


def test_published_report_forecasts_every_run_without_its_model(published) -> None:
    forecasts = section(published.content, "forecasts")
    names = [figure.name for figure in forecasts.figures]
    assert names == ["forecast_imagenet_ft_acc1", "scaling_law", "overfitting_boundary"]
    table = forecasts.folded[0]
    assert len(table.rows) == 63
    for row in table.rows:
        assert row[2].value - row[3].value == pytest.approx(row[5].value)
    words = forecasts.figures[0].panels[0].subtitle
    inside = int(words.split("; ")[1].split(" of ")[0])
    assert 0.85 <= inside / 63 <= 0.97


def test_published_sets_without_losses_have_a_report_too(tmp_path) -> None:
    content = make_published_report("flip2023", tmp_path, formats=("html",), figures=False).content
    assert content.answers[0].text
    assert len(content.overview.rows) > 10
    assert "forecasts" not in {one.key for one in content.sections}


def test_unknown_published_set_is_one_line(tmp_path, capsys) -> None:
    assert main(["report", "--published", "xie2032", "--output", str(tmp_path)]) == 2
    assert "did you mean xie2023?" in capsys.readouterr().err


def test_too_few_runs_to_forecast_are_said(study, manifest, tmp_path) -> None:
    for number in range(5):
        study.add(manifest(0.5 - 0.01 * number, step=number + 1), {"imagenet_ft.acc1": 0.4 + 0.01 * number})
    paragraphs = section(content_of(study, tmp_path), "forecasts").paragraphs
    assert any(text.startswith("No forecast of imagenet_ft.acc1: ") for text in paragraphs)


def test_a_standard_error_of_zero_has_a_note_in_the_tables_that_show_one(study, manifest, tmp_path) -> None:
    for number, value in enumerate((0.9, 1.0)):
        measured = {"imagenet_ft.acc1": value, "imagenet_ft.acc5": 0.95}
        study.add(manifest(0.5, step=number + 1), measured, standard_error=0.0 if number else 0.02)
    content = content_of(study, tmp_path)
    assert ALIKE_NOTE in content.overview.notes
    (table,) = section(content, "metrics").tables
    assert [cell.text for cell in table.rows[1] if cell.alike] == ["1.000 ± 0.000"]


def two_sides(study, manifest):
    for number in range(2):
        study.add(manifest(0.5 - 0.1 * number, step=number + 1), {"imagenet_ft.acc1": 0.4 + 0.1 * number})
    hashes = [row["checkpoint_sha256"] for row in study.rows()]
    return [f"{study.folder}:{sha256[:12]}" for sha256 in hashes]


def test_a_comparison_is_shown_as_compare_found_it(study, manifest, tmp_path, capsys) -> None:
    sides = two_sides(study, manifest)
    assert main(["compare", *sides, "--json"]) == 0
    printed = capsys.readouterr().out
    (tmp_path / "compare.json").write_text(printed)
    found = json.loads(printed)["metrics"][0]
    table = section(content_of(study, tmp_path, include=[tmp_path / "compare.json"]), "comparison-1").tables[0]
    row = table.rows[0]
    assert [cell.value for cell in row[2:5]] == [found["before"], found["after"], found["gain"]]
    assert row[6].value == found["p_adjusted"]


def test_a_gates_answer_comes_before_all_others(study, manifest, tmp_path, capsys) -> None:
    baseline, candidate = reversed(two_sides(study, manifest))
    (tmp_path / "policy.toml").write_text('[metrics."imagenet_ft.acc1"]\nabsolute = 0.01\n')
    arguments = ["--baseline", baseline, "--candidate", candidate, "--policy", str(tmp_path / "policy.toml"), "--json"]
    code = main(["gate", *arguments])
    captured = capsys.readouterr()
    assert code in (0, 1, 2, 3), captured.err
    (tmp_path / "gate.json").write_text(captured.out)
    content = content_of(study, tmp_path, include=[tmp_path / "gate.json"])
    assert content.answers[0].task == "gate"
    assert content.answers[0].verdict == json.loads(captured.out)["status"].replace("_", " ")


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"metrics": [{}], "a": "", "b": ""}', '{"findings": 3, "status": "ok"}']
)
def test_files_that_are_no_comparison_are_refused_by_name(tmp_path, text) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(ResultsError, match=r"x\.json"):
        comparison_sections([tmp_path / "x.json"])
    with pytest.raises(ResultsError, match=r"none\.json"):
        comparison_sections([tmp_path / "none.json"])


PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108000000003a7e9b550000000a49444154789c6360000000020001"
    "48afa4710000000049454e44ae426082"
)


def with_files(study, manifest, *, gallery: str, tables: dict[str, str]) -> None:
    study.add(manifest(0.5), {"imagenet_ft.acc1": 0.4}, gallery=gallery, tables=tables)


def test_pictures_and_tables_come_from_beside_the_rows(study, manifest, tmp_path) -> None:
    with_files(study, manifest, gallery="gallery/a", tables={"per_class": "tables/a.parquet"})
    for name in ("gallery", "tables"):
        (study.folder / name).mkdir()
    shots = [Picture(encoded=PNG, caption=f"shot {i}", outcome="good" if i % 2 else "bad") for i in range(40)]
    write_gallery(study.folder / "gallery" / "a", shots)
    write_samples(
        study.folder / "tables" / "a.parquet", polars.DataFrame({"n": [3], "class": ["cat"], "recall": [0.5]})
    )
    content = content_of(study, tmp_path)
    gallery = section(content, "predictions").galleries[0]
    assert [shot.caption for shot in gallery.shots] == [f"shot {i}" for i in range(16)]
    assert gallery.shots[0].kind == "png"
    table = section(content, "outcomes").folded[0]
    assert table.header == ("class", "n", "recall")
    assert [cell.value for cell in table.rows[0]] == [None, 3.0, 0.5]


@pytest.mark.parametrize("where", ["../secret", "/etc", "gallery/../../secret"])
def test_paths_out_of_the_folder_are_not_followed(study, manifest, tmp_path, where) -> None:
    with_files(study, manifest, gallery=where, tables={"per_class": f"{where}/t.parquet"})
    write_gallery(study.folder.parent / "secret", [Picture(encoded=PNG, caption="s", outcome="good")])
    polars.DataFrame({"a": [1]}).write_parquet(study.folder.parent / "secret" / "t.parquet")
    keys = {one.key for one in content_of(study, tmp_path).sections}
    assert not {"predictions", "outcomes"} & keys


def test_damaged_or_foreign_pictures_are_left_out(study, manifest, tmp_path) -> None:
    with_files(study, manifest, gallery="gallery/a", tables={})
    folder = study.folder / "gallery" / "a"
    folder.mkdir(parents=True)
    (folder / "0.png").write_bytes(PNG[:40])
    (folder / "1.png").write_text("<svg onload=alert(1)>")
    (folder / "2.png").write_bytes(PNG)
    names = ["0.png", "1.png", "2.png", "../a/2.png", "none.png", 7]
    (folder / "index.json").write_text(json.dumps([*({"file": name} for name in names), "x"]))
    shots = section(content_of(study, tmp_path), "predictions").galleries[0].shots
    assert [shot.encoded for shot in shots] == [PNG, PNG]


def test_a_confusion_is_a_square_of_few_classes_and_a_list_of_many(tmp_path) -> None:
    path = tmp_path / "c.parquet"
    polars.DataFrame({"label": ["a", "a", "b"], "prediction": ["a", "b", "a"], "n": [3, 1, 2]}).write_parquet(path)
    table = outcome_table(path, "confusion", "t")
    assert table.header == ("true class", "a", "b")
    assert [[cell.value for cell in row[1:]] for row in table.rows] == [[3.0, 1.0], [2.0, 0.0]]
    assert [cell.shade for cell in table.rows[0][1:]] == [0.75, 0.25]
    many = [f"class {index:02d}" for index in range(30)]
    counts = np.arange(30)
    polars.DataFrame({"label": many, "prediction": many[::-1], "n": counts}).write_parquet(path)
    table = outcome_table(path, "confusion", "t")
    assert table.header == ("label", "prediction", "n")
    assert [row[2].value for row in table.rows] == sorted(map(float, counts), reverse=True)
