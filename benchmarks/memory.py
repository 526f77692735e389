"""Peak memory of one way to do first-order MAML on all parameters, beside two others. Writes results/memory.json.

python benchmarks/memory.py --output benchmarks/results/memory.json     (half an hour on two cores)

SmolLM2-135M's shape with random weights, on the CPU: two outer steps of 4 tasks x (3 + 1) passes x 8 examples x 64
tokens, 16 of them scored, AdamW outside. Each case is a process of its own.

the literature's way   weights cloned for each task in one graph, full logits, one backward over the sum of the query
                       losses. Checkpointing is left out: under functional_call its recomputation reads other weights
deepcopy               a copy of the model and torch.optim for one task at a time, full logits
innerloop              the run's own trainer
2 passes               of one task with one inner step, once, in place of two steps of 4 x (3 + 1). The peak is the
                       same, as the float32 case shows; a CPU without bfloat16 products would take hours for more

Peaks are those of the resident set. `used` is above the process's own share, taken after a step of a tiny model.
MALLOC_MMAP_THRESHOLD_ is set so that freed memory is given back at once, for all cases alike.
"""

import argparse
import copy
import gc
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch
from record import header, write_result
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from innerloop.config.loading import load_config
from innerloop.data.batches import collate
from innerloop.data.tasks import Batch, TaskBatch
from innerloop.data.token_ids import Encoded
from innerloop.engine.parts import make_space, make_trainer
from innerloop.loading.shapes import model_shape
from innerloop.machine import commit, peak_memory, reset_peak_memory

TASKS, STEPS, EXAMPLES, TOKENS, SCORED, OUTER_STEPS, INNER_LR, OUTER_LR = 4, 3, 8, 64, 16, 2, 1e-3, 1e-5
TINY = {"num_hidden_layers": 2, "hidden_size": 48, "intermediate_size": 64, "vocab_size": 256}
FEWEST = "2 passes"
ENVIRONMENT = {"MALLOC_MMAP_THRESHOLD_": "65536"}

Step = Callable[[], None]


def batches(vocabulary: int) -> list[tuple[Batch, Batch]]:
    """(support, query) of each task."""
    generator = torch.Generator().manual_seed(0)

    def one(name: str) -> Encoded:
        tokens = torch.randint(vocabulary, (TOKENS,), generator=generator).tolist()
        return Encoded(name, tuple(tokens), TOKENS - SCORED)

    def batch(name: str) -> Batch:
        return collate([[one(f"{name}/{index}") for index in range(EXAMPLES)]])

    return [(batch(f"{task}/support"), batch(f"{task}/query")) for task in range(TASKS)]


def _labels(batch: Batch) -> Tensor:
    """(T, B, S) tokens where they are scored, -100 elsewhere."""
    labels = torch.full_like(batch.tokens, -100).flatten()
    labels[batch.scored_rows + 1] = batch.targets
    return labels.view_as(batch.tokens)


def full_loss(logits_BSV: Tensor, batch: Batch) -> Tensor:
    return cross_entropy(logits_BSV[:, :-1].flatten(0, 1), _labels(batch)[0, :, 1:].flatten(), ignore_index=-100)


def literature(model: nn.Module, tasks: list[tuple[Batch, Batch]]) -> Step:
    theta = dict(model.requires_grad_(True).named_parameters())
    outer = torch.optim.AdamW(theta.values(), lr=OUTER_LR, weight_decay=0.0)

    def loss(weights: dict[str, Tensor], batch: Batch) -> Tensor:
        arguments = {"input_ids": batch.tokens[0], "use_cache": False}
        return full_loss(functional_call(model, weights, (), arguments).logits, batch)

    def step() -> None:
        outer.zero_grad()
        losses: list[Tensor] = []
        for support, query in tasks:
            fast = {name: value.clone() for name, value in theta.items()}
            for _ in range(STEPS):
                gradient = torch.autograd.grad(loss(fast, support), list(fast.values()))
                fast = {name: fast[name] - INNER_LR * grad for name, grad in zip(fast, gradient, strict=True)}
            losses.append(loss(fast, query))
        torch.stack(losses).mean().backward()
        outer.step()

    return step


def deepcopied(model: nn.Module, tasks: list[tuple[Batch, Batch]], *, checkpointing: bool) -> Step:
    theta = dict(model.requires_grad_(True).named_parameters())
    outer = torch.optim.AdamW(theta.values(), lr=OUTER_LR, weight_decay=0.0)
    if checkpointing:
        cast(Any, model).gradient_checkpointing_enable({"use_reentrant": False})
        model.train()  # transformers checkpoints in training alone; this family has no dropout

    def loss(adapted: nn.Module, batch: Batch) -> Tensor:
        return full_loss(adapted(input_ids=batch.tokens[0], use_cache=False).logits, batch)

    def one_task(support: Batch, query: Batch) -> None:
        adapted = copy.deepcopy(model)  # without gradients
        inner = torch.optim.SGD(adapted.parameters(), lr=INNER_LR)
        for _ in range(STEPS):
            inner.zero_grad()
            loss(adapted, support).backward()
            inner.step()
        inner.zero_grad()
        (loss(adapted, query) / TASKS).backward()
        for shared, value in zip(theta.values(), adapted.parameters(), strict=True):
            assert value.grad is not None
            shared.grad = value.grad if shared.grad is None else shared.grad.add_(value.grad)

    def step() -> None:
        outer.zero_grad()
        for support, query in tasks:
            one_task(support, query)
        outer.step()

    return step


