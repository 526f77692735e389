"""innerloop: meta-fine-tune language models, so that a new task is learned from a handful of examples."""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

# Here, because huggingface_hub reads them when it is imported. A user's own value stays.
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("DO_NOT_TRACK", "1")

if TYPE_CHECKING:
    from innerloop.api.arguments import MetaTrainingArguments
    from innerloop.api.lora_config import LoraConfig
    from innerloop.api.tasks import sample_tasks
    from innerloop.api.trainer import MetaTrainer, meta_train
    from innerloop.config.loading import load_config
    from innerloop.runs.adapted import Adapted
    from innerloop.runs.learned import Learned
    from innerloop.runs.reloading import load_run

_PLACES = {
    "Adapted": "runs.adapted",
    "Learned": "runs.learned",
    "LoraConfig": "api.lora_config",
    "MetaTrainer": "api.trainer",
    "MetaTrainingArguments": "api.arguments",
    "load_config": "config.loading",
    "load_run": "runs.reloading",
    "meta_train": "api.trainer",
    "sample_tasks": "api.tasks",
}

__all__ = [
    "Adapted",
    "Learned",
    "LoraConfig",
    "MetaTrainer",
    "MetaTrainingArguments",
    "load_config",
    "load_run",
    "meta_train",
    "sample_tasks",
]


def __getattr__(name: str) -> Any:
    """The public names, imported at first use: `innerloop --help` needs none of torch."""
    if name not in _PLACES:
        raise AttributeError(f"module 'innerloop' has no attribute {name!r}")
    return getattr(import_module(f"innerloop.{_PLACES[name]}"), name)
