"""Useful tokens of all that go through the model, on GSM8K: packed as a run does it, and padded. Computes no gradient.

python benchmarks/padding.py --gsm8k ../gsm8k --output benchmarks/results/padding.json     (half a minute)

The folder has GSM8K's train.jsonl; SmolLM2-135M's tokenizer. Every batch of the first 256 steps is drawn by the run's
own stream and split as its trainer does.

lora          one task, 8 examples a step
fomaml-lora   tasks of 100 consecutive problems; 4 per step, 8 support and 8 query examples of each

one forward   all tasks of a step in one forward, as on a GPU: filled up to the tokens of the longest one
as it runs    on a CPU: as many tasks per forward pass as its token budget gives, and no fillers
padded        every example filled up to the longest of its forward's
attention     pairs of tokens that attention looks at, of those in its rows: it works on examples, padded
"""

import argparse
import json
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from record import header, write_result

from innerloop.config.loading import load_config
from innerloop.data.tasks import Batch
from innerloop.engine.session import Session, prepare
from innerloop.loading.models import LoadedModel, load

MODEL, STEPS, SEED, TASK = "smollm2-135m-q4_1", 256, 7, 100
AT_LEAST = {"lora": 0.9, "fomaml-lora": 0.75}


def sessions(model: LoadedModel, folder: Path, *, examples: int = 8) -> dict[str, Session]:
    """folder: with GSM8K's train.jsonl."""
    rows = (folder / "train.jsonl").read_text(encoding="utf-8").splitlines()

    def session(method: str, size: int, tasks_per_step: int, **tasks: Any) -> Session:
        with tempfile.TemporaryDirectory() as place:
            for first in range(0, len(rows) - size + 1, size):
                path = Path(place, f"{first:05}.jsonl")
                path.write_text("".join(f"{row}\n" for row in rows[first : first + size]), encoding="utf-8")
            return prepare(_config(method, place, tasks_per_step, tasks), model=model)

    half, name = examples // 2, f"{0:05}"
    whole = {"support": half, "query": examples - half, "held_out": [name], "only": [name]}
    return {
        "lora": session("lora", len(rows), 1, **whole),
        "fomaml-lora": session("fomaml-lora", min(TASK, len(rows) // 4), 4, support=examples, query=examples),
    }


def _config(method: str, folder: str, tasks_per_step: int, tasks: dict[str, Any]) -> Any:
    columns = {"prompt": "question", "completion": "answer"}
    return load_config(
        {
            "model": {"name": MODEL, "device": "cpu"},
            "tasks": {"folder": folder, "columns": columns, "max_length": 512, "on_too_long": "drop", "test": 1}
            | tasks,
            "method": {"name": method},
            "outer": {"tasks_per_step": tasks_per_step},
            "seed": SEED,
            "output_dir": "unused",
        }
    )


def useful(session: Session, *, steps: int = STEPS) -> dict[str, float]:
    """Shares of the tokens of all passes."""
    _, stream = session.streams()[0]
    drawn = [stream[step] for step in range(steps)]
    count = session.tasks_per_forward(stream)
    whole = [batch for step in drawn for batch in step.batches]
    parts = [batch for step in drawn for chunk in step.split(count) for batch in chunk.batches]
    filled = [replace(batch, even=True).select(0, batch.tasks) for batch in whole]
    tokens = sum(batch.token_count for batch in whole)
    assert tokens == sum(batch.token_count for batch in parts)
    return {
        "tokens_a_step": tokens / steps,
        "tasks_per_forward": count,
        "one_forward": tokens / sum(batch.computed_tokens for batch in filled),
        "as_it_runs": tokens / sum(batch.computed_tokens for batch in parts),
        "padded": tokens / sum(batch.tokens.numel() for batch in whole),
        "attention": _pairs(whole),
    }


def _pairs(batches: Sequence[Batch]) -> float:
    """Pairs within an example, of those in a row as long as the longest example."""
    looked_at = sum(length**2 for batch in batches for task in batch.lengths for length in task)
    return looked_at / sum(batch.tokens[..., 0].numel() * batch.tokens.shape[-1] ** 2 for batch in batches)


def padding_table(results: dict[str, Any]) -> list[str]:
    lines = [
        "| batches | tokens per step | padded | packed, a step's tasks together | packed, as a CPU runs it | aim |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for name, row in results["rows"].items():
        shares = " | ".join(f"{row[key]:.3f}" for key in ("padded", "one_forward", "as_it_runs"))
        lines.append(f"| `{name}` | {row['tokens_a_step']:,.0f} | {shares} | {AT_LEAST[name]:g} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gsm8k", type=Path, required=True, help="a folder with GSM8K's train.jsonl")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    model = load(MODEL)
    rows = {name: useful(session) for name, session in sessions(model, options.gsm8k).items()}
    results = header(model) | {"steps": STEPS, "rows": rows}
    print(json.dumps(rows, indent=2))
    print("\n".join(padding_table(results)))
    if options.output:
        write_result(options.output, results)


if __name__ == "__main__":
    main()
