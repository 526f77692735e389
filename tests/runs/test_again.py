"""A run that is done gives what it learned once more, and only to those who ask for that very run."""

from pathlib import Path

import pytest

from helpers import same
from innerloop.config.loading import load_config
from innerloop.errors import UserError
from innerloop.runs.again import done_before
from innerloop.runs.meta_train import meta_train
from record_files import write
from small_runs import World, files_of, new_world, records, settings


@pytest.mark.parametrize("method", ["fomaml-lora", "joint"])
def test_a_done_run_is_loaded_and_nothing_is_written(world: World, tmp_path: Path, method: str) -> None:
    config = load_config(settings(world, method, tmp_path / "run"))
    assert done_before(config) is None
    learned = meta_train(config, model=world.model)
    before = files_of(tmp_path / "run")
    for model in (None, world.model):
        again = done_before(config, model=model)
        assert again is not None
        assert same(again.space.shared, learned.space.shared)
    assert files_of(tmp_path / "run") == before


def test_another_setting_example_or_model_is_refused_by_name(tmp_path: Path) -> None:
    world, other = new_world(tmp_path / "one"), new_world(tmp_path / "two", seed=1)
    config = load_config(settings(world, "fomaml-lora", tmp_path / "run"))
    meta_train(config, model=world.model)
    changed = {"method.inner.steps": 3, "outer.optimizer.lr": 0.5}
    with pytest.raises(UserError) as caught:
        done_before(load_config(settings(world, "fomaml-lora", tmp_path / "run", changed)))
    assert {fault.where for fault in caught.value.faults} == changed.keys()
    with pytest.raises(UserError, match="weights changed"):
        done_before(config, model=other.model)
    write(world.tasks / "ada.jsonl", *records("ada")[:-1])
    with pytest.raises(UserError, match="examples changed"):
        done_before(config)
