"""compare and report: what they refuse, with exit code 2 and the place."""

from pathlib import Path

from small_runs import Cli


def test_report_refuses_what_is_no_comparison(cli: Cli, tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "none"):
        said = cli("report", folder)
        assert (said.code, said.out) == (2, "")
        assert f"{folder}: no comparison here" in said.err
    (tmp_path / "matrix.json").write_text("{")
    said = cli("report", tmp_path)
    assert (said.code, str(tmp_path / "matrix.json") in said.err) == (2, True)


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
