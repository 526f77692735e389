"""results.json as the page reads it: whose numbers count where, and text that any page can hold."""

import copy
import json

import pytest

from innerloop.errors import UserError
from innerloop.results.lookup import COST, METRICS, Results, is_predicted, unequal
from results_example import HELD_OUT, HOSTILE_REASON, KS, example

NATS, ACCURACY = METRICS


@pytest.fixture(scope="module")
def results() -> Results:
    return Results(example())


def test_budgets_are_apart_and_cost_is_none_of_them(results: Results) -> None:
    assert results.budgets == ["tokens", "seconds"]
    assert [row["arm"] for row in results.rows_of(COST)] == ["joint", "fomaml"]
    assert {row["budget"] for row in results.rows_of("tokens")} == {"", "tokens"}
    assert "joint" not in results.arms("tokens")
    assert results.arms("seconds") == ["base", "in-context", "lora", "joint-lora", "fomaml-lora", "meta-lora"]


def test_a_score_is_looked_up_in_its_own_budget(results: Results) -> None:
    given = {s["budget"]: s for s in example()["scores"] if score_is(s, "meta-lora", "own", 8)}
    assert given.keys() == {"tokens", "seconds"}
    for budget, entry in given.items():
        assert results.score(budget, "meta-lora", "own", 8, "nats") == entry
    assert given["tokens"]["tasks"] != given["seconds"]["tasks"]
    assert results.score("seconds", "fomaml-lora", "own", 8, "nats") is None


def score_is(score: dict, arm: str, how: str, k: int) -> bool:
    return (score["table"], score["arm"], score["how"], score["k"], score["metric"]) == ("unseen", arm, how, k, "nats")


def test_arms_without_training_or_adaptation_count_everywhere(results: Results) -> None:
    for budget in results.budgets:
        assert results.score(budget, "base", "own", 0, "nats"), "no budget, and k = 0 has no `how`"
        assert results.score(budget, "in-context", "tuned", 8, "nats")
    assert [point["k"] for point in results.curve("tokens", "joint-lora", "own", "nats")] == KS
    assert [point["k"] for point in results.curve("tokens", "base", "own", "nats")] == [0]


def test_seen_and_unseen_tasks_are_never_one(results: Results) -> None:
    unseen, seen = (results.score("tokens", "joint-lora", "none", 0, "nats", table) for table in ("unseen", "seen"))
    assert unseen
    assert seen
    assert set(unseen["tasks"]) == set(HELD_OUT) != set(seen["tasks"])
    assert results.holds("seen", "tokens")
    assert not results.holds("seen", "seconds"), "the untrained base alone makes no table"


def test_another_reference_is_kept_apart() -> None:
    given = example()
    entry = next(e for e in given["differences"] if e["arm"] == "meta-lora" and e["budget"] == "tokens" and e["k"] == 8)
    given["differences"].append({**entry, "reference": "joint", "mean": 99.0})
    results = Results(given)
    found = results.difference("tokens", "meta-lora", entry["how"], 8, entry["metric"])
    assert found
    assert found["mean"] == entry["mean"]
    assert [e["mean"] for e in results.others("tokens", "unseen")] == [99.0]
    assert results.others("tokens", "seen") == results.others("seconds", "unseen") == []


def test_why_an_arm_has_no_score(results: Results) -> None:
    assert results.absence("seconds", "fomaml-lora") == f"failed: {HOSTILE_REASON}"
    assert results.absence("seconds", "lora") == "not run yet: interrupted at step 12 of 60"
    assert results.absence(COST, "joint") == "cost only, not scored"
    assert results.absence("tokens", "nobody") == "no score in these results"


def test_text_that_no_page_can_hold_is_replaced() -> None:
    given = example() | {"name": "a\x00b\ud800c\x1b[0m\td\ne é 漢 🙂"}
    given["protocol"]["held_out"] = ["\x08"]
    results = Results(given)
    assert results.name == "a�b�c�[0m\td\ne é 漢 🙂"
    assert results.tasks("unseen")[0] == "�"
    json.dumps(results.given, ensure_ascii=False).encode()
    with pytest.raises(UnicodeEncodeError):
        given["name"].encode()


def test_another_format_is_refused() -> None:
    for wrong in (2, None, "1"):
        with pytest.raises(UserError, match=r"results\.json: format"):
            Results({**example(), "format": wrong})


def test_the_results_are_only_read() -> None:
    given = example()
    before = copy.deepcopy(given)
    Results(given)
    assert given == before


def test_nothing_at_all_is_read_as_nothing() -> None:
    results = Results({"format": 1})
    assert (results.budgets, results.ks, results.tasks("unseen"), results.arms("")) == ([], [], [], [])


def test_predicted_names_one_number_or_all_kinds_of_memory() -> None:
    assert is_predicted({"predicted": ["peak_bytes"]}, "peak_bytes.rss")
    assert is_predicted({"predicted": ["peak_bytes.rss"]}, "peak_bytes.rss")
    assert not is_predicted({"predicted": ["peak_bytes.rss"]}, "peak_bytes.allocated")
    assert not is_predicted({"predicted": ["seconds"]}, "tokens")
    assert not is_predicted({}, "tokens")


def test_arms_that_adapt_differently_say_so() -> None:
    assert unequal({"how": "none", "reference": "joint-lora", "reference_how": "tuned"}) == "joint-lora tuned"
    assert unequal({"how": "own", "reference": "joint-lora", "reference_how": "own"}) == ""
    assert unequal({"how": "own"}) == ""


@pytest.mark.parametrize(
    ("low", "high", "nats", "accuracy"),
    [
        (-0.19, -0.05, "0.050 to 0.190 lower", "5.0 to 19.0 points lower"),
        (0.05, 0.19, "0.050 to 0.190 higher", "5.0 to 19.0 points higher"),
        (-0.05, 0.02, "0.050 lower to 0.020 higher", "5.0 points lower to 2.0 points higher"),
        (0.0, 0.0, "0.000 to 0.000", "0.0 to 0.0 points"),
        (-0.1, 0.0, "0.000 to 0.100 lower", "0.0 to 10.0 points lower"),
    ],
)
def test_an_interval_in_words(low: float, high: float, nats: str, accuracy: str) -> None:
    assert (NATS.between(low, high), ACCURACY.between(low, high)) == (nats, accuracy)


def test_a_number_that_rounds_to_zero_has_no_sign() -> None:
    assert [NATS.change(value) for value in (-0.0001, 0.0001, -0.12, 0.12)] == ["0.000", "0.000", "−0.120", "+0.120"]
    assert [ACCURACY.words(value) for value in (-0.0001, -0.12)] == ["0.0 points", "12.0 points lower"]
