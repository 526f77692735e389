"""What one step of adaptation takes, however many examples there are: peak memory and processor time.

    python benchmarks/bounds.py [ROW ...]     writes benchmarks/results/bounds.json, a row when it is measured

Each row is a process of its own that loads SmolLM2-135M and takes one step of plain SGD on examples of 500 tokens, as
`innerloop adapt` does. A row that was measured before stays until it is measured again: `lora-300` takes long.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

from record import header, write_result

RESULT = Path(__file__).parent / "results" / "bounds.json"
MODEL = "smollm2-135m-q4_1"
TOKENS, ANSWER = 500, 100  # of an example, and of them its answer's


class Row(NamedTuple):
    trains: str
    examples: int

    @property
    def name(self) -> str:
        return f"{self.trains}-{self.examples}"


ROWS = (Row("lora", 8), Row("all", 8), Row("lora", 64), Row("lora", 300))


def measured(row: Row) -> dict[str, Any]:
    import torch

    from innerloop.data.encoding import EncodedTask
    from innerloop.data.tasks import Task
    from innerloop.data.token_ids import Encoded
    from innerloop.evaluation.kshot import Chunk, adapted, tokens_per_forward
    from innerloop.learning.inner_loop import InnerLoop
    from innerloop.loading.models import load
    from innerloop.machine import peak_memory
    from innerloop.numerics.optimizers import Sgd
    from innerloop.spaces.all_parameters import AllParameters
    from innerloop.spaces.lora import LoraSettings, LoraSpace
    from innerloop.spaces.loss import AnswerLoss

    model = load(MODEL, dtype="float32", device="cpu")
    loss = AnswerLoss(model.model)
    space = (
        LoraSpace(model.model, loss, LoraSettings(r=16), seed=0)
        if row.trains == "lora"
        else AllParameters(model.model, loss)
    )
    drawn = torch.randint(100, 40_000, (row.examples, TOKENS), generator=torch.Generator().manual_seed(0)).tolist()
    prompt = TOKENS - ANSWER
    support = [Encoded(str(n), tuple(tokens), prompt) for n, tokens in enumerate(drawn)]
    before = peak_memory()["rss"] / 1e9
    started, cpu = time.perf_counter(), time.process_time()
    chunk = Chunk([EncodedTask(Task("", ()), tuple(support), (), dropped=0, truncated=0)], [support])
    found = adapted(space, InnerLoop(steps=1, optimizer=Sgd(lr=1e-3)), chunk)
    return {
        "trains": "LoRA r = 16, all layers" if row.trains == "lora" else "all parameters",
        "examples": row.examples,
        "tokens": row.examples * TOKENS,
        "tokens_per_forward": tokens_per_forward(space.device),
        "loss": float(found.losses[0, 0]),
        "peak_gb": peak_memory()["rss"] / 1e9,
        "peak_gb_before": before,
        "cpu_seconds": time.process_time() - cpu,
        "seconds": time.perf_counter() - started,
        "environment": header(model),
    }


def bounds_table(found: dict[str, Any]) -> list[str]:
    lines = [
        "| trained | examples | tokens | peak RSS, GB | before the step, GB | CPU s |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for row in found["rows"].values():
        sizes = f"{row['peak_gb']:.2f} | {row['peak_gb_before']:.2f} | {row['cpu_seconds']:.0f}"
        lines.append(f"| {row['trains']} | {row['examples']} | {row['tokens']:,} | {sizes} |")
    left = [row.name for row in ROWS if row.name not in found["rows"]]
    return [*lines, *([f"\nNot yet measured: {', '.join(left)}."] if left else [])]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", metavar="ROW")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    chosen = [row for row in ROWS if not asked.rows or row.name in asked.rows]
    if asked.child:
        print(json.dumps(measured(chosen[0])))
        return
    known: dict[str, Any] = json.loads(RESULT.read_text(encoding="utf-8"))["rows"] if RESULT.exists() else {}
    for row in chosen:
        command = [sys.executable, __file__, "--child", row.name]
        said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        known[row.name] = json.loads(said.splitlines()[-1])
        write_result(RESULT, {"rows": {each.name: known[each.name] for each in ROWS if each.name in known}})


if __name__ == "__main__":
    main()
