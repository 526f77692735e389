"""What a method reads, and what can't go together, seen through the flat view of a config."""

from typing import Any

import pytest

from config_examples import faults_of, minimal
from innerloop.config.loading import load_config
from innerloop.config.rules import conflicts, lora_sibling, unread
from innerloop.learning.methods import METHODS

VALUES: dict[str, Any] = {
    "tasks.suite": "hidden-rules",
    "tasks.folder": None,
    "tasks.support": 4,
    "tasks.query": 6,
    "tasks.examples_per_task": 10,
    "tasks.validation": ["a"],
    "tasks.held_out": ["b"],
    "method.name": "fomaml-lora",
    "method.inner.steps": 3,
    "method.inner.batch_size": 4,
    "method.inner.optimizer.name": "adamw",
    "method.lora.layers": "last-2",
    "outer.optimizer.name": "adamw",
    "outer.tasks_per_step": 1,
    "memory.tasks_per_forward": 1,
    "memory.trunk_cache": False,
    "memory.lean": False,
    "memory.offload": False,
    "model.dtype": "float32",
    "evaluate.every": 5,
}


def unread_keys(**changes: Any) -> set[str]:
    return {objection.keys[0] for objection in unread({**VALUES, **changes})}


@pytest.mark.parametrize("method", METHODS)
def test_what_a_method_does_not_read_follows_from_its_row(method: str) -> None:
    row = METHODS[method]
    expected = {"tasks.columns", "tasks.verifier", "memory.trunk_cache_gb", "outer.rates_lr"}
    expected |= set() if row.space.reads_lora else {"method.lora", "method.inner.optimizer.loraplus_lr_ratio"}
    expected |= set() if row.reads_query else {"tasks.query"}
    expected |= {"evaluate"} if row.one_task else set()
    expected |= set() if row.after_joint else {"outer.joint_steps"}
    if "inner" in row.rule.options():
        expected |= {f"method.inner.{option}" for option in ("anchor", "multi_step", "train", "learned_rates")} - {
            f"method.inner.{option}" for option in row.rule.takes
        }
    expected |= {f"method.{option}" for option in ("inner", "keep_task_adapters") if option not in row.rule.options()}
    assert unread_keys(**{"method.name": method}) == expected


def test_what_other_values_leave_unread() -> None:
    always = unread_keys()
    sgd = {"method.inner.optimizer.name": "sgd", "outer.optimizer.name": "sgd"}
    assert unread_keys(**sgd) - always == {
        "method.inner.optimizer.betas",
        "method.inner.optimizer.eps",
        "method.inner.optimizer.weight_decay",
        "outer.optimizer.betas",
        "outer.optimizer.eps",
        "outer.optimizer.weight_decay",
    }
    assert unread_keys(**{"tasks.suite": "math-science"}) - always == {"tasks.instances"}
    assert unread_keys(**{"tasks.suite": "house-styles"}) == always
    folder = unread_keys(**{"tasks.suite": None, "tasks.folder": "x"})
    assert folder - always == {"tasks.difficulty", "tasks.instances"}
    assert always - folder == {"tasks.columns", "tasks.verifier"}
    assert always - unread_keys(**{"memory.trunk_cache": True}) == {"memory.trunk_cache_gb"}
    assert unread_keys(**{"tasks.prompt": "in-context"}) == always
    joint = unread_keys(**{"method.name": "joint-lora"})
    assert unread_keys(**{"method.name": "joint-lora", "tasks.prompt": "in-context"}) - joint == {"tasks.query"}


def test_without_a_method_nothing_is_said_of_it() -> None:
    values = {key: value for key, value in VALUES.items() if key != "method.name"}
    assert {objection.keys[0] for objection in unread(values)} == {
        "tasks.columns",
        "tasks.verifier",
        "memory.trunk_cache_gb",
        "outer.rates_lr",
    }
    assert not list(conflicts(values))


def test_the_sibling_trains_lora_by_the_same_rule() -> None:
    for method, row in METHODS.items():
        sibling = lora_sibling(method)
        assert METHODS[sibling].space.reads_lora
        assert METHODS[sibling].rule is row.rule
    assert lora_sibling("lora") == "lora"


def test_values_that_go_together() -> None:
    assert not list(conflicts(VALUES))
    others = {"memory.tasks_per_forward": 4, "outer.tasks_per_step": 4, "tasks.query": 5}
    assert not list(conflicts({**VALUES, **others}))


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("tasks.support", 5, "larger than the pool"),
        ("tasks.query", 7, "larger than the pool"),
        ("method.inner.batch_size", 5, "support"),
        ("method.inner.steps", (0,), "no step"),
        ("tasks.suite", None, "no tasks"),
        ("tasks.folder", "x", "not from both"),
        ("tasks.examples_per_task", None, "no end"),
        ("tasks.held_out", ["c", "a"], "a"),
        ("method.name", "maml-lora", "sgd"),
    ],
)
def test_each_conflict_is_found_by_its_own_value(key: str, value: Any, words: str) -> None:
    found = list(conflicts({**VALUES, key: value}))
    assert [words in objection.problem for objection in found] == [True]
    assert key in found[0].keys


