"""load_config: the objects it gives, the defaults, and the way back."""

import json
from pathlib import Path
from typing import Any

import pytest

from config_examples import OTHER, leaves, minimal
from innerloop.config.document import to_yaml
from innerloop.config.loading import KEYS, load_config
from innerloop.config.schema import get
from innerloop.learning.inner_loop import InnerLoop
from innerloop.learning.methods import METHODS, MetaLora
from innerloop.numerics.optimizers import AdamW, Sgd
from innerloop.spaces.lora import LoraSettings

ADAMW, SGD = "{name: adamw, lr: 1e-3}", "{name: sgd, lr: 0.1}"


def base(**changes: Any) -> dict[str, Any]:
    """A meta-lora run with both optimizers given."""
    adamw = {"name": "adamw", "lr": 1e-3}
    method = {"name": "meta-lora", "inner": {"optimizer": adamw}, "lora": {"layers": "last-3"}}
    return {**minimal("meta-lora"), "method": method, "outer": {"optimizer": adamw}, **changes}


def test_values_reach_the_objects_they_are_for() -> None:
    config = load_config(
        base(seed=3),
        [
            "method.inner={steps: 2, clip: 3, optimizer: {name: sgd, lr: 1e-4}}",
            "method.lora={r: 4, layers: [1, 2], target_modules: [q_proj]}",
            "method.keep_task_adapters=true",
            "outer.optimizer={name: adamw, lr: 1E-3, betas: [0, 0.5], weight_decay: 1}",
            "outer.clip=2",
        ],
    )
    inner = InnerLoop(steps=2, optimizer=Sgd(lr=1e-4, clip=3.0))
    assert config.method.build() == MetaLora(inner=inner, keep_task_adapters=True)
    assert config.method.lora_settings() == LoraSettings(r=4, layers=(1, 2), target_modules=("q_proj",))
    assert config.outer.build_optimizer() == AdamW(lr=1e-3, clip=2.0, betas=(0.0, 0.5), weight_decay=1.0)
    assert config.output_dir == Path("runs/x")
    assert config.seed == 3


@pytest.mark.parametrize("method", METHODS)
def test_every_method_loads_builds_and_comes_back_from_its_resolved_config(method: str, tmp_path: Path) -> None:
    config = load_config(minimal(method))
    assert isinstance(config.method.build(), METHODS[method].rule)
    assert (config.method.lora_settings() is not None) == (METHODS[method].space.reads_lora)
    resolved = config.resolved()
    assert json.loads(json.dumps(resolved)) == resolved
    assert load_config(resolved) == config
    file = tmp_path / "resolved.yaml"
    file.write_text(to_yaml(resolved))
    assert load_config(file) == config
    assert load_config(file, ["seed=8"]) != config


COMMON = {"seed", "report_to", "output_dir", "save.every", "save.keep", "method.name"}
COMMON |= {f"outer.{key}" for key in ("steps", "tasks_per_step", "clip", "schedule", "warmup", "on_non_finite")}
COMMON |= {f"model.{key}" for key in ("name", "dtype", "device")}
COMMON |= {
    f"memory.{key}" for key in ("tasks_per_forward", "checkpointing", "logit_rows", "trunk_cache", "lean", "offload")
}
COMMON |= {f"outer.optimizer.{key}" for key in ("name", "lr", "betas", "eps", "weight_decay")}
COMMON |= {f"tasks.{key}" for key in ("suite", "difficulty", "examples_per_task", "support", "test", "only")}
COMMON |= {f"tasks.{key}" for key in ("validation", "held_out", "max_length", "on_too_long", "prompt")}
QUERY = {"tasks.query"}
AFTER_JOINT = {"outer.joint_steps"}
SGD_STEPS = AFTER_JOINT | {
    f"method.inner.{key}" for key in ("steps", "batch_size", "clip", "warmup", "optimizer.name", "optimizer.lr")
}
THROUGH_QUERY = {f"method.inner.{key}" for key in ("train", "anchor", "multi_step")}
RATES = {"method.inner.learned_rates"}
ADAMW_STEPS = SGD_STEPS | {f"method.inner.optimizer.{key}" for key in ("betas", "eps", "weight_decay")}
LORA = {key for key in KEYS if key.startswith("method.lora.")}
RATIO = {"method.inner.optimizer.loraplus_lr_ratio"}
READ = {
    "fomaml": COMMON | QUERY | SGD_STEPS | THROUGH_QUERY | RATES,
    "maml": COMMON | QUERY | SGD_STEPS | THROUGH_QUERY,
    "reptile": COMMON | SGD_STEPS,
    "joint": COMMON | QUERY,
    "fomaml-lora": COMMON | QUERY | SGD_STEPS | THROUGH_QUERY | RATES | LORA | RATIO,
    "maml-lora": COMMON | QUERY | SGD_STEPS | THROUGH_QUERY | LORA | RATIO,
    "meta-lora": COMMON | QUERY | ADAMW_STEPS | THROUGH_QUERY | RATES | LORA | RATIO | {"method.keep_task_adapters"},
    "reptile-lora": COMMON | ADAMW_STEPS | LORA | RATIO,
    "joint-lora": COMMON | QUERY | LORA,
    "in-context-lora": COMMON | LORA,
    "lora": COMMON | QUERY | LORA,
}


@pytest.mark.parametrize("method", METHODS)
def test_resolved_has_every_key_that_is_read_and_no_other(method: str) -> None:
    assert set(leaves(load_config(minimal(method)).resolved())) == READ[method]


def test_the_source_and_the_optimizer_decide_what_is_read() -> None:
    folder = load_config(minimal("joint", tasks={"folder": "x"})).resolved()
    assert set(leaves(folder)) == READ["joint"] - {"tasks.suite", "tasks.difficulty"} | {
        "tasks.folder",
        "tasks.columns",
        "tasks.verifier",
    }
    hidden = load_config(minimal("joint", tasks={"suite": "hidden-rules"})).resolved()
    assert set(leaves(hidden)) == READ["joint"] | {"tasks.instances"}
    styles = load_config(minimal("joint", tasks={"suite": "house-styles"}))
    assert (hidden["tasks"]["instances"], styles.tasks.instances) == (4, 16)
    sgd = load_config(minimal("joint"), [f"outer.optimizer={SGD}"]).resolved()
    assert set(leaves(sgd)) == READ["joint"] - {f"outer.optimizer.{key}" for key in ("betas", "eps", "weight_decay")}


@pytest.mark.parametrize("key", KEYS)
def test_a_changed_value_of_every_key_shows_in_the_resolved_config(key: str) -> None:
    before = base()
    if key in ("tasks.folder", "tasks.columns", "tasks.verifier"):
        before["tasks"] = {"folder": "data"}
    if key == "tasks.instances":
        before["tasks"] = {"suite": "hidden-rules"}
    if key == "memory.trunk_cache_gb":
        before["memory"] = {"trunk_cache": True}
    if key in ("memory.lean", "memory.offload"):
        before |= {"model": {"name": "m", "dtype": "bfloat16"}, "method": {"name": "fomaml"}}
    if key == "outer.rates_lr":
        before["method"] = {"name": "meta-lora", "inner": {"learned_rates": "tensor"}}
    if key.startswith("evaluate."):
        before |= {"tasks": {"suite": "math-science", "validation": ["lcm"]}, "evaluate": {"every": 1}}
    after = load_config(before, [f"{key}={json.dumps(OTHER[key])}"])
    assert get(after.resolved(), key) == OTHER[key]
    assert get(load_config(before).resolved(), key) != OTHER[key]
