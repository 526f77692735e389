"""What a plan says of memory, against what a process or a GPU then takes.

    export PYTHONPATH=tests
    python benchmarks/plan.py --output benchmarks/results/plan-cpu.json           (about 15 minutes on two cores)
    python benchmarks/plan.py --cuda --output benchmarks/results/plan-cuda.json   (needs a GPU with 40 GB)

Random weights. On the CPU: every method on three architectures of 17 million parameters, with and without
checkpointing, one step in a process of its own; the resident set above that of a tiny model's step. On a GPU: methods
on Llama-3.2-1B's shape at 8 x 512 tokens a pass, half of them scored, bfloat16; the second step's peaks.
"""

import argparse
import json
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from record import header, write_result

from innerloop.engine.parts import make_space, make_trainer
from innerloop.learning.methods import METHODS
from innerloop.machine import peak_memory, reset_peak_memory
from rss_child import Case, measure, plan, shape, tasks

WIDTH = {
    "hidden_size": 384,
    "intermediate_size": 1024,
    "num_hidden_layers": 6,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "vocab_size": 16000,
}
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "LlamaConfig": WIDTH | {"num_attention_heads": 8, "num_key_value_heads": 4, "tie_word_embeddings": False},
    "Qwen2Config": WIDTH | {"tie_word_embeddings": True},
    "Gemma2Config": WIDTH | {"num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 96},
}
CHECKPOINTING, LEAN, OFFLOAD = "memory.checkpointing=true", "memory.lean=true", "memory.offload=true"
LLAMA_1B = {
    "vocab_size": 128256,
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "tie_word_embeddings": True,
}
ON_A_GPU = [
    *[(method, sets) for method in ("lora", "fomaml-lora", "meta-lora") for sets in ([CHECKPOINTING], [])],
    ("reptile-lora", []),
    ("maml-lora", [CHECKPOINTING]),
    *[("fomaml", [CHECKPOINTING, *sets]) for sets in ([], [LEAN], [OFFLOAD], [LEAN, OFFLOAD])],
    ("fomaml", []),
    ("reptile", [CHECKPOINTING, LEAN]),
    ("joint", [CHECKPOINTING, LEAN]),
]


def accuracy_cases() -> list[Case]:
    """All parameters take one task a forward, LoRA two."""
    return [
        Case(name, settings, method, sets, tasks=1 if row.space.trains_base else 2)
        for name, settings in ARCHITECTURES.items()
        for method, row in METHODS.items()
        for sets in ([], [CHECKPOINTING])
    ]


def accuracy_rows(cases: list[Case]) -> list[dict[str, Any]]:
    """Plan and resident memory of each; within: 10 % or 64 MB."""
    rows: list[dict[str, Any]] = []
    for case in cases:
        planned, (taken,) = plan(case), measure(case)
        within = abs(planned - taken) <= max(0.1 * taken, 64e6)
        rows.append(_case(case) | {"planned": planned, "measured": taken, "within": within})
        print(f"{case.config:14} {case.method:14} {' '.join(case.sets):28} {_compared(planned, taken)}", flush=True)
    return rows


def cuda_cases() -> list[Case]:
    size: dict[str, Any] = {"dtype": "bfloat16", "examples": 8, "tokens": 512, "scored": 256}
    return [Case("LlamaConfig", LLAMA_1B, method, sets, **size) for method, sets in ON_A_GPU]


def cuda_rows(cases: list[Case]) -> list[dict[str, Any]]:
    """Plan, and bytes that tensors took (allocated) and that the allocator held for them (reserved)."""
    rows: list[dict[str, Any]] = []
    for case in cases:
        command = [sys.executable, __file__, "--child", json.dumps(asdict(case))]
        printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        planned, found = plan(case), json.loads(printed.splitlines()[-1])
        rows.append(_case(case) | {"planned": planned} | found)
        said = f"{case.method:14} {' '.join(case.sets):48} {_compared(planned, found['allocated'])}"
        print(f"{said}, reserved {found['reserved'] / 1e9:.2f} GB, {found['seconds']:.2f} s", flush=True)
    return rows


def on_a_gpu(case: Case) -> dict[str, float]:
    """The second step; the first one allocates what the libraries keep."""
    from transformers import AutoModelForCausalLM

    with torch.device("cuda"):
        model: Any = AutoModelForCausalLM.from_config(shape(case), dtype=getattr(torch, case.dtype))
    space = make_space(case.run, model.eval().requires_grad_(False))
    trainer, batch = make_trainer(case.run, space), tasks(case).to(torch.device("cuda"))
    trainer.step(batch)
    reset_peak_memory()
    started = time.perf_counter()
    trainer.step(batch)
    torch.cuda.synchronize()
    seconds = time.perf_counter() - started
    peaks = peak_memory()
    return {"allocated": peaks["allocated"], "reserved": peaks["reserved"], "seconds": seconds}


def _case(case: Case) -> dict[str, Any]:
    kept = ("config", "method", "sets", "dtype", "tasks", "examples", "tokens", "scored")
    return {key: value for key, value in asdict(case).items() if key in kept}


def _compared(planned: int, taken: float) -> str:
    return f"planned {planned / 1e6:8.0f} MB, taken {taken / 1e6:8.0f} MB, {100 * (planned / taken - 1):+5.1f} %"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--cuda", action="store_true", help="Llama-3.2-1B's shape on this machine's GPU")
    parser.add_argument("--only", default="", help="cases whose method has this in its name")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(on_a_gpu(Case(**json.loads(options.child)))))
        return
    if options.cuda and not torch.cuda.is_available():
        parser.error("no CUDA device is here: without --cuda, plans are checked on the CPU")
    cases = [case for case in (cuda_cases() if options.cuda else accuracy_cases()) if options.only in case.method]
    rows = cuda_rows(cases) if options.cuda else accuracy_rows(cases)
    if options.output:
        write_result(options.output, header() | {"rows": rows})


if __name__ == "__main__":
    main()
