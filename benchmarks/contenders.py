"""What benchmarks/race.py races innerloop against on a meta-step: other ways to take the same first-order MAML step.

Each trains a PEFT model of the same base, pads a task's examples to their longest, passes an attention mask, takes
transformers' own loss of the full logits, and has its tasks in turn. Cloning the LoRA of a task (and not the model,
as `deepcopy` would) is the fastest of the naive ways, so it is the one that races.

Rates, Rows, MetaTask   learning rates; examples as (tokens, labels); (support, query)
rows_of                 a batch of the engine -> the examples of each task
padded                  examples -> what a transformers model takes
peft_model              a PEFT model with given LoRA values, over the weights of another model
Contender               one meta-step after another; `gradient` for the proof that it is the same one
Naive                   a clone of the LoRA for each task, torch.optim.SGD, backward
FastWeights             torch.func.functional_call with the task's own tensors
TorchOpt                torchopt.MetaSGD on the LoRA's modules, and its utilities for states
Learn2learn             learn2learn's MAML class
gap                     how far two (loss, gradient) are from each other
"""

import copy
import importlib
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from types import ModuleType
from typing import Any, NamedTuple

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils.rnn import pad_sequence

from innerloop.data.tasks import Batch
from innerloop.spaces.lora import LoraSettings

Rows = list[tuple[Tensor, Tensor]]
MetaTask = tuple[Rows, Rows]
Values = dict[str, Tensor]
LossAndGradient = tuple[float, Values]


class Rates(NamedTuple):
    """K inner steps of SGD, and AdamW's rate outside."""

    steps: int
    inner: float
    outer: float


def rows_of(batch: Batch) -> list[Rows]:
    return [
        [(torch.tensor(each.tokens), torch.tensor((*[-100] * each.prompt, *each.scored))) for each in task]
        for task in batch.examples
    ]


def padded(rows: Rows) -> dict[str, Tensor]:
    tokens, labels = [row for row, _ in rows], [row for _, row in rows]
    return {
        "input_ids": pad_sequence(tokens, batch_first=True),
        "attention_mask": pad_sequence([torch.ones_like(row) for row in tokens], batch_first=True),
        "labels": pad_sequence(labels, batch_first=True, padding_value=-100),
    }


def peft_model(model: nn.Module, values: Mapping[str, Tensor], settings: LoraSettings) -> nn.Module:
    """values: "<module>.lora_A" (R, I) and "<module>.lora_B" (O, R); the base's weights are shared, not copied."""
    shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    modules = sorted({name.rpartition(".")[0] for name in values})
    options: dict[str, Any] = {"r": settings.r, "lora_alpha": settings.lora_alpha, "use_rslora": settings.use_rslora}
    twin: Any = copy.deepcopy(model, shared)
    made = get_peft_model(twin, LoraConfig(**options, target_modules=modules)).eval()
    with torch.no_grad():
        for name, value in trained(made).items():
            value.copy_(values[own_name(name)])
    return made


def trained(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: value for name, value in model.named_parameters() if value.requires_grad}


def own_name(name: str) -> str:
    """PEFT's name of a matrix -> "<module>.lora_A"."""
    return name.removeprefix("base_model.model.").removesuffix(".default.weight")


class Contender(ABC):
    """model: PEFT's. A meta-step leaves the mean of the tasks' query gradients in `.grad` and lets AdamW step."""

    note = ""

    def __init__(
        self,
        model: nn.Module,
        rounds: Sequence[list[MetaTask]],
        *,
        values: Values,
        settings: LoraSettings,
        rates: Rates,
    ) -> None:
        self.model, self.rounds, self.rates = peft_model(model, values, settings), rounds, rates
        self.values = trained(self.model)
        self.outer = torch.optim.AdamW(self.values.values(), lr=rates.outer, weight_decay=0.0)

    @abstractmethod
    def one_task(self, support: Rows, query: Rows) -> float:
        """Add the query gradient at the adapted values to `.grad`; the query loss."""

    def loss(self, rows: Rows) -> Tensor:
        return self.model(**padded(rows), use_cache=False).loss

    def step(self, tasks: list[MetaTask]) -> float:
        loss = self._outer_gradient(tasks)
        self.outer.step()
        return loss

    def seconds(self, index: int) -> float:
        started = time.perf_counter()
        self.step(self.rounds[index])
        return time.perf_counter() - started

    def gradient(self, index: int) -> LossAndGradient:
        loss = self._outer_gradient(self.rounds[index])
        return loss, {own_name(name): _grad(value).clone() for name, value in self.values.items()}

    def _outer_gradient(self, tasks: list[MetaTask]) -> float:
        self.outer.zero_grad()
        losses = [self.one_task(*task) for task in tasks]
        for value in self.values.values():
            _grad(value).div_(len(tasks))
        return sum(losses) / len(tasks)

    def _add(self, gradient: Sequence[Tensor]) -> None:
        for value, grad in zip(self.values.values(), gradient, strict=True):
            value.grad = grad if value.grad is None else value.grad.add_(grad)


