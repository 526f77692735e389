"""Training starts at a finished run or a PEFT adapter; what is neither, or of another base or kind, is refused."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file

from helpers import same
from innerloop.artifacts.finished import DamagedError
from innerloop.config.loading import load_config
from innerloop.engine.session import Session, prepare
from innerloop.errors import UserError
from innerloop.loading.models import load
from innerloop.runs.learned import Learned
from innerloop.runs.meta_train import meta_train
from innerloop.runs.starting import started
from small_runs import Runs, World, manifest_of, new_world, settings, small_run, tensors_of

LORA = {"method.lora.r": 8, "method.lora.lora_alpha": 32}


def session_at(world: World, start: Path, method: str = "meta-lora", **changes: Any) -> Session:
    tree = settings(world, method, Path("unused"), {"start_from": str(start), **changes})
    return started(prepare(load_config(tree), model=world.model))


def faults(world: World, start: Path, method: str = "meta-lora", **changes: Any) -> str:
    with pytest.raises(UserError) as caught:
        session_at(world, start, method, **changes)
    return str(caught.value)


def peft_model(world: World, **options: Any) -> PeftModel:
    """An adapter that isn't zero, on a base of its own."""
    options = {"r": 8, "lora_alpha": 32, "target_modules": "all-linear", "task_type": "CAUSAL_LM", **options}
    model = get_peft_model(load(str(world.base)).model, LoraConfig(**options))
    generator = torch.Generator().manual_seed(0)
    for name, value in model.named_parameters():
        if "lora_" in name:
            value.data = torch.randn(value.shape, generator=generator) / 10
    return model


@pytest.fixture
def adapter(world: World, tmp_path: Path) -> Path:
    peft_model(world).save_pretrained(str(tmp_path / "peft"))
    return tmp_path / "peft"


@pytest.mark.parametrize(
    ("before", "method"), [("fomaml-lora", "meta-lora"), ("fomaml", "joint"), ("joint-lora", "lora")]
)
def test_a_run_begins_at_what_another_one_learned(
    world: World, runs: Runs, tmp_path: Path, before: str, method: str
) -> None:
    learned: Learned = runs(before)
    session = session_at(world, learned.folder, method)
    assert same(dict(session.space().shared), {name: v.clone() for name, v in learned.space.shared.items()})
    fresh = prepare(load_config(settings(world, method, Path("unused"))), model=world.model)
    assert not same(dict(session.space().shared), dict(fresh.space().shared))
    still = {"outer.optimizer.lr": 1e-30, "outer.steps": 1, "start_from": str(learned.folder)}
    after = small_run(world, method, tmp_path / "still", still)
    for values in tensors_of(tmp_path / "still").values():
        assert any(torch.equal(values, value) for value in tensors_of(learned.exported).values())
    assert manifest_of(tmp_path / "still")["inputs"]["start"]
    assert after.folder.name == "still"


def test_a_plain_peft_adapter_gives_its_own_logits(world: World, adapter: Path) -> None:
    tokens = torch.tensor([[5, 6, 7, 8]])
    theirs = PeftModel.from_pretrained(load(str(world.base)).model, str(adapter)).eval()(input_ids=tokens).logits
    session = session_at(world, adapter)
    space = session.space()
    with space.installed({name: value[None] for name, value in space.shared.items()}) as model:
        ours = model(input_ids=tokens).logits
    assert torch.allclose(ours, theirs, atol=1e-5)
    assert not torch.allclose(world.model.model(input_ids=tokens).logits, theirs, atol=1e-3)


