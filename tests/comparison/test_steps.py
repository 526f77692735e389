"""A budget buys the steps whose tokens or examples, added one by one, stay within it."""

from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from helpers import untouched
from innerloop.comparison import steps as module
from innerloop.comparison.steps import LOOKED_AT, TIMED, budget_steps, timed_steps, tokens_read
from innerloop.config.loading import load_config
from innerloop.engine.metrics import Metrics
from innerloop.engine.session import Session, prepare
from innerloop.engine.trainer import Trainer
from record_files import write
from small_runs import World, records, settings

DRAWN = {"method.inner.steps": [0, 1, 4]}
METHODS = ("lora", "joint-lora", "fomaml-lora", "reptile-lora", "maml-lora", "fomaml")


def session_of(world: World, method: str, **changes: Any) -> Session:
    return prepare(load_config(settings(world, method, Path("unused"), changes)), model=world.model)


@pytest.fixture(scope="module")
def uneven(world: World, tmp_path_factory: pytest.TempPathFactory) -> World:
    """The examples of a later task are longer: what one adapter reads tells nothing of another."""
    folder = tmp_path_factory.mktemp("uneven")
    for number, name in enumerate(("ada", "bob", "cy", "dee")):
        longer = [{**row, "prompt": "=" * 20 * number + row["prompt"]} for row in records(name)]
        write(folder / f"{name}.jsonl", *longer)
    return world._replace(tasks=folder)


@pytest.fixture(scope="module", params=METHODS)
def session(uneven: World, request: pytest.FixtureRequest) -> Session:
    return session_of(uneven, request.param)


def spent(session: Session, steps: int) -> tuple[int, int]:
    """(tokens, examples) of so many steps of every adapter, from the lengths of the examples that are read."""
    length = {example.id: len(example.tokens) for task in session.train for example in task.pool}
    tokens = examples = 0
    for _, batches in session.streams():
        for step in range(steps):
            read = batches[step]
            again = 3 if session.config.method.name == "maml-lora" else 1  # a clip pass and a Hessian product beside it
            for batch, times in [*((batch, again) for batch in read.support), (read.query, 1)]:
                ids = [id_ for task in batch.example_ids for id_ in task] if batch else []
                tokens += times * sum(length[id_] for id_ in ids)
            seen = {id_ for batch in read.batches for task in batch.example_ids for id_ in task}
            examples += len(seen)
    return tokens, examples


