"""Every string of a report is an attack, and the page stays what it is: nothing runs, nothing is fetched."""

from pathlib import Path

import pytest
from hostile_strings import hostile_folder, hostile_inclusions
from unveil_evalharness.report.write import make_report

pytestmark = pytest.mark.browser

FOREIGN = """() => {
    const found = [];
    for (const one of document.querySelectorAll('*')) {
        for (const attribute of one.attributes) {
            const value = attribute.value.trim().toLowerCase();
            if (attribute.name.startsWith('on')) found.push(one.tagName + ' ' + attribute.name);
            if (['href', 'src', 'action', 'srcdoc', 'xlink:href'].includes(attribute.name)
                && !value.startsWith('#') && !value.startsWith('data:image/')
                && !/^tables\\/[a-z0-9_]+\\.csv$/.test(value))
                found.push(one.tagName + ' ' + attribute.name + '=' + value);
        }
        const name = one.tagName.toUpperCase();
        if (['IFRAME', 'OBJECT', 'EMBED', 'BASE', 'FORM', 'LINK', 'ANIMATE', 'FOREIGNOBJECT'].includes(name))
            found.push(one.tagName);
    }
    return found;
}"""


@pytest.fixture(scope="module")
def page_of_attacks(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("attacks")
    results = hostile_folder(folder / "eval")
    include = hostile_inclusions(folder)
    return make_report([results], folder / "report", formats=("html",), figures=False, include=include).page


def test_nothing_runs_and_nothing_is_fetched(visit, page_of_attacks) -> None:
    seen = visit(page_of_attacks)
    page = seen.page
    page.locator("details").evaluate_all("all => all.forEach(one => { one.open = true; })")
    for dot in page.locator("svg.plot [data-tip]").all()[:5]:
        dot.scroll_into_view_if_needed()
        dot.hover(force=True)
    page.locator("thead button").first.click()
    page.locator("input[type=search]").first.fill("<script>")
    page.wait_for_timeout(200)
    assert page.evaluate("window.struck") is None
    assert page.evaluate("document.cookie") == ""
    assert page.locator("script").count() == 1
    assert page.evaluate(FOREIGN) == []
    assert [url for url in seen.requests if not url.startswith("data:")] == [page_of_attacks.as_uri()]
    assert seen.complaints == []
    assert page.url == page_of_attacks.as_uri()
    words = page.locator("body").text_content()
    for shown in (
        "<script>window.struck='script'</script>",
        "javascript:window.struck='link'",
        "</title></style><iframe",
    ):
        assert shown in words
    assert "\u202e" not in words
    assert "\x1b" not in words


def test_the_search_for_foreign_elements_can_find_some(visit, misbehaving) -> None:
    bad = misbehaving('<a href="javascript:1">x</a><img src="#" onerror="1"><iframe></iframe><form action="http://x/">')
    assert len(visit(bad).page.evaluate(FOREIGN)) >= 4
