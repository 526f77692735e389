"""How hard each built-in task is: exact match of SmolLM2-135M before and after adapting with 50 examples.

    python benchmarks/difficulty.py hidden-rules --rows /tmp/rows.jsonl --output benchmarks/results/NAME.json

Each task is adapted on its own, from a fresh LoRA: 25 AdamW steps of 10 of its 50 examples, five times through
them. Rows are appended as they are measured, so the script goes on where it was stopped.
"""

import argparse
import json
from pathlib import Path

from record import header, write_result

from innerloop.data.batches import collate, inner_batches
from innerloop.data.encoding import encode_all
from innerloop.data.suites import build_suite
from innerloop.learning.inner_loop import InnerLoop
from innerloop.loading.models import LoadedModel, load
from innerloop.numerics.optimizers import AdamW
from innerloop.numerics.tensors import TensorSet, per_task
from innerloop.spaces.lora import LoraSettings, LoraSpace
from innerloop.spaces.loss import AnswerLoss

SEEDS = (1, 2, 3)
EXAMPLES, BATCH, TESTS = 50, 10, 32
INNER = InnerLoop(steps=25, optimizer=AdamW(lr=3e-3, betas=(0.9, 0.99), clip=1.0))
LORA = LoraSettings(r=16, lora_alpha=32, layers="last-8")
CUT = 22  # of SmolLM2-135M's 30 layers
LOW, HIGH = 0.05, 0.95


def measure(model: LoadedModel, suite: str, seed: int, done: set[tuple[str, int]], rows: Path) -> None:
    instances = 1 if suite == "hidden-rules" else None
    tasks = build_suite(suite, seed=seed, examples_per_task=EXAMPLES, test_examples=TESTS, instances=instances)
    for task in encode_all(tasks, model.tokenizer, max_length=512, on_too_long="error"):
        if (task.task.name, seed) in done:
            continue
        space = LoraSpace(model.model, AnswerLoss(model.model, cut=CUT), LORA, seed=seed)
        test = collate([task.test])

        def exact(values: TensorSet, space: LoraSpace = space, test=test) -> float:
            with space.installed(values):
                return float(space.loss.score(test).exact.float().mean())

        start = per_task(space.shared, 1)
        support = inner_batches([task.pool], steps=INNER.steps, batch_size=BATCH)
        before, adapted = exact(start), INNER.adapt(space, start, support)
        row = {"task": task.task.name, "seed": seed, "k0": before, "k50": exact(adapted.values)}
        with rows.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(row, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suite", choices=["hidden-rules", "math-science"])
    parser.add_argument("--rows", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    options.rows.touch()
    found = [json.loads(line) for line in options.rows.read_text().splitlines()]
    model = load("smollm2-135m-q4_1")
    for seed in SEEDS:
        measure(model, options.suite, seed, {(row["task"], row["seed"]) for row in found}, options.rows)
    by_task: dict[str, list[dict[str, float]]] = {}
    for line in options.rows.read_text().splitlines():
        row = json.loads(line)
        by_task.setdefault(row["task"], []).append(row)
    means = {
        task: {key: sum(row[key] for row in rows) / len(rows) for key in ("k0", "k50")}
        for task, rows in by_task.items()
    }
    inside = sum(LOW < row["k50"] < HIGH for row in means.values()) / len(means)
    print(f"{inside:.0%} of {len(means)} tasks strictly between {LOW:.0%} and {HIGH:.0%} at k = {EXAMPLES}")
    write_result(
        options.output,
        header(model)
        | {"suite": options.suite, "examples": EXAMPLES, "tests": TESTS, "seeds": SEEDS, "inside": inside}
        | {"means": means, "rows": by_task},
    )


if __name__ == "__main__":
    main()
