"""A run finds its base model where it was, where it was moved to, or where it is said to be; its weights decide."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from helpers import same
from innerloop.errors import UserError
from innerloop.loading.models import load
from innerloop.runs.reloading import load_run
from small_runs import SUPPORT, World, new_world, small_run


def test_a_run_that_moved_with_its_base_still_loads(tmp_path: Path) -> None:
    world = new_world(tmp_path / "old")
    learned = small_run(world, "fomaml-lora", tmp_path / "old" / "runs" / "one")
    shutil.move(tmp_path / "old", tmp_path / "new")
    found = load_run(tmp_path / "new" / "runs" / "one")
    assert same(found.space.shared, learned.space.shared)


def test_a_base_that_was_moved_alone_is_asked_for(tmp_path: Path) -> None:
    world = new_world(tmp_path / "old")
    learned = small_run(world, "fomaml-lora", tmp_path / "run")
    moved = tmp_path / "elsewhere"
    shutil.move(world.base, moved)
    with pytest.raises(UserError, match="not there any more") as caught:
        load_run(tmp_path / "run")
    assert "base=" in caught.value.faults[0].expected
    assert "--base" in caught.value.faults[0].expected
    for base in (moved, str(moved)):
        assert same(load_run(tmp_path / "run", base=base).space.shared, learned.space.shared)


def test_a_base_of_other_weights_is_refused(tmp_path: Path) -> None:
    world, other = new_world(tmp_path / "one"), new_world(tmp_path / "two", seed=1)
    small_run(world, "fomaml-lora", tmp_path / "run")
    with pytest.raises(UserError, match="not the weights this adapter was trained on"):
        load_run(tmp_path / "run", base=other.base)


def test_a_run_of_all_parameters_has_no_other_base(tmp_path: Path) -> None:
    world = new_world(tmp_path)
    small_run(world, "joint", tmp_path / "run")
    shutil.rmtree(world.base)
    with pytest.raises(UserError, match="holds its whole model"):
        load_run(tmp_path / "run", base=world.base)
    assert load_run(tmp_path / "run").space.shared


def test_a_base_that_is_in_memory_is_taken_and_left_as_it_is(tmp_path: Path) -> None:
    world, other = new_world(tmp_path / "one"), new_world(tmp_path / "two", seed=1)
    learned = small_run(world, "fomaml-lora", tmp_path / "run")
    live, tokenizer = load(str(world.base)).model.train(), world.model.tokenizer
    shutil.rmtree(world.base)
    for model, of in ((live, tokenizer), (world.model, None)):
        found = load_run(tmp_path / "run", model=model, tokenizer=of)
        assert same(dict(found.adapt(SUPPORT).values), dict(learned.adapt(SUPPORT).values))
    assert live.training
    with pytest.raises(UserError, match="not the weights this adapter was trained on"):
        load_run(tmp_path / "run", model=other.model)


def test_what_does_not_go_with_a_model_is_refused_together(world: World, tmp_path: Path) -> None:
    small_run(world, "joint", tmp_path / "run")
    with pytest.raises(UserError) as caught:
        load_run(tmp_path / "run", base=world.base, device="cpu", model=world.model)
    assert {fault.where for fault in caught.value.faults} == {"base", "device"}
    wrong: list[dict[str, Any]] = [{"tokenizer": world.model.tokenizer}, {"model": world.model}, {"model": 3}]
    for given in wrong:
        with pytest.raises(UserError):
            load_run(tmp_path / "run", **given)
