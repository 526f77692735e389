"""What the last step left comes back from plain names, whatever its tasks and values are called."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import same
from innerloop.engine.last_round import LastRound

TASKS = st.text("ab/.-", min_size=1, max_size=6)
VALUES = st.text("ab.", min_size=1, max_size=6)


@settings(max_examples=60, deadline=None)
@given(tasks=st.lists(TASKS, max_size=3, unique=True), names=st.lists(VALUES, min_size=1, max_size=3, unique=True))
def test_values_come_back_under_their_task_and_name(tasks: list[str], names: list[str]) -> None:
    draw = torch.Generator().manual_seed(0)
    adapters = {task: {name: torch.randn(2, generator=draw) for name in names} for task in tasks}
    gradient = {name: torch.randn(3, generator=draw) for name in names}
    queries = {task: (f"{task} 1", f"{task} 2") for task in tasks}
    left = LastRound(adapters, queries, gradient)
    assert all(name.startswith(LastRound.PLACES) for name in left.tensors)
    assert len(left.tensors) == (len(tasks) + 1) * len(names)
    found = LastRound.from_tensors(left.tensors, {task: list(ids) for task, ids in queries.items()})
    assert found.query_ids == queries
    assert found.adapters.keys() == adapters.keys()
    assert all(same(found.adapters[task], adapters[task]) for task in tasks)
    assert same(found.gradient, gradient)
