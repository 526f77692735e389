"""innerloop: meta-fine-tune language models, so that a new task is learned from a handful of examples."""

import os
from typing import TYPE_CHECKING, Any

# Here, because huggingface_hub reads them when it is imported. A user's own value stays.
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("DO_NOT_TRACK", "1")

if TYPE_CHECKING:
    from innerloop.learned import Adapted, Learned, load_run
    from innerloop.meta_training import meta_train
    from innerloop.runs.config import load_config

__all__ = ["Adapted", "Learned", "load_config", "load_run", "meta_train"]


def __getattr__(name: str) -> Any:
    """The public names, imported at first use: `innerloop --help` needs none of torch."""
    if name not in __all__:
        raise AttributeError(f"module 'innerloop' has no attribute {name!r}")
    from innerloop import learned, meta_training
    from innerloop.runs import config

    places = {"load_config": config, "meta_train": meta_training}
    return getattr(places.get(name, learned), name)
