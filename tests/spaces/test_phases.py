"""Phases of a step, as a listener hears them and a profile shows them."""

import threading
from collections import Counter

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from helpers import Tasks, lora_space
from innerloop.engine.trainer import Trainer
from innerloop.learning.inner_loop import InnerLoop
from innerloop.learning.methods import Fomaml, Maml, Method
from innerloop.numerics.optimizers import AdamW, Sgd
from innerloop.spaces.phases import listening, phase
from tiny import tiny_model

STEPS = 2


def trainer_of(method: type[Fomaml | Maml] = Fomaml, *, clip: float | None = None) -> Trainer:
    rule: Method = method(inner=InnerLoop(steps=STEPS, optimizer=Sgd(lr=0.1, clip=clip)))
    return Trainer(lora_space(tiny_model("llama")), rule, AdamW(lr=0.01))


def heard(trainer: Trainer) -> list[str]:
    """Each phase of a step with those it lies in."""
    found, open_ = list[str](), list[str]()

    def listener(name: str, begins: bool) -> None:
        if begins:
            open_.append(name)
            found.append("/".join(open_))
        else:
            assert open_.pop() == name

    with listening(listener):
        trainer.step(Tasks(tasks=2, steps=STEPS).batch)
    assert not open_
    return found


def test_a_step_in_its_phases() -> None:
    """A fork, the inner steps, the query, the mean over tasks, the outer optimizer."""
    a_pass = ["inner", "inner/forward", "inner/backward"]
    query = ["query", "query/forward", "query/backward"]
    assert heard(trainer_of()) == ["inner", *a_pass * STEPS, *query, "outer", "outer"]


@pytest.mark.parametrize(("clip", "passes"), [(None, 1), (1.0, 2)])
def test_the_sweep_back_through_the_inner_steps_is_the_querys(clip: float | None, passes: int) -> None:
    counts = Counter(heard(trainer_of(Maml, clip=clip)))
    assert counts["query"] == counts["query/forward"] == 1 + passes * STEPS
    assert counts["query/backward"] == 1 + (passes + 1) * STEPS  # a product with the Hessian goes back twice


def test_a_profile_shows_them() -> None:
    trainer, tasks = trainer_of(), Tasks(tasks=2, steps=STEPS).batch
    with profile(activities=[ProfilerActivity.CPU]) as found:
        trainer.step(tasks)
    counts = {event.key: event.count for event in found.key_averages()}
    expected = {"inner": 1 + STEPS, "query": 1, "outer": 2, "forward": STEPS + 1, "backward": STEPS + 1}
    assert {name: counts.get(name) for name in expected} == expected


def test_a_phase_ends_where_its_block_raises() -> None:
    said = list[tuple[str, bool]]()
    with pytest.raises(ValueError, match="stop"), listening(lambda *told: said.append(told)), phase("inner"):
        raise ValueError("stop")
    assert said == [("inner", True), ("inner", False)]


def test_only_the_listeners_of_this_thread_and_block_are_told() -> None:
    first, second = list[str](), list[str]()

    def elsewhere() -> None:
        with phase("other thread"):
            pass

    with listening(lambda name, _: first.append(name)):
        with listening(lambda name, _: second.append(name)), phase("both"):
            pass
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        with phase("first"):
            torch.zeros(1)
    with phase("none"):
        pass
    assert (first, second) == (["both"] * 2 + ["first"] * 2, ["both"] * 2)
