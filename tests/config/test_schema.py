"""The sections: their keys, their defaults, and the objects they become."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import pytest
from pydantic import ValidationError, create_model

from innerloop.config.schema import (
    ABSENT,
    DEFAULTS,
    EVERYTHING,
    FIELDS,
    KEYS,
    NULLABLE,
    SECTIONS,
    InnerOptimizerSection,
    LoraSection,
    MethodSection,
    ModelSection,
    OptimizerSection,
    TasksSection,
    get,
    nested,
    option_fields,
)
from innerloop.data.suites.drawing import DIFFICULTIES
from innerloop.learning.methods import Fomaml, MetaLora, option
from innerloop.loading.models import DTYPES
from innerloop.numerics.optimizers import AdamW, Sgd
from innerloop.spaces.lora import LoraSettings

ALONE = {"prompt": "alone"}  # what the method says


def test_keys_and_sections_cover_the_schema() -> None:
    assert len(set(EVERYTHING)) == len(EVERYTHING) == len(KEYS) + len(SECTIONS)
    assert {"seed", "method.inner.optimizer.betas", "method.lora.r", "tasks.columns"} <= set(KEYS)
    assert set(SECTIONS) == {key.rpartition(".")[0] for key in KEYS if "." in key} | {"method"}
    assert set(NULLABLE) == {key for key in KEYS if (FIELDS[key].description or "").endswith("or null")}
    assert all(FIELDS[key].description for key in KEYS)


def test_choices_are_those_of_the_code_that_reads_them() -> None:
    assert get_args(ModelSection.model_fields["dtype"].annotation) == ("auto", *DTYPES)
    difficulty = get_args(TasksSection.model_fields["difficulty"].annotation)
    assert DIFFICULTIES in [get_args(choice) for choice in difficulty]


def test_lora_options_and_defaults_are_those_of_the_settings() -> None:
    settings = LoraSettings()
    assert vars(settings) == LoraSection().model_dump()
    assert DEFAULTS["method.lora.r"] == settings.r


def test_optimizers_are_built_with_every_option() -> None:
    sgd = InnerOptimizerSection(name="sgd", lr=0.1, loraplus_lr_ratio=4)
    assert sgd.build(clip=2.0) == Sgd(lr=0.1, clip=2.0, loraplus_lr_ratio=4.0)
    adamw = OptimizerSection(name="adamw", lr=0.1, betas=(0.5, 0.6), weight_decay=0.7)
    assert adamw.build(clip=None) == AdamW(lr=0.1, betas=(0.5, 0.6), weight_decay=0.7)


def test_a_method_without_an_inner_loop_builds() -> None:
    assert MethodSection(name="joint").build() == MethodSection(name="lora").build()
    assert MethodSection(name="joint").lora_settings() is None


@pytest.mark.parametrize(
    ("section", "right", "wrong"),
    [
        (ModelSection, {"name": "m"}, {"name": " "}),
        (ModelSection, {"name": "m", "device": "cuda:1"}, {"name": "m", "device": "cuda:"}),
        (TasksSection, {**ALONE, "support": 8}, {**ALONE, "support": "8"}),
        (TasksSection, {**ALONE, "support": 1}, {**ALONE, "support": 0}),
        (TasksSection, {**ALONE, "support": 1}, {**ALONE, "support": True}),
        (TasksSection, {**ALONE, "support": 1}, {**ALONE, "support": 1.0}),
        (TasksSection, {**ALONE, "only": ["a", "b"]}, {**ALONE, "only": ["a", "a"]}),
        (TasksSection, {**ALONE, "only": ["a"]}, {**ALONE, "only": "a"}),
        (TasksSection, {**ALONE, "only": ["1"]}, {**ALONE, "only": [1]}),
        (TasksSection, {**ALONE, "folder": "x"}, {**ALONE, "folder": ""}),
        (TasksSection, {**ALONE, "folder": Path("x")}, {**ALONE, "folder": "a\0b"}),
        (TasksSection, {**ALONE, "folder": "é"}, {**ALONE, "folder": "\ud800"}),
        (TasksSection, {**ALONE, "columns": {"question": "q"}}, {**ALONE, "columns": {"question": 3}}),
        (OptimizerSection, {"name": "sgd", "lr": 1}, {"name": "sgd", "lr": True}),
        (OptimizerSection, {"name": "sgd", "lr": 1}, {"name": "sgd", "lr": float("inf")}),
        (OptimizerSection, {"name": "sgd", "lr": 1}, {"name": "sgd", "lr": float("nan")}),
        (OptimizerSection, {"name": "sgd", "lr": 1e-9}, {"name": "sgd", "lr": 0}),
        (OptimizerSection, {"name": "sgd", "lr": 1}, {"name": "sgd"}),
        (
            OptimizerSection,
            {"name": "adamw", "lr": 1, "betas": [0, 0.9]},
            {"name": "adamw", "lr": 1, "betas": [0, 1]},
        ),
        (
            OptimizerSection,
            {"name": "adamw", "lr": 1, "betas": [0, 0.9]},
            {"name": "adamw", "lr": 1, "betas": [0]},
        ),
        (LoraSection, {"lora_dropout": 0.5}, {"lora_dropout": 1.0}),
        (LoraSection, {"layers": "last-8"}, {"layers": "last-0"}),
        (LoraSection, {"layers": [0, 3]}, {"layers": [-1]}),
        (LoraSection, {"layers": [0]}, {"layers": []}),
        (LoraSection, {"target_modules": ["q_proj"]}, {"target_modules": "q_proj"}),
        (LoraSection, {"target_modules": "all-linear"}, {"target_modules": []}),
        (LoraSection, {"use_rslora": True}, {"use_rslora": 1}),
        (LoraSection, {"use_rslora": True}, {"use_rslora": "yes"}),
        (MethodSection, {"name": "maml"}, {"name": "mamel"}),
    ],
)
def test_limits(section: type[Any], right: dict[str, Any], wrong: dict[str, Any]) -> None:
    section.model_validate(right)
    with pytest.raises(ValidationError):
        section.model_validate(wrong)


def test_dotted_keys() -> None:
    tree = nested({"a.b": 1, "a.c.d": None, "e": 2})
    assert tree == {"a": {"b": 1, "c": {"d": None}}, "e": 2}
    assert get(tree, "a.c.d") is None
    assert get(tree, "a.c.x") is ABSENT
    assert get(tree, "e.x") is ABSENT


@dataclass(frozen=True, kw_only=True)
class _Weighted(Fomaml):
    """A rule from elsewhere."""

    weight: float = option(0.5, means="number from 0 to 1", ge=0, le=1)
    kind: Literal["mild", "strong"] = "mild"


def test_a_rules_options_become_keys_of_their_types_and_limits() -> None:
    section = create_model("Section", __base__=MethodSection, **option_fields([_Weighted, MetaLora, Fomaml]))
    fields = section.model_fields
    assert {"weight", "kind", "keep_task_adapters"} <= fields.keys()
    assert (fields["weight"].description, fields["weight"].default) == ("number from 0 to 1", None)
    given: dict[str, Any] = {"name": "fomaml", "weight": 1, "kind": "strong", "keep_task_adapters": True}
    assert section.model_validate(given).model_dump(exclude_none=True) == given
    for wrong in ({"weight": 1.5}, {"weight": "1"}, {"kind": "wild"}, {"keep_task_adapters": 1}, {"weigth": 0.5}):
        with pytest.raises(ValidationError):
            section.model_validate(given | wrong)
