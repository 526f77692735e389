"""A model in memory is itself, and leaves as it came; what else may be given is a name."""

from pathlib import Path
from typing import Any

import pytest
import torch

from innerloop.api.models import given_model
from innerloop.errors import UserError
from innerloop.loading.models import load
from innerloop.loading.weights import fingerprint
from small_runs import World
from tiny import tiny_model


def test_a_model_as_it_lies_on_disk_has_that_fingerprint(world: World) -> None:
    live = load(str(world.base)).model.train()
    name, found = given_model(live, world.model.tokenizer)
    assert found is not None
    assert name == found.name == str(world.base)
    assert found.fingerprint == world.model.fingerprint
    assert live.training  # as it came


def test_a_changed_model_is_another_one(world: World) -> None:
    live = load(str(world.base)).model
    with torch.no_grad():
        next(live.parameters()).view(-1)[0] += 1e-3
    _, found = given_model(live, world.model.tokenizer)
    assert found is not None
    assert found.fingerprint != world.model.fingerprint
    assert found.hub_id == ""


def test_a_model_in_memory_has_the_fingerprint_of_the_folder_it_is_saved_to(world: World, tmp_path: Path) -> None:
    for family in ("llama", "gemma2"):  # gemma2 ties its head
        live = tiny_model(family)
        live.save_pretrained(tmp_path / family)
        _, found = given_model(live, world.model.tokenizer)
        assert found is not None
        assert found.fingerprint == fingerprint(tmp_path / family)


def test_a_name_stays_a_name(world: World) -> None:
    assert given_model(str(world.base), None) == (str(world.base), None)
    assert given_model(world.model, None) == (world.model.name, world.model)


def test_what_is_no_model_or_lacks_its_tokenizer_is_refused(world: World) -> None:
    wrong: list[tuple[Any, Any]] = [(3, None), (torch.nn.Linear(2, 2), None), (world.model.model, None)]
    for model, tokenizer in [*wrong, (str(world.base), world.model.tokenizer)]:
        with pytest.raises(UserError):
            given_model(model, tokenizer)
