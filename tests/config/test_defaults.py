"""What a key is where a config doesn't say: the method's own, its kind of space's, or what other keys make of it."""

from dataclasses import replace

import pytest

from config_examples import faults_of, minimal
from innerloop.config.defaults import STAND_INS, defaults, method_of, within
from innerloop.config.loading import load_config
from innerloop.config.schema import DEFAULTS, KEYS, nested
from innerloop.learning.inner_loop import InnerLoop
from innerloop.learning.methods import METHODS, Fomaml, MetaLora
from innerloop.numerics.optimizers import AdamW, Sgd

ADAMW = "{name: adamw, lr: 1e-3}"


def test_the_defaults_of_the_inner_loop_are_the_methods_own() -> None:
    for method, row in METHODS.items():
        inner = load_config(minimal(method)).resolved()["method"].get("inner")
        if "inner" not in row.rule.options():
            assert inner is None
            continue
        assert (inner["steps"], inner["clip"]) == (row.steps.steps, row.steps.optimizer.clip)
        assert inner["optimizer"]["lr"] == row.steps.optimizer.lr
    fomaml, meta = load_config(minimal("fomaml")), load_config(minimal("meta-lora"))
    assert fomaml.method.build() == Fomaml(inner=InnerLoop(steps=3, optimizer=Sgd(lr=1e-3)))
    assert meta.method.build() == MetaLora(inner=InnerLoop(steps=5, optimizer=AdamW(lr=3e-3, betas=(0.9, 0.99))))
    lora = load_config(minimal("fomaml-lora")).method.build()
    assert lora == Fomaml(inner=InnerLoop(steps=3, optimizer=Sgd(lr=0.3, clip=1.0)))


def test_an_optimizers_keys_default_to_the_methods_own_unless_another_is_named() -> None:
    config = load_config(minimal("meta-lora"), ["method.inner.steps=2"])
    assert config.method.inner is not None
    assert (config.method.inner.steps, config.method.inner.optimizer.betas) == (2, (0.9, 0.99))
    config = load_config(minimal("meta-lora"), [f"method.inner.optimizer={ADAMW}"])
    own = AdamW(lr=1e-3, betas=(0.9, 0.99))
    assert config.method.build() == MetaLora(inner=InnerLoop(steps=5, optimizer=own))
    alone = load_config(minimal("meta-lora"), ["method.inner.optimizer.lr=1e-3", "method.inner.optimizer.eps=1e-3"])
    assert alone.method.build() == MetaLora(inner=InnerLoop(steps=5, optimizer=replace(own, eps=1e-3)))
    unlike = load_config(minimal("fomaml-lora"), [f"method.inner.optimizer={ADAMW}"]).method.build()
    assert unlike == Fomaml(inner=InnerLoop(steps=3, optimizer=AdamW(lr=1e-3, clip=1.0)))
    assert load_config(minimal("meta-lora"), ["outer.optimizer.weight_decay=1"]).outer.build_optimizer() == AdamW(
        lr=2e-3, clip=1.0, weight_decay=1.0
    )
    (fault,) = faults_of(minimal("meta-lora"), "outer.optimizer.name=sgd")
    assert "outer.optimizer.lr: missing" in fault
    assert "number above 0" in fault


def test_other_defaults_that_depend_on_the_run() -> None:
    steps = {method: load_config(minimal(method)).outer.tasks_per_step for method in METHODS}
    assert steps.pop("lora") == 1
    assert set(steps.values()) == {4}
    rates = {method: load_config(minimal(method)).outer.optimizer.lr for method in METHODS}
    assert all(rates[method] == row.space.outer.lr for method, row in METHODS.items())
    folder = load_config(minimal("fomaml", tasks={"folder": "data"})).tasks
    assert (folder.examples_per_task, folder.columns, folder.difficulty) == (None, {}, None)
    assert load_config(minimal("fomaml")).tasks.examples_per_task == 100
    assert load_config(minimal("fomaml"), ["tasks.support=3"]).resolved()["method"]["inner"]["batch_size"] == 3
    assert load_config(minimal("lora"), ["outer.clip=null"]).outer.build_optimizer().clip is None
    unclipped = load_config(minimal("fomaml-lora"), ["method.inner.clip=null"]).method.build()
    assert unclipped == Fomaml(inner=InnerLoop(steps=3, optimizer=Sgd(lr=0.3)))


@pytest.mark.parametrize("method", METHODS)
def test_with_its_defaults_a_run_is_what_it_is_without_them(method: str) -> None:
    given = {"method.name": method, "model.name": "m", "tasks.suite": "hidden-rules", "output_dir": "runs/x"}
    found = defaults(given)
    assert found.keys() <= {*KEYS} - given.keys()
    written = load_config(nested(given | found))
    assert written == load_config(nested(given))
    assert written != load_config(nested(given | found | {"seed": 9}))


def test_a_key_that_is_not_read_has_no_default() -> None:
    lora, full = (defaults({"method.name": name, "tasks.suite": "x"}) for name in ("fomaml-lora", "fomaml"))
    assert {key for key in lora if key.startswith("method.lora.")}
    assert not {key for key in full if within(key, "method.lora")}
    assert "method.inner.steps" not in defaults({"method.name": "joint"})
    assert "tasks.difficulty" not in defaults({"method.name": "fomaml", "tasks.folder": "data"})


def test_what_names_no_method_takes_the_place_of_one() -> None:
    assert method_of({"method.name": "fomaml"}) == "fomaml"
    for wrong in ({}, {"method.name": "fomal"}, {"method.name": 3}, {"method.name": ["fomaml"]}):
        assert method_of(wrong) is None
        assert defaults(wrong) == defaults({"method.name": STAND_INS["method.name"]})
    assert defaults({}) != defaults({"method.name": "fomaml"})
    assert DEFAULTS.items() >= {"outer.steps": 100}.items()


def test_a_key_is_within_its_sections() -> None:
    assert within("a.b.c", "a.b")
    assert within("a.b", "a.b")
    assert not within("a.bc", "a.b")
    assert not within("a", "a.b")


def test_an_evaluation_has_as_many_examples_as_a_step() -> None:
    tasks = {"suite": "math-science", "validation": ["lcm"], "support": 5}
    config = load_config(minimal("joint-lora", tasks=tasks, evaluate={"every": 5}))
    assert config.evaluate is not None
    assert (config.evaluate.k, config.evaluate.metric, config.evaluate.export) == (5, "nats", "best")
    assert config.evaluate.patience is None
