"""One fomaml-lora step of SmolLM2-135M on this machine: tokens a second and peak memory.

    python benchmarks/step.py --output benchmarks/results/NAME.json

4 tasks x (3 inner + 1 query) passes x 8 examples x 32 tokens, a quarter of them scored; LoRA r=16 on all linears,
float32. Each case runs in a process of its own, and the cases alternate, because the machine's speed drifts. The
yardstick is the bare model: transformers' own forward and backward of one task's 8 x 32 tokens, without LoRA.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from record import header, write_result

from innerloop.data.batches import collate
from innerloop.data.tasks import TaskBatch
from innerloop.data.token_ids import Encoded
from innerloop.engine.trainer import Trainer
from innerloop.learning.inner_loop import InnerLoop
from innerloop.learning.methods import Fomaml
from innerloop.loading.models import LoadedModel, load
from innerloop.machine import peak_memory
from innerloop.numerics.optimizers import AdamW, Sgd
from innerloop.spaces.lora import LoraSettings, LoraSpace
from innerloop.spaces.loss import AnswerLoss

TASKS, STEPS, LENGTH, SCORED = 4, 3, 32, 8
CASES = {  # name -> (examples a task, tasks a forward); None = the bare model
    "bare model": (8, None),
    "4 tasks a forward": (8, 4),
    "2 tasks a forward": (8, 2),
    "1 task a forward": (8, 1),
    "1 example, 4 tasks a forward": (1, 4),
    "1 example, 1 task a forward": (1, 1),
}


def batch(examples: int, seed: int) -> Any:
    draw = torch.Generator().manual_seed(seed)

    def example(name: str) -> Encoded:
        tokens = tuple(torch.randint(1000, 40000, (LENGTH,), generator=draw).tolist())
        return Encoded(name, tokens, LENGTH - SCORED)

    return collate([[example(f"{seed}/{task}/{i}") for i in range(examples)] for task in range(TASKS)])


def bare_step(model: LoadedModel, examples: int) -> Callable[[], int]:
    tokens = batch(examples, 0).tokens[0]
    embed = model.model.get_input_embeddings()

    def step() -> int:
        inputs = embed(tokens).detach().requires_grad_()  # so that the backward goes through every layer
        model.model(inputs_embeds=inputs, labels=tokens, use_cache=False).loss.backward()
        return tokens.numel()

    return step


def engine_step(model: LoadedModel, examples: int, tasks_per_forward: int) -> Callable[[], int]:
    settings = LoraSettings(r=16, lora_alpha=32)
    space = LoraSpace(model.model, AnswerLoss(model.model), settings, seed=0)
    method = Fomaml(inner=InnerLoop(steps=STEPS, optimizer=Sgd(lr=0.1, clip=1.0)))
    trainer = Trainer(space, method, AdamW(lr=1e-3), tasks_per_forward=tasks_per_forward)
    names = tuple(str(task) for task in range(TASKS))
    tasks = TaskBatch(names, [batch(examples, 0)] * STEPS, batch(examples, 1))
    return lambda: trainer.step(tasks).tokens


def child(name: str, repeats: int) -> None:
    """Print the tokens a second of each repeat, and the peak, as JSON."""
    examples, tasks_per_forward = CASES[name]
    model = load("smollm2-135m-q4_1")
    loaded = peak_memory()["rss"]
    step = bare_step(model, examples) if tasks_per_forward is None else engine_step(model, examples, tasks_per_forward)
    step()
    rates: list[float] = []
    for _ in range(repeats):
        started = time.perf_counter()
        tokens = step()
        rates.append(tokens / (time.perf_counter() - started))
    print(json.dumps({"rates": rates, "peak_rss": peak_memory()["rss"], "rss_after_loading": loaded}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--child", choices=list(CASES))
    options = parser.parse_args()
    if options.child:
        child(options.child, repeats=2 if "example" not in options.child else 4)
        return
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in CASES}
    for _ in range(options.rounds):
        for name in CASES:
            command = [sys.executable, __file__, "--child", name]
            printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            found[name].append(json.loads(printed.splitlines()[-1]))
    rows = {
        name: {
            "tokens_per_second": statistics.median(rate for run in runs for rate in run["rates"]),
            "peak_rss_gb": max(run["peak_rss"] for run in runs) / 1e9,
            "runs": runs,
        }
        for name, runs in found.items()
    }
    bare = rows["bare model"]["tokens_per_second"]
    for name, row in rows.items():
        rate = row["tokens_per_second"]
        print(f"{name:30} {rate:7.0f} tokens/s  {rate / bare:5.2f}x bare  {row['peak_rss_gb']:.2f} GB peak RSS")
    stacked = [rows[f"1 example, {n} a forward"]["tokens_per_second"] for n in ("4 tasks", "1 task")]
    print(f"4 tasks of 1 example in one forward: {stacked[0] / stacked[1]:.2f}x the tokens/s of one task at a time")
    if options.output:
        write_result(options.output, header() | {"rows": rows, "stacking_gain": stacked[0] / stacked[1]})


if __name__ == "__main__":
    main()