@pytest.mark.parametrize(
    ("method", "key", "value", "words"),
    [
        ("joint", "memory.tasks_per_forward", 4, "one task per forward pass"),
        ("lora", "outer.tasks_per_step", 4, "one task at a time"),
        ("lora", "outer.tasks_per_step", "all", "one task at a time"),
        ("fomaml", "memory.trunk_cache", True, "every layer"),
        ("fomaml", "memory.tasks_per_forward", "auto", ""),
        ("meta-lora", "memory.lean", True, "little to save"),
        ("meta-lora", "memory.offload", True, "little to save"),
        ("fomaml", "memory.offload", True, ""),
        ("reptile", "tasks.query", None, ""),
        ("reptile", "method.inner.steps", (0, 3), "none teach nothing"),
        ("reptile", "method.inner.steps", (1, 3), ""),
        ("fomaml", "method.inner.steps", (0, 3), ""),
        ("fomaml", "method.inner.train", "lora-b", "no LoRA"),
        ("meta-lora", "method.inner.train", "lora-b", ""),
    ],
)
def test_conflicts_with_the_method(method: str, key: str, value: Any, words: str) -> None:
    found = list(conflicts({**VALUES, "method.name": method, key: value}))
    assert [words in objection.problem for objection in found] == ([True] if words else [])


@pytest.mark.parametrize(
    ("method", "changes", "words"),
    [
        ("lora", {}, "ready to use as it is"),
        ("fomaml-lora", {"tasks.support": 1}, "there are none"),
        ("joint-lora", {"tasks.support": 1}, ""),
        ("joint-lora", {"memory.trunk_cache": True}, "hardly come twice"),
        ("joint-lora", {"tasks.support": 10}, "a prompt larger than the pool: support 10 + 1 of 10"),
        ("joint-lora", {"tasks.support": 9}, ""),
        ("in-context-lora", {"tasks.prompt": "alone"}, "trains on prompts with examples"),
        ("fomaml", {}, ""),
    ],
)
def test_conflicts_of_examples_in_the_prompt(method: str, changes: dict[str, Any], words: str) -> None:
    values = {**VALUES, "tasks.prompt": "in-context", "method.name": method, "method.inner.batch_size": 1, **changes}
    found = list(conflicts({**values, "tasks.query": None if "joint" in method or "context" in method else 6}))
    assert [words in objection.problem for objection in found] == ([True] if words else [])
    if method == "in-context-lora":
        assert "joint-lora as method.name" in found[0].expected


def test_lean_is_for_first_order_methods_in_bfloat16_with_sgd_inside() -> None:
    lean = {**VALUES, "method.name": "fomaml", "memory.lean": True, "model.dtype": "bfloat16"}
    sgd = {**lean, "method.inner.optimizer.name": "sgd"}
    assert not list(conflicts(sgd))
    assert "two moments" in next(conflicts(lean)).problem
    assert "stochastically" in next(conflicts({**sgd, "model.dtype": "float32"})).problem
    assert "second-order" in next(conflicts({**sgd, "method.name": "maml"})).problem
    assert "spacing of bfloat16" in next(conflicts({**sgd, "method.name": "reptile"})).problem
    assert not list(conflicts({**sgd, "method.name": "joint"}))


def test_learned_rates_are_not_for_what_saves_memory() -> None:
    learned = {**VALUES, "method.name": "fomaml", "method.inner.optimizer.name": "sgd", "model.dtype": "bfloat16"}
    learned |= {"method.inner.learned_rates": "tensor"}
    assert not list(conflicts(learned))
    for key in ("memory.lean", "memory.offload"):
        assert "learned rates" in next(conflicts({**learned, key: True})).problem
        assert not list(conflicts({**learned, key: True, "method.inner.learned_rates": "none"}))


def test_a_trunk_needs_layers_below_it() -> None:
    cached = {**VALUES, "memory.trunk_cache": True}
    assert "first layer" in next(conflicts({**cached, "method.lora.layers": "all"})).problem
    assert "first layer" in next(conflicts({**cached, "method.lora.layers": [0, 3]})).problem
    assert not list(conflicts({**cached, "method.lora.layers": [1, 3]}))
    assert not list(conflicts(cached))


def test_validation_during_training_needs_its_tasks_and_one_initialization() -> None:
    validated = {"suite": "math-science", "validation": ["lcm"]}
    evaluate = {"evaluate": {"every": 5}}
    assert load_config(minimal("meta-lora", tasks=validated, **evaluate)).evaluate is not None
    assert load_config(minimal("meta-lora", tasks=validated)).evaluate is None
    (fault,) = faults_of(minimal("meta-lora", **evaluate))
    assert fault.startswith("evaluate: read only with tasks to validate on")
    assert "tasks.validation" in fault
    (fault,) = faults_of(minimal("lora", tasks=validated, **evaluate))
    assert '"lora" trains one adapter for each task' in fault
    (fault,) = faults_of(minimal("meta-lora", tasks=validated, evaluate={"k": 3}))
    assert "evaluate.every" in fault
