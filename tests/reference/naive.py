"""The methods the obvious way: deepcopy, torch.optim, full logits, one example and one task at a time.

A task is (support, query): a list of examples for each inner step, and a list of examples, whose answers
are scored. What is trained is whatever has requires_grad.
"""

from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import cross_entropy
from torch.nn.utils import clip_grad_norm_
from torch.optim import Optimizer

from innerloop.data.token_ids import Encoded
from innerloop.spaces.lora import LoraSettings

Values = dict[str, Tensor]
Examples = list[Encoded]
Task = tuple[list[Examples], Examples]


@dataclass
class Inner:
    """ratio: how much faster B learns than A; adamw: what torch.optim.AdamW takes beside lr, None: SGD.

    weights: of the query loss after each step, None: the last alone; anchor: of the support loss before any;
    only: parts of the names of what adapts.
    """

    steps: int
    lr: float
    clip: float | None = None
    ratio: float = 1.0
    adamw: dict[str, object] | None = None
    weights: list[float] | None = None
    anchor: float = 0.0
    only: tuple[str, ...] = ("",)

    def adapts(self, name: str) -> bool:
        return any(part in name for part in self.only)

    def rate(self, name: str) -> float:
        return self.lr * self.ratio if "lora_B" in name else self.lr

    def moved(self, model: nn.Module) -> Values:
        return {name: value for name, value in trainable(model).items() if self.adapts(name)}

    def optimizer(self, model: nn.Module) -> Optimizer:
        groups = [{"params": [value], "lr": self.rate(name)} for name, value in self.moved(model).items()]
        return torch.optim.SGD(groups) if self.adamw is None else adamw(groups, **self.adamw)


def adamw(groups: list[dict[str, Any]], **settings: Any) -> Optimizer:
    """torch's, with weight decay of matrices alone, as transformers' Trainer groups them."""
    still = [{} if group["params"][0].dim() > 1 else {"weight_decay": 0.0} for group in groups]
    return torch.optim.AdamW([group | none for group, none in zip(groups, still, strict=True)], **settings)


def trainable(model: nn.Module) -> Values:
    return {name: value for name, value in model.named_parameters() if value.requires_grad}


def token_nats(model: nn.Module, example: Encoded, values: Values | None = None) -> Tensor:
    """(S - 1,) nats of every token behind the first, the example on its own: nothing is padded."""
    tokens = torch.tensor(example.tokens)
    inputs = {"input_ids": tokens[None]}
    output = model(**inputs) if values is None else functional_call(model, values, (), inputs)
    return cross_entropy(output.logits[0, :-1], tokens[1:], reduction="none")


def loss(model: nn.Module, examples: Examples, values: Values | None = None) -> Tensor:
    """Mean nats per scored token."""
    nats = [(token_nats(model, each, values), each.answers) for each in examples]
    return torch.cat(
        [found[answer.start - 1 : answer.stop - 1] for found, answers in nats for answer in answers]
    ).mean()


def answer_nats(model: nn.Module, example: Encoded, *, stopping: bool = False) -> float:
    """Mean nats per token of the answer alone; stopping: of what ends it."""
    end = len(example.tokens) - example.end
    first, last = (end, len(example.tokens)) if stopping else (example.prompt + example.prefix, end)
    return token_nats(model, example)[first - 1 : last - 1].mean().item()


def gradient(model: nn.Module, examples: Examples) -> Values:
    values = trainable(model)
    grads = torch.autograd.grad(loss(model, examples), list(values.values()))
    return dict(zip(values, grads, strict=True))


def adapt(model: nn.Module, support: list[Examples], inner: Inner) -> nn.Module:
    """A copy of the model after K steps."""
    model = deepcopy(model)
    optimizer = inner.optimizer(model)
    for examples in support[: inner.steps]:
        model.zero_grad()
        loss(model, examples).backward()
        if inner.clip is not None:
            clip_grad_norm_(inner.moved(model).values(), inner.clip)
        optimizer.step()
    return model


def fomaml(model: nn.Module, task: Task, inner: Inner) -> Values:
    """Each query gradient is taken at its own copy, after so many steps from the start."""
    support, query = task
    weights = inner.weights or [0.0] * (inner.steps - 1) + [1.0]
    taken = [gradient(adapt(model, support[: k + 1], inner), query) for k in range(len(weights))]
    return total(
        [*zip(weights, taken, strict=True), *((inner.anchor, gradient(model, support[0])),) * (inner.anchor > 0)]
    )


