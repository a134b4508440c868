"""The written report: well-formed, offline, true to the rows, safe against hostile names."""

import base64
import hashlib
import io
import subprocess
import sys
from html.parser import HTMLParser
from xml.etree import ElementTree

import matplotlib
import pytest
from PIL import Image
from unveil_evalharness.cli import main
from unveil_evalharness.report import make_report, write_report

VOID = {"meta", "img", "source", "wbr", "br", "link", "input"}


class Page(HTMLParser):
    """Checks nesting while it collects attributes, cells and text."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.values: list[float] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs) -> None:
        attributes = dict(attrs)
        self.tags.append((tag, attributes))
        if "data-value" in attributes:
            self.values.append(float(attributes["data-value"]))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data) -> None:
        if not self.open or self.open[-1] not in ("style", "script"):
            self.text.append(data)

    def words(self) -> str:
        return " ".join("".join(self.text).replace("\xa0", " ").split())


def page_of(study, destination):
    """The folder of a report whose figures are on its page alone: drawing the files takes most of the time."""
    return make_report([study.folder], destination, figures=False).page.parent


def read(folder) -> tuple[str, Page]:
    text = (folder / "report.html").read_text(encoding="utf-8")
    return text, Page(text)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Where the report of the demo-like study is made once for this module."""
    return tmp_path_factory.mktemp("report")


@pytest.fixture
def report(demo_study, written):
    if not (written / "report.html").exists():
        assert write_report([demo_study.folder], written) == written / "report.html"
    return written


def policy_of(page: Page) -> dict[str, str]:
    (content,) = [a["content"] for tag, a in page.tags if a.get("http-equiv") == "Content-Security-Policy"]
    return dict(part.strip().split(" ", 1) for part in content.split(";"))


def digest(text: str, tag: str) -> str:
    content = text.partition(f"<{tag}>")[2].partition(f"</{tag}>")[0]
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"


def test_page_is_one_offline_file(report) -> None:
    text, page = read(report)
    assert "://" not in text
    keys = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    for tag, attributes in page.tags:
        assert tag not in ("link", "iframe", "object", "base", "form")
        assert not any(name.startswith("on") or name in ("style", "srcset", "action") for name in attributes)
        if "src" in attributes:
            assert attributes["src"].startswith("data:image/")
        if "href" in attributes:
            assert attributes["href"].removeprefix("#") in keys


def test_policy_allows_this_script_and_nothing_else(report) -> None:
    text, page = read(report)
    assert [tag for tag, _ in page.tags].count("script") == 1
    assert policy_of(page) == {
        "default-src": "'none'",
        "img-src": "data:",
        "style-src": digest(text, "style"),
        "script-src": digest(text, "script"),
        "base-uri": "'none'",
        "form-action": "'none'",
    }


def test_every_figure_is_drawn_on_the_page_and_in_files(report) -> None:
    _, page = read(report)
    drawn = [a["id"].removeprefix("figure-") for tag, a in page.tags if tag == "figure" and "id" in a]
    parts = ("", "_residuals", "_data_size")
    assert sorted(drawn) == sorted(
        [
            "validation_loss_simmim",
            "loss_over_length_simmim",
            "validation_loss_flip",
            *(f"{task}_simmim{part}" for task in ("imagenet_ft", "coco_det", "ade20k_seg") for part in parts),
        ]
    )
    names = sorted(path.name for path in (report / "figures").iterdir())
    assert names == sorted(f"{name}{suffix}" for name in drawn for suffix in (".svg", ".dark.svg", ".png"))
    for path in (report / "figures").glob("*.svg"):
        assert ElementTree.fromstring(path.read_bytes()).tag.endswith("svg")
    for path in (report / "figures").glob("*.png"):
        with Image.open(io.BytesIO(path.read_bytes())) as image:
            image.load()
            assert image.width > 600
            assert len(image.convert("L").getcolors()) > 20  # something is drawn
    plots = [a for tag, a in page.tags if tag == "svg" and a.get("class") == "plot"]
    assert all(a["aria-label"] for a in plots)
    assert len(plots) >= len(drawn)


def test_points_tell_their_run(report, demo_study) -> None:
    _, page = read(report)
    tips = [a["data-tip"] for tag, a in page.tags if "data-tip" in a]
    measured = {row["value"] for row in demo_study.rows() if row["metric"] == "imagenet_ft.acc1" and row["value"]}
    assert sum("acc1" in tip and "residual" not in tip for tip in tips) >= len(measured) - 1  # FLIP's has no peer
    assert any("64 images" in tip for tip in tips)


