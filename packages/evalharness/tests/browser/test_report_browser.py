"""The report's page in a browser: offline, silent, inert towards hostile names, and usable."""

import re

import pytest

pytestmark = pytest.mark.browser

RGB = re.compile(r"\d+")


def brightness(colour: str) -> int:
    return sum(int(number) for number in RGB.findall(colour)[:3])


def column(page, index: int, table: str = "#results table") -> list[str]:
    return page.locator(f"{table} tbody tr:not([hidden])").evaluate_all(
        "(rows, index) => rows.map(row => row.cells[index].textContent)", index
    )


def values(page, index: int) -> list[float]:
    return page.locator("#results tbody tr:not(.baseline)").evaluate_all(
        "(rows, index) => rows.map(row => Number(row.cells[index].dataset.value))", index
    )


def test_opens_offline_without_a_word_or_a_request(visit, hostile_page, published_page) -> None:
    for path in (hostile_page, published_page):
        seen = visit(path)
        assert seen.complaints == []
        assert [url for url in seen.requests if not url.startswith("data:")] == [path.as_uri()]
        assert seen.page.locator("h1").count() == 1


def test_the_checks_notice_a_page_that_misbehaves(visit, misbehaving) -> None:
    seen = visit(misbehaving('<img src="http://127.0.0.1:9/x.png"><script>throw new Error("no")</script>'))
    assert any("no" in complaint for complaint in seen.complaints)
    assert any(url.startswith("http://") for url in seen.requests)


def test_every_picture_loads(visit, hostile_page) -> None:
    page = visit(hostile_page).page
    widths = page.locator("img").evaluate_all("images => images.map(image => image.naturalWidth)")
    assert len(widths) == 9
    assert all(width > 0 for width in widths)
    page.locator(".shot img").first.click()
    assert page.locator(".shot.large").count() == 1


def test_hostile_names_are_shown_and_not_run(visit, hostile_page) -> None:
    page = visit(hostile_page).page
    assert page.evaluate("window.struck") is None
    assert page.locator("script").count() == 1
    assert page.locator('img:not([src^="data:image/"])').count() == 0
    words = page.locator("body").text_content()
    assert '<img src=x onerror="window.struck=1">' in words
    assert "</script><script>window.struck=2</script>" in words


def test_the_policy_stops_what_slips_through(visit, hostile_page) -> None:
    seen = visit(hostile_page)
    seen.page.evaluate(
        """() => {
            document.body.insertAdjacentHTML('beforeend', '<img src="x" onerror="window.struck=3">');
            const script = document.createElement('script');
            script.textContent = 'window.struck = 4';
            document.body.append(script);
        }"""
    )
    seen.page.wait_for_timeout(200)
    assert seen.page.evaluate("window.struck") is None
    assert any("Content Security Policy" in complaint for complaint in seen.complaints)


def test_tables_sort_both_ways_by_number_and_by_word(visit, hostile_page) -> None:
    page = visit(hostile_page).page
    header = page.locator("#results thead th").nth(2)
    header.locator("button").click()
    assert header.get_attribute("aria-sort") == "ascending"
    assert values(page, 2) == sorted(values(page, 2))
    assert column(page, 0)[-1] == "trivial baseline"
    header.locator("button").click()
    assert header.get_attribute("aria-sort") == "descending"
    assert values(page, 2) == sorted(values(page, 2), reverse=True)
    assert column(page, 0)[-1] == "trivial baseline"
    names = page.locator("#results thead th").nth(0)
    names.locator("button").focus()
    page.keyboard.press("Enter")
    assert (names.get_attribute("aria-sort"), header.get_attribute("aria-sort")) == ("ascending", "none")
    numbers = [int(name.split()[1]) for name in column(page, 0)[:-1]]
    assert numbers == sorted(numbers)  # run 2 before run 10


def test_numbers_sort_by_value_and_not_by_their_text(visit, published_page) -> None:
    page = visit(published_page).page
    page.locator("#results thead th").nth(4).locator("button").click()
    texts = column(page, 4)
    assert (texts[0], texts[-1]) == ("128.1k", "14.2M")
    assert texts != sorted(texts)


