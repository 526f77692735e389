"""An adapter of anybody's: what PEFT wrote is read, and anything else is a UserError, whatever its files say."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

from helpers import same
from innerloop.artifacts.peft_adapter import read_peft_adapter
from innerloop.errors import UserError
from innerloop.loading.models import load
from innerloop.numerics.tensors import TensorSet
from innerloop.spaces.lora import LoraSettings, find_targets
from small_runs import World

LORA = LoraSettings(r=4, lora_alpha=8, target_modules=("q_proj",))
SHARED = settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
KEYS = ("r", "lora_alpha", "use_rslora", "peft_type", "bias", "init_lora_weights", "lora_dropout", "use_dora")
KEYS += ("rank_pattern", "modules_to_save", "base_model_name_or_path", "target_modules", "something_new")
VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-2, 9), st.text(max_size=4), st.lists(st.integers(), max_size=2)
)


@pytest.fixture
def adapter(world: World, tmp_path: Path) -> Path:
    config = LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj"], task_type="CAUSAL_LM")
    model = get_peft_model(load(str(world.base)).model, config)
    for name, value in model.named_parameters():
        if "lora_B" in name:
            value.data.fill_(0.5)
    model.save_pretrained(str(tmp_path / "peft"))
    return tmp_path / "peft"


def read(folder: Path, world: World, lora: LoraSettings = LORA, hub_id: str = "") -> TensorSet:
    return read_peft_adapter(folder, world.model.model, lora=lora, hub_id=hub_id)


def attempt(folder: Path, world: World) -> TensorSet | str:
    """The values, or what is said against them."""
    try:
        return read(folder, world)
    except UserError as error:
        return str(error)


def test_values_come_by_our_names_in_the_order_of_a_space(world: World, adapter: Path) -> None:
    stored = load_file(adapter / "adapter_model.safetensors")
    values = read(adapter, world)
    assert list(values) == [f"{name}.lora_{side}" for name in find_targets(world.model.model, LORA) for side in "AB"]
    assert same(values, {name: stored[f"base_model.model.{name}.weight"] for name in values})


@SHARED
@given(key=st.sampled_from(KEYS), value=VALUES)
def test_a_changed_config_is_refused_or_means_the_same(world: World, adapter: Path, key: str, value: Any) -> None:
    path = adapter / "adapter_config.json"
    text = path.read_text()
    right = read(adapter, world)
    path.write_text(json.dumps(json.loads(text) | {key: value}))
    found = attempt(adapter, world)
    path.write_text(text)
    assert key in found if isinstance(found, str) else same(found, right)


@SHARED
@given(place=st.integers(0, 10**6), byte=st.integers(0, 255))
def test_damaged_weights_are_refused_or_have_the_shapes(world: World, adapter: Path, place: int, byte: int) -> None:
    path = adapter / "adapter_model.safetensors"
    whole = path.read_bytes()
    place %= len(whole)
    shapes = {name: value.shape for name, value in read(adapter, world).items()}
    path.write_bytes(whole[:place] + bytes([byte]) + whole[place + 1 :])
    found = attempt(adapter, world)
    path.write_bytes(whole)
    if isinstance(found, str):
        assert str(path) in found
    else:
        assert {name: value.shape for name, value in found.items()} == shapes


def test_values_that_are_no_numbers_and_other_tensors_are_refused(world: World, adapter: Path) -> None:
    path = adapter / "adapter_model.safetensors"
    stored = load_file(path)
    first = next(iter(stored))
    for changed in (
        stored | {first: torch.full_like(stored[first], torch.nan)},
        stored | {"base_model.model.lm_head.weight": torch.zeros(1)},
        {name: value for name, value in stored.items() if name != first},
        stored | {first: stored[first].double()},
    ):
        save_file(changed, path)
        with pytest.raises(UserError):
            read(adapter, world)
    save_file(stored, path)
    read(adapter, world)
