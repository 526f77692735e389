"""k-shot scores of tasks that are given now are those of adapting and scoring by hand, and of `innerloop eval`."""

import json
import math
from dataclasses import replace
from typing import Any

import pytest
from datasets import Dataset, DatasetDict
from scipy import stats

from innerloop.comparison.eval import evaluate, protocol_of
from innerloop.data.given import given_tasks, task_examples
from innerloop.errors import UserError
from innerloop.evaluation.kshot import draw_support
from innerloop.runs.learned import Learned
from small_runs import NAMES, Runs, records

TASKS = {name: records(name) for name in ("eve", "fay", "gus")}


def by_hand(learned: Learned, task: str, *, k: int, draw: int) -> tuple[float, float]:
    (found,) = task_examples(given_tasks({task: TASKS[task]}), learned.encoder, most=4, test=7)
    (encoded,) = learned.encoder.tasks([found])
    ids = {each.id for each in draw_support(encoded, k, seed=learned.config.seed, draw=draw)}
    support = [example for example in found.pool if example.id in ids]
    start = learned.adapt(support) if k else learned.unadapted
    return start.score(found.test)


@pytest.mark.parametrize("method", ["fomaml-lora", "joint"])
def test_scores_are_those_of_adapting_by_hand(runs: Runs, method: str) -> None:
    learned = runs(method)
    found = learned.evaluate(TASKS, k=[0, 4], draws=2)
    assert (found.tests, found.draws) == (7, 2)
    means: dict[int, list[float]] = {0: [], 4: []}
    for k, draws in ((0, 1), (4, 2)):
        for task in TASKS:
            nats, exact = zip(*(by_hand(learned, task, k=k, draw=draw) for draw in range(draws)), strict=True)
            assert math.isclose(found.k[k].tasks[task][1], sum(nats) / draws, rel_tol=1e-4)
            assert math.isclose(found.k[k].tasks[task][0], sum(exact) / draws)
            means[k].append(sum(nats) / draws)
        assert math.isclose(found[f"eval_nats_k{k}"], sum(means[k]) / 3, rel_tol=1e-4)
        low, high = stats.t.interval(0.95, 2, sum(means[k]) / 3, stats.sem(means[k]))
        assert math.isclose(found.k[k].nats.low or 0, max(low, 0), rel_tol=1e-3)
        assert math.isclose(found.k[k].nats.high or 0, high, rel_tol=1e-3)
    assert found["eval_nats"] == found["eval_nats_k4"] != found["eval_nats_k0"]  # another k would be noticed


def test_held_out_tasks_score_as_the_command_eval_says(runs: Runs) -> None:
    learned = runs("fomaml-lora")
    ours = learned.evaluate(k=[0, 4], draws=2)
    results = evaluate(learned, protocol_of(learned.config, k=[0, 4], draws=2), lambda *_: None).results
    for k in (0, 4):
        theirs = results.score("run", "fomaml-lora", "own", k, "nats")
        assert theirs is not None
        assert math.isclose(ours.k[k].nats.mean, theirs.mean, rel_tol=1e-6)
    assert ours.k[4].nats.low is None  # one task: no interval
    assert "there is one task" in str(ours)


def test_every_form_of_tasks_gives_the_same_scores(runs: Runs) -> None:
    learned = runs("fomaml-lora")
    rows = [{**record, "customer": name, "extra": 1} for name, some in TASKS.items() for record in some]
    forms: list[Any] = [TASKS, Dataset.from_list(rows), DatasetDict({"test": Dataset.from_list(rows)})]
    found = [learned.evaluate(tasks, k=[2], draws=1, task_column="customer").to_dict() for tasks in forms]
    assert found[0] == found[1] == found[2]
    other = learned.evaluate({"eve": TASKS["eve"], "hal": records("hal"), "ida": records("ida")}, k=[2], draws=1)
    assert other.to_dict() != found[0]


def test_what_is_found_is_a_mapping_a_line_and_a_table(runs: Runs) -> None:
    found = runs("fomaml-lora").evaluate(TASKS, k=[3, 0], draws=1)
    names = ["eval_exact", "eval_nats", "eval_exact_k0", "eval_nats_k0", "eval_exact_k3", "eval_nats_k3"]
    assert list(found) == names
    assert dict(found)["eval_exact"] == found.k[3].exact.mean
    assert repr(found).startswith("Evaluation(3 tasks, exact answers k=0: ")
    assert len(repr(found)) < 120
    assert "cover other tasks like these, for these trained values" in str(found)
    assert all(name in str(found) for name in TASKS)
    assert json.loads(json.dumps(found.to_dict()))["k"]["3"]["tasks"].keys() == TASKS.keys()


def test_more_tasks_than_a_page_holds_are_counted(runs: Runs) -> None:
    many = {f"{name}{number}": TASKS[name] for name in TASKS for number in range(5)}
    assert "... and 3 more" in str(runs("fomaml-lora").evaluate(many, k=[0]))


def test_tasks_that_training_has_seen_are_said(runs: Runs) -> None:
    learned = runs("fomaml-lora")
    found = learned.evaluate({"ada": records("ada"), "eve": TASKS["eve"]}, k=[0])
    assert found.notes[0] == "trained on ada: these scores are not of new tasks"
    assert str(found).count("trained on") == 1
    assert "trained on" not in str(learned.evaluate({"dee": records("dee"), "eve": TASKS["eve"]}, k=[0]))


def test_progress_is_told(runs: Runs) -> None:
    told = list[tuple[str, int, int]]()
    runs("fomaml-lora").evaluate(TASKS, k=[0, 2], draws=2, say=lambda *said: told.append(said))
    assert told == [("scoring", done, 3) for done in range(4)]


def test_too_few_examples_are_told_of_every_task(runs: Runs) -> None:
    learned = runs("fomaml-lora")
    with pytest.raises(UserError) as caught:
        learned.evaluate(TASKS | {"few": TASKS["eve"][:3]}, k=[0, 14])
    assert {fault.where for fault in caught.value.faults} == {f"task {name}" for name in (*TASKS, "few")}
    refused: list[dict[str, Any]] = [{"k": []}, {"k": [-1]}, {"draws": 0}]
    for wrong in refused:
        with pytest.raises(UserError):
            learned.evaluate(TASKS, **wrong)
    with pytest.raises(UserError, match="a column of tasks"):
        learned.evaluate(Dataset.from_list(TASKS["eve"]))


def test_a_run_without_held_out_tasks_has_to_be_given_some(runs: Runs) -> None:
    learned = runs("fomaml-lora")
    tasks = learned.config.tasks.model_copy(update={"held_out": [], "only": list(NAMES)})
    alone = replace(learned, config=learned.config.model_copy(update={"tasks": tasks}))
    with pytest.raises(UserError, match="held no task out"):
        alone.evaluate(k=[0])