def test_rows_without_a_number_come_last_either_way(visit, hostile_page) -> None:
    page = visit(hostile_page).page
    page.locator("#outcomes details").evaluate_all("all => all.forEach(one => { one.open = true; })")
    table = page.locator("#outcomes table").filter(has_text="recall").first
    for _ in range(2):
        table.locator("thead th").nth(2).locator("button").click()
        assert table.locator("tbody tr").last.locator("td").nth(1).text_content() == "–"


def test_filter_keeps_the_rows_with_all_words(visit, published_page) -> None:
    page = visit(published_page).page
    box = page.locator("#results input[type=search]")
    box.fill("swinv2-g 22k")
    assert len(column(page, 0)) == 3
    assert all("SwinV2-g" in name for name in column(page, 0))
    assert page.locator("#results .shown").text_content() == "3 of 63 rows"
    box.fill("no such run")
    assert column(page, 0) == []
    box.fill("")
    assert len(column(page, 0)) == 63


def test_hovering_shows_the_run_and_leaving_hides_it(visit, published_page) -> None:
    page = visit(published_page).page
    tip = page.locator("#tip")
    assert tip.is_hidden()
    dot = page.locator("svg.plot [data-tip]").nth(5)
    dot.scroll_into_view_if_needed()
    box = dot.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2 + 1, box["y"] + box["height"] / 2)
    assert tip.is_visible()
    assert "SwinV2" in tip.text_content()
    assert "validation loss" in tip.text_content()
    place = tip.bounding_box()
    assert 0 <= place["x"] <= 1280 - place["width"]
    page.mouse.move(2, 2)
    assert tip.is_hidden()


def test_arrow_keys_walk_over_the_points(visit, published_page) -> None:
    page = visit(published_page).page
    page.locator("svg.plot").first.focus()
    page.keyboard.press("ArrowRight")
    first = page.locator("#tip").text_content()
    page.keyboard.press("ArrowRight")
    second = page.locator("#tip").text_content()
    assert second != first
    # The scroll that brings a focused plot into view may come between two keys, and hides what is shown.
    page.evaluate("dispatchEvent(new Event('scroll'))")
    assert page.locator("#tip").is_hidden()
    page.keyboard.press("ArrowRight")
    assert page.locator("#tip").text_content() not in (first, second)
    page.keyboard.press("Escape")
    assert page.locator("#tip").is_hidden()


@pytest.mark.parametrize("width", [320, 390, 820])
def test_a_narrow_page_does_not_scroll_sideways(visit, hostile_page, published_page, width) -> None:
    for path in (hostile_page, published_page):
        page = visit(path, width=width).page
        page.locator("details").evaluate_all("all => all.forEach(one => { one.open = true; })")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.locator("#results .scroll").evaluate("box => box.scrollWidth > box.clientWidth") or width > 700


def test_dark_systems_get_a_dark_page_and_the_button_switches(visit, hostile_page) -> None:
    def ground(page) -> int:
        return brightness(page.evaluate("getComputedStyle(document.body).backgroundColor"))

    light, dark = visit(hostile_page).page, visit(hostile_page, dark=True).page
    assert ground(light) > 600
    assert ground(dark) < 200
    assert brightness(dark.evaluate("getComputedStyle(document.body).color")) > 500
    for page in (light, dark):
        before = ground(page)
        page.locator("#theme").click()
        assert abs(ground(page) - before) > 400


def test_printing_is_light_and_opens_what_is_folded(visit, hostile_page) -> None:
    page = visit(hostile_page, dark=True).page
    page.emulate_media(media="print")
    assert brightness(page.evaluate("getComputedStyle(document.body).backgroundColor")) > 600
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("details:not([open])").count() == 0
    assert page.locator("#results .tools").is_hidden()
    assert len(page.pdf()) > 10_000


def test_colours_of_series_can_be_told_from_the_ground(visit, published_page) -> None:
    for dark in (False, True):
        page = visit(published_page, dark=dark).page
        fills = page.locator("svg.plot .dot:not(.hollow)").evaluate_all(
            "dots => [...new Set(dots.map(dot => getComputedStyle(dot).fill))]"
        )
        ground = brightness(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        assert len(fills) >= 5
        assert all(abs(brightness(fill) - ground) > 120 for fill in fills)