class Naive(Contender):
    def one_task(self, support: Rows, query: Rows) -> float:
        values = list(self.values.values())
        kept = [value.detach().clone() for value in values]
        outer = [value.grad for value in values]
        inner = torch.optim.SGD(values, lr=self.rates.inner)
        for _ in range(self.rates.steps):
            inner.zero_grad()
            self.loss(support).backward()
            inner.step()
        inner.zero_grad()
        loss = self.loss(query)
        loss.backward()
        gradient = [_grad(value) for value in values]
        with torch.no_grad():
            for value, start, grad in zip(values, kept, outer, strict=True):
                value.copy_(start)
                value.grad = grad
        self._add(gradient)
        return float(loss.detach())


class FastWeights(Contender):
    def one_task(self, support: Rows, query: Rows) -> float:
        fast: dict[str, Tensor] = {name: value.detach().requires_grad_() for name, value in self.values.items()}
        for _ in range(self.rates.steps):
            gradient = torch.autograd.grad(self._loss(fast, support), list(fast.values()))
            fast = {
                name: (value - self.rates.inner * grad).detach().requires_grad_()
                for (name, value), grad in zip(fast.items(), gradient, strict=True)
            }
        loss = self._loss(fast, query)
        self._add(torch.autograd.grad(loss, list(fast.values())))
        return float(loss.detach())

    def _loss(self, fast: Mapping[str, Tensor], rows: Rows) -> Tensor:
        return functional_call(self.model, dict(fast), (), {**padded(rows), "use_cache": False}).loss


class TorchOpt(Contender):
    """The graph of each inner step is built (MetaSGD always does) and cut off again: first order."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.torchopt = importlib.import_module("torchopt")
        self.note = f"torchopt {version('torchopt')}: MetaSGD on the LoRA's modules, stop_gradient after each step"
        # MetaSGD differentiates by every parameter it is given, and the base's are frozen
        self.names = [name.rpartition(".")[0] for name in self.values]
        self.adapters = nn.ModuleList([self.model.get_submodule(name) for name in self.names])

    def one_task(self, support: Rows, query: Rows) -> float:
        start = self.torchopt.extract_state_dict(self.adapters, by="reference")
        inner = self.torchopt.MetaSGD(self.adapters, lr=self.rates.inner)
        for _ in range(self.rates.steps):
            inner.step(self.loss(support))
            self.torchopt.stop_gradient(self.adapters)
        loss = self.loss(query)
        adapted: list[Any] = [self.model.get_submodule(name).weight for name in self.names]
        gradient = torch.autograd.grad(loss, adapted)
        self.torchopt.recover_state_dict(self.adapters, start)
        self._add(gradient)
        return float(loss.detach())


class Learn2learn(Contender):
    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        kind, self.note = _learn2learn()
        self.maml = kind(self.model, lr=self.rates.inner, first_order=True, allow_nograd=True)

    def one_task(self, support: Rows, query: Rows) -> float:
        learner = self.maml.clone()
        for _ in range(self.rates.steps):
            learner.adapt(learner(**padded(support), use_cache=False).loss)
        loss = learner(**padded(query), use_cache=False).loss
        loss.backward()  # through the clone: adds to the `.grad` of what was cloned
        return float(loss.detach())


DOES_NOT_BUILD = (
    "`pip install learn2learn` (0.2.0) fails on Python 3.11: learn2learn/data/meta_dataset.c:210:12: fatal error: "
    "longintrepr.h: No such file or directory; learn2learn.algorithms.maml of its source archive was imported alone"
)


def _learn2learn() -> tuple[Any, str]:
    """The MAML class and where it is from. Neither package's __init__ is run: they import what needs compiled code."""
    if "learn2learn.algorithms.maml" not in sys.modules:
        spec = find_spec("learn2learn")
        if spec is None or not spec.submodule_search_locations:
            raise ImportError("No module named 'learn2learn': its source archive is not on the path")
        folder = next(iter(spec.submodule_search_locations))
        for name, path in (("learn2learn", folder), ("learn2learn.algorithms", f"{folder}/algorithms")):
            sys.modules[name] = ModuleType(name)
            sys.modules[name].__path__ = [path]
    try:
        note = f"learn2learn {version('learn2learn')}"
    except PackageNotFoundError:
        note = DOES_NOT_BUILD
    return importlib.import_module("learn2learn.algorithms.maml").MAML, note


def gap(ours: LossAndGradient, theirs: LossAndGradient) -> dict[str, float]:
    """loss: relative; gradient: norm of the difference over the norm of ours. Raises KeyError for other names."""
    (our_loss, our_gradient), (their_loss, their_gradient) = ours, theirs
    if our_gradient.keys() != their_gradient.keys():
        raise KeyError(*sorted(our_gradient.keys() ^ their_gradient.keys())[:3])
    norm = torch.stack([value.double().square().sum() for value in our_gradient.values()]).sum().sqrt()
    apart = [(value.double() - their_gradient[name].double()).square().sum() for name, value in our_gradient.items()]
    return {
        "loss": abs(our_loss - their_loss) / abs(our_loss),
        "gradient": float(torch.stack(apart).sum().sqrt() / norm),
    }


def _grad(value: Tensor) -> Tensor:
    assert value.grad is not None
    return value.grad
