"""innerloop: meta-fine-tune language models, so that a new task is learned from a handful of examples."""

import os
from typing import TYPE_CHECKING, Any

# Here, because huggingface_hub reads them when it is imported. A user's own value stays.
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("DO_NOT_TRACK", "1")

if TYPE_CHECKING:
    from innerloop.config.loading import load_config
    from innerloop.runs.learned import Adapted, Learned, load_run
    from innerloop.runs.meta_train import meta_train

__all__ = ["Adapted", "Learned", "load_config", "load_run", "meta_train"]


def __getattr__(name: str) -> Any:
    """The public names, imported at first use: `innerloop --help` needs none of torch."""
    if name not in __all__:
        raise AttributeError(f"module 'innerloop' has no attribute {name!r}")
    from innerloop.config import loading
    from innerloop.runs import learned, meta_train

    places = {"load_config": loading, "meta_train": meta_train}
    return getattr(places.get(name, learned), name)
