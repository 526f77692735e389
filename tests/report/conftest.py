"""What tests of the report share.

written         the report of `results_example`, made once: its folder, the paths that were returned, and of what
column, given   of a table, its cells by the name of their row; of the example's results, entries
small, view     results of one budget, and what figures are drawn of
texts           of a figure
"""

from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import pytest

from innerloop.learning.methods import METHODS
from innerloop.report.figure_style import looks
from innerloop.report.figure_view import View
from innerloop.report.page import Table, TableCell
from innerloop.report.report import write_report
from innerloop.results.schema import Results
from results_example import HELD_OUT, example, read

ARMS = ("base", "in-context", *METHODS)


class Written(NamedTuple):
    folder: Path
    paths: list[Path]
    contents: dict[str, Any]
    results: Results

    @property
    def page(self) -> Path:
        return self.folder / "report.html"


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    folder, results = tmp_path_factory.mktemp("report"), read(example())
    return Written(folder, write_report(folder, results), example(), results)


def column(table: Table, title: str) -> dict[str, TableCell]:
    place = list(table.columns).index(title)
    return {row[0].text: row[place] for row in table.rows}


def given(kind: str, **wanted: Any) -> list[dict[str, Any]]:
    return [entry for entry in example()[kind] if all(entry.get(key) == value for key, value in wanted.items())]


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]


def small(**changes: Any) -> dict[str, Any]:
    """One budget, one adaptation, two tasks."""
    given = example()
    for key in ("scores", "differences", "adaptation", "training"):
        kept = [e for e in given[key] if e.get("budget") in ("tokens", "") and e.get("how", "own") in ("own", "none")]
        given[key] = [entry for entry in kept if entry.get("table") != "seen"]
    given["rows"] = [row for row in given["rows"] if row["budget"] in ("tokens", "")]
    given["protocol"]["held_out"] = HELD_OUT[:2]
    for entry in (*given["scores"], *given["differences"]):
        entry["tasks"] = {task: entry["tasks"][task] for task in HELD_OUT[:2]}
    return given | changes


def view(results: dict[str, Any], **changes: Any) -> View:
    return View(read(results), looks(ARMS), "tokens", "own", **changes)
