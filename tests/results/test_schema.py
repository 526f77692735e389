"""results.json: what is written is read again, what is damaged is refused by name, and whose numbers count where."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from comparison_folders import Planted, write_comparison
from innerloop.errors import UserError
from innerloop.results import names
from innerloop.results.entries import ArmRow, Difference, MeanScore, PrimaryContrast
from innerloop.results.names import COST
from innerloop.results.schema import Results
from innerloop.results.summary import summarize
from results_example import HELD_OUT, KS, example, read


@pytest.fixture(scope="module")
def results() -> Results:
    return read(example())


# the file


NUMBER = st.floats(allow_nan=False, allow_infinity=False)
ROW = st.fixed_dictionaries(
    {"arm": st.text(), "budget": st.text(), "cost_only": st.booleans(), "status": st.sampled_from(["done", "missing"])}
    | {"reason": st.text(), "seeds": st.lists(st.integers()), "predicted": st.lists(st.text())},
    optional={"tokens": st.integers() | NUMBER, "peak_bytes": st.dictionaries(st.text(), NUMBER), "trains": st.text()},
)
NAMED = {"table": st.sampled_from(["seen", "unseen"]), "budget": st.text(), "arm": st.text()}
NAMED |= {"how": st.sampled_from(["none", "own", "tuned"]), "k": st.integers(0), "metric": st.just("nats")}
OPTIONAL = {"low": NUMBER, "high": NUMBER}
SCORE = st.fixed_dictionaries(
    NAMED
    | {"mean": NUMBER, "worst": st.tuples(st.text(), NUMBER), "tasks": st.dictionaries(st.text(), NUMBER)}
    | {"seeds": st.lists(st.integers())},
    optional=OPTIONAL | {"cut": st.tuples(st.integers(0), st.integers(0))},
)
DIFFERENCE = st.fixed_dictionaries(
    NAMED
    | {"reference": st.text(), "reference_how": st.just("own"), "mean": NUMBER, "verdict": st.text()}
    | {"seeds": st.lists(st.integers()), "tasks": st.dictionaries(st.text(), NUMBER)},
    optional=OPTIONAL | {"p": NUMBER},
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(ROW), scores=st.lists(SCORE), differences=st.lists(DIFFERENCE), name=st.text())
def test_what_is_written_is_read_again(tmp_path: Path, rows: Any, scores: Any, differences: Any, name: str) -> None:
    lists = {"rows": [ArmRow(**row) for row in rows], "scores": [MeanScore(**score) for score in scores]}
    lists |= {"differences": [Difference(**each) for each in differences]}
    results = read(example()).model_copy(update={**lists, "name": name})
    results.write(tmp_path / "results.json")
    again = Results.read(tmp_path / "results.json")
    assert again == results
    assert again.contents() == results.contents()


def test_the_example_and_a_folders_results_are_read_as_they_were(tmp_path: Path) -> None:
    arms = {"base": Planted(), "joint-lora": Planted(), "meta-lora": Planted(0.4)}
    asked = {"arm": "meta-lora", "against": "joint-lora", "budget": "tokens", "metric": "nats", "k": 8}
    write_comparison(tmp_path, arms, tasks=3, examples=4, seen=True, primary=asked | {"adaptation": "tuned"})
    for results in (summarize(tmp_path), read(example())):
        results.write(tmp_path / "results.json")
        assert Results.read(tmp_path / "results.json") == results
        assert isinstance(results.primary, PrimaryContrast)
    assert read(example()).contents() == example(), "nothing is added, and nothing lost"
    assert read(example()) != summarize(tmp_path), "the control"


@pytest.mark.parametrize(
    ("change", "where", "said"),
    [
        (lambda given: given.update(format=2), "format", "not in a format that this version reads"),
        (lambda given: given.update(format="1"), "format", "expected: 1"),
        (lambda given: given.pop("format"), "format", "not in a format that this version reads"),
        (lambda given: given["scores"][0].update(mean="0.5"), "scores.0.mean", "expected: a valid number"),
        (lambda given: given["scores"][0].update(mean=float("nan")), "scores.0.mean", "finite"),
        (lambda given: given["scores"][3].pop("arm"), "scores.3.arm", "required"),
        (lambda given: given["rows"][1].update(status="well"), "rows.1.status", "'done', 'failed' or 'missing'"),
        (lambda given: given["differences"][0].update(how="mine"), "differences.0.how", "'none', 'own' or 'tuned'"),
        (lambda given: given.update(notes="none"), "notes", "expected: a valid array"),
    ],
)
def test_what_is_no_result_is_refused_by_its_place(
    tmp_path: Path, change: Callable[[Any], Any], where: str, said: str
) -> None:
    contents = example()
    change(contents)
    path = tmp_path / "results.json"
    path.write_text(json.dumps(contents))
    with pytest.raises(UserError) as caught:
        Results.read(path)
    assert [fault.where for fault in caught.value.faults] == [f"{path}: {where}"]
    assert said in str(caught.value)


def test_a_file_that_is_none_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "results.json"
    with pytest.raises(UserError, match="can't be read: No such file"):
        Results.read(path)
    for content in (b"{", b"[]", b"\xff", b"[" * 10_000):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"results\.json"):
            Results.read(path)
    read(example()).write(path)
    Results.read(path)
    monkeypatch.setattr(names, "LARGEST_FILE", path.stat().st_size - 1)
    with pytest.raises(UserError, match="too large"):
        Results.read(path)


# looked up


def test_budgets_are_apart_and_cost_is_none_of_them(results: Results) -> None:
    assert results.budgets == ["tokens", "seconds"]
    assert [row.arm for row in results.rows_of(COST)] == ["joint", "fomaml"]
    assert {row.budget for row in results.rows_of("tokens")} == {"", "tokens"}
    assert "joint" not in results.arms("tokens")
    assert results.arms("seconds") == ["base", "in-context", "lora", "joint-lora", "fomaml-lora", "meta-lora"]


def test_a_score_is_looked_up_in_its_own_budget(results: Results) -> None:
    given = {s["budget"]: s for s in example()["scores"] if score_is(s, "meta-lora", "own", 8)}
    assert given.keys() == {"tokens", "seconds"}
    for budget, entry in given.items():
        found = results.score(budget, "meta-lora", "own", 8, "nats")
        assert found == MeanScore.model_validate_json(json.dumps(entry))
    assert given["tokens"]["tasks"] != given["seconds"]["tasks"]
    assert results.score("seconds", "fomaml-lora", "own", 8, "nats") is None


def score_is(score: dict, arm: str, how: str, k: int) -> bool:
    return (score["table"], score["arm"], score["how"], score["k"], score["metric"]) == ("unseen", arm, how, k, "nats")


def test_arms_without_training_or_adaptation_count_everywhere(results: Results) -> None:
    for budget in results.budgets:
        assert results.score(budget, "base", "own", 0, "nats"), "no budget, and k = 0 has no `how`"
        assert results.score(budget, "in-context", "tuned", 8, "nats")
    assert [point.k for point in results.curve("tokens", "joint-lora", "own", "nats")] == KS
    assert [point.k for point in results.curve("tokens", "base", "own", "nats")] == [0]


def test_seen_and_unseen_tasks_are_never_one(results: Results) -> None:
    unseen, seen = (results.score("tokens", "joint-lora", "none", 0, "nats", table) for table in ("unseen", "seen"))
    assert unseen
    assert seen
    assert set(unseen.tasks) == set(HELD_OUT) != set(seen.tasks)
    assert results.holds("seen", "tokens")
    assert not results.holds("seen", "seconds"), "the untrained base alone makes no table"


def test_another_reference_is_kept_apart() -> None:
    contents = example()
    entry = next(
        e for e in contents["differences"] if e["arm"] == "meta-lora" and e["budget"] == "tokens" and e["k"] == 8
    )
    contents["differences"].append({**entry, "reference": "joint", "mean": 99.0})
    results = read(contents)
    found = results.difference("tokens", "meta-lora", entry["how"], 8, entry["metric"])
    assert found
    assert found.mean == entry["mean"]
    assert [e.mean for e in results.others("tokens", "unseen")] == [99.0]
    assert results.others("tokens", "seen") == results.others("seconds", "unseen") == []


def test_nothing_at_all_is_read_as_nothing() -> None:
    results = read({"format": 1, "name": "none", "status": "partial", "protocol": {"draws": 1}})
    assert (results.budgets, results.ks, results.tasks("unseen"), results.arms("")) == ([], [], [], [])


def test_predicted_names_one_number_or_all_kinds_of_memory(results: Results) -> None:
    row = results.rows[0]
    for predicted, field, expected in (
        (["peak_bytes"], "peak_bytes.rss", True),
        (["peak_bytes.rss"], "peak_bytes.rss", True),
        (["peak_bytes.rss"], "peak_bytes.allocated", False),
        (["seconds"], "tokens", False),
        ([], "tokens", False),
    ):
        assert row.model_copy(update={"predicted": predicted}).is_predicted(field) == expected
