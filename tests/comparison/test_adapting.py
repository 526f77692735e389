"""Tasks adapted together: each export is that of the task alone, and what is said is what was done."""

import json
from pathlib import Path

import pytest

from helpers import close
from innerloop.comparison.adapt_arguments import Uses, Wanted
from innerloop.comparison.adapting import adapt_to, prompt_of_text
from innerloop.comparison.new_tasks import encoded_tasks
from innerloop.data.encoding import EncodedTask
from innerloop.data.tasks import Example, Task
from innerloop.evaluation.cross_validation import choose_steps
from innerloop.runs.learned import Learned
from small_runs import Runs, records, tensors_of

SIZES = {"eve": 5, "fay": 5, "gus": 3}


def tasks_of(learned: Learned, test: int) -> list[EncodedTask]:
    def some(name: str, first: int, last: int) -> tuple[Example, ...]:
        return tuple(Example(row["prompt"], row["completion"]) for row in records(name)[first:last])

    given = [Task(name, some(name, 0, k), some(name, k, k + test)) for name, k in SIZES.items()]
    return encoded_tasks(learned, given)


@pytest.mark.parametrize("method", ["fomaml-lora", "fomaml"])
def test_an_export_of_each_task_is_what_it_would_be_alone(runs: Runs, tmp_path: Path, method: str) -> None:
    learned, output = runs(method), tmp_path / "out"
    found = adapt_to(learned, tasks_of(learned, 2), Wanted(lr=0.05), Uses(("abc",), output, True), judging=False)
    assert not found.judged
    for name, k in SIZES.items():
        alone = learned.adapt(records(name)[:k], lr=0.05)
        alone.save_pretrained(tmp_path / "alone" / name)
        assert close(tensors_of(output / name), tensors_of(tmp_path / "alone" / name))
        task = found.tasks[name]
        assert task.losses == pytest.approx((*alone.losses, alone.loss(records(name)[:k])), rel=1e-4)
        assert (task.nats, task.exact) == pytest.approx(alone.score(records(name)[:k]), rel=1e-4)
        assert task.answers == tuple(alone.generate(["abc"]))
        assert task.output == str(output / name)
    assert not close(tensors_of(output / "eve"), tensors_of(output / "fay"), 1e-3)
    card = (output / "eve" / "README.md").read_text()
    assert "5 examples" in card
    assert "at lr 0.05" in card


def test_each_arm_chooses_its_own_steps_for_each_task(runs: Runs) -> None:
    learned = runs("fomaml-lora")
    tasks = tasks_of(learned, 2)
    found = adapt_to(learned, tasks, Wanted("auto", 0.05), Uses(folder=True))
    inner = Wanted("auto", 0.05).inner(learned, 5)
    for task, choice in zip(tasks, choose_steps(learned.space, inner, tasks), strict=True):
        one = found.tasks[task.task.name]
        assert one.inner.steps == choice.steps == found.judged[task.task.name].ours.steps
        assert one.step_nats == pytest.approx(choice.nats)
    assert len({each.inner.steps for each in found.tasks.values()}) > 1, "else this shows nothing"
    assert found.choosing.forwards
    assert found.took.seconds
    assert found.took.seconds["choosing"] > 0
    facts = json.loads(json.dumps(found.facts(), allow_nan=False))
    assert facts["tasks"]["eve"]["test"]["tests"] == 2
    assert facts["over_tasks"].keys() == {"base", "in context", "fresh LoRA", "this run"}
    assert facts["choosing"]["forwards"] == found.choosing.forwards
    lines = "\n".join(found.lines())
    assert "over 3 tasks" in lines
    assert "per task" in lines


def test_one_task_is_told_in_full_and_many_in_a_table(runs: Runs) -> None:
    learned = runs("fomaml-lora")
    (task, *_) = tasks_of(learned, 0)
    one = adapt_to(learned, [task], Wanted(), Uses(("abc",)))
    assert one.facts()["leave_one_out"]["folds"] == 5
    lines = one.lines()
    assert lines[0].startswith("adapted in 2 steps of sgd, lr 0.3: ")
    assert lines[2].startswith("'abc' -> ")
    assert "each of 5 examples after the others" in lines
    lonely = adapt_to(learned, encoded_tasks(learned, [Task("x", task.task.pool[:1])]), Wanted(), Uses(folder=True))
    assert not lonely.judged
    assert lonely.facts()["over_tasks"] == {}
    assert any(line.startswith("x: support loss") for line in lonely.lines())


def test_a_prompt_is_text_or_messages() -> None:
    turn = [{"role": "user", "content": "a"}]
    assert prompt_of_text(json.dumps(turn)) == turn
    for text in ("a", "[a]", "[]", "[1]", "[" * 100_000):
        assert prompt_of_text(text) == text
