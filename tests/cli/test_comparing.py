"""compare and report: what they refuse, with exit code 2 and the place."""

import json
from pathlib import Path
from shutil import copytree

from small_runs import Cli, Runs


def test_report_refuses_what_is_no_comparison(cli: Cli, tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "none"):
        said = cli("report", folder)
        assert (said.code, said.out) == (2, "")
        assert f"{folder}: no comparison here, and no run" in said.err
    (tmp_path / "matrix.json").write_text("{")
    said = cli("report", tmp_path)
    assert (said.code, str(tmp_path / "matrix.json") in said.err) == (2, True)


def test_report_writes_the_page_of_a_run(cli: Cli, runs: Runs, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    copytree(runs("meta-lora").folder, folder)
    said = cli("report", folder)
    assert (said.code, said.out) == (0, f"wrote {folder / 'report.html'}\n")
    assert json.loads(cli("report", folder, "--json").out) == {"written": [str(folder / "report.html")]}
    assert "Does it learn?" in (folder / "report.html").read_text("utf-8")


def test_compare_refuses_a_matrix_that_is_not_there_or_names_no_run(cli: Cli, tmp_path: Path) -> None:
    matrix, output = tmp_path / "m.yaml", tmp_path / "comparison"
    said = cli("compare", matrix, "--output", output)
    assert (said.code, said.out) == (2, "")
    assert f"{matrix}: there is no such file" in said.err
    matrix.write_text("name: x\narmss: {}\n")
    said = cli("compare", matrix, "--output", output)
    assert (said.code, said.out) == (2, "")
    assert 'did you mean "arms"?' in said.err
    assert not output.exists()
