"""What a key is where a config doesn't say: from the method's row, its kind of space, and the keys that are given.

defaults    the given keys -> what the other keys are that a run with these reads
STAND_INS   of keys that have no default
method_of   the method that is named, where it can be used
within      whether a key is a section or one of its keys
"""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from innerloop import plugins
from innerloop.config.rules import unread
from innerloop.config.schema import BROKEN_METHODS, DEFAULTS, OPTIMIZERS, OptimizerSection
from innerloop.data.in_context import LEFT_OUT
from innerloop.data.suites import SUITES
from innerloop.learning.inner_loop import InnerLoop
from innerloop.learning.methods import METHODS, own_options
from innerloop.numerics.optimizers import AdamW, Optimizer

# The one of innerloop's own methods that reads the most keys, so that these are checked where none is named.
_OWN = [name for name in METHODS if name not in plugins.points(plugins.METHODS)]
_READER = max(_OWN, key=lambda name: (METHODS[name].space.reads_lora, len(METHODS[name].rule.options())))
# Of keys without a default.
STAND_INS: dict[str, Any] = {"model.name": "unnamed", "method.name": _READER, "output_dir": Path("unnamed")}

_OPTIONS = set(OptimizerSection.model_fields)


def defaults(given: Mapping[str, Any]) -> dict[str, Any]:
    """The default of every key that a run with the `given` keys reads, or would read if they were right."""
    name = method_of(given) or STAND_INS["method.name"]
    row, rules = METHODS[name], {other.rule for other in METHODS.values()}
    steps, inner = row.steps
    values = {
        **DEFAULTS,
        "tasks.difficulty": "default",
        "tasks.instances": _instances(given),
        "tasks.columns": {},
        "tasks.verifier": "exact",
        "tasks.examples_per_task": None if "tasks.folder" in given else 100,
        "tasks.query": 8,
        "tasks.prompt": row.prompt,
        "method.inner.steps": steps,
        "method.inner.clip": inner.clip,
        "method.inner.anchor": InnerLoop.anchor,
        "method.inner.multi_step": InnerLoop.multi_step,
        "method.inner.train": InnerLoop.train,
        "method.inner.learned_rates": "none",
        "outer.rates_lr": 0.01,
        "method.inner.batch_size": _inner_batch(given, given.get("tasks.prompt", row.prompt)),
        **{f"method.{option.name}": option.default for rule in (*rules, row.rule) for option in own_options(rule)},
        "evaluate.k": given.get("tasks.support", DEFAULTS["tasks.support"]),
        "outer.tasks_per_step": 1 if row.one_task else 4,
        "outer.joint_steps": 0.0,
        "memory.trunk_cache_gb": 16,
        **_optimizer("method.inner.optimizer", inner, given),
        "method.inner.optimizer.loraplus_lr_ratio": Optimizer.loraplus_lr_ratio,
        **_optimizer("outer.optimizer", row.space.outer, given),
    }
    read = {**values, **given, "method.name": name}
    unused = [objection.keys[0] for objection in unread(read)]
    return {key: value for key, value in values.items() if not any(within(key, other) for other in unused)}


def method_of(given: Mapping[str, Any]) -> str | None:
    name = given.get("method.name")
    return name if isinstance(name, str) and name in METHODS and name not in BROKEN_METHODS else None


def _inner_batch(given: Mapping[str, Any], prompt: Any) -> Any:
    """All of the support; of prompts that each hold all of it, a few."""
    support = given.get("tasks.support", DEFAULTS["tasks.support"])
    return min(support, LEFT_OUT) if prompt == "in-context" and isinstance(support, int) else support


def _instances(given: Mapping[str, Any]) -> int | None:
    name = given.get("tasks.suite")
    return SUITES[name].instances if isinstance(name, str) and name in SUITES else None


def _optimizer(section: str, default: Optimizer, given: Mapping[str, Any]) -> dict[str, Any]:
    """The method's own optimizer, key by key, unless another one is named: of that, torch's options."""
    options: dict[str, Any] = {"betas": AdamW.betas, "eps": AdamW.eps, "weight_decay": AdamW.weight_decay}
    (name,) = (name for name, kind in OPTIMIZERS.items() if type(default) is kind)
    if given.get(f"{section}.name", name) == name:
        options |= {"name": name, **asdict(default)}
    return {f"{section}.{option}": value for option, value in options.items() if option in _OPTIONS}


def within(key: str, section: str) -> bool:
    return key == section or key.startswith(f"{section}.")
