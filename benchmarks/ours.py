"""innerloop's side of benchmarks/race.py, as a user's run does it: Session, TaskBatches, Trainer.step.

TASKS, EXAMPLES, TOKENS   of a meta-step: tasks, examples a task (as many support as query), tokens an example at most
META, LORA                rates of a meta-step, and of the steps of `lora` that are timed together
Racer                     what can be timed, and shown to take the same step
Ours                      a session's own trainer
session                   of a run of fomaml-lora on tasks that are passed in
gsm8k                     of a run of `lora` on GSM8K
mixed, equal              tasks to race on
meta_tasks, lengths       the examples of a batch as contenders take them, and how long they are
"""

import random
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol
from unittest.mock import patch

import torch
from contenders import LossAndGradient, MetaTask, Rates, rows_of
from torch import Tensor

from innerloop.config.loading import load_config
from innerloop.data.encoding import EncodedTask, encode_all
from innerloop.data.suites import build_suite
from innerloop.data.tasks import Example, Task, TaskBatch
from innerloop.data.token_ids import Encoded
from innerloop.engine.session import Session, prepare
from innerloop.loading.models import LoadedModel
from innerloop.numerics import loss
from innerloop.numerics.tensors import TensorSet, clone

MODEL, SEED = "smollm2-135m-q4_1", 7
TASKS, EXAMPLES, TOKENS = 8, 4, 64
META, LORA = Rates(steps=3, inner=0.01, outer=1e-4), Rates(steps=2, inner=0.0, outer=1e-4)
SUITES = ("hidden-rules", "math-science")
BIN = 8  # tokens to a bar of the histogram


class Racer(Protocol):
    """note: versions and settings, for the record."""

    note: str

    def gradient(self, index: int) -> LossAndGradient:
        """Of one batch at the starting values, which it leaves as they are."""
        ...

    def seconds(self, index: int) -> float: ...


@dataclass
class _Keep:
    """In an outer optimizer's place: keeps the gradient, takes no step."""

    gradient: TensorSet = field(default_factory=dict)

    def step(self, values: TensorSet, gradient: TensorSet, state: object) -> None:
        self.gradient = {name: value[0].clone() for name, value in gradient.items()}


class Ours:
    """Starts from an update that isn't zero: at B = 0 the gradient of A is, and equality would show little.

    steps: that are timed together.
    """

    def __init__(self, session: Session, *, steps: int = 1) -> None:
        self.session, self.steps = session.settled(), steps
        _, self.batches = session.streams()[0]
        self.space: Any = session.space()
        generator = torch.Generator().manual_seed(SEED)
        for name, value in self.space.shared.items():
            if name.endswith("lora_B"):
                value.copy_(0.01 * torch.randn(value.shape, generator=generator))
        self.values = clone(self.space.shared)
        self.trainer = self.session.trainer(self.space, self.batches)
        self.note = f"tasks_per_forward {self.trainer.tasks_per_forward}"

    def gradient(self, index: int, *, finer: bool = False) -> LossAndGradient:
        """finer: with a softmax in float64. torch's own of 32 bits, over a vocabulary, is exact to 1e-5 on a CPU."""
        with patch.object(loss, "_nats_", _finer) if finer else nullcontext():
            return self._gradient(index)

    def _gradient(self, index: int) -> LossAndGradient:
        keep = _Keep()
        trainer: Any = self.trainer
        optimizer, trainer.optimizer = trainer.optimizer, keep
        for name, value in self.values.items():
            self.space.shared[name].copy_(value)
        metrics = trainer.step(self.batches[index])
        trainer.optimizer = optimizer
        return metrics.loss, keep.gradient

    def seconds(self, index: int) -> float:
        started = time.perf_counter()
        for step in range(index * self.steps, (index + 1) * self.steps):
            self.trainer.step(self.batches[step])
        return time.perf_counter() - started

    def contender(self, kind: Callable[..., Racer], rounds: Sequence[Any], rates: Rates) -> Racer:
        """One of the same starting values. rounds: the examples of each batch."""
        return kind(self.session.model.model, rounds, values=self.values, settings=self.space.settings, rates=rates)


def session(
    model: LoadedModel, pool: list[EncodedTask], *, tasks: int = TASKS, layers: str = "all", trunk_cache: bool = False
) -> Session:
    """Steps of `tasks` tasks of the pool."""
    inner = {"steps": META.steps, "clip": None, "optimizer": {"name": "sgd", "lr": META.inner}}
    config = _config(
        {"suite": SUITES[0], "support": EXAMPLES, "query": EXAMPLES, "max_length": TOKENS},
        {"name": "fomaml-lora", "inner": inner, "lora": {"r": 16, "lora_alpha": 32, "layers": layers}},
        tasks_per_step=tasks,
        memory={"trunk_cache": trunk_cache},
    )
    return Session(config, model, pool)


