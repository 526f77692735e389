"""A model in memory is itself, and leaves as it came; what else may be given is a name."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, PromptTuningConfig, get_peft_model

from innerloop.api.models import given_adapter, given_model
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


def peft_model(world: World, **options: Any) -> PeftModel:
    options = {"r": 8, "lora_alpha": 32, "target_modules": "all-linear", "task_type": "CAUSAL_LM", **options}
    return get_peft_model(load(str(world.base)).model, LoraConfig(**options))


def test_a_peft_model_is_its_base_and_stays_as_it_is(world: World) -> None:
    live = peft_model(world).train()
    modules, before = list(live.modules()), {name: value.clone() for name, value in live.state_dict().items()}
    trains = [parameter.requires_grad for parameter in live.parameters()]
    name, found = given_model(live, world.model.tokenizer)
    assert found is not None
    assert (name, found.fingerprint) == (str(world.base), world.model.fingerprint)
    assert not any("lora" in name for name, _ in found.model.named_modules())
    ours, theirs = (dict(model.named_parameters()) for model in (found.model, world.model.model))
    assert ours.keys() == theirs.keys()
    assert found.model.get_input_embeddings().weight.data_ptr() == live.get_input_embeddings().weight.data_ptr()
    assert list(live.modules()) == modules
    assert all(torch.equal(value, before[name]) for name, value in live.state_dict().items())
    assert [parameter.requires_grad for parameter in live.parameters()] == trains


def test_only_one_lora_adapter_that_is_not_merged_is_a_start(world: World, tmp_path: Path) -> None:
    assert given_adapter(world.model.model) is None
    live = peft_model(world)
    adapter = given_adapter(live)
    assert adapter is not None
    adapter.write(tmp_path / "start")
    adapter.write(tmp_path / "start")  # the same again: nothing is written
    assert (tmp_path / "start" / "adapter_model.safetensors").is_file()
    other = given_adapter(peft_model(world, r=4))
    assert other is not None
    with pytest.raises(UserError, match="another run"):
        other.write(tmp_path / "start")
    live.merge_adapter()
    with pytest.raises(UserError, match="merged"):
        given_adapter(live)
    prompts = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)
    with pytest.raises(UserError, match="one LoRA adapter"):
        given_adapter(get_peft_model(load(str(world.base)).model, prompts))
