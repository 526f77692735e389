"""Decoder layers through torch.compile (`model.compile`) beside the same layers without: seconds per outer step.

    python benchmarks/compiled.py --output benchmarks/results/compiled.json    # 15 minutes
    python benchmarks/compiled.py --cuda --output benchmarks/results/compiled-cuda.json

`fomaml-lora` on SmolLM2-135M (LoRA r=16 on all linears, one inner step, float32), made as a user's run is. Both ways
take turns on the same batches after two steps of each that aren't timed. Seconds are the process's own on a CPU, and
those of a clock on a GPU; compiling is timed by the clock, with nothing compiled before. gain: the median, over turns,
of the share of a plain step's time that a compiled one saves. aim: what the option had to gain to be kept.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from record import header, write_result
from synthetic import Runner, Work

from innerloop.loading.models import LoadedModel, load

MODEL, TURNS, AIM = "smollm2-135m-q4_1", 5, 0.05
LAST_8 = ["method.lora.layers=last-8", "memory.trunk_cache=true"]
CASES: dict[str, tuple[int, int, int, list[str]]] = {  # tasks, examples of each, tokens of each, config keys
    "2 tasks x 2 examples x 16 tokens": (2, 2, 16, []),
    "2 tasks x 4 examples x 64 tokens": (2, 4, 64, []),
    "4 tasks x 4 examples x 32 tokens, last 8 layers": (4, 4, 32, LAST_8),
}


def measure(device: str, output: Path) -> dict[str, Any]:
    """Case by case; what the file has is kept."""
    loaded = load(MODEL, dtype="float32", device=device)
    clock = time.process_time if device == "cpu" else time.perf_counter
    found = header(loaded) | {"device": device, "aim": AIM, "rows": {}}
    if output.exists():
        found["rows"] = json.loads(output.read_text())["rows"]
    for name, case in CASES.items():
        if name not in found["rows"]:
            found["rows"][name] = row(loaded, clock, *case)
            write_result(output, found)
    return found


def row(
    loaded: LoadedModel, clock: Callable[[], float], tasks: int, examples: int, tokens: int, keys: list[str]
) -> dict[str, Any]:
    work = Work(method="fomaml-lora", tasks=tasks, examples=examples, tokens=tokens, steps=1, tasks_per_forward=tasks)
    runners: dict[str, Runner] = {}
    first: dict[str, float] = {}
    for name, chosen in {"plain": keys, "compiled": [*keys, "model.compile=true"]}.items():
        started = time.perf_counter()
        runners[name] = Runner(loaded, work, chosen)
        runners[name].step()
        first[name] = time.perf_counter() - started
        runners[name].step()
    seconds: dict[str, list[float]] = {name: [] for name in runners}
    for _ in range(TURNS):
        for name, runner in runners.items():
            started = clock()
            runner.step()
            seconds[name].append(clock() - started)
    gains = [1 - ours / plain for plain, ours in zip(*seconds.values(), strict=True)]
    return {"compiling": first["compiled"] - first["plain"], "seconds": seconds, "gain": statistics.median(gains)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--cuda", action="store_true", help="on a GPU")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = folder
        found = measure("cuda" if arguments.cuda else "cpu", arguments.output)
    print(json.dumps(found["rows"]))


if __name__ == "__main__":
    main()
