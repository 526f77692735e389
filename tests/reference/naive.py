"""The methods the slow and obvious way: deepcopy, torch.optim, full logits, one example and one task at a time.

outer_gradient   the mean over tasks of a method's gradient, by trainable parameter of the model
train            several outer steps with torch.optim
with_lora        a PEFT model that holds given values of A and B

A task is (support, query): a list of examples for each inner step, and a list of examples. An example has `tokens`
and `labels` (-100 = not scored). What is trained is whatever has requires_grad.
"""

from copy import deepcopy
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from peft import LoraConfig, get_peft_model
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.utils import clip_grad_norm_


@dataclass
class Inner:
    """The inner optimizer. ratio: how many times faster LoRA's B learns than A."""

    steps: int
    lr: float
    adamw: bool = False
    clip: float | None = None
    ratio: float = 1.0
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0

    def rate(self, name):
        return self.lr * self.ratio if "lora_B" in name else self.lr

    def optimizer(self, model):
        groups = [{"params": [value], "lr": self.rate(name)} for name, value in trainable(model).items()]
        if self.adamw:
            return torch.optim.AdamW(groups, betas=self.betas, eps=self.eps, weight_decay=self.weight_decay)
        return torch.optim.SGD(groups)


def trainable(model):
    return {name: value for name, value in model.named_parameters() if value.requires_grad}


def loss(model, examples, values=None):
    """Mean nats a scored token, each example on its own: nothing is padded."""
    nats, count = 0.0, 0
    for example in examples:
        inputs = {"input_ids": torch.tensor([example.tokens])}
        output = model(**inputs) if values is None else functional_call(model, values, (), inputs)
        targets = torch.tensor(example.labels)[1:]
        nats = nats + F.cross_entropy(output.logits[0, :-1], targets, ignore_index=-100, reduction="sum")
        count += int((targets != -100).sum())
    return nats / count


def gradient(model, examples):
    values = trainable(model)
    grads = torch.autograd.grad(loss(model, examples), list(values.values()))
    return dict(zip(values, grads, strict=True))


def adapt(model, support, inner):
    """A copy of the model after K steps."""
    model = deepcopy(model)
    optimizer = inner.optimizer(model)
    for examples in support[: inner.steps]:
        optimizer.zero_grad()
        loss(model, examples).backward()
        if inner.clip is not None:
            clip_grad_norm_(trainable(model).values(), inner.clip)
        optimizer.step()
    return model


def fomaml(model, task, inner):
    support, query = task
    return gradient(adapt(model, support, inner), query)


def reptile(model, task, inner):
    adapted = trainable(adapt(model, task[0], inner))
    return {name: (value - adapted[name]).detach() for name, value in trainable(model).items()}


def joint(model, task, inner):
    return gradient(model, task[1])


def maml(model, task, inner):
    """The whole inner loop stays in one graph, and the query loss is differentiated through it."""
    support, query = task
    start = trainable(model)
    values = dict(start)
    with sdpa_kernel(SDPBackend.MATH):
        for examples in support[: inner.steps]:
            grads = torch.autograd.grad(loss(model, examples, values), list(values.values()), create_graph=True)
            norm = torch.sqrt(sum((g**2).sum() for g in grads))
            factor = 1.0 if inner.clip is None else (inner.clip / (norm + 1e-6)).clamp(max=1.0)
            values = {
                name: value - inner.rate(name) * factor * g
                for (name, value), g in zip(values.items(), grads, strict=True)
            }
        grads = torch.autograd.grad(loss(model, query, values), list(start.values()))
    return dict(zip(start, grads, strict=True))


def meta_lora(model, tasks, inner):
    """Stage 1 adapts every task and keeps the adapted models; stage 2 averages their query gradients."""
    adapted = [adapt(model, support, inner) for support, _ in tasks]
    return mean([gradient(kept, query) for kept, (_, query) in zip(adapted, tasks, strict=True)])


def mean(gradients):
    return {name: torch.stack([g[name] for g in gradients]).mean(0) for name in gradients[0]}


RULES = {"fomaml": fomaml, "maml": maml, "reptile": reptile, "joint": joint, "lora": joint}


def outer_gradient(method, model, tasks, inner):
    """method: a name of the table, its "-lora" included."""
    if method == "meta-lora":
        return meta_lora(model, tasks, inner)
    rule = RULES[method.removesuffix("-lora")]
    return mean([rule(model, task, inner) for task in tasks])


def train(method, model, rounds, inner, optimizer, clip=None):
    """Outer steps in place on `model`; `rounds`: the tasks of each."""
    for tasks in rounds:
        optimizer.zero_grad()
        for name, grad in outer_gradient(method, model, tasks, inner).items():
            trainable(model)[name].grad = grad
        if clip is not None:
            clip_grad_norm_(trainable(model).values(), clip)
        optimizer.step()


def with_lora(model, values, settings):
    """A PEFT model of a copy of `model`; values: "<module>.lora_A" -> (R, I), "<module>.lora_B" -> (O, R)."""
    modules = sorted({name.rpartition(".")[0] for name in values})
    config = LoraConfig(
        r=settings.r, lora_alpha=settings.lora_alpha, use_rslora=settings.use_rslora, target_modules=modules
    )
    peft_model = get_peft_model(deepcopy(model), config).eval()
    with torch.no_grad():
        for name, value in trainable(peft_model).items():
            value.copy_(values[own_name(name)])
    return peft_model


def own_name(name):
    """PEFT's name of a matrix -> "<module>.lora_A"."""
    return name.removeprefix("base_model.model.").removesuffix(".default.weight")