def ours(model: Any, tasks: list[tuple[Batch, Batch]], *, steps: int = STEPS, **memory: bool) -> Step:
    dtype = str(model.dtype).removeprefix("torch.")
    inner = {"steps": steps, "optimizer": {"name": "sgd", "lr": INNER_LR}}
    config = load_config(
        {
            "model": {"name": "random", "dtype": dtype, "device": "cpu"},
            "tasks": {"suite": "math-science"},
            "method": {"name": "fomaml", "inner": inner},
            "outer": {"optimizer": {"name": "adamw", "lr": OUTER_LR}, "clip": None},
            "memory": memory,
            "output_dir": "unused",
        }
    )
    support, query = zip(*tasks, strict=True)
    names = tuple(map(str, range(len(tasks))))
    step_tasks = TaskBatch(names, [joined(support)] * steps, joined(query))
    trainer = make_trainer(config, make_space(config, model))

    def step() -> None:
        trainer.step(step_tasks)

    return step


def joined(parts: tuple[Batch, ...]) -> Batch:
    """One batch of all tasks, from batches of one each."""
    rows = [part.scored_rows + task * part.tokens.numel() for task, part in enumerate(parts)]
    return Batch(
        tokens=torch.cat([part.tokens for part in parts]),
        scored_rows=torch.cat(rows),
        row_task=torch.cat([part.row_task + task for task, part in enumerate(parts)]),
        examples=tuple(examples for part in parts for examples in part.examples),
    )


def fewest(model: Any, tasks: list[tuple[Batch, Batch]], **memory: bool) -> Step:
    """One task and one inner step: the peak of a step is the same with more of either."""
    return ours(model, tasks[:1], steps=1, **memory)


CASES: dict[str, tuple[str, Callable[[Any, list[tuple[Batch, Batch]]], Step]]] = {
    "the literature's way": ("float32", literature),
    "deepcopy": ("float32", lambda model, tasks: deepcopied(model, tasks, checkpointing=False)),
    "deepcopy, checkpointed": ("float32", lambda model, tasks: deepcopied(model, tasks, checkpointing=True)),
    "innerloop": ("float32", lambda model, tasks: ours(model, tasks)),
    "innerloop, checkpointed": ("float32", lambda model, tasks: ours(model, tasks, checkpointing=True)),
    "innerloop, checkpointed, 2 passes": ("float32", lambda model, tasks: fewest(model, tasks, checkpointing=True)),
    "innerloop, lean, 2 passes": ("bfloat16", lambda model, tasks: fewest(model, tasks, lean=True)),
}
TARGETS = [  # (case, beside, at most)
    ("innerloop", "the literature's way", 0.55),
    ("innerloop, checkpointed", "deepcopy", 0.85),
    ("innerloop, lean, 2 passes", "deepcopy", 0.70),
    ("innerloop", "deepcopy", None),
    ("innerloop, checkpointed", "deepcopy, checkpointed", None),
    ("innerloop, checkpointed, 2 passes", "innerloop, checkpointed", None),
]


def built(name: str, *, tiny: bool) -> Step:
    from transformers import AutoModelForCausalLM

    dtype, way = CASES[name]
    shape = copy.deepcopy(model_shape("HuggingFaceTB/SmolLM2-135M"))
    for key, value in TINY.items() if tiny else ():
        setattr(shape, key, value)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(shape, dtype=getattr(torch, dtype)).eval().requires_grad_(False)
    return way(model, batches(shape.vocab_size))


def child(name: str, *, tiny: bool) -> None:
    built(name, tiny=True)()
    gc.collect()
    reset_peak_memory()
    share = peak_memory()["rss"]
    step = built(name, tiny=tiny)
    for _ in range(1 if FEWEST in name else OUTER_STEPS):  # ours has the optimizer's state from the start
        step()
    peak = peak_memory()["rss"]
    print(json.dumps({"peak_rss": peak, "used": peak - share}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, help="cases that it has are not run again")
    parser.add_argument("--tiny", action="store_true", help="a model of a few thousand parameters, to try the script")
    parser.add_argument("--child", choices=list(CASES))
    options = parser.parse_args()
    if options.child:
        child(options.child, tiny=options.tiny)
        return
    begun = options.output and options.output.exists()
    rows: dict[str, dict[str, Any]] = json.loads(options.output.read_text())["rows"] if begun else {}
    for name in CASES:
        rows[name] = rows.get(name) or measured(name, tiny=options.tiny)
        if options.output:
            write_result(options.output, header() | {"rows": rows, "ratios": ratios(rows)})
        print(f"{name:32} {rows[name]['peak_rss'] / 1e9:6.2f} GB peak RSS, {rows[name]['used'] / 1e9:6.2f} GB used")
    for ratio in ratios(rows):
        aimed = f", aimed at {ratio['target']:.2f}" if ratio["target"] else ""
        print(f"{ratio['case']} / {ratio['beside']}: {ratio['peak_rss']:.2f}{aimed}")


def measured(name: str, *, tiny: bool) -> dict[str, Any]:
    """Of a process of its own, and what ran: a file may be filled over several commits."""
    command = [sys.executable, __file__, "--child", name, *["--tiny"] * tiny]
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=os.environ | ENVIRONMENT)
    steps = 1 if FEWEST in name else OUTER_STEPS
    ran = {"commit": commit(), "threads": torch.get_num_threads(), "outer_steps": steps}
    return json.loads(printed.stdout.splitlines()[-1]) | ran


def ratios(rows: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Of the cases that are done."""
    return [
        {"case": case, "beside": beside, "peak_rss": rows[case]["peak_rss"] / rows[beside]["peak_rss"], "target": most}
        for case, beside, most in TARGETS
        if case in rows and beside in rows
    ]


if __name__ == "__main__":
    main()
