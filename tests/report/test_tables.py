"""The tables hold the numbers of results.json, each in its own row and column, and no others."""

from typing import Any

import pytest

from innerloop.report import tables
from innerloop.report.tables_matrix import matrix
from innerloop.report.words import MAIN_METRICS
from report.conftest import column, given
from results_example import KS, TRAIN, example, read

RESULTS = read(example())


@pytest.mark.parametrize("metric", MAIN_METRICS, ids=lambda metric: metric.name)
@pytest.mark.parametrize("budget", ["tokens", "seconds"])
def test_every_score_of_unseen_tasks_is_in_its_place(budget: str, metric: Any) -> None:
    table = tables.scores(RESULTS, budget, "own", metric)
    assert [row[0].text for row in table.rows] == RESULTS.arms(budget)
    for k in KS:
        expected = {
            entry["arm"]: entry["mean"]
            for entry in given("scores", table="unseen", k=k, metric=metric.name)
            if entry["budget"] in (budget, "") and entry["how"] in ("own", "none")
        }
        found = {arm: cell.value for arm, cell in column(table, f"k = {k}").items() if cell.value is not None}
        assert found == expected


def test_a_score_shows_its_interval_and_the_worst_task_of_the_largest_k() -> None:
    table = tables.scores(RESULTS, "tokens", "own", MAIN_METRICS[1])
    (entry,) = given("scores", table="unseen", budget="tokens", arm="meta-lora", how="own", k=8, metric="accuracy")
    cell = column(table, "k = 8")["meta-lora"]
    assert cell.text == f"{entry['mean'] * 100:.1f}"
    assert cell.detail == (f"[{entry['low'] * 100:.1f}, {entry['high'] * 100:.1f}]",)
    worst = column(table, "worst task, largest k")["meta-lora"]
    assert (worst.detail, worst.value) == ((entry["worst"][0],), entry["worst"][1])


def test_differences_have_interval_p_and_verdict_and_no_reference() -> None:
    table = tables.differences(RESULTS, "tokens", "own", MAIN_METRICS[0])
    assert "joint-lora" not in [row[0].text for row in table.rows]
    cells = column(table, "k = 8")
    for entry in given("differences", table="unseen", budget="tokens", how="own", k=8, metric="nats"):
        cell = cells[entry["arm"]]
        assert cell.value == entry["mean"]
        assert cell.detail[1].startswith("p ")
        assert ("primary contrast" in cell.detail) == (entry["arm"] == "meta-lora"), "all others are exploratory"
        assert cell.tag == entry["verdict"].removesuffix(" from joint-lora")
    assert {cells["meta-lora"].tag, cells["fomaml-lora"].tag} == {"better", "no detectable difference"}


def test_nats_of_stopping_have_a_column_beside_those_of_the_answer() -> None:
    title = "nats of stopping, largest k"
    shown = column(tables.scores(RESULTS, "tokens", "own", MAIN_METRICS[0]), title)["meta-lora"]
    (entry,) = given("scores", table="unseen", budget="tokens", arm="meta-lora", how="own", k=8, metric="stop_nats")
    assert shown.value == entry["mean"]
    assert title not in tables.scores(RESULTS, "tokens", "own", MAIN_METRICS[1]).columns
    wide, _ = matrix(RESULTS, "tokens", "own")
    assert column(wide, "nats of stopping, k = 8")["meta-lora"].value == entry["mean"]
    places = [list(wide.columns).index(f"{title}, k = 8") for title in ("nats per answer token", "nats of stopping")]
    assert places == sorted(places)
    seen = column(tables.seen(RESULTS, "tokens"), "nats of stopping")
    assert seen["meta-lora"].value == given("scores", table="seen", arm="meta-lora", metric="stop_nats")[0]["mean"]
    results = example()
    results["scores"] = [entry for entry in results["scores"] if entry["metric"] != "stop_nats"]
    without = read(results)
    every = (tables.scores(without, "tokens", "own", MAIN_METRICS[0]), tables.seen(without, "tokens"))
    assert not [title for table in every for title in table.columns if "stopping" in title]


def test_cut_answers_are_counted_beside_the_accuracy() -> None:
    shown = column(tables.scores(RESULTS, "tokens", "own", MAIN_METRICS[1]), "answers cut off, all k")
    assert (shown["meta-lora"].text, shown["meta-lora"].value) == ("10 of 1008", 10), "of k = 0, 2 and 8"
    assert shown["base"].text == "0 of 336"
    assert "answers cut off, all k" not in tables.scores(RESULTS, "tokens", "own", MAIN_METRICS[0]).columns


def test_the_table_of_seen_tasks_holds_only_seen_tasks() -> None:
    table = tables.seen(RESULTS, "tokens")
    assert [row[0].text for row in table.rows] == ["base", "joint-lora", "fomaml-lora", "meta-lora"]
    for arm, cell in column(table, "nats per answer token").items():
        assert cell.value == given("scores", table="seen", arm=arm, metric="nats")[0]["mean"]
    assert {cell.detail[0] for cell in column(table, "worst task, accuracy").values()} <= set(TRAIN)
    assert column(table, "nats minus joint-lora")["joint-lora"].text == "reference"


def test_failed_and_missing_cells_are_shown_as_such() -> None:
    table, _ = matrix(RESULTS, "seconds", "own")
    methods = column(table, "method")
    assert (methods["fomaml-lora"].tag, methods["lora"].tag, methods["meta-lora"].tag) == ("failed", "not run yet", "")
    scores = column(tables.scores(RESULTS, "seconds", "own", MAIN_METRICS[0]), "k = 8")
    assert (scores["fomaml-lora"].text, scores["lora"].text) == ("failed", "not run yet")
    assert scores["fomaml-lora"].value is None


def test_contrasts_name_what_they_are_of() -> None:
    table = tables.contrasts(RESULTS.contrasts, "tokens")
    assert [(row[1].text, row[-1].tag) for row in table.rows] == [
        ("meta-lora − fomaml-lora", "better than fomaml-lora"),
        ("meta-lora − fomaml-lora", "no detectable difference"),
    ]


def test_another_reference_has_a_table_of_its_own() -> None:
    assert tables.others(RESULTS, "tokens", "unseen") is None
    results = example()
    entry = next(e for e in results["differences"] if e["arm"] == "meta-lora" and e["budget"] == "tokens")
    results["differences"].append({**entry, "reference": "joint", "verdict": "no detectable difference from joint"})
    table = tables.others(read(results), "tokens", entry["table"])
    assert table
    assert [cell.text for cell in table.rows[0]][:2] == ["meta-lora", "joint"]
    assert table.rows[0][-1].tag == "no detectable difference"