@pytest.mark.parametrize(("budget", "place"), [("tokens", 0), ("examples", 1)])
def test_steps_stay_within_the_budget_and_one_more_would_not(session: Session, budget: str, place: int) -> None:
    for steps in (1, 2, 5):
        enough = spent(session, steps)[place]
        more = spent(session, steps + 1)[place]
        for amount in (enough, (enough + more) // 2, more - 1):
            assert budget_steps(session, budget, amount) == steps
    assert budget_steps(session, budget, spent(session, 1)[place] - 1) == 0


def test_a_step_costs_the_inner_steps_that_it_drew(uneven: World) -> None:
    """Each takes 0, 1 or 4 of them; the control: as many as the most each time."""
    drawn = session_of(uneven, "fomaml-lora", **DRAWN)
    most = session_of(uneven, "fomaml-lora", **{"method.inner.steps": 4})
    for steps in (1, 4, 9):
        tokens = spent(drawn, steps)[0]
        assert budget_steps(drawn, "tokens", tokens) == steps
        assert budget_steps(drawn, "tokens", tokens - 1) == steps - 1
    assert budget_steps(most, "tokens", tokens) < steps


def test_seconds_of_drawn_inner_steps_are_those_of_their_passes(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second a pass, whichever numbers of inner steps the timed steps drew."""
    session, now = session_of(world, "fomaml-lora", **DRAWN), [0.0]
    original = Trainer.step

    def step(self: Trainer, *args: Any, **options: Any) -> Metrics:
        metrics = original(self, *args, **options)
        now[0] += metrics.passes
        return metrics

    monkeypatch.setattr(Trainer, "step", step)
    monkeypatch.setattr(module.time, "perf_counter", lambda: now[0])
    (_, batches), *_ = session.streams()
    looked_at = [2 * (len(batches[number].support) + 1) for number in range(LOOKED_AT)]
    assert {2, 4, 10} == set(looked_at)
    assert timed_steps(session, 1000) == int(1000 / (sum(looked_at) / LOOKED_AT))


@pytest.mark.parametrize("first", [0.4, 2])
@pytest.mark.parametrize("budget", ["tokens", "seconds"])
def test_steps_of_joint_training_are_counted_as_what_they_take(
    uneven: World, first: float, budget: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A share is one of the steps that the budget buys, not of those that the config names."""
    tree = settings(uneven, "meta-lora", Path("unused"), {"outer.joint_steps": first, "method.inner.steps": 3})
    config = load_config(tree)
    session = prepare(config, model=uneven.model)
    monkeypatch.setattr(module._Timed, "a_step", property(lambda self: 2.0 if self.joint else 5.0))  # pyright: ignore

    def taken(steps: int) -> float:
        changed = config.model_copy(update={"outer": config.outer.model_copy(update={"steps": steps})})
        joint = min(steps, 2 if first == 2 else -(-2 * steps // 5))
        if budget == "seconds":
            return 2.0 * joint + 5.0 * (steps - joint)
        ((_, batches),) = prepare(changed, model=uneven.model).streams()
        every = (batches[step] for step in range(steps))
        return sum(batch.token_count for tasks in every for batch in tasks.batches)

    for steps in (1, 2, 5):
        amount = taken(steps)
        found = timed_steps(session, amount) if budget == "seconds" else budget_steps(session, budget, amount)
        assert found == steps
        less = timed_steps(session, amount - 1) if budget == "seconds" else budget_steps(session, budget, amount - 1)
        assert less == max(steps - 1, 1 if budget == "seconds" else 0)


def test_the_adapters_of_std_lora_share_the_budget(uneven: World) -> None:
    both = session_of(uneven, "lora")
    tokens = 4000
    steps = budget_steps(both, "tokens", tokens)
    first, second = (
        [sum(batch.token_count for batch in batches[step].batches) for step in range(99)]
        for _, batches in both.streams()
    )
    assert sum(first[:steps]) + sum(second[:steps]) <= tokens < sum(first[: steps + 1]) + sum(second[: steps + 1])
    halves = [next(n for n in count() if sum(each[: n + 1]) > tokens / 2) for each in (first, second)]
    assert halves[1] < steps < halves[0], "what only one of them reads would be another number"


def test_seconds_are_divided_by_the_median_of_timed_steps(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def clock() -> Iterator[float]:
        """The first step takes 100 s, then 3, 9 and 4."""
        now = 0.0
        for taken in (100.0, 3.0, 9.0, 4.0):
            yield now
            now += taken
            yield now

    for method, expected in (("fomaml-lora", 5), ("lora", 2), ("fomaml", 5)):
        session, ticks = session_of(world, method), clock()
        monkeypatch.setattr(module.time, "perf_counter", lambda ticks=ticks: next(ticks))
        assert timed_steps(session, 21) == expected, "2 adapters share the time"
        assert next(ticks, None) is None, f"{TIMED} steps after the first"


def test_timing_steps_changes_no_number_of_the_run(world: World) -> None:
    session = session_of(world, "fomaml-lora")
    before = session.streams()[0][1][2]
    with untouched(world.model.model):
        assert timed_steps(session, 1e-9) == 1, "at least one"
    after = session.streams()[0][1][2]
    assert [batch.example_ids for batch in before.batches] == [batch.example_ids for batch in after.batches]


def test_what_a_runs_own_steps_read_buys_those_steps(session: Session) -> None:
    steps = session.config.outer.steps
    assert tokens_read(session) == spent(session, steps)[0]
    assert budget_steps(session, "tokens", tokens_read(session)) == steps
