"""Flat names of transformers, each a config key; what can't mean anything here is refused with what to use."""

import dataclasses

import pytest

from innerloop.api.arguments import FLAT, NEUTRAL, REFUSED, MetaTrainingArguments
from innerloop.config.schema import KEYS
from innerloop.errors import UserError


def test_every_flat_name_sets_a_key_that_there_is() -> None:
    assert {flat.key for flat in FLAT.values()} <= set(KEYS)
    assert not (FLAT.keys() & REFUSED.keys() | FLAT.keys() & NEUTRAL.keys() | REFUSED.keys() & NEUTRAL.keys())


def test_names_that_transformers_has_too_are_spelled_alike() -> None:
    from transformers import TrainingArguments

    theirs = {field.name for field in dataclasses.fields(TrainingArguments)}
    ours = {"output_dir", "max_steps", "learning_rate", "optim", "weight_decay", "adam_epsilon", "max_grad_norm"}
    assert ours | {"bf16", "use_cpu", "gradient_checkpointing", "save_steps", "save_total_limit", "seed"} <= theirs
    assert {name for name in REFUSED if name != "auto_find_batch_size"} <= theirs


def test_arguments_are_the_tree_of_a_yaml_file() -> None:
    args = MetaTrainingArguments(output_dir="x", max_steps=3, bf16=True, optim="adamw_torch", method__lora__r=4)
    assert args.config({"model.name": "m", "outer.steps": 9}) == {
        "model": {"name": "m", "dtype": "bfloat16"},
        "outer": {"steps": 3, "optimizer": {"name": "adamw"}},
        "output_dir": "x",
        "method": {"lora": {"r": 4}},
    }
    assert repr(args).startswith("MetaTrainingArguments(output_dir='x', max_steps=3")


def test_every_wrong_name_is_named_at_once_with_what_to_use() -> None:
    with pytest.raises(UserError) as caught:
        MetaTrainingArguments(num_train_epochs=3, learning_rat=1e-3, eval_strategy="epoch", report_to="none")
    epochs, typo, warmup = map(str, caught.value.faults)
    assert "max_steps says how long" in epochs
    assert 'did you mean "learning_rate"' in typo
    assert "not supported yet" in warmup


def test_a_neutral_value_is_read_and_changes_nothing() -> None:
    given = {name: values[0] for name, values in NEUTRAL.items()}
    assert MetaTrainingArguments(output_dir="x", **given).values == {"output_dir": "x"}