def test_a_longer_run_with_a_higher_loss_is_outlined(study, manifest, tmp_path) -> None:
    for step, loss in ((100, 0.5), (200, 0.45), (400, 0.47)):
        study.add(manifest(loss, step=step), {"imagenet_ft.acc1": 1 - loss})
    _, page = read(page_of(study, tmp_path / "out"))
    hollow = [a["data-tip"] for tag, a in page.tags if "hollow" in a.get("class", "") and "data-tip" in a]
    assert hollow
    assert all("s=400" in tip for tip in hollow)
    assert "Over-fitted: a shorter run of the same model" in page.words()


def test_tables_hold_exactly_the_rows_numbers(report, demo_study) -> None:
    _, page = read(report)
    for row in demo_study.rows():
        if row["value"] is not None and row["status"] == "ok":
            assert row["value"] in page.values
            assert f"{row['value']:.3f} ± {row['standard_error']:.3f}" in page.words()
            assert row["baseline"] in page.values


def test_answer_comes_first_and_is_honest(report) -> None:
    words = read(report)[1].words()
    answer = words.index("A lower validation loss goes with a better imagenet_ft.acc1 (Spearman −")
    assert answer < words.index("Results")
    assert "n = 6" in words[answer : words.index("Results")]
    assert "6 of 6 values do not beat the trivial baseline" in words
    assert "No correlation for imagenet_ft.acc1: 1 checkpoint, at least 5 are needed" in words
    assert "†" in words


def test_failures_and_provenance_are_told(report) -> None:
    words = read(report)[1].words()
    assert "mmdet cannot be imported" in words
    assert "not applicable" in words
    assert "the checkpoint has no text tower" in words
    for fact in ("2 CPU cores", "2.9.0", "feedc0de00000000", "ceil_hidden", "negative_pool"):
        assert fact in words


def test_markdown_tells_the_same(report) -> None:
    text = (report / "report.md").read_text(encoding="utf-8")
    assert text.startswith("# Evaluation of 7 checkpoints on 4 tasks\n\n- **usable one-sided** imagenet_ft: ")
    assert "](figures/validation_loss_simmim.svg)" in text
    for line in text.splitlines():
        if line.startswith("!["):
            assert (report / line.partition("](")[2].rstrip(")")).is_file()
    tables = [block for block in text.split("\n\n") if block.startswith("|")]
    assert len(tables) >= 8
    for table in tables:
        assert len({line.replace("\\|", "").count("|") for line in table.splitlines()}) == 1


def test_hostile_names_stay_text(study, manifest, tmp_path) -> None:
    evil = '<script>alert("x")</script><img src=http://evil.example/a.png> | [a](http://evil.example) $\\alpha_{$'
    for number in range(5):
        made = manifest(0.5 - 0.01 * number, step=number + 1, name=evil)
        study.add(
            made, {f"task{evil}.metric": 0.1 * number}, main=True, label=f"{evil}{number}", hardware=evil,
            versions={evil: evil},
        )  # fmt: skip
    study.add(manifest(0.3, step=77), {"imagenet_ft.acc1": None}, label=evil, error=evil)
    destination = write_report([study.folder], tmp_path / "out").parent
    _, page = read(destination)
    assert [tag for tag, _ in page.tags].count("script") == 1
    assert "img" not in {tag for tag, _ in page.tags}
    assert all(a["href"].startswith("#") for tag, a in page.tags if tag == "a")
    assert policy_of(page)["script-src"] == digest(read(destination)[0], "script")
    assert '<script>alert("x")</script>' in page.words()
    markdown = (destination / "report.md").read_text(encoding="utf-8")
    assert "<script" not in markdown
    assert "<img" not in markdown
    assert "[a](" not in markdown


def test_limited_rows_are_marked_and_apart(study, manifest, tmp_path) -> None:
    for number in range(5):
        made = manifest(0.5 - 0.01 * number, step=number + 1)
        study.add(made, {"imagenet_ft.acc1": 0.4 + 0.01 * number})
        study.add(made, {"imagenet_ft.acc1": 0.6 + 0.01 * number}, limit=16, limited=True)
    words = read(page_of(study, tmp_path / "out"))[1].words()
    assert "(limited to 16)" in words
    assert "[limited to 16]" in words
    assert "[no limit]" in words
    assert "Limited columns were measured with --limit" in words


@pytest.mark.parametrize("num_checkpoints", [1, 4])
def test_few_checkpoints_are_said_to_be_few(study, manifest, tmp_path, num_checkpoints) -> None:
    for number in range(num_checkpoints):
        study.add(manifest(0.5 - 0.01 * number), {"imagenet_ft.acc1": 0.4 + 0.01 * number})
    words = read(page_of(study, tmp_path / "out"))[1].words()
    assert f"{num_checkpoints} checkpoint" in words
    assert "at least 5 are needed" in words


