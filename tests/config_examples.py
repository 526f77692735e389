"""Configs for tests: a minimal run of every method, and another value of every key.

minimal     the required keys alone
OTHER       dotted key -> a valid value that is not its default
leaves      the dotted keys of a tree that are set
faults_of   the faults of a config that has to be refused
"""

from typing import Any

import pytest

from innerloop.config.loading import KEYS, load_config
from innerloop.config.schema import ABSENT, get
from innerloop.errors import UserError

OTHER: dict[str, Any] = {
    "model.name": "another",
    "model.hub_id": "somebody/a-model",
    "model.dtype": "bfloat16",
    "model.revision": "v1.0",
    "model.attn_implementation": "eager",
    "model.device": "cuda:1",
    "tasks.suite": "hidden-rules",
    "tasks.folder": "more",
    "tasks.difficulty": "hard",
    "tasks.instances": 3,
    "tasks.columns": {"question": "q"},
    "tasks.prompt": "in-context",
    "tasks.verifier": "number",
    "tasks.examples_per_task": 50,
    "tasks.support": 6,
    "tasks.query": 4,
    "tasks.test": 5,
    "tasks.only": ["a", "b", "c"],
    "tasks.validation": ["a"],
    "tasks.held_out": ["b", "1e5"],
    "tasks.max_length": 99,
    "tasks.on_too_long": "drop",
    "tasks.date": "2026-12-01",
    "method.name": "fomaml-lora",
    "method.inner.steps": [2, 5],
    "method.inner.batch_size": 2,
    "method.inner.clip": 0.5,
    "method.inner.warmup": 0.25,
    "method.inner.anchor": 0.2,
    "method.inner.multi_step": 2,
    "method.inner.train": "last-1",
    "method.inner.learned_rates": "tensor-step",
    "method.inner.optimizer.name": "sgd",
    "method.inner.optimizer.lr": 0.7,
    "method.inner.optimizer.betas": [0.1, 0.2],
    "method.inner.optimizer.eps": 1e-4,
    "method.inner.optimizer.weight_decay": 0.3,
    "method.inner.optimizer.loraplus_lr_ratio": 16,
    "method.lora.r": 2,
    "method.lora.lora_alpha": 3.5,
    "method.lora.target_modules": ["q_proj", "v_proj"],
    "method.lora.lora_dropout": 0.1,
    "method.lora.use_rslora": True,
    "method.lora.init_lora_weights": "gaussian",
    "method.lora.layers": "last-2",
    "method.keep_task_adapters": True,
    "outer.steps": 9,
    "outer.optimizer.name": "sgd",
    "outer.optimizer.lr": 1e-5,
    "outer.optimizer.betas": [0.3, 0.4],
    "outer.optimizer.eps": 1e-6,
    "outer.optimizer.weight_decay": 0.01,
    "outer.tasks_per_step": 2,
    "outer.clip": None,
    "outer.schedule": "cosine",
    "outer.warmup": 0.5,
    "outer.rates_lr": 0.1,
    "outer.joint_steps": 2,
    "outer.ema": 0.5,
    "outer.on_non_finite": "skip",
    "memory.tasks_per_forward": 2,
    "memory.checkpointing": True,
    "memory.trunk_cache": True,
    "memory.trunk_cache_gb": 0.5,
    "memory.logit_rows": 100,
    "memory.lean": True,
    "memory.offload": True,
    "save.every": 3,
    "save.keep": 1,
    "evaluate.every": 3,
    "evaluate.k": 4,
    "evaluate.metric": "exact",
    "evaluate.patience": 1,
    "evaluate.export": "last",
    "start_from": "runs/before",
    "report_to": ["tensorboard"],
    "seed": 8,
    "output_dir": "runs/another",
}


def minimal(method: str, **changes: Any) -> dict[str, Any]:
    return {
        "model": {"name": "m"},
        "tasks": {"suite": "math-science"},
        "method": {"name": method},
        "output_dir": "runs/x",
        **changes,
    }


def leaves(tree: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key in KEYS if (value := get(tree, key)) is not ABSENT}


def faults_of(source: Any, *sets: str) -> list[str]:
    with pytest.raises(UserError) as caught:
        load_config(source, sets)
    return [str(fault) for fault in caught.value.faults]
