"""The first pass below a trunk cut: in companies, and one example at a time as it was before.

    python benchmarks/trunk_pass.py --output benchmarks/results/trunk_pass.json    # two minutes

A task of 96 random examples of SmolLM2-135M's vocabulary through its lowest 22 layers (LoRA on the last 8), for each
length of an example. Both ways take turns; a row has the CPU seconds of each turn, and tokens for each CPU second of
the fastest. target: what the new way has to be times as fast at 20 tokens. apart: the largest difference of a hidden
state between the two ways, relative to the largest state: rounding.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from record import header, write_result
from torch import Tensor

from innerloop.data.batches import collate
from innerloop.data.tasks import token_key
from innerloop.data.token_ids import Encoded
from innerloop.loading.architecture import base_model
from innerloop.loading.models import load
from innerloop.spaces.trunk import TOGETHER, Companies, Trunk, TrunkExample

MODEL, CUT, EXAMPLES, TURNS, SEED = "smollm2-135m-q4_1", 22, 96, 2, 0
LENGTHS = (12, 20, 40, 128)
TARGET, AT = 2.5, 20


def measure() -> dict[str, Any]:
    loaded = load(MODEL)
    rows = [row(loaded.model, length) for length in LENGTHS]
    facts = {"layers_below": CUT, "examples": EXAMPLES, "most": TOGETHER["cpu"]}
    return header(loaded) | facts | {"target": {"tokens": AT, "times": TARGET}, "rows": rows}


def row(model: Any, length: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(SEED)
    tokens = torch.randint(3, model.config.vocab_size, (EXAMPLES, length), generator=generator).tolist()
    task = [TrunkExample(token_key(each), tuple(each)) for each in tokens]
    batch = collate([[Encoded(str(n), each.tokens, 1) for n, each in enumerate(task)]])
    ways: dict[str, Callable[[], Tensor]] = {
        "alone": lambda: Trunk(base_model(model), CUT, {}).hidden(batch),
        "together": lambda: Trunk(base_model(model), CUT, {}, Companies([task], most=TOGETHER["cpu"])).hidden(batch),
    }
    states = {name: way() for name, way in ways.items()}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(TURNS):
        for name, way in ways.items():
            started = time.process_time()
            way()
            seconds[name].append(time.process_time() - started)
    rates = {name: EXAMPLES * length / min(taken) for name, taken in seconds.items()}
    apart = (states["together"] - states["alone"]).abs().max() / states["alone"].abs().max()
    return {
        "tokens": length,
        "cpu_seconds": seconds,
        "tokens_per_cpu_second": rates,
        "times": rates["together"] / rates["alone"],
        "apart": float(apart),
    }


def trunk_table(found: dict[str, Any]) -> list[str]:
    lines = ["| tokens per example | alone | together | times | aim |", "|--:|--:|--:|--:|--:|"]
    for each in found["rows"]:
        rates, target = each["tokens_per_cpu_second"], found["target"]
        aim = f"{target['times']:g}" if each["tokens"] == target["tokens"] else ""
        speeds = f"{rates['alone']:.0f} | {rates['together']:.0f} | {each['times']:.2f}"
        lines.append(f"| {each['tokens']} | {speeds} | {aim} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    found = measure()
    print("\n".join(trunk_table(found)))
    if arguments.output:
        write_result(arguments.output, found)


if __name__ == "__main__":
    main()
