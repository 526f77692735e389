"""Tokens a second, kernel launches and arithmetic of innerloop's steps on a CUDA GPU: one command, at most 8 minutes.

    python benchmarks/gpu.py --output benchmarks/results/gpu.json
    python benchmarks/gpu.py --tiny     (a few seconds, on a CPU as well: tries the script, measures nothing)

CASES, RATIOS   what is measured, and what is to be reached on an H200
measured        one group of cases, in turn -> a row each
gpu_table       the result as Markdown lines

Llama-3.2-1B's shape with random weights, bfloat16, eager, no checkpointing; LoRA r=16 on all linears, and the inner
loops and optimizers that a config gets which says nothing of them. Random tokens, all examples of a case alike in
length, the second half of each scored. Steps are those of a run's own trainer and are timed with the making of their
batch. The cases of a group take turns; medians. After 7 minutes no further turn is taken, and a case that had none is
recorded as skipped; so is one for which there is not enough memory.

launches   of CUDA kernels in one step, counted by torch's profiler; on a CPU, the operators that were called
MFU        the model's own matrix products, as part of 790 TFLOP/s, what bfloat16 products reach on an H200: 4
           operations a weight and token under LoRA, 6 where all parameters are trained, the output layer's on scored
           rows alone. Attention and LoRA's own products, 1 to 3 % each, are left out
peak       bytes of tensors in one step; on a CPU, of the process

The package has to be installed with pydantic and PyYAML; torch, transformers, peft, numpy and safetensors do the rest
(no datasets). Where the machine with the GPU has no network, on another one with the same Python:

    pip wheel -w wheels --no-deps . pydantic pydantic-core annotated-types typing-inspection pyyaml

and on it `pip install --no-deps wheels/*`.
"""

import argparse
import gc
import json
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from record import header, write_result
from synthetic import Runner, Work, random_model
from torch import nn
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode

from innerloop.learning.methods import METHODS
from innerloop.loading.architecture import decoder_layers
from innerloop.loading.models import LoadedModel
from innerloop.loading.shapes import model_shape
from innerloop.machine import peak_memory, reset_peak_memory

MODEL, RESULT = "meta-llama/Llama-3.2-1B", Path(__file__).parent / "results" / "gpu.json"
PEAK_FLOPS = 790e12
SECONDS, REPEATS = 7 * 60.0, 9
TINY = {  # shorter examples, too
    "vocab_size": 256,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
}
TINY_TOKENS, TINY_REPEATS = 8, 2


class Case(NamedTuple):
    """at_least: tokens per second."""

    work: Work
    at_least: float | None = None
    stretch: float | None = None