def gsm8k(model: LoadedModel, folder: Path) -> Session:
    """folder: with GSM8K's train.jsonl."""
    tasks = {
        "folder": str(folder),
        "columns": {"prompt": "question", "completion": "answer"},
        "held_out": ["train"],  # what `lora` trains on
        "only": ["train"],
        "support": EXAMPLES,
        "query": EXAMPLES,
        "max_length": 512,
        "on_too_long": "drop",
    }
    return prepare(_config(tasks, {"name": "lora", "lora": {"r": 16, "lora_alpha": 32}}, tasks_per_step=1), model=model)


def _config(tasks: dict[str, Any], method: dict[str, Any], *, tasks_per_step: int, memory: Any = None) -> Any:
    outer = {"optimizer": {"name": "adamw", "lr": META.outer}, "clip": None, "tasks_per_step": tasks_per_step}
    return load_config(
        {
            "model": {"name": MODEL, "device": "cpu"},
            "tasks": tasks,
            "method": method,
            "outer": outer,
            "memory": memory or {},
            "seed": SEED,
            "output_dir": "unused",
        }
    )


def mixed(model: LoadedModel) -> list[EncodedTask]:
    """Tasks whose examples are drawn from both suites, as many from each."""
    draw = random.Random(SEED)
    suites = [list(_examples(model, suite).values()) for suite in SUITES]
    count = min(map(len, suites))
    pairs = [pair for suite in suites for pair in draw.sample(suite, count)]
    draw.shuffle(pairs)
    size = 2 * EXAMPLES
    return [_task(str(first), pairs[first : first + size]) for first in range(0, len(pairs) - size + 1, size)]


def equal(model: LoadedModel) -> list[EncodedTask]:
    """Random tokens, a quarter of them scored."""
    generator = torch.Generator().manual_seed(SEED)
    vocabulary: int = model.model.config.vocab_size
    prompt = TOKENS * 3 // 4

    def one(name: str) -> tuple[Example, Encoded]:
        tokens = torch.randint(vocabulary, (TOKENS,), generator=generator).tolist()
        return Example(name, ""), Encoded(name, tuple(tokens), prompt)

    tasks = range(2 * TASKS)
    return [_task(str(task), [one(f"{task}/{index}") for index in range(2 * EXAMPLES)]) for task in tasks]


def _encoded(model: LoadedModel, suite: str) -> list[EncodedTask]:
    tasks = build_suite(suite, seed=SEED, examples_per_task=40, test_examples=0)
    return encode_all(tasks, model.tokenizer, max_length=TOKENS, on_too_long="drop")


def _examples(model: LoadedModel, suite: str) -> dict[str, tuple[Example, Encoded]]:
    """By id: two tasks may share an example."""
    pools = [zip(task.task.pool, task.pool, strict=True) for task in _encoded(model, suite)]
    return {example.id: (example, encoded) for pool in pools for example, encoded in pool}


def _task(name: str, pairs: Sequence[tuple[Example, Encoded]]) -> EncodedTask:
    examples, encoded = zip(*pairs, strict=True)
    return EncodedTask(Task(name, examples), encoded, (), dropped=0, truncated=0)


def _finer(logits_CV: Tensor, targets_C: Tensor) -> Tensor:
    """numerics.loss's: nats of the targets, and probabilities in the logits' place."""
    log_CV = torch.log_softmax(logits_CV.double(), -1)
    logits_CV.copy_(log_CV.exp())
    return -log_CV.gather(1, targets_C.unsqueeze(1)).squeeze(1).to(logits_CV.dtype)


def meta_tasks(batch: TaskBatch) -> list[MetaTask]:
    assert batch.query is not None
    return list(zip(rows_of(batch.support[0]), rows_of(batch.query), strict=True))


def lengths(batches: Sequence[TaskBatch], *, tasks_per_forward: int | None) -> dict[str, Any]:
    """A histogram, and the useful part of what goes through a model: each task padded to its longest, and ours."""
    passes = [batch for each in batches for batch in each.batches]
    every = [length for batch in passes for task in batch.lengths for length in task]
    starts = [(length - 1) // BIN * BIN + 1 for length in every]
    chunks = [chunk for each in batches for chunk in each.split(tasks_per_forward or len(each.names))]
    return {
        "histogram": {f"{start}-{start + BIN - 1}": starts.count(start) for start in sorted(set(starts))},
        "tokens_a_step": sum(every) / len(batches),
        "useful_padded": sum(every) / sum(max(task) * len(task) for batch in passes for task in batch.lengths),
        "useful_ours": sum(every) / sum(batch.computed_tokens for chunk in chunks for batch in chunk.batches),
    }
