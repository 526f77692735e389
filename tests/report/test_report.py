"""The page as a file: complete, self-contained, harmless whatever a task is called, readable in both palettes."""

import copy
import itertools
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from innerloop.errors import UserError
from innerloop.report import report
from innerloop.report.markdown import markdown
from innerloop.report.page import Table
from innerloop.report.report import head_of, page, write_report
from innerloop.report.sections import sections
from innerloop.results.cell_files import PlannedProtocol
from innerloop.results.entries import Adaptation, ArmRow, Contrast, Difference, Forgetting, MeanScore, Target
from innerloop.results.names import Record
from innerloop.results.schema import Results
from report.conftest import Written
from results_example import CONFIG, HOSTILE_REASON, HOSTILE_TASK, example, few_seeds, read

EMPTY = Results(format=1, name="nothing yet", status="partial", protocol=PlannedProtocol(draws=1))
TEMPLATES = Path(report.__file__).with_name("templates")
VOID = {"meta", "br", "img", "link", "input", "hr"}


class Page(HTMLParser):
    """elements: (tag, attributes); text: of each, with the tags it stands in."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[tuple[tuple[str, ...], str]] = []
        self._open: list[str] = []
        self.feed(source)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append((tuple(self._open), data))

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def source(written: Written) -> str:
    return written.page.read_text("utf-8")


@pytest.fixture(scope="module")
def parsed(source: str) -> Page:
    return Page(source)


def bare(given: dict[str, Any]) -> str:
    """The page without figures, which take long to draw."""
    results = read(given)
    return page(head_of(results), sections(results, []))


def test_what_was_written_is_returned(written: Written) -> None:
    assert [path.name for path in written.paths[:2]] == ["report.html", "report.md"]
    assert sorted(written.paths) == sorted(path for path in written.folder.rglob("*") if path.is_file())


def test_the_page_needs_nothing_else(parsed: Page) -> None:
    """No file, no address: and a policy that a browser holds it to."""
    for tag, attributes in parsed.elements:
        assert not {"src", "srcset", "action", "poster", "data"} & attributes.keys(), tag
        for name in ("href", "xlink:href"):
            assert (attributes.get(name) or "#").startswith("#"), attributes
        assert not [name for name in attributes if name.startswith("on")], "no code in attributes"
        assert not re.search(r"url\((?!#)|@import|expression", attributes.get("style") or "")
    assert len(parsed.of("script")) == 1
    assert not parsed.of("link") + parsed.of("iframe") + parsed.of("img") + parsed.of("base")
    assert "url(" not in (TEMPLATES / "report.css").read_text("utf-8")
    (policy,) = (m["content"] for m in parsed.of("meta") if m.get("http-equiv") == "Content-Security-Policy")
    assert policy
    assert policy.startswith("default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-")


def test_names_and_reasons_are_text_and_nothing_else(source: str, parsed: Page) -> None:
    told = "".join(text for _, text in parsed.text)
    assert HOSTILE_TASK in told
    assert " ".join(HOSTILE_REASON.split()) in " ".join(told.split())
    assert CONFIG % "meta-lora" in told, "the config as it is, tags and all"
    assert "<script>alert" not in source
    assert "<img" not in source
    assert [text for where, text in parsed.text if where and where[-1] == "script"] == [
        (TEMPLATES / "report.js").read_text("utf-8")
    ]


def test_ids_are_unique_and_what_is_named_is_there(parsed: Page) -> None:
    ids = [attributes["id"] for _, attributes in parsed.elements if "id" in attributes]
    assert len(ids) == len(set(ids)) > 100
    for _, attributes in parsed.elements:
        assert set((attributes.get("aria-labelledby") or "").split()) <= set(ids)
        assert (attributes.get("href") or "#result").removeprefix("#") in ids


def test_every_figure_has_a_title_and_a_description(written: Written, source: str) -> None:
    count = sum(path.suffix == ".svg" for path in written.paths)
    figures = re.findall(r"<figure.*?</figure>", source, re.DOTALL)
    assert len(figures) == count > 20
    for figure in figures:
        assert re.search(
            r"<svg [^>]*role=\"img\"[^>]*>\s*<title [^>]*>[^<]{5,}</title><desc [^>]*>[^<]{20,}</desc>", figure
        )
        assert "#000000" not in figure, "ink is the page's, dark or light"
        assert "<style" not in figure, "an SVG's own style would be the whole page's"


def test_the_result_comes_first_and_what_it_rests_on_after(parsed: Page) -> None:
    order = [
        "result",
        "answers",
        "growth",
        "verdict",
        "notes",
        "detectable",
        "t2-tokens",
        "t2-seconds",
        "t1",
        "contrasts",
        "matrix",
    ]
    order += ["adaptation", "training", "rerun", "environment"]
    assert [attributes["id"] for attributes in parsed.of("section")] == order


def test_a_null_result_stands_where_a_win_stands(source: str) -> None:
    verdict = source.partition('id="verdict"')[2].partition("</section>")[0]
    items = re.findall(r"<li>.*?</li>", verdict, re.DOTALL)
    (win,) = (item for item in items[:6] if "<strong>meta-lora</strong>" in item)
    (null,) = (item for item in items[:6] if "<strong>fomaml-lora</strong>" in item)
    shape = [re.sub(r"<path.*?/>|>[^<]+<", "><", item) for item in (win, null)]
    assert shape[0].replace("tag better", "tag null") == shape[1]
    assert ">no detectable difference from joint-lora</span>" in null
    assert "not finished" in source.partition('id="verdict"')[0]


def test_the_page_of_one_seed_says_nothing_of_a_method() -> None:
    def told(given: dict[str, Any]) -> str:
        inside = [text for where, text in Page(bare(given)).text if not {"style", "script", "pre"} & set(where)]
        return " ".join(" ".join(inside).replace("\N{NO-BREAK SPACE}", " ").split())

    verdict = r"(?<!lower is )(?<!higher is )(?<!0 is )\b(better|worse)\b|\bp [<=]|no detectable difference"
    one, three = told(few_seeds()), told(example())
    assert not re.search(verdict, one)
    assert len(re.findall("these trained values", one)) > 20
    assert len(re.findall(verdict, three)) > 20, "the control"
    assert "1 training seed: every number is of these trained values, none of a method." in one
    assert "these trained values" not in three


def test_shared_examples_are_counted_and_their_absence_is_said() -> None:
    none = "No example of a held-out or validation task is also in a task of another role"
    found = bare(example())
    assert "3 of 24" in found
    assert "train: &lt;b&gt;powers&lt;/b&gt;, roman" in found
    assert none not in found
    assert none in bare(example() | {"overlaps": []})
    unknown = bare(example() | {"overlaps": None})
    assert none not in unknown
    assert "3 of 24" not in unknown


def test_every_number_of_a_table_can_be_sorted_by(parsed: Page) -> None:
    values = [attributes["data-value"] for attributes in parsed.of("td") if "data-value" in attributes]
    assert len(values) > 300
    buttons = [where for where, text in parsed.text if where[-2:] == ("th", "button")]
    assert len(buttons) == sum(attributes.get("scope") == "col" for attributes in parsed.of("th"))
    assert all(attributes["aria-sort"] == "none" for attributes in parsed.of("th") if attributes.get("scope") == "col")


def test_tables_of_one_budget_hold_no_number_of_another(written: Written) -> None:
    given = copy.deepcopy(written.contents)
    for key in ("scores", "differences", "adaptation", "targets", "forgetting"):
        given[key] = [entry for entry in given[key] if entry["budget"] != "seconds"]
    given["rows"] = [row for row in given["rows"] if row["budget"] != "seconds"]
    alone, both = (tables(results, "equal tokens") for results in (given, written.contents))
    assert alone == both
    assert len(alone) > 8


def tables(results: dict[str, Any], word: str) -> list[Table]:
    parts = sections(read(results), [])
    return [block for part in parts for block in part.blocks if isinstance(block, Table) and word in block.caption]


@pytest.mark.parametrize(
    ("key", "sentence"),
    [
        ("detectable", "don&#39;t say which difference could have been detected"),
        ("primary", "No primary contrast was named before this comparison ran: every difference is exploratory."),
        ("scores", "Nothing in these results was scored."),
        ("rows", "The matrix"),
        ("protocol", "T2 · Unseen tasks"),
        ("environment", "device CPU, commit unknown"),
    ],
)
def test_what_is_absent_is_left_out_and_said(key: str, sentence: str) -> None:
    given = example()
    given |= {"protocol": {"draws": 1}} if key == "protocol" else {}
    found = bare({name: value for name, value in given.items() if name != key or key == "protocol"})
    Page(found)
    assert sentence in found


@pytest.mark.parametrize(
    ("key", "name"),
    [("contrasts", "contrasts"), ("questions", "answers"), ("matrix_yaml", "rerun"), ("scores", "t1")],
)
def test_a_part_of_what_is_absent_is_no_part(key: str, name: str) -> None:
    given = example()
    lacking = given | {"rows": [row | {"config_yaml": "", "command": ""} for row in given["rows"]], "command": ""}
    lacking = {other: value for other, value in lacking.items() if other != key}
    assert [f'id="{name}"' in bare(each) for each in (given, lacking)] == [True, False]


def test_an_empty_comparison_has_a_page(tmp_path: Path) -> None:
    paths = write_report(tmp_path / "new", EMPTY)
    assert [path.name for path in paths] == ["report.html", "report.md"]
    assert "Nothing in these results was scored." in paths[0].read_text("utf-8")


def test_a_partial_page_says_what_lacks_and_a_whole_one_does_not() -> None:
    given = example()
    assert "2 of 12 rows of the matrix failed or are not done" in bare(given)
    given["rows"] = [row | {"status": "done"} for row in given["rows"]]
    assert "not finished" in bare(given)
    assert "not finished" not in bare(given | {"status": "done"})


LISTS: dict[str, type[Record]] = {
    "scores": MeanScore,
    "differences": Difference,
    "adaptation": Adaptation,
    "targets": Target,
    "forgetting": Forgetting,
    "contrasts": Contrast,
    "rows": ArmRow,
}


# Without shrinking: a page takes half a second, and a hole is small as it is.
@settings(deadline=None, max_examples=12, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(st.lists(st.tuples(st.sampled_from([*LISTS]), st.integers(0, 200), st.integers(0, 40)), min_size=1, max_size=40))
def test_results_with_holes_have_a_page(holes: list[tuple[str, int, int]]) -> None:
    """Without some of the entries, and of the fields of others."""
    results = example()
    for name, place, field in holes:
        if not results[name]:
            continue
        entry = results[name][place % len(results[name])]
        optional = sorted(each for each in entry if not LISTS[name].model_fields[each].is_required())
        if optional and field % 3:
            entry.pop(optional[field % len(optional)])
        else:
            results[name].remove(entry)
    found = bare(results)
    Page(found)
    assert "<script>alert" not in found
    assert markdown("holes", sections(read(results), []))


def test_what_a_report_needs_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "NEEDED", ("jinja2", "no_such_library"))
    with pytest.raises(UserError, match=r'needs no_such_library\n    expected: pip install "innerloop\[report\]"'):
        write_report(tmp_path, EMPTY)
    assert not [*tmp_path.iterdir()]


def test_a_bad_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="can't write the report"):
        write_report(tmp_path / "file", EMPTY)


def palettes() -> Iterator[tuple[str, dict[str, str]]]:
    css = (TEMPLATES / "report.css").read_text("utf-8")
    blocks = re.findall(r":root \{(.*?)\}", css, re.DOTALL)
    assert len(blocks) == 3
    for name, block in zip(("light", "dark", "print"), blocks, strict=True):
        yield name, dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", block))


# What stands on what, of report.css.
PAIRS = [(text, paper) for text in ("ink", "muted", "link") for paper in ("paper", "raised")]
PAIRS += [(f"{mark}-ink", f"{mark}-paper") for mark in ("better", "worse", "null")]
PAIRS += [("failed-ink", "paper"), ("failed-ink", "raised"), ("ink", "warning-paper"), ("ink", "code-paper")]


@pytest.mark.parametrize("palette", palettes(), ids=lambda palette: palette[0])
def test_text_has_the_contrast_that_wcag_aa_asks(palette: tuple[str, dict[str, str]]) -> None:
    colors = palette[1]
    low = {pair: ratio for pair in PAIRS if (ratio := contrast(colors[pair[0]], colors[pair[1]])) < 4.5}
    assert not low
    assert contrast(colors["line"], colors["paper"]) < 4.5, "the control: lines are no text"
    assert {name for pair in PAIRS for name in pair} == colors.keys() - {"line"}, "every colour is in a pair"


def contrast(one: str, other: str) -> float:
    """WCAG 2.2's contrast ratio."""
    shades = []
    for color in (one, other):
        channels = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        shades.append(sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True)))
    return (max(shades) + 0.05) / (min(shades) + 0.05)


def test_contrast_is_the_published_one() -> None:
    assert contrast("#ffffff", "#000000") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


def test_paper_is_light_whatever_the_screen_is() -> None:
    (_, light), (_, dark), (_, printed) = palettes()
    assert light == printed != dark
    assert light.keys() == dark.keys()
    css = (TEMPLATES / "report.css").read_text("utf-8")
    order = [css.index(part) for part in (":root", "prefers-color-scheme: dark", "@media print")]
    assert order == sorted(order), "the last of equal rules holds"
    used = set(re.findall(r"var\(--([\w-]+)\)", css))
    assert used <= light.keys()


def test_a_marks_name_is_one_that_the_css_knows(source: str) -> None:
    css = (TEMPLATES / "report.css").read_text("utf-8")
    classes = set(itertools.chain(*(name.split() for name in re.findall(r'<span class="([^"]*)"', source))))
    assert {name for name in classes if f".{name}" not in css} == set()
