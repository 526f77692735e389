"""The predicted work is the tokens that go through the model, and its cost is what the run's training took a token."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from innerloop.comparison.adapt_arguments import Uses, Wanted
from innerloop.comparison.adapting import adapt_to
from innerloop.comparison.expected import Cost, Speed, Work, predicted, speed_of, work_of
from innerloop.comparison.new_tasks import encoded_tasks
from innerloop.data.tasks import Example, Task
from small_runs import Runs, records


def test_choosing_is_counted_as_it_is_done(runs: Runs) -> None:
    learned = runs("fomaml-lora")
    pool = tuple(Example(row["prompt"], row["completion"]) for row in records("eve")[:5])
    tasks = encoded_tasks(learned, [Task("eve", pool)])
    wanted = Wanted("auto")
    for judging in (False, True):
        work = work_of(learned, tasks, wanted, judging=judging)
        done = adapt_to(learned, tasks, wanted, Uses(), judging=judging).choosing
        assert sum(work["choosing"]) == done.tokens
    assert work_of(learned, tasks, Wanted(), judging=False)["judging"] == Work(0, 0)
    tokens = sum(len(each.tokens) for each in tasks[0].pool)
    assert work_of(learned, tasks, Wanted(3), judging=False)["adapting"] == Work(3 * tokens, 2 * tokens)
    alone = runs("fomaml")
    tasks = encoded_tasks(alone, [Task("eve", pool)])
    left = work_of(alone, tasks, Wanted(3), judging=True)["judging"].gradient
    assert left == 3 * 4 * tokens, "each of five is adapted to in four folds"


def test_the_speed_is_that_of_training_on_a_machine_like_this(runs: Runs, tmp_path: Path) -> None:
    learned = runs("fomaml-lora")
    run = shutil.copytree(learned.folder, tmp_path / "run")
    manifest = run / "manifest.json"
    said = json.loads(manifest.read_text())
    said |= {"timing": {"seconds": 10.0}, "computed_tokens": 1000}
    said["host"]["peak_bytes"] = {"rss": 5_000}
    manifest.write_text(json.dumps(said))
    found = speed_of(replace(learned, folder=run))
    assert (found.gradient, found.memory) == (0.01, 5_000)
    said["host"]["environment"]["threads"] = 1000
    manifest.write_text(json.dumps(said))
    other = speed_of(replace(learned, folder=run))
    assert other.gradient != 0.01
    assert other.memory > 10_000, "the weights"


def test_a_cost_is_work_at_a_speed() -> None:
    work = {"choosing": Work(0, 0), "adapting": Work(100, 10), "judging": Work(0, 50)}
    cost = predicted(work, Speed(0.1, 0.01, 2_000_000_000, ""))
    assert cost.seconds == {"choosing": 0.0, "adapting": pytest.approx(10.1), "judging": pytest.approx(0.5)}
    assert cost.said == "11 s (10 s to adapt, 0.50 s to judge), 2 GB of memory"
    assert predicted(work, Speed(None, None, 5, "")) == Cost(None, 5)
    assert "time unknown" in Cost(None, 5).said
