"""The pages about masks: one for each strategy, in one shape, with examples that run and figures that are small."""

import re
from pathlib import Path

import pytest
import unveil_masking
from unveil_masking import ResizeReduction, Strategy, TextStrategy
from unveil_masking.show.cli import main
from unveil_masking.show.names import ALL, listing

FOLDER = Path(__file__).parents[2] / "docs" / "masking"
PAGES = sorted(FOLDER.glob("*.md"))
SECTIONS = ["Source", "Count", "Use when", "Example"]
NAMES = [line[0] for line in listing()]
EXAMPLE = re.compile(r"```python\n(.*?)```\n\n```text\n(.*?)```", re.DOTALL)
EXAMPLES = [(page, *found) for page in PAGES for found in EXAMPLE.findall(page.read_text(encoding="utf-8"))]


def page_of(name: str) -> str:
    return (FOLDER / f"{name.replace('_', '-')}.md").read_text(encoding="utf-8")


def broken_links(page: Path, text: str) -> list[str]:
    """Links of a page to files that are not there."""
    targets = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text)
    return [target for target in targets if "://" not in target and not (page.parent / target).is_file()]


@pytest.mark.parametrize("name", NAMES)
def test_every_strategy_has_a_page_of_the_common_shape(name):
    text = page_of(name)
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == SECTIONS
    assert f"(figures/{name}.png)" in text
    assert f"--strategy {name} -o docs/masking/figures/{name}.png" in text
    assert "arXiv:" in text


def test_the_index_names_every_strategy_and_every_page():
    index = (FOLDER / "README.md").read_text(encoding="utf-8")
    for name in unveil_masking.__all__:
        value = getattr(unveil_masking, name)
        if isinstance(value, type) and issubclass(value, (Strategy, TextStrategy, ResizeReduction)):
            assert f"| `{name}` |" in index or value in (Strategy, TextStrategy), name
    assert all(f"({page.name})" in index for page in PAGES if page.name != "README.md")


@pytest.mark.parametrize(("page", "code", "output"), EXAMPLES, ids=lambda value: getattr(value, "stem", ""))
def test_an_example_prints_what_its_page_says(page, code, output, capsys):
    exec(compile(code, str(page), "exec"), {"__name__": "page"})  # the file is our own
    assert capsys.readouterr().out == output


def test_every_page_has_an_example():
    without = {page.name for page in PAGES} - {page.name for page, _, _ in EXAMPLES}
    assert without == {"README.md"}
    blocks = sum(page.read_text(encoding="utf-8").count("```python") for page in PAGES)
    assert blocks == len(EXAMPLES)  # each of them says what it prints


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere(page):
    assert broken_links(page, page.read_text(encoding="utf-8")) == []


def test_the_link_check_can_fail():
    assert broken_links(PAGES[0], "[a](nowhere.md#x) [b](https://example.org)") == ["nowhere.md"]


def test_numbers_carry_their_mark():
    """An accuracy (two digits, a point, one digit) stands in an item that says how it is known."""
    for name in NAMES:
        use = page_of(name).split("## Use when")[1].split("## Example")[0]
        for item in re.split(r"^- ", use, flags=re.MULTILINE)[1:]:
            assert not re.search(r"\b\d\d\.\d\b", item) or "[read" in item or "[second-hand" in item, (name, item)


def test_the_vectors_are_those_of_the_readme():
    row = re.compile(r"^\| \d+ \| .* \| `0x[0-9a-f]{8}` \|$", re.MULTILINE)
    readme = (FOLDER.parents[1] / "packages" / "masking" / "README.md").read_text(encoding="utf-8")
    assert row.findall(page_of("noise")) == row.findall(readme) != []


@pytest.mark.parametrize("name", [ALL, *NAMES])
def test_a_figure_is_what_the_command_draws(name, tmp_path):
    """Of the same size, and small; pixels depend on the version of Pillow, which scales and chooses colours."""
    image = pytest.importorskip("PIL.Image", reason="needs Pillow")
    path, drawn = FOLDER / "figures" / f"{name}.png", tmp_path / "drawn.png"
    assert path.stat().st_size < 200_000
    assert main(["show", "--image", str(FOLDER / "figures" / "picture.jpg"), "--strategy", name, "-o", str(drawn)]) == 0
    with image.open(path) as shown, image.open(drawn) as fresh:
        assert shown.size == fresh.size


def test_the_photograph_is_attributed():
    index = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert "CC BY 2.0" in index
    assert "danielbuechele" in index


@pytest.mark.data
def test_real_pictures_of_any_shape_are_drawn(real_data, tmp_path):
    image = pytest.importorskip("PIL.Image", reason="needs Pillow")
    pictures = sorted((real_data / "ade20k_real_sample" / "images").rglob("*.jpg"))[:3]
    assert pictures, f"no pictures in {real_data}; name another pack in UNVEIL_DATA"
    for path in pictures:
        drawn = tmp_path / f"{path.stem}.png"
        assert main(["show", "--image", str(path), "--grid", "12x16", "-o", str(drawn)]) == 0
        with image.open(drawn) as figure:
            assert min(figure.size) > 600
        assert drawn.stat().st_size < 400_000
