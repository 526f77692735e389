"""The sentences on top: a null result where a win would stand, every arm named, nothing said that wasn't found."""

import re
from typing import Any

import pytest

from innerloop.report.page import Prose
from innerloop.report.verdict import chances, detectable, headline, primary, verdicts
from innerloop.results.schema import Results
from results_example import HOSTILE_REASON, example, few_seeds, read

NULL = "no detectable difference from joint-lora"


def told(prose: Prose) -> str:
    return "".join(span.text for span in prose.spans)


def changed(**outcomes: str) -> Results:
    """All verdicts of the largest k at equal tokens as given: arm=verdict, else null."""
    given = example()
    for entry in given["differences"]:
        entry["verdict"] = outcomes.get(entry["arm"].replace("-", "_"), NULL)
    return read(given)


def test_every_arm_has_its_sentence_and_a_null_stands_where_a_win_would() -> None:
    results = read(example())
    sentences = {prose.arm: prose for prose in verdicts(results, "tokens", "own")}
    assert list(sentences) == results.arms("tokens")
    wins, nulls = ([span.mark for span in sentences[arm].spans] for arm in ("meta-lora", "fomaml-lora"))
    assert [mark.replace("better", "null") for mark in wins] == nulls
    assert told(sentences["fomaml-lora"]).count(NULL) == 2
    assert told(sentences["meta-lora"]).count("better than joint-lora") == 2
    assert NULL not in told(sentences["meta-lora"])


def test_a_sentence_has_the_numbers_of_its_own_difference() -> None:
    given = example()
    entry = next(e for e in given["differences"] if of(e) == ("unseen", "tokens", "meta-lora", "own", 8, "nats"))
    entry |= {"mean": -0.1234, "low": -0.2, "high": 0.0456, "p": 0.0321, "verdict": "worse"}
    sentence = told(next(p for p in verdicts(read(given), "tokens", "own") if p.arm == "meta-lora"))
    expected = "0.123 lower (95 % interval 0.200 lower to 0.046 higher; p = 0.032)"
    assert f"worse than joint-lora in nats per answer token: {expected}" in sentence
    assert expected not in told(next(p for p in verdicts(read(given), "seconds", "own") if p.arm == "meta-lora"))


def of(entry: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(entry[key] for key in ("table", "budget", "arm", "how", "k", "metric"))


def test_the_primary_contrast_is_told_whatever_it_came_to() -> None:
    given = example()
    named = given["primary"]
    for verdict, words in (("worse", "worse than joint-lora"), ("no detectable difference", NULL)):
        sentence = told(primary(read(given | {"primary": named | {"verdict": verdict}})))
        where = "at equal tokens, k = 8, the run's own inner loop"
        start = f"Primary contrast, named before the comparison ran ({where}): meta-lora: {words} in nats per answer"
        assert sentence.startswith(start)
        assert "95 % interval" in sentence
        assert "p < 0.001" in sentence or "p = " in sentence
    bare = {key: named[key] for key in ("arm", "against", "budget", "metric", "k", "adaptation")}
    assert "has no scores yet" in told(primary(read(given | {"primary": bare})))
    nothing = read(given | {"primary": None})
    assert "every difference is exploratory" in told(primary(nothing))


def test_so_many_comparisons_find_something_by_chance() -> None:
    results = read(example())
    count = len(results.differences) + len(results.contrasts) - 1
    assert results.exploratory == count > 40
    assert f"of {count} comparisons, about {round(count / 20)} verdicts" in told(chances(results) or Prose(()))
    assert chances(read(few_seeds())) is None


def test_of_one_seed_nothing_is_said_of_a_method() -> None:
    results = read(few_seeds())
    hows = [(budget, how) for budget in results.budgets for how in results.hows(budget)]
    said = [primary(results), *detectable(results), *(headline(results, *each) for each in hows)]
    said += [sentence for each in hows for sentence in verdicts(results, *each)]
    sentences = [told(prose) for prose in said]
    assert not [text for text in sentences if re.search(r"\bbetter\b|\bworse\b|\bp [<=]|detectable", text)]
    arms = {prose.arm: told(prose) for prose in verdicts(results, "tokens", "own")}
    assert "lower than joint-lora's for these trained values (95 % interval over tasks" in arms["meta-lora"]
    assert "no verdict on a method: there is 1 training seed, and it takes 2 tasks and 3 seeds" in sentences[2]
    three = " ".join(told(prose) for prose in verdicts(read(example()), "tokens", "own"))
    assert re.search(r"\bbetter\b.*\bp [<=]", three), "the control: of three seeds it is said"


def test_failed_missing_and_unscored_arms_say_why() -> None:
    sentences = {prose.arm: told(prose) for prose in verdicts(read(example()), "seconds", "own")}
    assert sentences["fomaml-lora"] == f"fomaml-lora: failed: {HOSTILE_REASON}."
    assert sentences["lora"] == "lora: not run yet: interrupted at step 12 of 60."
    given = example()
    given["differences"] = [e for e in given["differences"] if e["arm"] != "meta-lora"]
    sentences = {prose.arm: told(prose) for prose in verdicts(read(given), "tokens", "own")}
    assert sentences["meta-lora"] == "meta-lora: no score in these results."


@pytest.mark.parametrize(
    ("outcomes", "expected"),
    [
        ({}, "no arm is detectably better than joint-lora in nats per answer token or in accuracy."),
        (
            {"meta_lora": "worse"},
            "no arm is detectably better than joint-lora in nats per answer token or in accuracy.",
        ),
        ({"meta_lora": "better"}, "meta-lora is better than joint-lora in nats per answer token and accuracy."),
        ({"meta_lora": "better", "lora": "better"}, "lora and meta-lora are better than joint-lora in"),
        ({"base": "better"}, "no arm is detectably better"),  # at k = 0: no contender at the largest k
    ],
)
def test_the_first_sentence(outcomes: dict[str, str], expected: str) -> None:
    sentence = told(headline(changed(**outcomes), "tokens", "own"))
    start = "Exploratory: at equal tokens and k = 8, with the run's own inner loop, on tasks that training never saw, "
    assert sentence.startswith(start)
    assert expected in sentence


def test_metrics_that_disagree_are_told_apart() -> None:
    given = example()
    for entry in given["differences"]:
        entry["verdict"] = "better" if (entry["arm"], entry["metric"]) == ("meta-lora", "nats") else NULL
    sentence = told(headline(read(given), "tokens", "own"))
    assert "meta-lora is better than joint-lora in nats per answer token; " in sentence
    assert sentence.endswith("no arm is detectably better than joint-lora in accuracy.")


def test_without_a_reference_nothing_is_claimed() -> None:
    given = example()
    given["differences"] = []
    given["rows"] = [row for row in given["rows"] if row["arm"] != "joint-lora"]
    given["scores"] = [score for score in given["scores"] if score["arm"] != "joint-lora"]
    results = read(given)
    assert told(headline(results, "tokens", "own")) == "At equal tokens nothing was compared with joint-lora."
    assert all("better" not in told(prose) for prose in verdicts(results, "tokens", "own"))


def test_what_could_be_detected() -> None:
    first, second = (told(prose) for prose in detectable(read(example())))
    assert "0.110 nats and 8.0 points" in first
    assert second.startswith("80 % power")
    assert "can't tell methods apart: there is 1 training seed" in told(detectable(read(few_seeds()))[0])
    assert "don't say" in told(detectable(read(example() | {"detectable": {}}))[0])
    only = read(example() | {"detectable": {"nats": 0.5}})
    assert next(told(prose) for prose in detectable(only)).count("points") == 0
