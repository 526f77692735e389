"""A space and its trainer, made without a session: the same as a session's, bit for bit."""

from pathlib import Path

import pytest

from config_examples import minimal
from helpers import frozen_copy, same
from innerloop.config.loading import load_config
from innerloop.engine.hidden_states import HiddenStates
from innerloop.engine.parts import lowest_trained, make_space, make_trainer
from innerloop.engine.session import prepare
from innerloop.learning.methods import Fomaml
from innerloop.numerics.optimizers import AdamW8bit
from innerloop.spaces.loss import AnswerLoss
from small_runs import World, settings
from tiny import tiny_model

CACHED = {"memory": {"trunk_cache": True}}


@pytest.mark.parametrize("method", ["fomaml", "meta-lora"])
def test_a_step_of_them_is_a_step_of_a_session(world: World, method: str) -> None:
    sessions = [prepare(load_config(settings(world, method, Path("x"), {})), model=world.model) for _ in range(2)]
    session, other = sessions
    ((_, batches),) = session.streams()
    space = make_space(other.config, other.model.model)
    start = frozen_copy(space.shared)
    expected = session.space()
    session.trainer(expected, batches).step(batches[0])
    make_trainer(other.config, space).step(batches[0])
    assert same(space.shared, expected.shared)
    assert not same(space.shared, start)


def test_a_lora_is_drawn_from_the_seed() -> None:
    model = tiny_model("llama")
    one, again, other = (
        make_space(load_config(minimal("meta-lora"), [f"seed={seed}"]), model).shared for seed in (3, 3, 4)
    )
    assert same(one, again)
    assert not same(one, other)


def test_the_trainer_has_what_the_config_says() -> None:
    config = load_config(
        minimal("fomaml", model={"name": "m", "dtype": "bfloat16"}), ["memory.lean=true", "outer.on_non_finite=skip"]
    )
    trainer = make_trainer(config, make_space(config, tiny_model("llama").bfloat16()), tasks_per_forward=3)
    assert isinstance(trainer.optimizer, AdamW8bit)
    assert trainer.skip_non_finite
    assert trainer.tasks_per_forward == 1  # all that fits a forward of this space
    lora = load_config(minimal("fomaml-lora"))
    trainer = make_trainer(lora, make_space(lora, tiny_model("llama")), tasks_per_forward=3)
    assert (trainer.tasks_per_forward, trainer.skip_non_finite) == (3, False)


@pytest.mark.parametrize(("warmup", "steps"), [("0.25", 2), ("5", 5), ("0", 0)])
def test_a_share_of_the_inner_warm_up_is_one_of_the_runs_outer_steps(warmup: str, steps: int) -> None:
    config = load_config(minimal("fomaml-lora"), [f"method.inner.warmup={warmup}", "outer.steps=8"])
    trainer = make_trainer(config, make_space(config, tiny_model("llama")))
    assert isinstance(trainer.method, Fomaml)
    assert trainer.method.inner.warmup == steps


def test_a_cut_is_made_where_there_is_something_below_it() -> None:
    model, hidden = tiny_model("llama", layers=3), HiddenStates()
    for sets, cut in ((["method.lora.layers=last-1"], 2), ([], 0)):
        memory = CACHED if cut else {}
        config = load_config(minimal("meta-lora", **memory), sets)
        assert lowest_trained(config, model) == cut
        loss = make_space(config, model, hidden=hidden).loss
        assert isinstance(loss, AnswerLoss)
        assert (loss.trunk is not None) == bool(cut)
    full = load_config(minimal("fomaml"))
    assert lowest_trained(full, model) == 0