def test_an_adapter_in_16_bits_is_read_in_32(world: World, adapter: Path) -> None:
    weights = adapter / "adapter_model.safetensors"
    save_file({name: value.bfloat16() for name, value in load_file(weights).items()}, weights)
    values = session_at(world, adapter).space().shared
    assert {value.dtype for value in values.values()} == {torch.float32}
    assert same(dict(values), {name: value.bfloat16().float() for name, value in values.items()})


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"r": 4}, "method.lora.r"),
        ({"lora_alpha": 3}, "method.lora.lora_alpha"),
        ({"use_rslora": True}, "method.lora.use_rslora"),
        ({"target_modules": ["q_proj", "v_proj"]}, "target_modules: [q_proj, v_proj], layers: [0, 1]"),
        ({"target_modules": ["q_proj"], "layers_to_transform": [1]}, "target_modules: [q_proj], layers: [1]"),
        ({"use_dora": True}, "use_dora"),
        ({"bias": "all"}, "bias"),
        ({"rank_pattern": {"q_proj": 4}}, "rank_pattern"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
    ],
)
def test_an_adapter_of_other_settings_is_refused_with_those_to_write(
    world: World, tmp_path: Path, options: dict[str, Any], words: str
) -> None:
    peft_model(world, **options).save_pretrained(str(tmp_path / "peft"))
    assert words in faults(world, tmp_path / "peft")


def test_the_settings_that_an_error_gives_are_right(world: World, tmp_path: Path) -> None:
    peft_model(world, target_modules=["q_proj"], layers_to_transform=[1]).save_pretrained(str(tmp_path / "peft"))
    changes = {"method.lora.target_modules": ["q_proj"], "method.lora.layers": [1]}
    assert len(session_at(world, tmp_path / "peft", **changes).space().shared) == 2


def test_an_adapter_of_another_base_is_known_by_its_hub_id(world: World, adapter: Path) -> None:
    said = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps(said | {"base_model_name_or_path": "some/other"}))
    assert session_at(world, adapter).start, "of a local folder nothing is known"
    assert "model.hub_id: some/other" in faults(world, adapter, **{"model.hub_id": "some/one"})


def test_what_starts_nothing_is_refused(world: World, runs: Runs, tmp_path: Path, adapter: Path) -> None:
    assert "there is no such folder" in faults(world, tmp_path / "nowhere")
    assert "neither a finished run" in faults(world, world.tasks)
    assert f"model.name: {world.base}" in faults(world, world.base, "fomaml")
    assert "an adapter, and fomaml trains all parameters" in faults(world, adapter, "fomaml")
    assert f"model.name: {runs('fomaml').exported}" in faults(world, runs("fomaml").folder)
    assert "method.lora.r" in faults(world, runs("joint-lora").folder, **{"method.lora.r": 4})
    assert "one adapter for each task" in faults(world, runs("lora").folder)
    (adapter / "run.py").write_text("")
    assert "can hold code" in faults(world, adapter)


def test_a_run_on_another_base_and_a_changed_one_are_refused(world: World, runs: Runs, tmp_path: Path) -> None:
    other = new_world(tmp_path, seed=3)
    assert "another base model" in faults(other, runs("joint-lora").folder)
    copy = Path(shutil.copytree(runs("joint-lora").folder, tmp_path / "copy"))
    weights = copy / "adapter" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with pytest.raises(DamagedError):
        session_at(world, copy)


def test_a_run_that_goes_on_wants_the_same_start(world: World, adapter: Path, tmp_path: Path) -> None:
    """Once more in each adapter of a method of one task, and refused where it is another by now."""
    changes = {"start_from": str(adapter), "save.every": 1, "outer.steps": 2}
    whole = settings(world, "lora", tmp_path / "whole", changes)
    meta_train(whole, model=world.model)
    parts = settings(world, "lora", tmp_path / "parts", changes)

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        meta_train(parts, model=world.model, on_step=stop)
    peft = adapter / "adapter_model.safetensors"
    before = peft.read_bytes()
    save_file({name: value * 2 for name, value in load_file(peft).items()}, peft)
    with pytest.raises(UserError, match="what training starts from changed"):
        meta_train(parts, model=world.model, resume=True)
    peft.write_bytes(before)
    meta_train(parts, model=world.model, resume=True)
    assert same(tensors_of(tmp_path / "whole"), tensors_of(tmp_path / "parts"))
