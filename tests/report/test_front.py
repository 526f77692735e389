"""The first screen: one part of the results, three sentences that say what it shows and no more, and the words."""

import copy
import re
from typing import Any

import pytest

from innerloop.report.front import answer, answer_lines, focus, glossary, lasted, opening, standing
from innerloop.report.page import Asked, Figure
from innerloop.results.names import COST
from report.conftest import given, small
from results_example import HELD_OUT, HOSTILE_REASON, example, few_seeds, read


def test_it_is_of_the_primary_contrast_or_else_of_the_most_examples() -> None:
    named = focus(read(example()))
    assert named is not None
    assert (named.budget, named.how, named.k, named.metric.name) == ("tokens", "own", 8, "accuracy")
    other = example()
    other["primary"] |= {"k": 2, "adaptation": "tuned"}
    assert [(at.how, at.k) for at in [focus(read(other))] if at] == [("tuned", 2)]
    free = focus(read(example() | {"primary": None}))
    assert free is not None
    assert (free.budget, free.how, free.k) == ("tokens", "tuned", 8)
    assert focus(read(example() | {"scores": []})) is None


def test_every_arm_stands_with_its_score_at_that_k_and_the_base_with_its_only_one() -> None:
    results = read(example())
    at = focus(results)
    assert at is not None
    found = standing(results, at)
    assert [*found] == results.arms("tokens")
    assert {arm: score.k for arm, score in found.items() if score.k != 8} == {"base": 0}
    (entry,) = given("scores", table="unseen", budget="tokens", arm="meta-lora", how="own", k=8, metric="accuracy")
    assert found["meta-lora"].mean == entry["mean"]
    partial = example()
    partial["scores"] = [e for e in partial["scores"] if e["arm"] != "joint-lora" or e["k"] < 8]
    assert "joint-lora" not in standing(read(partial), at), "its score at another k is no stand-in"


def test_three_sentences_say_what_was_best_whether_that_is_shown_and_its_cost() -> None:
    best, shown, cost = answer_lines(read(example()))
    assert best.startswith("meta-lora has most answers right on 7 tasks that training never saw, after 8 examples")
    (entry,) = given("scores", table="unseen", budget="tokens", arm="meta-lora", how="own", k=8, metric="accuracy")
    low, mean, high = (f"{100 * entry[key]:.1f}" for key in ("low", "mean", "high"))
    assert f"of each: {mean} % (95 % interval {low} to {high}); " in best
    assert best.endswith("base 11.0 %.")
    assert shown.startswith("The difference is shown: meta-lora is better than joint-lora in nats per answer token: ")
    assert "95 % interval" in shown
    assert shown.endswith("This contrast was named before anything ran.")
    assert cost.startswith("Training took 2.9 min for lora, 3.1 min for joint-lora, 3.7 min for fomaml-lora and ")
    assert cost.endswith("on about 412,000 tokens each, with 1.54 GiB of memory at most.")


def test_what_is_not_shown_is_not_claimed() -> None:
    null = example()
    null["primary"] |= {"verdict": "no detectable difference", "mean": -0.01, "low": -0.1, "high": 0.08, "p": 0.8}
    sentence = answer_lines(read(null))[1]
    assert sentence.startswith("No difference is shown: meta-lora has no detectable difference from joint-lora in nats")
    assert "95 % interval 0.100 lower to 0.080 higher" in sentence
    few = " ".join(answer_lines(read(few_seeds())))
    why = "there is 1 training seed, and it takes 2 tasks and 3 seeds"
    assert f"Nothing is shown of a method: {why}. Of meta-lora: " in few
    assert not re.search(r"\bbetter\b|\bworse\b|\bp [<=]|is shown: ", few.replace("Nothing is shown", ""))


def test_without_a_named_contrast_the_best_arm_is_compared_and_that_is_exploratory() -> None:
    sentence = answer_lines(read(example() | {"primary": None}))[1]
    assert "meta-lora" in sentence
    assert "in accuracy" in sentence
    assert sentence.endswith("Exploratory: no contrast was named before the comparison ran.")
    alone = example() | {"primary": None, "differences": []}
    assert len(answer_lines(read(alone))) == 2, "nothing was compared, so nothing is said of a difference"


def test_equal_scores_share_the_first_place() -> None:
    tied = example()
    for entry in tied["scores"]:
        if entry["metric"] == "accuracy" and entry["arm"] in ("meta-lora", "fomaml-lora"):
            entry["mean"] = 0.9
    assert answer_lines(read(tied))[0].startswith("fomaml-lora and meta-lora have most answers right")


def test_the_least_loss_is_best_where_nothing_was_answered() -> None:
    bare = example()
    bare["scores"] = [entry for entry in bare["scores"] if entry["metric"] == "nats"]
    first = answer_lines(read(bare))[0]
    assert first.startswith("meta-lora has the lowest loss")
    assert " %" not in first.replace("95 %", "")


def test_a_predicted_or_missing_cost_is_not_told() -> None:
    free = example()
    free["rows"] = [row for row in free["rows"] if row["budget"] in ("", COST) or row["status"] != "done"]
    assert not [line for line in answer_lines(read(free)) if "Training took" in line]


def test_questions_come_one_of_each_task_first_with_every_arms_answer() -> None:
    parts = {part.name: part for part in opening(read(example()), [])}
    asked = [block for block in parts["answers"].blocks if isinstance(block, Asked)]
    assert [each.task for each in asked] == HELD_OUT[:6]
    replies = {reply.who: (reply.text, reply.is_right) for reply in asked[0].replies}
    assert replies["meta-lora"] == ("1", True)
    assert replies["base"][1] is False
    assert " ".join(replies["base"][0].split()) == " ".join(HOSTILE_REASON.split())
    assert [*replies] == read(example()).arms("tokens")
    few = copy.deepcopy(example())
    few["questions"] = [q for q in few["questions"] if q["task"] in HELD_OUT[:2]]
    parts = {part.name: part for part in opening(read(few), [])}
    asked = [block for block in parts["answers"].blocks if isinstance(block, Asked)]
    assert [each.task for each in asked] == [*HELD_OUT[:2], *HELD_OUT[:2]]


def test_the_figures_of_the_first_screen_are_those_of_its_part() -> None:
    names = [("right", "own"), ("curves", "own"), ("curves", "tuned"), ("heat", "own")]
    drawn = [Figure(f"{kind}-{how}", (kind, "tokens", how), "t", "c", "a") for kind, how in names]
    blocks = [block for part in opening(read(example()), drawn) for block in part.blocks]
    assert [block.name for block in blocks if isinstance(block, Figure)] == ["right-own", "curves-own"]


def test_the_words_are_of_the_arms_that_are_there() -> None:
    line = glossary(read(small()))
    assert line is not None
    text = "".join(span.text for span in line.spans)
    assert "k: examples of an unseen task" in text
    assert "joint-lora: multi-task training." in text
    assert "reptile" not in text
    assert glossary(read(example() | {"scores": []})) is None
    assert answer(read(example() | {"scores": []})) == []


@pytest.mark.parametrize(
    ("seconds", "words"), [(2.34, "2.3 s"), (59.6, "60 s"), (231.4, "3.9 min"), (5000.0, "83.3 min"), (7200.0, "2.0 h")]
)
def test_time(seconds: float, words: Any) -> None:
    assert lasted(seconds) == words