def total(parts: list[tuple[float, Values]]) -> Values:
    return {name: sum(weight * grads[name] for weight, grads in parts) for name in parts[0][1]}  # pyright: ignore


def reptile(model: nn.Module, task: Task, inner: Inner) -> Values:
    adapted = trainable(adapt(model, task[0], inner))
    return {name: (value - adapted[name]).detach() for name, value in trainable(model).items()}


def joint(model: nn.Module, task: Task, inner: Inner) -> Values:
    return gradient(model, task[1])


def maml(model: nn.Module, task: Task, inner: Inner) -> Values:
    """The whole inner loop stays in one graph, and the query loss is differentiated through it."""
    start = values = trainable(model)
    weights = inner.weights or [0.0] * (inner.steps - 1) + [1.0]
    whole = inner.anchor * loss(model, task[0][0], start) if inner.anchor else torch.zeros(())
    with sdpa_kernel(SDPBackend.MATH):
        for examples, weight in zip(task[0], weights, strict=False):
            nats = loss(model, examples, values)
            grads = torch.autograd.grad(nats, list(values.values()), create_graph=True)
            norm = (
                torch.stack([(g**2).sum() for n, g in zip(values, grads, strict=True) if inner.adapts(n)]).sum().sqrt()
            )
            factor = 1.0 if inner.clip is None else (inner.clip / (norm + 1e-6)).clamp(max=1.0)
            step = {n: inner.rate(n) * factor * g * inner.adapts(n) for n, g in zip(values, grads, strict=True)}
            values = {name: value - step[name] for name, value in values.items()}
            if weight:
                whole = whole + weight * loss(model, task[1], values)
        grads = torch.autograd.grad(whole, list(start.values()))
    return dict(zip(start, grads, strict=True))


def meta_lora(model: nn.Module, tasks: list[Task], inner: Inner) -> Values:
    """Stage 1 adapts every task and keeps it; stage 2 averages the query gradients at the kept ones."""
    if inner.weights or inner.anchor:
        return mean([fomaml(model, task, inner) for task in tasks])
    adapted = [adapt(model, support, inner) for support, _ in tasks]
    return mean([gradient(kept, query) for kept, (_, query) in zip(adapted, tasks, strict=True)])


def mean(gradients: list[Values]) -> Values:
    return {name: torch.stack([g[name] for g in gradients]).mean(0) for name in gradients[0]}


def outer_gradient(method: str, model: nn.Module, tasks: list[Task], inner: Inner) -> Values:
    """The mean over tasks; method: a name of the table."""
    if method == "meta-lora":
        return meta_lora(model, tasks, inner)
    rule = {"fomaml": fomaml, "maml": maml, "reptile": reptile}.get(method.removesuffix("-lora"), joint)
    return mean([rule(model, task, inner) for task in tasks])


def train(
    method: str, model: nn.Module, rounds: list[list[Task]], inner: Inner, outer: Optimizer, *, clip: float
) -> None:
    """Outer steps in place on `model`; `rounds`: the tasks of each."""
    for tasks in rounds:
        for name, grad in outer_gradient(method, model, tasks, inner).items():
            trainable(model)[name].grad = grad
        clip_grad_norm_(trainable(model).values(), clip)
        outer.step()


def with_lora(model: nn.Module, values: Values, settings: LoraSettings) -> nn.Module:
    """A PEFT model of a copy of `model`; values: "<module>.lora_A" -> (R, I), "<module>.lora_B" -> (O, R)."""
    modules = sorted({name.rpartition(".")[0] for name in values})
    options = {"r": settings.r, "lora_alpha": settings.lora_alpha, "use_rslora": settings.use_rslora}
    peft_model = get_peft_model(deepcopy(model), LoraConfig(**options, target_modules=modules)).eval()
    with torch.no_grad():
        for name, value in trainable(peft_model).items():
            value.copy_(values[own_name(name)])
    return peft_model


def own_name(name: str) -> str:  # PEFT's name of a matrix -> "<module>.lora_A"
    return name.removeprefix("base_model.model.").removesuffix(".default.weight")
