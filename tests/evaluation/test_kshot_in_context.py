"""Tasks in context adapt on prompts that leave one example out, and are scored with all of them in the prompt."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from helpers import close, own_names, randomize_b, reference_model, same
from innerloop.config.loading import load_config
from innerloop.config.schema import ABSENT
from innerloop.data.encoding import EncodedTask
from innerloop.engine.parts import own_adaptation
from innerloop.engine.session import Session, prepare
from innerloop.evaluation.cross_validation import choose_steps, fold_fault
from innerloop.evaluation.in_context import prompt_faults
from innerloop.evaluation.kshot import Chunk, adapt_and_score, adapted, draw_support
from innerloop.evaluation.protocol import Initialization, Piece, Protocol, adaptations, measure, pieces
from innerloop.learning.inner_loop import InnerLoop
from innerloop.numerics.optimizers import Sgd
from innerloop.numerics.tensors import per_task
from innerloop.spaces.space import ParameterSpace
from reference import naive
from small_runs import World, settings

K = 3
OWN = InnerLoop(steps=2, optimizer=Sgd(lr=0.1, clip=1.0), batch_size=2)


@pytest.fixture(scope="module")
def session(world: World) -> Session:
    return prepare(load_config(settings(world, "in-context-lora", Path("unused"))), model=world.model)


@pytest.fixture(scope="module")
def space(session: Session) -> ParameterSpace:
    space = session.space()
    randomize_b(space.shared)
    return space


def test_it_adapts_and_scores_as_the_naive_loop_does(session: Session, space: ParameterSpace) -> None:
    tasks = session.train
    supports = [draw_support(task, K, seed=5) for task in tasks]
    (found, before) = (adapt_and_score(space, OWN, supports, tasks, after=(0, 2))[steps] for steps in (2, 0))
    for task, support, score, start in zip(tasks, supports, found, before, strict=True):
        assert task.in_context is not None
        steps = task.in_context.left_out(support, steps=2, batch_size=2)
        model = reference_model(space, space.shared)
        end = naive.adapt(model, steps, naive.Inner(2, lr=0.1, clip=1.0))
        prompts = [task.in_context.asked(each, support) for each in task.test]
        nats = [naive.answer_nats(end, prompt) for prompt in prompts]
        assert list(score.nats) == pytest.approx(nats, rel=1e-4)
        assert list(start.nats) == pytest.approx([naive.answer_nats(model, each) for each in prompts], rel=1e-4)
        assert list(score.nats) != pytest.approx(list(start.nats), rel=1e-3)
        reached = adapted(space, OWN, Chunk([task], [support])).values
        assert close({name: value[0] for name, value in reached.items()}, own_names(dict(naive.trainable(end))), 1e-4)
        plain = adapted(space, replace(OWN, batch_size=None), Chunk([replace(task, in_context=None)], [support])).values
        assert not close(plain, reached, 1e-3), "on examples alone"


def test_one_example_gives_the_same_scores_after_every_step(session: Session, space: ParameterSpace) -> None:
    tasks = session.train
    supports = [draw_support(task, 1, seed=5) for task in tasks]
    found = adapt_and_score(space, OWN, supports, tasks, after=(0, 1, 2))
    assert found[0] == found[1] == found[2]
    assert len(found[2]) == len(tasks)
    assert same(adapted(space, OWN, Chunk(tasks, supports)).values, dict(per_task(space.shared, len(tasks))))


def test_examples_in_the_prompt_alone_are_a_way_to_use_it(session: Session, space: ParameterSpace) -> None:
    assert (adaptations(in_context=True), adaptations(in_context=False)) == (["none", "own", "tuned"], ["own", "tuned"])
    protocol = Protocol(k=(0, 1, K), draws=1, max_new_tokens=4, seed=5)
    asked = pieces(protocol, hows=("none", "own"))
    assert [(piece.k, piece.how) for piece in asked] == [(0, "none"), (1, "none"), (1, "own"), (K, "none"), (K, "own")]
    what = Initialization(space, session.model, OWN, {})
    bare, one, still, shown, moved = (measure(piece, what, session.train, protocol) for piece in asked)
    assert [said["steps"] for said in (bare, one, still, shown, moved)] == [0, 0, 0, 0, 2]
    assert still["tasks"] == one["tasks"], "one example leaves nothing to step on"
    nats = [[found["nats"] for found in said["tasks"].values()] for said in (bare, one, shown, moved)]
    assert len({str(each) for each in nats}) == 4
    (name,) = [task.task.name for task in session.train[:1]]
    assert moved["tasks"][name]["support_nats"] is not None
    assert Piece("unseen", K, 0, "none") in asked


def test_folds_keep_their_prompts(session: Session, space: ParameterSpace) -> None:
    task = session.train[0]
    few = of(task, 3)
    (choice,) = choose_steps(space, OWN, [few], most=2)
    assert few.in_context is not None
    asked = []
    for left in few.pool:
        rest = [each for each in few.pool if each is not left]
        asked.append(naive.answer_nats(reference_model(space, space.shared), few.in_context.asked(left, rest)))
    assert choice.nats[0] == pytest.approx(sum(asked) / 3, rel=1e-2), "others in the order of their keys"
    fault = fold_fault(of(task, 2).task, in_context=True)
    assert fault is not None
    assert "at least 3" in fault.expected


def of(task: EncodedTask, count: int) -> EncodedTask:
    return replace(task, task=replace(task.task, pool=task.task.pool[:count]), pool=task.pool[:count])


def test_prompts_beyond_the_models_positions_are_named(session: Session) -> None:
    protocol = Protocol(k=(0, K), draws=2, seed=5)
    assert prompt_faults(session.train, protocol, positions=512) == []
    faults = prompt_faults(session.train, protocol, positions=30)
    assert [fault.where for fault in faults] == [f"task {task.task.name}: k = {K}" for task in session.train]
    alone = [replace(task, in_context=None) for task in session.train]
    assert prompt_faults(alone, protocol, positions=30) == []


def test_a_runs_own_adaptation_in_context_is_a_few_steps_on_a_few_prompts(world: World) -> None:
    def own(method: str, **changes: object) -> InnerLoop:
        return own_adaptation(load_config(settings(world, method, Path("unused"), changes)))

    assert own("in-context-lora") == InnerLoop(steps=3, optimizer=Sgd(lr=0.3, clip=1.0))
    joint = {"tasks.prompt": "in-context", "tasks.query": ABSENT}
    assert own("joint-lora", **joint) == own("in-context-lora") != own("joint-lora")
    looped = own("fomaml-lora", **{"tasks.prompt": "in-context"})
    assert (looped.steps, looped.batch_size) == (2, 3)
    assert own("fomaml-lora").batch_size is None


def test_nothing_below_the_lowest_adapter_is_differentiated(world: World) -> None:
    """Prompts are long and read once: what they cost below the adapters is a forward."""
    changes = {"method.lora.layers": "last-1"}
    session = prepare(load_config(settings(world, "in-context-lora", Path("unused"), changes)), model=world.model)
    space, tasks, seen = session.space(), session.streams()[0][1][0], list[tuple[bool, bool]]()
    layers = space.model.model.layers

    def look(module: object, inputs: object, output: object) -> None:
        hidden = output[0] if isinstance(output, tuple) else output
        assert isinstance(hidden, torch.Tensor)
        seen.append((module is layers[-1], hidden.requires_grad))

    handles = [layer.register_forward_hook(look) for layer in layers]
    assert tasks.query is not None
    space.loss_and_gradient(per_task(space.shared, 2), tasks.query)
    for handle in handles:
        handle.remove()
    assert seen == [(False, False), (True, True)]
