"""Training on objects is the YAML run, bit for bit, and leaves the caller's model as it was."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import TrainerCallback

from helpers import same
from innerloop import MetaTrainer, MetaTrainingArguments, load_run, meta_train
from innerloop.errors import UserError
from innerloop.loading.models import load
from small_runs import NAMES, Cli, World, config_file, records, tensors_of
from tiny import tiny_model

DATA = {name: records(name) for name in NAMES}
SETTINGS: dict[str, Any] = {"max_steps": 2, "tasks_per_step": 2, "inner_steps": 2, "support": 3, "query": 2, "test": 2}
LORA = LoraConfig(r=8, lora_alpha=32, target_modules="all-linear")


def trainer(
    world: World, output: Path, *, method: str = "fomaml-lora", live: Any = None, data: Any = DATA, **more: Any
) -> MetaTrainer:
    args = MetaTrainingArguments(output_dir=output, method=method, **{**SETTINGS, **more})
    lora = LORA if method.endswith("lora") else None
    live = live or load(str(world.base)).model
    return MetaTrainer(
        live, args, train_dataset=data, held_out=["dee"], peft_config=lora, tokenizer=world.model.tokenizer
    )


@pytest.mark.parametrize("method", ["fomaml-lora", "fomaml"])
def test_objects_train_what_the_yaml_file_trains(world: World, tmp_path: Path, method: str) -> None:
    live = load(str(world.base)).model
    before = {name: value.clone() for name, value in live.state_dict().items()}
    trainer(world, tmp_path / "objects", method=method, live=live).train()
    meta_train(config_file(world, tmp_path, method))
    assert same(tensors_of(tmp_path / "objects"), tensors_of(tmp_path / "run"))
    assert all(torch.equal(value, before[name]) for name, value in live.state_dict().items())
    other = trainer(world, tmp_path / "other", method=method, seed=11)  # the comparison can fail
    other.train()
    assert not same(tensors_of(tmp_path / "other"), tensors_of(tmp_path / "run"))


def test_the_callers_model_keeps_its_mode_and_its_gradients(world: World, tmp_path: Path) -> None:
    live = load(str(world.base)).model.train().requires_grad_(True)
    modules = list(live.modules())
    ours = trainer(world, tmp_path / "run", live=live)
    ours.train().adapt(DATA["dee"][:3]).generate(["dee 3:"])
    assert list(live.modules()) == modules
    assert live.training
    assert all(parameter.requires_grad and parameter.grad is None for parameter in live.parameters())


def test_what_was_trained_is_adapted_evaluated_and_found_again(world: World, tmp_path: Path) -> None:
    ours = trainer(world, tmp_path / "run")
    with pytest.raises(UserError, match="nothing is trained yet"):
        _ = ours.learned
    learned = ours.train()
    assert ours.learned is learned
    assert ours.evaluate(k=[0, 4], draws=1).k.keys() == {0, 4}
    again = load_run(tmp_path / "run").adapt(DATA["dee"][:3])
    here = learned.adapt(DATA["dee"][:3])
    assert same(dict(again.values), dict(here.values))


def test_a_model_that_is_nowhere_on_disk_is_trained_evaluated_and_found_where_it_is_saved(
    world: World, tmp_path: Path
) -> None:
    live, tokenizer = tiny_model("llama"), world.model.tokenizer
    args = MetaTrainingArguments(output_dir=tmp_path / "run", method="fomaml-lora", **SETTINGS)
    ours = MetaTrainer(live, args, train_dataset=DATA, held_out=["dee"], tokenizer=tokenizer)
    ours.train()
    assert ours.evaluate(k=[0], draws=1).tests == 2
    live.save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    assert same(dict(load_run(tmp_path / "run", base=tmp_path / "base").space.shared), dict(ours.learned.space.shared))


def test_what_was_trained_once_is_found_by_the_same_call(world: World, tmp_path: Path) -> None:
    first = trainer(world, tmp_path / "run").train(resume_from_checkpoint="auto")
    for how in ("auto", True, tmp_path / "run", str(tmp_path / "run")):
        ours = trainer(world, tmp_path / "run")
        again = ours.train(resume_from_checkpoint=how)
        assert ours.learned is again
        assert same(again.space.shared, first.space.shared)
    with pytest.raises(UserError, match=r"method\.inner\.steps: changed since the run was begun"):
        trainer(world, tmp_path / "run", inner_steps=1).train(resume_from_checkpoint="auto")
    with pytest.raises(UserError, match="not empty") as caught:
        trainer(world, tmp_path / "run").train()
    assert "load_run" in caught.value.faults[0].expected


class Stops(TrainerCallback):
    def on_step_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        raise KeyboardInterrupt


def test_a_run_goes_on_from_its_newest_checkpoint_and_from_nothing_else(world: World, tmp_path: Path) -> None:
    ours = trainer(world, tmp_path / "run", save_steps=1)
    with pytest.raises(UserError, match="nothing is there"):
        ours.train(resume_from_checkpoint=True)
    for wrong in (tmp_path / "run", 3):
        with pytest.raises(UserError, match="go on"):
            ours.train(resume_from_checkpoint=wrong)  # pyright: ignore[reportArgumentType]
    ours.callbacks.callbacks = [Stops()]
    with pytest.raises(KeyboardInterrupt):
        ours.train()
    (checkpoint,) = (tmp_path / "run" / "checkpoints").glob("step-*")
    again = trainer(world, tmp_path / "run", save_steps=1)
    for wrong in ("step-3", tmp_path, checkpoint.with_name("step-00000009")):
        with pytest.raises(UserError, match="not what this run can go on with"):
            again.train(resume_from_checkpoint=wrong)
    again.train(resume_from_checkpoint=str(checkpoint))
    trainer(world, tmp_path / "whole", save_steps=1).train()
    assert same(tensors_of(tmp_path / "run"), tensors_of(tmp_path / "whole"))


@pytest.mark.parametrize("method", ["fomaml-lora", "fomaml"])
def test_the_plan_is_that_of_the_yaml_file(world: World, tmp_path: Path, cli: Cli, method: str) -> None:
    ours = trainer(world, tmp_path / "objects", method=method).plan()
    said = json.loads(cli("plan", config_file(world, tmp_path, method), "--json").out)
    facts = ours.facts()
    assert facts.pop("model")["trained"] == said.pop("model")["trained"] == ours.trained
    assert facts == said
    assert (ours.tasks, ours.bytes, ours.seconds) == (3, said["peak_bytes"], said["seconds"])
    assert ours.tokens == round(2 * said["tokens_per_step"])
    assert repr(ours).startswith("Plan(fits: 3 training tasks, ")
    assert len(repr(ours)) < 200
    assert len(str(ours).splitlines()) > 10
    other = trainer(world, tmp_path / "objects", method=method, inner_steps=1).plan()
    assert other.tokens < ours.tokens


def test_a_plan_tells_every_fault_that_a_check_tells(world: World, tmp_path: Path) -> None:
    wrong = trainer(world, tmp_path / "run", support=13, tasks_per_step=9)
    with pytest.raises(UserError) as checked:
        wrong.check()
    with pytest.raises(UserError) as planned:
        wrong.plan()
    assert {fault.where for fault in planned.value.faults} >= {"outer.tasks_per_step", "task ada"}
    assert str(planned.value) == str(checked.value)


def test_progress_is_shown_unless_it_is_switched_off(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("yaml", "also"):
        (tmp_path / name).mkdir()
    ours = trainer(world, tmp_path / "run")
    ours.train()
    ours.evaluate(k=[0], draws=1)
    said = capsys.readouterr().err
    assert "training  2/2  loss " in said
    assert "scoring  1/1" in said
    meta_train(config_file(world, tmp_path / "yaml"))
    assert "training  2/2  loss " in capsys.readouterr().err
    silent = trainer(world, tmp_path / "silent", disable_tqdm=True)
    silent.train()
    silent.evaluate(k=[0], draws=1)
    meta_train(config_file(world, tmp_path / "also"), disable_tqdm=True)
    assert capsys.readouterr() == ("", "")


def test_sizes_left_out_are_what_the_smallest_task_allows(world: World, tmp_path: Path) -> None:
    args = MetaTrainingArguments(output_dir=tmp_path / "run", method="meta-lora")
    found = MetaTrainer(str(world.base), args, train_dataset=DATA | {"few": DATA["ada"][:6]})
    tasks = found.config.tasks
    assert (tasks.support, tasks.query, tasks.test) == (2, 2, 2)
    found.check()


def test_one_call_is_enough(world: World, tmp_path: Path) -> None:
    how = {"output_dir": tmp_path / "run", "method": "reptile-lora", "max_steps": 1, "tasks_per_step": 1}
    learned = meta_train(str(world.base), tasks=DATA, held_out=["dee"], **how)
    assert learned.config.method.name == "reptile-lora"
    assert learned.config.tasks.query is None


def test_what_is_refused_leaves_nothing_behind(world: World, tmp_path: Path) -> None:
    for data, more in (({"a b/c'": DATA["ada"]}, {}), (DATA, {"tasks_per_step": -1}), ({"ada": [{"x": 1}]}, {})):
        with pytest.raises(UserError):
            MetaTrainer(str(world.base), MetaTrainingArguments(output_dir=tmp_path / "run", **more), train_dataset=data)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_asked_for_and_a_task_has_one_role(world: World, tmp_path: Path) -> None:
    args = MetaTrainingArguments(output_dir=tmp_path / "run")
    with pytest.raises(UserError, match="output_dir"):
        MetaTrainer(str(world.base), MetaTrainingArguments(), train_dataset=DATA)
    with pytest.raises(UserError, match="tasks of train_dataset too"):
        MetaTrainer(str(world.base), args, train_dataset=DATA, eval_dataset={"ada": DATA["ada"]})


def test_a_peft_models_adapter_is_the_start_and_its_settings_are_the_runs(world: World, tmp_path: Path) -> None:
    """To the bits of a YAML run that starts at the folder which PEFT itself writes of it."""
    peft = get_peft_model(
        load(str(world.base)).model, LoraConfig(r=4, lora_alpha=12, target_modules=["q_proj", "v_proj"])
    )
    for name, value in peft.named_parameters():
        if "lora_B" in name:
            value.data.fill_(0.01)
    args = MetaTrainingArguments(output_dir=tmp_path / "objects", method="fomaml-lora", **SETTINGS)
    given = {"train_dataset": DATA, "held_out": ["dee"], "tokenizer": world.model.tokenizer}
    ours = MetaTrainer(peft, args, **given)
    assert ours.config.method.lora is not None
    assert (ours.config.method.lora.r, ours.config.method.lora.lora_alpha) == (4, 12)
    learned = ours.train()
    peft.save_pretrained(str(tmp_path / "peft"))
    lora = {"method.lora.r": 4, "method.lora.lora_alpha": 12, "method.lora.target_modules": ["q_proj", "v_proj"]}
    meta_train(config_file(world, tmp_path, "fomaml-lora", {**lora, "start_from": str(tmp_path / "peft")}))
    assert same(tensors_of(tmp_path / "objects"), tensors_of(tmp_path / "run"))
    (tmp_path / "fresh").mkdir()
    meta_train(config_file(world, tmp_path / "fresh", "fomaml-lora", lora))
    assert not same(tensors_of(tmp_path / "objects"), tensors_of(tmp_path / "fresh" / "run"))
    with pytest.raises(UserError, match="has an adapter already"):
        MetaTrainer(peft, args, peft_config=LORA, **given)
    again = MetaTrainingArguments(
        output_dir=tmp_path / "again", method="fomaml-lora", start_from=learned, **{**SETTINGS, "method__lora__r": 4}
    )
    assert again.values["start_from"] == str(learned.folder)
    with pytest.raises(UserError, match="the model's adapter says this") as caught:
        MetaTrainer(peft, again, **given)
    assert len(caught.value.faults) == 2
