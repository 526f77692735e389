"""Devices: vendors' figures, the measured rate as its benchmark has it, and the one a name or a machine stands for."""

import json
from pathlib import Path

import pytest
import torch

from innerloop.config.loading import load_config
from innerloop.data.batches import collate
from innerloop.data.tasks import Batch, TaskBatch
from innerloop.data.token_ids import Encoded
from innerloop.errors import UserError
from innerloop.loading.shapes import model_shape
from innerloop.planning.devices import ALLOCATOR_SLACK, CPU_FLOAT32, DEVICES, KNOWN, chosen, cpu, gpu
from innerloop.planning.tracing import trace

STEP = Path(__file__).parents[2] / "benchmarks" / "results" / "step.json"


def test_the_cpus_rate_is_the_benchmarks() -> None:
    """tokens/s of benchmarks/step.py, 2 tasks a forward, times the operations that the tracer counts a token."""

    def batch() -> Batch:
        example = Encoded("", (1,) * 32, 24)
        return collate([[example] * 8] * 2)

    tasks = TaskBatch(("0", "1"), [batch()] * 3, batch())
    tree = {
        "model": {"name": "smollm2-135m-q4_1"},
        "tasks": {"suite": "hidden-rules"},
        "method": {"name": "fomaml-lora", "inner": {"steps": 3}, "lora": {"r": 16}},
        "output_dir": "unused",
    }
    flops = trace(load_config(tree), model_shape("smollm2-135m-q4_1"), tasks).total_flops
    flops /= sum(each.token_count for each in tasks.batches)
    row = json.loads(STEP.read_text())["rows"]["2 tasks a forward"]
    assert row["tokens_per_second"] * flops == pytest.approx(CPU_FLOAT32.flops, rel=0.01)
    base = 4 * 134.5e6  # forward and backward of a frozen base: four operations a parameter and token
    assert 0.7 * base < flops < 1.1 * base


def test_a_rate_is_measured_or_assumed_or_unknown() -> None:
    assert cpu().rate("float32") == CPU_FLOAT32
    assert not CPU_FLOAT32.assumed
    assert cpu().rate("bfloat16") is None
    rate = DEVICES["h200"].rate("bfloat16")
    assert rate is not None
    assert rate.flops == pytest.approx(0.4 * 989e12)
    assert rate.assumed
    assert rate.source == "40% of the vendor's 989 TFLOP/s in bfloat16"


@pytest.mark.parametrize(
    ("name", "memory", "half", "float32"),
    [
        ("h200", 141e9, 989e12, 67e12),
        ("a100-80", 80e9, 312e12, 19.5e12),
        ("a100-40", 40e9, 312e12, 19.5e12),
        ("rtx4090", 24e9, 165.2e12, 82.6e12),
    ],
)
def test_gpus_have_their_data_sheets_figures(name: str, memory: float, half: float, float32: float) -> None:
    device = chosen(name, model_device="cpu")
    assert (device.kind, device.memory, device.slack) == ("cuda", memory, ALLOCATOR_SLACK)
    assert device.peaks == {"bfloat16": half, "float16": half, "float32": float32}


def test_the_default_is_where_the_run_would_go() -> None:
    assert chosen(None, model_device="cpu") == chosen("cpu", model_device="auto") == cpu()
    assert cpu().slack == 0
    assert cpu().memory > 1e8
    if not torch.cuda.is_available():
        assert chosen(None, model_device="auto") == cpu()
        with pytest.raises(
            UserError, match=r"model.device: no CUDA device is here to plan for[\s\S]*--device with one"
        ):
            chosen(None, model_device="cuda:1")


def test_a_gpu_is_recognized_by_its_drivers_name() -> None:
    found = gpu("NVIDIA A100-SXM4-80GB", memory=85_000_000_000)
    assert (found.title, found.memory) == ("NVIDIA A100-SXM4-80GB", 85_000_000_000)
    assert found.peaks == DEVICES["a100-80"].peaks
    other = gpu("NVIDIA GeForce GTX 1080", memory=8_000_000_000)
    assert other.kind == "cuda"
    assert other.rate("float32") is None


def test_an_unknown_device_is_named_beside_the_known_ones() -> None:
    with pytest.raises(UserError, match=r'--device: unknown device[\s\S]*did you mean "h200"\?'):
        chosen("h100", model_device="cpu")
    with pytest.raises(UserError, match=f"one of: {', '.join(sorted(KNOWN))}"):
        chosen("tpu-v5e", model_device="cpu")