def _stacked(tokens: int, *, together: int) -> Case:
    work = Work(method="fomaml-lora", tasks=8, examples=4, tokens=tokens // 4, tasks_per_forward=together)
    return Case(work)


_META = Work(method="fomaml-lora", tasks=8, examples=2, tokens=512, tasks_per_forward=8)
CASES: list[dict[str, Case]] = [  # by group: those that take turns. Passes of 8,192 tokens where a rate is aimed at
    {
        "lora": Case(Work(method="lora", tasks=1, examples=8, tokens=512), 80e3, 105e3),
        "fomaml-lora": Case(_META, 80e3, 105e3),
        "meta-lora": Case(replace(_META, method="meta-lora"), 80e3, 105e3),
    },
    {
        "8 x 1,024, one pass": _stacked(1024, together=8),
        "8 x 1,024, one task at a time": _stacked(1024, together=1),
    },
    {
        "8 x 256, one pass": _stacked(256, together=8),
        "8 x 256, one task at a time": _stacked(256, together=1),
    },
    {"fomaml": Case(Work(method="fomaml", tasks=2, examples=16, tokens=512, tasks_per_forward=1), 53e3)},
]
RATIOS = [  # (case, beside, at least)
    ("8 x 1,024, one pass", "8 x 1,024, one task at a time", 1.7),
    ("8 x 256, one pass", "8 x 256, one task at a time", 5.0),
]


def benchmark(*, tiny: bool, device: str, seconds: float = SECONDS) -> dict[str, Any]:
    deadline = time.monotonic() + seconds
    shape = model_shape(MODEL)
    for key, value in TINY.items() if tiny else ():
        setattr(shape, key, value)
    rows: dict[str, Any] = {}
    for group in CASES:
        model = random_model(shape, dtype="bfloat16", device=device)  # its own: fomaml trains the model's tensors
        makers = {name: _maker(model, case.work, tiny=tiny) for name, case in group.items()}
        rows |= measured(makers, repeats=TINY_REPEATS if tiny else REPEATS, deadline=deadline)
        del model, makers
        _release()
    ratios = [
        {"case": case, "beside": beside, "at_least": least, "ratio": _ratio(rows, case, beside)}
        for case, beside, least in RATIOS
    ]
    return header() | {"tiny": tiny, "device": device, "rows": rows, "ratios": ratios}


def _maker(model: LoadedModel, work: Work, *, tiny: bool) -> Callable[[], Runner]:
    return lambda: Runner(model, replace(work, tokens=TINY_TOKENS) if tiny else work)


def _ratio(rows: Mapping[str, Any], case: str, beside: str) -> float | None:
    rates = [rows[name].get("tokens_per_second") for name in (case, beside)]
    return rates[0] / rates[1] if all(rates) else None


def measured(makers: Mapping[str, Callable[[], Runner]], *, repeats: int, deadline: float) -> dict[str, Any]:
    """Name -> facts, seconds and rates, or why there are none. deadline: of time.monotonic."""
    rows: dict[str, Any] = {name: {"seconds": []} for name in makers}
    runners: dict[str, Runner] = {}

    def attempt(name: str, part: Callable[[str], None]) -> None:
        if time.monotonic() > deadline:
            return
        try:
            part(name)
            return
        except torch.OutOfMemoryError as error:
            rows[name] = {"error": f"out of memory: {error}", "seconds": []}
            runners.pop(name, None)
        _release()  # not before here: until then the error holds the tensors of the step

    def start(name: str) -> None:
        runner = makers[name]()
        rows[name] |= facts(runner)
        runners[name] = runner

    def turn(name: str) -> None:
        rows[name]["seconds"].append(runners[name].seconds())

    for name in makers:
        attempt(name, start)
    for _ in range(repeats):
        for name in list(runners):
            attempt(name, turn)
    return {name: _with_rates(row) for name, row in rows.items()}


def _with_rates(row: dict[str, Any]) -> dict[str, Any]:
    if not row["seconds"]:
        return {"error": "skipped: the time was over"} | row
    middle = statistics.median(row["seconds"])
    return row | {"tokens_per_second": row["tokens"] / middle, "mfu": row["flops"] / middle / PEAK_FLOPS}


def facts(runner: Runner) -> dict[str, Any]:
    """Of three steps, which also warm it up: what it goes through, its launches and its peak."""
    runner.step()
    reset_peak_memory()
    runner.step()
    peaks = peak_memory()
    return {
        "method": runner.method,
        "tasks_per_forward": runner.tasks_per_forward,
        "tokens": runner.trainer.method.tokens(runner.first),
        "flops": flops(runner),
        "launches": launches(runner.step, device=runner.device.type),
        "peak": peaks.get("allocated", peaks["rss"]),
    }


def flops(runner: Runner) -> int:
    """Of a step's products with the model's own weights."""
    batch, model = runner.first, runner.model.model
    linears = [part for part in decoder_layers(model).modules() if isinstance(part, nn.Linear)]
    layers = sum(part.in_features * part.out_features for part in linears)
    output = model.config.vocab_size * model.config.hidden_size
    scored = sum(len(part.scored_rows) for part in batch.batches)
    each = 6 if METHODS[runner.method].space.trains_base else 4
    return each * (layers * sum(part.computed_tokens for part in batch.batches) + output * scored)


def launches(step: Callable[[], None], *, device: str) -> int:
    if device == "cpu":
        with _Operators() as called:
            step()
        return called.count
    with profile(activities=[ProfilerActivity.CUDA]) as found:
        step()
    return sum(event.name.startswith("cu") and "Launch" in event.name for event in found.events() or ())


class _Operators(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        return func(*args, **(kwargs or {}))


def _release() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def gpu_table(results: dict[str, Any] | None) -> list[str]:
    """results: None = none yet."""
    counted = "operators" if results and results["device"] == "cpu" else "launches"
    title = f"| case | tokens/s | s per step | {counted} per step | MFU | peak, GB | aim, tokens/s |"
    lines = [title, "|---|--:|--:|--:|--:|--:|--:|"]
    for name, case in [each for group in CASES for each in group.items()]:
        aim = f"{case.at_least:,.0f}" if case.at_least else ""
        aim += f", then {case.stretch:,.0f}" if case.stretch else ""
        lines.append(f"| {name} | {_cells(results and results['rows'][name])} | {aim} |")
    lines += ["", "| ratio of tokens/s | | aim |", "|---|--:|--:|"]
    for index, (case, beside, least) in enumerate(RATIOS):
        ratio = results and results["ratios"][index]["ratio"]
        said = f"{ratio:.2f}x" if ratio else "not measured" if results else "not yet measured"
        lines.append(f"| {case} / {beside.rsplit(', ')[-1]} | {said} | {least:g}x |")
    return lines


def _cells(row: dict[str, Any] | None) -> str:
    if row is None or not row["seconds"]:
        return f"{row['error'] if row else 'not yet measured'} | | | |"
    middle = statistics.median(row["seconds"])
    numbers = f"{row['tokens_per_second']:,.0f} | {middle:.3f} | {row['launches']:,}"
    return f"{numbers} | {100 * row['mfu']:.1f} % | {row['peak'] / 1e9:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--tiny", action="store_true", help="a model of a few thousand parameters, to try the script")
    parser.add_argument("--table", action="store_true", help=f"only print the table of --output, or of {RESULT.name}")
    options = parser.parse_args()
    path: Path = options.output or RESULT
    if options.table:
        print("\n".join(gpu_table(json.loads(path.read_text()) if path.is_file() else None)))
        return
    if not options.tiny and not torch.cuda.is_available():
        parser.error("no CUDA device is here: --tiny tries the script without one")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    results = benchmark(tiny=options.tiny, device=device)
    if options.output:
        write_result(options.output, results)
    if options.tiny:
        print("a tiny model: nothing here is a measurement")
    print("\n".join(gpu_table(results)))


if __name__ == "__main__":
    main()
