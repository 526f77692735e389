"""A comparison of one run on a terminal: its numbers in their columns, and what they speak of."""

from pathlib import Path

from innerloop.report.page import Table, TableCell
from innerloop.report.run_record import read_run
from innerloop.report.terminal import lined_up, one_run, run_lines
from innerloop.results.names import OWN_BUDGET
from report.run_example import STEPS, run_folder
from results_example import HELD_OUT, example, read


def test_a_row_for_each_k_and_adaptation() -> None:
    contents = example()
    for name in ("rows", "scores", "adaptation"):
        own = [entry for entry in contents[name] if (entry["arm"], entry["budget"]) == ("meta-lora", "tokens")]
        contents[name] = [entry | {"budget": OWN_BUDGET} for entry in own if entry.get("table") != "seen"]
    results = read(contents)
    head, *rows = one_run(results)[:6]
    assert "nats per answer token" in head
    assert [line.split()[:2] for line in rows] == [
        ["0", "none"],
        *([str(k), how] for k in (2, 8) for how in ("own", "tuned")),
    ]
    for line in rows:
        k, how = line.split()[:2]
        score = results.score(OWN_BUDGET, "meta-lora", how, int(k), "accuracy")
        assert score
        assert f"{100 * score.mean:.1f} [{100 * score.low:.1f}, {100 * score.high:.1f}]" in line
    assert [line.split()[2] for line in rows] == ["0", "3", "20", "3", "20"]
    told = "\n".join(one_run(results))
    assert f"{2 + 2 + 8 + 8} of {5 * 48 * len(HELD_OUT)} answers were cut off" in told
    assert contents["notes"][0] in told
    for score in contents["scores"]:
        score.pop("cut", None)
    assert "cut off" not in "\n".join(one_run(read(contents)))


def test_a_run_in_lines(tmp_path: Path) -> None:
    run = read_run(run_folder(tmp_path / "mine", status="failed", reason="the disk is full"))
    head, ended, what, *rest, warning = run_lines(run)
    assert head == f"mine, Failed, {STEPS} of {STEPS} steps, smollm2"
    assert ended == "the disk is full"
    assert what.startswith("meta-lora (two-stage META-LORA) trains 325,632 parameters")
    assert any(line.startswith("The training loss fell: ") for line in rest)
    assert warning.startswith("warning: the verifier passes")


def test_columns_are_as_wide_as_their_widest_cell() -> None:
    table = Table("t", "c", ["a", "longer"], [[TableCell("wide cell"), TableCell("1", detail=("[0, 2]",))]])
    assert lined_up(table) == ["a          longer", "wide cell  1 [0, 2]"]
