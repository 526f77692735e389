"""Peak resident memory of outer steps of a random-weight model, in a process of its own.

Case           which run, of a model of which shape, over which tasks
shape, tasks   what `trace` plans from, and what the child runs
plan           the bytes that `trace` says the case takes
measure        the bytes that each case took in a child, which is `python rss_child.py CASES`
"""

import ctypes
import gc
import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from innerloop.config.loading import RunConfig, load_config
from innerloop.data.batches import collate
from innerloop.data.tasks import TaskBatch
from innerloop.data.token_ids import Encoded
from innerloop.engine.parts import make_space, make_trainer
from innerloop.machine import reset_peak_memory
from innerloop.planning.tracing import trace

# glibc keeps freed blocks below its threshold, which it raises by itself: the resident set would not be what is used.
MALLOC = {"MALLOC_MMAP_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
TINY = {
    "num_hidden_layers": 4,
    "hidden_size": 32,
    "intermediate_size": 48,
    "vocab_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}


@dataclass(frozen=True)
class Case:
    """config: a transformers config class; shape: its arguments; sets: KEY=VALUE of the run's config."""

    config: str
    shape: dict[str, Any]
    method: str
    sets: list[str] = field(default_factory=list)
    dtype: str = "float32"
    tasks: int = 1
    examples: int = 4
    tokens: int = 64
    scored: int = 16
    steps: int = 1

    @property
    def run(self) -> RunConfig:
        source = {
            "model": {"name": "random", "dtype": self.dtype, "device": "cpu"},
            "tasks": {"suite": "math-science"},
            "method": {"name": self.method},
            "output_dir": "unused",
        }
        return load_config(source, [f"memory.tasks_per_forward={self.tasks}", *self.sets])


def shape(case: Case) -> Any:
    import transformers

    return getattr(transformers, case.config)(**case.shape)


def tasks(case: Case) -> TaskBatch:
    def example(task: int, index: int) -> Encoded:
        tokens = tuple((7 * task + 3 * index + place) % 60 for place in range(case.tokens))
        return Encoded(f"{task}/{index}", tokens, case.tokens - case.scored)

    batch = collate([[example(task, index) for index in range(case.examples)] for task in range(case.tasks)])
    inner = case.run.method.inner
    return TaskBatch(tuple(map(str, range(case.tasks))), [batch] * (inner.steps if inner else 0), batch)


def plan(case: Case) -> int:
    return trace(case.run, shape(case), tasks(case)).peak


def measure(*cases: Case) -> list[int]:
    command = [sys.executable, __file__, json.dumps([asdict(case) for case in cases])]
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env={**os.environ, **MALLOC})
    return json.loads(printed.stdout.splitlines()[-1])


def train(case: Case) -> None:
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_config(shape(case), dtype=getattr(torch, case.dtype))
    space = make_space(case.run, model.eval().requires_grad_(False))
    trainer, batch = make_trainer(case.run, space), tasks(case)
    for _ in range(case.steps):
        trainer.step(batch)


def peak_resident() -> int:
    """Since the last reset. getrusage's peak would be no less than what the parent process held when it forked."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split("VmHWM:")[1].split()[0])


def took(case: Case) -> int:
    """Peak of the run above what the process held before; a tiny run comes first, for the libraries' own memory."""
    train(replace(case, shape={**case.shape, **TINY}, tokens=32, scored=8))
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what earlier runs left in glibc's own lists would be used again, unseen
    reset_peak_memory()
    before = peak_resident()
    train(case)
    return peak_resident() - before


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps([took(Case(**case)) for case in json.loads(sys.argv[1])]))
