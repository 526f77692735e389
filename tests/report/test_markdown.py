"""The Markdown: the page's tables and sentences, and nothing a user wrote becomes markup."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from innerloop.report.markdown import markdown
from innerloop.report.page import Listing, PageSection, Table, TableCell, say
from innerloop.report.sections import sections
from report.conftest import Written
from results_example import CONFIG


@pytest.fixture(scope="module")
def text(written: Written) -> str:
    return (written.folder / "report.md").read_text("utf-8")


def cells(line: str) -> list[str]:
    """As GitHub splits a row: at bars without a backslash."""
    return re.split(r"(?<!\\)(?:\\\\)*\|", line.strip())[1:-1]


def test_the_tables_are_those_of_the_page(written: Written, text: str) -> None:
    tables = [b for s in sections(written.results, []) for b in s.blocks if isinstance(b, Table)]
    found = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
    assert len(found) == len(tables) > 20
    for table, block in zip(tables, found, strict=True):
        lines = block.splitlines()
        assert len(lines) == len(table.rows) + 2
        assert {len(cells(line)) for line in lines} == {len(table.columns)}


def test_names_and_reasons_are_not_markup(text: str) -> None:
    outside = re.sub(r"^(`{3,}).*?^\1$", "", text, flags=re.MULTILINE | re.DOTALL)
    assert set(re.findall(r"</?\w+", outside)) == {"<details", "<summary", "</summary", "</details"}
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in outside
    assert r"\| \*bold\* &amp; \`tick\` second line" in outside


def test_figures_are_where_the_text_says(written: Written, text: str) -> None:
    named = re.findall(r"!\[[^\]]*(?:\\\][^\]]*)*\]\((.*?)\)", text)
    assert len(named) == len({path for path in written.paths if path.suffix == ".png"})
    assert all((written.folder / name).is_file() for name in named)


def test_a_fence_is_longer_than_any_in_the_config(text: str) -> None:
    assert "````yaml\n" + (CONFIG % "meta-lora").rstrip("\n") + "\n````" in text


def test_marks_are_kept() -> None:
    rows = [
        [TableCell("x"), TableCell("≈ 3 s", 3, mark="predicted")],
        [TableCell("y"), TableCell("1", 1, tag="better")],
    ]
    table = Table("t", "c", ["a", "b"], rows)
    lines = markdown("t", [PageSection("s", "S", [say("one", style="item"), say("two", style="item"), table])])
    assert "- one\n- two\n" in lines
    assert "| x | *≈ 3 s* |" in lines
    assert "| y | 1 **better** |" in lines


@given(st.text(alphabet="a|\\`<>*_[]()#\n&$@~!", max_size=12))
def test_any_name_is_one_cell(name: str) -> None:
    lines = markdown(
        "t", [PageSection("s", "S", [Table("t", "c", ["a", "b"], [[TableCell(name), TableCell("end")]])])]
    ).splitlines()
    assert len(cells(lines[-1])) == 2
    assert "<" not in lines[-1]


@given(st.text(alphabet="a`\n", max_size=12))
def test_any_config_stays_in_its_fence(config: str) -> None:
    lines = markdown("t", [PageSection("s", "S", [Listing("t", "", f"a{config}"), say("after")])]).splitlines()
    fences = [line for line in lines if line.startswith("```") and set(line.removesuffix("yaml")) == {"`"}]
    longest = max(fences, key=len).removesuffix("yaml")
    assert lines.index("</details>") > max(i for i, line in enumerate(lines) if line == longest)
    inside = "\n".join(lines[lines.index(f"{longest}yaml") + 1 : lines.index(longest)])
    assert inside == f"a{config}".rstrip("\n")
