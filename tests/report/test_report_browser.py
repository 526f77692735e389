"""The page in a real Chromium: nothing complains, everything is seen, tables sort, and it fits a phone."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from innerloop.report.report import write_report
from innerloop.report.run_page import write_run_report
from report import chromium
from report.chromium import Browser, browser
from report.conftest import Written
from report.run_example import evaluation, run_folder, step
from results_example import example, read

pytestmark = pytest.mark.skipif(chromium.PROGRAM is None, reason="no chromium is installed")

SCREENS = [(width, dark) for width in (400, 1400) for dark in (False, True)]
MATRIX = '[aria-labelledby="tokens-matrix-caption"] table'

# Text whose colour is less than 4.5 times lighter or darker than what it stands on. The values in heat maps stand on
# their cells: test_figures.
FAINT = r"""(() => {
    const shade = (color) => {
        const [r, g, b] = color.match(/[\d.]+/g).slice(0, 3).map((c) => c / 255)
            .map((c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const paper = (element) => {
        for (let e = element; e; e = e.parentElement) {
            const color = getComputedStyle(e).backgroundColor;
            if (!/, 0\)$|transparent/.test(color)) return color;
        }
    };
    const found = [], walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    let count = 0;
    while (walk.nextNode()) {
        const element = walk.currentNode.parentElement;
        const name = element.tagName.toLowerCase();
        if (!walk.currentNode.data.trim() || ["script", "style", "title", "desc"].includes(name)) continue;
        const style = getComputedStyle(element);
        const ink = name === "text" ? style.fill : style.color;
        if (["rgb(0, 0, 1)", "rgb(254, 254, 254)"].includes(ink)) continue;
        const [a, b] = [shade(ink), shade(paper(element))];
        count += 1;
        if ((Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05) < 4.5) found.push(walk.currentNode.data.trim());
    }
    return {count, found};
})()"""

# Figures and their parts that take no room.
UNSEEN = """[...document.querySelectorAll("figure svg")].filter((svg) => {
    const {width, height} = svg.getBoundingClientRect();
    return width < 200 || height < 60 || !svg.querySelectorAll("path, use").length;
}).length"""


@pytest.fixture(scope="module")
def window(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("chromium")) as opened:
        yield opened


def unfolded(window: Browser, page: Path, *, width: int, dark: bool = False) -> None:
    window.open(page, width=width, dark=dark)
    window.run("document.querySelectorAll('details').forEach((part) => { part.open = true; })")


def headings(window: Browser, table: str) -> list[str]:
    shown = window.run(f"[...document.querySelectorAll('{table} thead th')].map((h) => h.innerText)")
    return [text.replace("\xa0", " ") for text in shown]


def column(window: Browser, table: str, place: int) -> list[str]:
    script = f"[...document.querySelector('{table}').tBodies[0].rows].map((r) => r.cells[{place}].innerText)"
    return window.run(script)


def numbers(cells: list[str]) -> list[float | None]:
    """What is shown, as numbers; None for a dash or a word."""
    shown = [re.match(r"[+−-]?[\d,.]+", cell.replace("≈ ", "")) for cell in cells]
    return [float(found[0].replace("−", "-").replace(",", "")) if found else None for found in shown]


@pytest.mark.parametrize(("width", "dark"), SCREENS)
def test_nothing_complains_everything_is_seen_and_fits(
    window: Browser, written: Written, width: int, dark: bool
) -> None:
    unfolded(window, written.page, width=width, dark=dark)
    assert window.run("document.documentElement.scrollWidth") == window.run("innerWidth") == width
    assert window.run("document.querySelectorAll('figure svg').length") > 20
    assert window.run(UNSEEN) == 0
    paper = window.run("getComputedStyle(document.body).backgroundColor")
    assert (paper == "rgb(255, 255, 255)") != dark
    faint = window.run(FAINT)
    assert faint["count"] > 1500
    assert faint["found"] == []
    assert window.problems == []


def four_arms() -> dict[str, Any]:
    given = example()
    kept = {"base", "joint-lora", "fomaml-lora", "meta-lora"}
    for key in ("scores", "differences", "adaptation", "targets", "forgetting", "training", "rows"):
        given[key] = [e for e in given[key] if e["arm"] in kept and e["budget"] in ("tokens", "")]
    for question in given["questions"]:
        question["answers"] = [a for a in question["answers"] if a["arm"] in kept]
    return given | {"status": "done"}


def test_it_is_short_as_it_opens_and_everything_is_a_click_away(window: Browser, tmp_path: Path) -> None:
    page = write_report(tmp_path, read(four_arms()))[0]
    height = "document.documentElement.scrollHeight"
    for width, most in ((1400, 5000), (400, 9000)):
        window.open(page, width=width)
        assert 1500 < window.run(height) < most
        assert window.run("document.documentElement.scrollWidth") == width
    unfolded(window, page, width=1400)
    assert window.run(height) > 7000, "the control: what is folded is there"
    seen = "document.querySelector('#result svg').getBoundingClientRect().bottom"
    window.open(page, width=1400)
    assert window.run(seen) < 900, "the chart stands on the first screen"
    shown = "document.querySelector('#t1 table')?.checkVisibility()"
    assert window.run(shown) is False
    window.run("location.hash = '#t1'")
    window.run("new Promise((done) => setTimeout(done, 100))")
    assert window.run(shown) is True, "an address opens the part that it names"


def test_the_page_of_a_run_fits_too(window: Browser, tmp_path: Path) -> None:
    lines = [*(step(n) for n in range(1, 61)), *(evaluation(n, 3 - n / 40, n / 90) for n in range(0, 61, 10))]
    page = write_run_report(run_folder(tmp_path, lines, with_eval=True))
    for width, dark in SCREENS:
        window.open(page, width=width, dark=dark)
        assert window.run("document.documentElement.scrollHeight") < (5000 if width == 1400 else 8000)
        unfolded(window, page, width=width, dark=dark)
        assert window.run("document.documentElement.scrollWidth") == width
        assert window.run("document.querySelectorAll('figure svg').length") == 3
        assert (window.run(UNSEEN), window.run(FAINT)["found"], window.problems) == (0, [], [])


def test_the_checks_see_what_they_look_for(window: Browser, written: Written, tmp_path: Path) -> None:
    """A copy that is too wide, too faint, blank, noisy, and asks the network."""
    fault = """<p style="color: #999999">faint</p><div style="width: 2000px">wide</div>
        <figure><svg style="height: 0"></svg></figure><img src="https://example.com/x.png"><script>alert(1)</script>"""
    broken = tmp_path / "broken.html"
    broken.write_text(written.page.read_text("utf-8").replace("</main>", f"{fault}</main>"), "utf-8")
    unfolded(window, broken, width=400)
    assert window.run("document.documentElement.scrollWidth") > 400
    assert window.run(FAINT)["found"] == ["faint"]
    assert window.run(UNSEEN) == 1
    problems = " ".join(window.problems)
    assert "img-src" in problems
    assert "script-src" in problems
    assert "javascriptDialogOpening" not in problems, "the page's policy lets no other script run"
    broken.write_text("<script>console.error('told'); missing()</script>")
    window.open(broken, width=400)
    assert [problem.split(":")[0] for problem in window.problems] == [
        "Runtime.consoleAPICalled",
        "Runtime.exceptionThrown",
    ]


def test_a_click_sorts_and_another_turns_round(window: Browser, written: Written) -> None:
    unfolded(window, written.page, width=1400)
    titles = headings(window, MATRIX)
    place = titles.index("peak memory, resident")
    before = numbers(column(window, MATRIX, place))
    assert before != sorted(before, key=float)
    button = f"{MATRIX} th:nth-child({place + 1}) button"
    for direction in ("ascending", "descending"):
        window.click(button)
        shown = numbers(column(window, MATRIX, place))
        assert shown == sorted(before, key=float, reverse=direction == "descending")
        order = window.run(f"[...document.querySelectorAll('{MATRIX} thead th')].map((h) => h.ariaSort)")
        assert [order[place], *{*order} - {order[place]}] == [direction, "none"]
    window.click(f"{MATRIX} th:first-child button")
    names = column(window, MATRIX, 0)
    assert names == sorted(names)
    assert len(names) == 6
    assert window.problems == []


def test_numbers_sort_as_numbers_and_what_is_absent_comes_last(window: Browser, written: Written) -> None:
    unfolded(window, written.page, width=1400)
    table = MATRIX.replace("tokens", "seconds")
    titles = headings(window, table)
    for title in ("tokens", "nats minus joint-lora, k = 8"):
        place = titles.index(title)
        button = f"{table} th:nth-child({place + 1}) button"
        for turned in (False, True):
            window.click(button)
            shown = numbers(column(window, table, place))
            known = [value for value in shown if value is not None]
            assert shown == [*sorted(known, reverse=turned), *[None] * (len(shown) - len(known))]
            assert 2 <= len(known) < len(shown)


def test_the_keyboard_reaches_and_sorts(window: Browser, written: Written) -> None:
    unfolded(window, written.page, width=1400)
    window.run(f"document.querySelector('{MATRIX} th:first-child button').focus()")
    window.press("Tab", code=9)
    assert window.run("document.activeElement.innerText") == "algorithm"
    window.press("Enter", text="\r", code=13)
    shown = column(window, MATRIX, 1)
    assert shown == sorted(shown, key=str.lower)
    assert window.run("document.activeElement.closest('th').ariaSort") == "ascending"
    assert window.run("getComputedStyle(document.activeElement).outlineStyle") == "solid", "the focus is seen"


def test_a_wide_table_scrolls_in_its_own_box(window: Browser, written: Written) -> None:
    unfolded(window, written.page, width=400)
    box = "document.querySelector('[aria-labelledby=\"tokens-matrix-caption\"]')"
    inner, outer = window.run(f"[{box}.scrollWidth, {box}.clientWidth]")
    assert inner > 2 * outer
    window.run(f"{box}.scrollLeft = 700")
    left = window.run(f"{box}.querySelector('tbody th').getBoundingClientRect().left")
    assert 0 <= left < 30, "the method stays in sight"


def test_it_prints_light_unfolded_and_within_the_paper(window: Browser, written: Written) -> None:
    window.open(written.page, width=1000, dark=True, media="print")
    assert window.run("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    fold = "document.querySelectorAll('details[open]').length"
    assert window.run(fold) == 0
    window.run("dispatchEvent(new Event('beforeprint'))")
    assert window.run(fold) == window.run("document.querySelectorAll('details').length") > 5
    window.run("dispatchEvent(new Event('afterprint'))")
    assert window.run(fold) == 0
    # A4 on its side, where only the matrix is printed wide: a browser shrinks a page by a quarter to fit.
    wide = (
        "[...document.querySelectorAll('table')].filter((t) => t.scrollWidth > {}).map((t) => t.closest('section').id)"
    )
    window.open(written.page, width=1047, media="print")
    assert set(window.run(wide.format(1047))) <= {"matrix"}
    assert window.run(wide.format(1.25 * 1047)) == []
    assert len(window.call("Page.printToPDF", preferCSSPageSize=True)["data"]) > 100_000
