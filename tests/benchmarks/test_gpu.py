"""benchmarks/gpu.py on the CPU, with a tiny shape: every case takes its steps, and what is missing is said."""

import time
from typing import Any

import gpu
import pytest
import torch
from synthetic import Runner, Work, random_model

from tiny import tiny_model

WORK = Work(method="fomaml-lora", tasks=2, examples=1, tokens=6, steps=1, rank=2)


@pytest.fixture(scope="module")
def runner() -> Any:
    return Runner(random_model(tiny_model("llama").config), WORK)


def test_every_case_is_in_the_result_and_the_table() -> None:
    results = gpu.benchmark(tiny=True, device="cpu", seconds=0.0)
    names = [name for group in gpu.CASES for name in group]
    assert list(results["rows"]) == names
    assert all(row["error"] == "skipped: the time was over" for row in results["rows"].values())
    for found, said in ((results, "skipped: the time was over"), (None, "not yet measured")):
        table = gpu.gpu_table(found)
        assert all(f"| {name} | {said} |" in "\n".join(table) for name in names)
        assert sum("| not measured |" in line or "| not yet measured |" in line for line in table) >= len(gpu.RATIOS)


def test_a_case_is_measured_in_turns(runner: Any) -> None:
    rows = gpu.measured({"a": lambda: runner, "b": lambda: runner}, repeats=2, deadline=time.monotonic() + 60)
    for row in rows.values():
        assert len(row["seconds"]) == 2
        assert row["tokens"] == 2 * 2 * 6
        assert row["tokens_per_second"] > 0
        assert row["launches"] > 100


def test_a_case_without_memory_is_said_and_the_others_go_on(runner: Any) -> None:
    def without() -> Any:
        raise torch.OutOfMemoryError("of 80 GB")

    rows = gpu.measured({"a": without, "b": lambda: runner}, repeats=1, deadline=time.monotonic() + 60)
    assert rows["a"]["error"].endswith("out of memory: of 80 GB")
    assert len(rows["b"]["seconds"]) == 1


def test_operations_are_those_of_the_products(runner: Any) -> None:
    """By hand, of a tiny llama: 4 a weight and token, 6 where the weights are trained."""
    model = runner.model.model
    layers = sum(part.weight.numel() for part in model.model.layers.modules() if isinstance(part, torch.nn.Linear))
    head = model.lm_head.weight.numel()
    assert gpu.flops(runner) == 4 * (layers * 24 + head * 12)
    everything = Runner(random_model(model.config), Work(method="fomaml", tasks=1, examples=1, tokens=6, steps=1))
    assert gpu.flops(everything) == 6 * (layers * 12 + head * 6)


def test_ratios_need_both(runner: Any) -> None:
    rows = {"a": {"tokens_per_second": 3.0}, "b": {"tokens_per_second": 2.0}, "c": {"error": "skipped"}}
    assert gpu._ratio(rows, "a", "b") == 1.5
    assert gpu._ratio(rows, "a", "c") is None
