"""Runs of random tokens through models of random weights, made as a user's: config, Session, TaskBatches, Trainer.

Work           what a step consists of
random_model   of a shape, frozen
Runner         takes and times the outer steps of such a run

Every example is as long as every other, and the second half of each is scored.
"""

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch

from innerloop.config.loading import load_config
from innerloop.data.encoding import EncodedTask
from innerloop.data.tasks import Example, Task, TaskBatch
from innerloop.data.token_ids import Encoded
from innerloop.engine.session import Session
from innerloop.loading.models import LoadedModel

if TYPE_CHECKING:
    from transformers import PretrainedConfig

SEED = 7


@dataclass(frozen=True, kw_only=True)
class Work:
    """An outer step of `tasks` tasks, each of `examples` support and as many query examples of `tokens` tokens.

    steps, rank         of the inner loop and of LoRA; None = the method's default, or that it has none
    tasks_per_forward   None = the run chooses
    """

    method: str
    tasks: int
    examples: int
    tokens: int
    steps: int | None = None
    rank: int | None = None
    tasks_per_forward: int | None = None

    def sets(self) -> list[str]:
        chosen = {
            "method.inner.steps": self.steps,
            "method.lora.r": self.rank,
            "memory.tasks_per_forward": self.tasks_per_forward,
        }
        return [f"{key}={value}" for key, value in chosen.items() if value is not None]


def random_model(shape: "PretrainedConfig", *, dtype: str = "float32", device: str = "cpu") -> LoadedModel:
    from transformers import AutoModelForCausalLM

    torch.manual_seed(SEED)
    with torch.device(device):
        model: Any = AutoModelForCausalLM.from_config(shape, dtype=getattr(torch, dtype))
    return LoadedModel(model.eval().requires_grad_(False), cast(Any, None), "", "", "")


class Runner:
    """A run of `work`, at its first step."""

    def __init__(self, model: LoadedModel, work: Work) -> None:
        source = {
            "model": {"name": "random", "dtype": str(model.model.dtype).removeprefix("torch.")},
            "tasks": {"suite": "hidden-rules", "support": work.examples, "query": work.examples},
            "method": {"name": work.method},
            "outer": {"tasks_per_step": work.tasks},
            "seed": SEED,
            "output_dir": "unused",
        }
        self.model, self.method, self.steps = model, work.method, 0
        tasks = _random_tasks(work, vocabulary=model.model.config.vocab_size)
        session = Session(load_config(source, work.sets()), model, tasks).settled()
        _, self.batches = session.streams()[0]
        self.device = session.device
        self.trainer = session.trainer(session.space(), self.batches)

    @property
    def first(self) -> TaskBatch:
        return self.batches[0]

    @property
    def tasks_per_forward(self) -> int:
        return self.trainer.tasks_per_forward or len(self.first.names)

    def step(self) -> None:
        """The next one, to its end, the making of its batch included."""
        self.trainer.step(self.batches[self.steps])
        self.steps += 1
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def seconds(self) -> float:
        started = time.perf_counter()
        self.step()
        return time.perf_counter() - started


def _random_tasks(work: Work, *, vocabulary: int) -> list[EncodedTask]:
    generator = torch.Generator().manual_seed(SEED)
    prompt = work.tokens - work.tokens // 2

    def example(name: str) -> Encoded:
        tokens = torch.randint(vocabulary, (work.tokens,), generator=generator).tolist()
        return Encoded(name, tuple(tokens), prompt)

    def task(name: str) -> EncodedTask:
        names = [f"{name}/{index}" for index in range(2 * work.examples)]
        examples = tuple(Example(each, "") for each in names)
        return EncodedTask(Task(name, examples), tuple(map(example, names)), (), dropped=0, truncated=0)

    return [task(str(index)) for index in range(work.tasks)]
