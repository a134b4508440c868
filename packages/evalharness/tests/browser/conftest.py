"""A headless Chromium without a network, and a report whose every string wants to be markup."""

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import polars
import pytest
from PIL import Image
from unveil_evalharness.gallery import captioned, draw_boxes, retrieval_strip, to_picture
from unveil_evalharness.output import write_gallery, write_samples
from unveil_evalharness.report.write import make_report
from unveil_evalharness.results import ResultRow, append_rows

EVIL = '<img src=x onerror="window.struck=1">'
CLOSING = "</script><script>window.struck=2</script>"


@dataclass
class Visit:
    """An open page, and what it complained about or asked for."""

    page: object
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


def make_results(folder: Path, *, num_checkpoints: int = 12) -> Path:
    """Rows of one task with hostile names, a gallery, a confusion and a failure; no manifests."""
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 255, (60, 80, 3), dtype=np.uint8)
    strip = retrieval_strip(f"a cat {EVIL}", [pixels, pixels], [True, False])
    pictures = [
        to_picture(draw_boxes(pixels, [[5, 5, 40, 40]], [CLOSING]), f"cat, taken for {EVIL}", "bad"),
        to_picture(captioned(Image.fromarray(pixels), "a dog"), CLOSING, "good"),
        to_picture(strip, "a query", "example"),
    ]
    (folder / "gallery").mkdir(parents=True)
    (folder / "tables").mkdir()
    write_gallery(folder / "gallery" / "one", pictures)
    names = [EVIL, CLOSING, "cat"]
    confusion = {
        "label": [name for name in names for _ in names],
        "prediction": names * 3,
        "n": list(range(9)),
    }
    write_samples(folder / "tables" / "one-confusion.parquet", polars.DataFrame(confusion))
    per_class = polars.DataFrame({"class": names, "n": [3, 2, 1], "recall": [0.5, None, 1.0]})
    write_samples(folder / "tables" / "one-per_class.parquet", per_class)
    rows = [
        ResultRow(
            checkpoint=f"/runs/{index}",
            checkpoint_sha256=f"{index:064x}",
            label=f"run {index} {EVIL if index % 2 else CLOSING}",
            task="imagenet_ft",
            task_version=1,
            suite="quick",
            protocol="53abdbaf71db1f35",
            status="ok",
            metric="imagenet_ft.acc1",
            main=True,
            value=round(0.9 - 0.07 * ((5 * index) % num_checkpoints), 4),
            baseline=0.1,
            standard_error=0.01,
            n=100,
            seed=0,
            data_hash="feedc0de00000000",
            hardware=EVIL,
            versions={"torch": CLOSING},
            seconds=12.0 + index,
            peak_memory=2**30,
            gallery="gallery/one",
            tables={"confusion": "tables/one-confusion.parquet", "per_class": "tables/one-per_class.parquet"},
        )
        for index in range(num_checkpoints)
    ]
    append_rows(folder / "results.jsonl", rows)
    return folder


@pytest.fixture(scope="session")
def chromium() -> Iterator[object]:
    """The browser, started once."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = os.environ.get("UNVEIL_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("no Chromium: set UNVEIL_CHROMIUM, or put chromium or google-chrome on the path")
    arguments = "--no-sandbox --disable-gpu --no-first-run --disable-background-networking --disable-component-update"
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=[*arguments.split(), "--disable-sync"])
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def hostile_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of hostile results."""
    folder = tmp_path_factory.mktemp("hostile")
    return make_report([make_results(folder / "eval")], folder / "report", formats=("html",), figures=False).page


@pytest.fixture(scope="session")
def published_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of the published runs."""
    from unveil_evalharness.report.published import make_published_report

    folder = tmp_path_factory.mktemp("published")
    return make_published_report("xie2023", folder, formats=("html",), figures=False).page


@pytest.fixture
def visit(chromium):
    """Opens a page from ``file://`` with the network off, and closes it after the test."""
    contexts = []

    def go(path: Path, *, width: int = 1280, dark: bool = False) -> Visit:
        context = chromium.new_context(
            viewport={"width": width, "height": 900}, color_scheme="dark" if dark else "light", offline=True
        )
        contexts.append(context)
        visited = Visit(page=context.new_page())
        visited.page.on("console", lambda message: visited.complaints.append(message.text))
        visited.page.on("pageerror", lambda error: visited.complaints.append(str(error)))
        visited.page.on("request", lambda request: visited.requests.append(request.url))
        visited.page.goto(path.as_uri())
        return visited

    yield go
    for context in contexts:
        context.close()


@pytest.fixture
def misbehaving(tmp_path: Path):
    """Makes pages that break a rule, to see that the checks notice."""

    def make(body: str) -> Path:
        path = tmp_path / "bad.html"
        path.write_text(f"<!DOCTYPE html><title>t</title>{body}", encoding="utf-8")
        return path

    return make
