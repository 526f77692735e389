"""Flat names of transformers, each a config key; what can't mean anything here is refused with what to use."""

import dataclasses
from typing import Any

import pytest

from innerloop.api.arguments import CHECKED, FLAT, NEUTRAL, REFUSED, MetaTrainingArguments
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
    assert {"eval_steps", "metric_for_best_model", "load_best_model_at_end", *CHECKED} <= theirs
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
        MetaTrainingArguments(num_train_epochs=3, learning_rat=1e-3, save_strategy="epoch", report_to="none")
    epochs, typo, saves = map(str, caught.value.faults)
    assert "max_steps says how long" in epochs
    assert 'did you mean "learning_rate"' in typo
    assert "not supported yet" in saves


def test_a_neutral_value_is_read_and_changes_nothing() -> None:
    given = {name: values[0] for name, values in NEUTRAL.items()}
    assert MetaTrainingArguments(output_dir="x", **given).values == {"output_dir": "x"}


@pytest.mark.parametrize(
    ("given", "values"),
    [
        ({"eval_steps": 5}, {"every": 5}),
        ({"eval_strategy": "steps", "eval_steps": 5, "load_best_model_at_end": False}, {"every": 5, "export": "last"}),
        ({"eval_steps": 5, "metric_for_best_model": "eval_exact", "greater_is_better": True}, {"metric": "exact"}),
        ({"eval_steps": 5, "metric_for_best_model": "loss", "greater_is_better": False}, {"metric": "nats"}),
        ({"eval_strategy": "no", "load_best_model_at_end": False}, {}),
        ({"load_best_model_at_end": False, "greater_is_better": None}, {}),
    ],
)
def test_evaluations_are_set_by_transformers_names(given: dict[str, Any], values: dict[str, Any]) -> None:
    found = MetaTrainingArguments(**given).values
    assert found == {"evaluate.every": 5} | found if values else found == {}
    assert found.items() >= {f"evaluate.{key}": value for key, value in values.items()}.items()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"eval_strategy": "epoch"}, 'eval_strategy: no way to evaluate[\\s\\S]*"steps" with eval_steps'),
        ({"eval_strategy": "steps"}, "eval_steps: missing"),
        ({"eval_strategy": "no", "eval_steps": 5}, "eval_steps: nothing is evaluated"),
        ({"load_best_model_at_end": True}, "load_best_model_at_end: read only with evaluations"),
        ({"metric_for_best_model": "exact"}, "metric_for_best_model: read only with evaluations"),
        ({"eval_steps": 5, "greater_is_better": True}, "greater_is_better: the metric is nats"),
    ],
)
def test_what_does_not_agree_about_evaluations_is_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        MetaTrainingArguments(**given)


def test_transformers_own_enumerations_are_read() -> None:
    from transformers.trainer_utils import IntervalStrategy

    assert MetaTrainingArguments(eval_strategy=IntervalStrategy.STEPS, eval_steps=5).values == {"evaluate.every": 5}


def test_names_of_other_scripts_are_answered_with_ours() -> None:
    with pytest.raises(UserError) as caught:
        MetaTrainingArguments(output_dir="x", meta_lr=1, early_stopping_patience=3)
    assert [fault.expected for fault in caught.value.faults] == ["learning_rate", "evaluate__patience"]
