"""What a run does where its config says nothing.

DEFAULT_INNER, DEFAULT_OUTER, DEFAULT_TASKS_PER_STEP, DEFAULT_TRUNK_CACHE_GB    of training
DEFAULT_ADAPTATION        for an initialization whose method has no inner loop
AUTO_TOKENS_PER_FORWARD   by the kind of device
"""

from typing import Any

from innerloop.learning.inner_loop import InnerLoop
from innerloop.numerics.optimizers import AdamW, Sgd

# By what an initialization holds: for one whose method has no inner loop, unless the caller says otherwise.
DEFAULT_ADAPTATION = {
    "lora": InnerLoop(steps=5, optimizer=AdamW(lr=3e-3, betas=(0.9, 0.99))),
    "all": InnerLoop(steps=3, optimizer=Sgd(lr=1e-3)),
}


# On two cores 1,024 tokens a forward were slower than 512 and took half as much memory again (benchmarks/step.py).
# A GPU is assumed, not measured, to be busy from about 8,192 on.
AUTO_TOKENS_PER_FORWARD = {"cpu": 512, "cuda": 8192}


_FAST_ADAMW = {"name": "adamw", "lr": 3e-3, "betas": (0.9, 0.99)}


# By the method's name, else by what it trains. A config may change single keys, also of the optimizer while its name
# stays the same.
DEFAULT_INNER: dict[str, dict[str, Any]] = {
    "all": {"steps": 3, "clip": None, "optimizer": {"name": "sgd", "lr": 1e-3}},
    "lora": {"steps": 3, "clip": 1.0, "optimizer": {"name": "sgd", "lr": 0.3}},
    "meta-lora": {"steps": 5, "clip": None, "optimizer": _FAST_ADAMW},
    "reptile-lora": {"steps": 5, "clip": None, "optimizer": _FAST_ADAMW},
}


DEFAULT_OUTER: dict[str, dict[str, Any]] = {
    "all": {"name": "adamw", "lr": 1e-5},
    "lora": {"name": "adamw", "lr": 2e-3},
}


DEFAULT_TASKS_PER_STEP = 4  # 1 for a method that trains on one task


DEFAULT_TRUNK_CACHE_GB = 16
