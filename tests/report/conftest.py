"""written   the report of `results_example`, made once: its folder, the paths that were returned, and of what"""

from pathlib import Path
from typing import Any, NamedTuple

import pytest

from innerloop.report.report import write_report
from innerloop.results.schema import Results
from results_example import example, read


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
