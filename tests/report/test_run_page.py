"""The page of one run: whether it learns, said of what was measured and of nothing else."""

import re
from pathlib import Path

import pytest

from innerloop.errors import UserError
from innerloop.report import report
from innerloop.report.page import PageSection, Prose, Table
from innerloop.report.run_page import run_sections, sentences, write_run_report
from innerloop.report.run_record import read_run
from report.run_example import STEPS, TASK, WARNING, evaluation, run_folder, step
from report.test_report import Page
from small_runs import Runs


def told(folder: Path) -> str:
    return "\n".join("".join(span.text for span in prose.spans) for prose in sentences(read_run(folder)))


def parts(folder: Path) -> dict[str, PageSection]:
    return {part.name: part for part in run_sections(read_run(folder), [])}


def test_a_real_run_has_a_page(runs: Runs) -> None:
    folder = runs("meta-lora").folder
    path = write_run_report(folder)
    try:
        assert path == folder / "report.html"
        shown = " ".join(text for _, text in Page(path.read_text("utf-8")).text)
        assert "2 steps so far: too few to say whether it learns." in shown
        assert "Finished" in shown
        assert (folder / "run.yaml").read_text().splitlines()[0] in shown
    finally:
        path.unlink()  # the run is shared


def test_the_training_loss_fell_rose_or_hardly_changed(tmp_path: Path) -> None:
    first = told(run_folder(tmp_path / "fell"))
    assert "The training loss fell: from " in first
    assert "It is of the tasks of training: evaluate.every and innerloop eval score others." in first
    up = [step(n, loss=1 + 0.1 * n) for n in range(1, STEPS + 1)]
    assert "The training loss rose: from " in told(run_folder(tmp_path / "rose", up))
    noise = [step(n, loss=2 + (-1) ** (n // 2) * 0.5 + 0.001 * n) for n in range(1, STEPS + 1)]
    assert "The training loss hardly changed: from " in told(run_folder(tmp_path / "noise", noise))
    assert "too few to say" in told(run_folder(tmp_path / "few", up[:9]))


def test_validation_tasks_say_more_than_the_training_loss(tmp_path: Path) -> None:
    lines = [
        *(step(n) for n in range(1, 21)),
        *(evaluation(n, nats, 0.2) for n, nats in ((0, 3.0), (10, 1.5), (20, 2.0))),
    ]
    text = told(run_folder(tmp_path / "a", lines))
    assert (
        "The loss on validation tasks fell: from 3.000 to 2.000 nats per token, best 1.500 after step 10; exact" in text
    )
    assert "training loss" not in text
    worse = [*lines, evaluation(30, 3.5)]
    assert "did not fall: from 3.000 to 3.500" in told(run_folder(tmp_path / "b", worse))
    (table,) = [block for block in parts(tmp_path / "a")["validation"].blocks if isinstance(block, Table)]
    assert [cell.text for cell in table.rows[0]] == [TASK, "3.100", "1.600", "2.100", "20%"]


def test_adapting_time_and_memory_are_those_of_the_files(tmp_path: Path) -> None:
    text = told(run_folder(tmp_path))
    assert (
        "meta-lora (two-stage META-LORA) trains 325,632 parameters (0.24 %) of smollm2 on 13 tasks, 2 in a step" in text
    )
    assert "each adapts in 3 steps on all 8 support examples." in text
    assert re.search(r"Adapting lowers the loss .* from 2\.\d+ to 0\.\d+; on its query .* a gap of 0\.250\.", text)
    assert "It took 3.9 min for 6,000 tokens, with 1 GiB of resident memory at most." in text
    table, peaks, time = parts(tmp_path)["memory"].blocks
    assert isinstance(table, Table)
    assert isinstance(peaks, Table)
    assert isinstance(time, Prose)
    assert [cell.text for cell in table.rows[0]] == [
        "inner",
        "≈ 584 MiB",
        "576 MiB",
        "base 500 MiB, activations 76 MiB",
    ]
    assert time.spans[0].text == "Time: predicted 70 s, took 3.9 min."


def test_scores_and_answers_are_of_the_newest_evaluation(tmp_path: Path) -> None:
    without, scored = run_folder(tmp_path / "without"), run_folder(tmp_path / "with", with_eval=True)
    assert not {"scores", "answers"} & parts(without).keys()
    assert {"scores", "answers"} <= parts(scored).keys()
    text = told(scored)
    assert "Right answers on 2 held-out tasks after adapting to k examples: " in text
    assert re.search(r": 2\d\.\d % at k = 0; .* at k = 2; 4\d\.\d % \(own\) at k = 8\.", text)
    assert "It is of the tasks of training" not in text


def test_the_page_says_what_was_exported_and_why_a_run_ended_early(tmp_path: Path) -> None:
    chosen = {
        "validation": {"exported": "best", "exported_step": 12},
        "stopped_after": 18,
        "stopped_by": "evaluate.patience",
    }
    blocks = parts(run_folder(tmp_path, **chosen))["result"].blocks
    text = " ".join("".join(span.text for span in block.spans) for block in blocks if isinstance(block, Prose))
    assert "Ended after 18 steps, by evaluate.patience." in text
    assert "Exported are the values after step 12, the best on validation tasks." in text
    without = parts(run_folder(tmp_path))["result"].blocks
    assert len(without) == len(blocks) - 2


def test_a_run_that_has_not_begun_or_failed_has_a_page(tmp_path: Path) -> None:
    begun = write_run_report(run_folder(tmp_path / "begun", [], status="running", host={}, timing={}, forecast={}))
    page = begun.read_text("utf-8")
    assert "Not finished" in page
    assert "0 of 60 steps" in page
    assert "<figure" not in page
    failed = run_folder(tmp_path / "failed", [step(1), '{"step": 2'], status="failed", reason="loss is <nan>")
    page = write_run_report(failed).read_text("utf-8")
    assert "Failed: loss is &lt;nan&gt;" in page


def test_names_and_warnings_are_text_and_the_page_needs_nothing_else(tmp_path: Path) -> None:
    page = write_run_report(run_folder(tmp_path / "<b>run", with_eval=True)).read_text("utf-8")
    parsed = Page(page)
    assert "<script>alert" not in page
    assert "<b>run" not in page
    assert WARNING.replace("\x07", "\ufffd") in page
    assert not parsed.of("img") + parsed.of("link") + parsed.of("iframe")
    ids = [attributes["id"] for _, attributes in parsed.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert not [*(tmp_path / "<b>run").glob("*.md")], "one file"


def test_what_a_page_needs_is_said_and_what_is_no_run_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match="no run here"):
        write_run_report(tmp_path)
    monkeypatch.setattr(report, "NEEDED", ("no_such_library",))
    with pytest.raises(UserError, match="needs no_such_library"):
        write_run_report(run_folder(tmp_path))