def test_nothing_but_failures_still_makes_a_report(study, manifest, tmp_path) -> None:
    study.add(manifest(0.5), {"imagenet_ft.acc1": None}, error="no folder imagenet/")
    words = read(page_of(study, tmp_path / "out"))[1].words()
    assert "No result for imagenet_ft: it failed on 1 checkpoint (no folder imagenet/)." in words


def test_checkpoints_without_manifest_or_loss_are_shown(study, manifest, tmp_path) -> None:
    study.add(manifest(0.5), {"imagenet_ft.acc1": 0.4}, keep_manifest=False)
    study.add(manifest(None, step=7), {"imagenet_ft.acc1": 0.5})
    _, page = read(page_of(study, tmp_path / "out"))
    assert "its manifest is not in the output folder" in page.words()
    assert {0.4, 0.5} <= set(page.values)


def test_lower_is_better_and_seeds_and_many_sizes(study, manifest, tmp_path) -> None:
    for number in range(9):  # more data sizes than the palette has colours
        study.add(
            manifest(0.5 - 0.01 * number, num_unique=100 * (number + 1)), {"imagenet_ft.acc1": 0.5 - 0.01 * number},
            seeds=(0, 1), higher_is_better=False, baseline=0.9, standard_error=None,
        )  # fmt: skip
    words = read(page_of(study, tmp_path / "out"))[1].words()
    assert "goes with a better imagenet_ft.acc1" in words
    assert "Lower is better: imagenet_ft.acc1." in words
    assert "0, 1" in words


def test_more_lengths_and_sizes_than_a_legend_holds(study, manifest, tmp_path) -> None:
    for number in range(16):
        made = manifest(0.5 - 0.01 * number, step=10 * (number + 1), num_unique=100 * (number + 1))
        study.add(made, {"imagenet_ft.acc1": 0.4 + 0.01 * number})
    assert "n = 16" in read(page_of(study, tmp_path / "out"))[1].words()


def test_same_results_give_the_same_bytes(study, manifest, tmp_path) -> None:
    for number in range(5):
        study.add(manifest(0.5 - 0.01 * number, step=number + 1), {"imagenet_ft.acc1": 0.4 + 0.01 * number})
    before = dict(matplotlib.rcParams)
    first, second = (write_report([study.folder], tmp_path / name) for name in ("a", "b"))
    assert first.read_bytes() == second.read_bytes()
    for path in (first.parent / "figures").iterdir():
        assert path.read_bytes() == (second.parent / "figures" / path.name).read_bytes()
    assert dict(matplotlib.rcParams) == before


def test_command_prints_table_answers_and_path(study, manifest, tmp_path, capsys) -> None:
    study.add(manifest(0.5), {"imagenet_ft.acc1": 0.4})
    assert main(["report", str(study.folder), "--output", str(tmp_path / "out")]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[0].startswith("| checkpoint")
    assert "- imagenet_ft: " in out
    written = [f"report: {tmp_path / 'out' / f'report.{kind}'}" for kind in ("html", "md", "json", "csv")]
    assert out.splitlines()[-4:] == written


def test_bad_input_is_one_line_and_two(study, manifest, tmp_path, capsys) -> None:
    study.add(manifest(0.5), {"imagenet_ft.acc1": 0.4})
    (tmp_path / "file").touch()
    for arguments in ([str(tmp_path / "none")], [str(study.folder), "--output", str(tmp_path / "file")]):
        assert main(["report", *arguments]) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.count("\n") == 1
        assert captured.err.startswith("evalharness: error: ")


def test_an_earlier_report_survives_a_failed_write(study, manifest, tmp_path, monkeypatch) -> None:
    study.add(manifest(0.5), {"imagenet_ft.acc1": 0.4})
    page = write_report([study.folder], tmp_path / "out")
    before = page.read_bytes()
    study.add(manifest(0.4), {"imagenet_ft.acc1": 0.5})

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fdopen", full)
    with pytest.raises(ValueError, match=r"No space left on device; choose a folder"):
        write_report([study.folder], tmp_path / "out")
    assert page.read_bytes() == before
    assert [path.name for path in (tmp_path / "out").glob(".*")] == []


def test_loads_neither_torch_nor_pyplot() -> None:
    code = "import unveil_evalharness.report.command, sys; print(*sys.modules, sep='\\n')"
    loaded = set(
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    )
    assert "unveil_evalharness.report.figures.study" in loaded
    assert not {"torch", "timm", "mmengine", "matplotlib.pyplot"} & loaded
