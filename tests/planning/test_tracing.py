"""The plan of a step against the whole model's trace, the same step on real tensors, and resident memory."""

import json
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from innerloop.engine.parts import make_space, make_trainer
from innerloop.learning.methods import METHODS, Joint
from innerloop.numerics import rounding
from innerloop.planning import tracing
from innerloop.planning.measuring import tracked
from innerloop.planning.tracing import trace
from innerloop.planning.tracking import PARTS, PHASES, ByteTracker, Footprint, footprint
from rss_child import Case, measure, plan, shape, tasks
from tiny import tiny_config

CHECKPOINTING, CACHE = "memory.checkpointing=true", "memory.trunk_cache=true"
ONE_STEP = "method.inner.steps=1"
QUERIES = 'method.lora.target_modules=["q_proj"]'
ADAMW = ("method.inner.optimizer.name=adamw", "method.inner.optimizer.lr=0.001")


def small(family: str, method: str, *sets: str, layers: int = 6, **options: Any) -> Case:
    """A tiny model of a family that the tests know."""
    config = tiny_config(family, layers=layers)
    rest: dict[str, Any] = {"examples": 2, "tokens": 24, "scored": 6} | options
    return Case(type(config).__name__, config.to_diff_dict(), method, list(sets), **rest)


def traced(case: Case, **options: Any) -> Footprint:
    return trace(case.run, shape(case), tasks(case), **options)


def whole(case: Case) -> Footprint:
    """Without extrapolation."""
    settings = shape(case)
    layers = range(settings.num_hidden_layers)
    return tracing._footprint(tracing._measure(case.run, settings, tasks(case), layers, on_cpu=False))


# extrapolation

EXTRAPOLATED = [
    small("llama", "fomaml", ONE_STEP, layers=4),
    small("gpt_neox", "reptile", ONE_STEP, "method.inner.clip=1", layers=4),
    small("phi3", "fomaml-lora", ONE_STEP, *ADAMW, tasks=3),
    small("llama", "maml", ONE_STEP, layers=4),
    small("mistral", "lora", "method.lora.layers=last-2", CACHE, layers=9),
    small("llama", "joint-lora", "method.lora.layers=[2, 4, 9]", layers=20, tasks=2),
    small("gemma2", "joint", layers=9),
    small("gemma3", "meta-lora", ONE_STEP, CHECKPOINTING, QUERIES, layers=13, tokens=40),
    small("llama", "fomaml", ONE_STEP, "memory.lean=true", layers=4, dtype="bfloat16"),
    small("llama", "fomaml", ONE_STEP, "memory.offload=true", layers=4, dtype="bfloat16"),
    pytest.param(small("qwen3", "fomaml", ONE_STEP, CHECKPOINTING, layers=4), marks=pytest.mark.long),
    pytest.param(small("qwen2", "maml-lora", ONE_STEP, CHECKPOINTING, QUERIES, tasks=2), marks=pytest.mark.long),
]


@pytest.mark.parametrize("case", EXTRAPOLATED, ids=lambda case: f"{case.config[:-6]}-{case.method}")
def test_few_layers_say_what_all_take(case: Case, measured: list[int]) -> None:
    found = traced(case)
    assert len(measured) > 1, "more than one small model: not the whole of it"
    assert found == whole(case)


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of layers of each model that is measured."""
    counts, measure = list[int](), tracing._measure

    def counted(config: Any, shape: Any, tasks: Any, layers: Any, **options: Any) -> Any:
        counts.append(len(layers))
        return measure(config, shape, tasks, layers, **options)

    monkeypatch.setattr(tracing, "_measure", counted)
    return counts


def test_no_window_says_less_than_the_whole_where_layers_of_two_kinds_alternate() -> None:
    """Gathered by kind, they lie elsewhere than in the model: no peak moves by more than a hundredth."""
    case = small("gemma2", "fomaml-lora", ONE_STEP, QUERIES, layers=12, tokens=40, tasks=2)
    short, long = traced(case), whole(case)
    assert short.peak == pytest.approx(long.peak, rel=0.01)


def test_one_layer_more_would_show() -> None:
    case = small("llama", "fomaml", ONE_STEP, layers=4)
    more = replace(case, shape={**case.shape, "num_hidden_layers": 5})
    assert traced(more).peak > 1.05 * traced(case).peak


def test_layers_of_one_kind_attend_alike_and_are_trained_alike() -> None:
    case = small("gemma2", "fomaml-lora", "method.lora.layers=[1, 3, 4]", layers=6)
    kinds = [(kind.trained, *kind.own) for kind in tracing._kinds(case.run, shape(case))]
    sliding, full = "sliding_attention", "full_attention"
    assert kinds == [
        ("below", sliding),
        ("lowest", full),
        ("untrained", sliding),
        ("above", full),
        ("above", sliding),
        ("untrained", full),
    ]


# the same step on real tensors


LIKE_ANOTHER = ("fomaml-lora", "reptile-lora", "joint-lora")  # as meta-lora, reptile and lora run, of other parts


@pytest.mark.parametrize(
    "method", [pytest.param(name, marks=[pytest.mark.long] * (name in LIKE_ANOTHER)) for name in METHODS]
)
def test_real_tensors_take_what_fake_ones_say(method: str) -> None:
    dtype, count = ("float32", 1) if METHODS[method].space.trains_base else ("bfloat16", 2)
    sets = () if METHODS[method].rule is Joint else ("method.inner.steps=2",)
    case = small("gemma3", method, *sets, layers=2, dtype=dtype, tasks=count)
    found, real = traced(case), _real(case)
    for phase in real.peaks:
        expected = found.peaks[phase]
        for part in real.peaks[phase].keys() | expected.keys():
            size = real.peaks[phase].get(part, 0)
            assert size == pytest.approx(expected.get(part, 0), rel=0.01, abs=4096), (phase, part)
    assert real.flops == found.flops


def _real(case: Case) -> Footprint:
    """Of the phases of a step."""
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_config(shape(case), dtype=getattr(torch, case.dtype))
    space, tracker = make_space(case.run, model.eval().requires_grad_(False)), ByteTracker(torch.device("cpu"))
    trainer, batch = make_trainer(case.run, space), tasks(case)
    with tracked(trainer, tracker):
        trainer.step(batch)
    return footprint(tracker.peaks, tracker.host_peak, tracker.flops)


def test_a_fake_tensor_is_taken_for_a_real_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """transformers makes masks for a fake one, where a family's attention is its own, and copies keys and values."""
    llama = small("llama", "joint", layers=2, tokens=200)
    kept = {key: value for key, value in llama.shape.items() if key not in ("model_type", "architectures")}
    case = replace(llama, config="Olmo2Config", shape=kept)
    right, real = traced(case).parts, _real(case).parts
    assert right["activations"] == pytest.approx(real["activations"], rel=0.01)
    monkeypatch.setattr(tracing, "_as_if_real", lambda model: nullcontext())
    assert traced(case).parts["activations"] > 1.1 * real["activations"]


def test_a_large_tensor_is_worked_on_slice_by_slice(monkeypatch: pytest.MonkeyPatch) -> None:
    """With slices so small that a tiny model's tensors have many."""
    monkeypatch.setattr(rounding, "SLICE", 512)
    case = small("llama", "fomaml", ONE_STEP, "memory.lean=true", layers=1, dtype="bfloat16")
    slices = traced(case)
    monkeypatch.setattr(rounding, "SLICE", 2**22)
    assert traced(case) != slices  # whole tensors at a time take more


# what a footprint says


def test_phases_and_parts_are_those_that_are_named() -> None:
    found = traced(small("llama", "fomaml", layers=2))
    assert tuple(found.peaks) == PHASES
    for parts in found.peaks.values():
        assert set(parts) <= set(PARTS)
        assert all(size > 0 for size in parts.values())
    assert found.host == {}


@pytest.mark.parametrize("rows", [16, pytest.param(64, marks=pytest.mark.long)])
def test_no_more_logits_than_memory_logit_rows(rows: int) -> None:
    """Each takes 8 bytes at most: float32, and once in 16 bits or for the softmax."""
    case = small("llama", "fomaml", ONE_STEP, f"memory.logit_rows={rows}", layers=2, examples=8, tokens=40, scored=32)
    case.shape["vocab_size"] = 5000
    found = traced(case)
    assert 4 * rows * 5000 <= found.parts["logits"] <= 8 * rows * 5000
    assert all(parts.get("logits", 0) <= 8 * rows * 5000 for parts in found.peaks.values())


def test_the_trunk_cache_is_a_part_of_its_own() -> None:
    case = small("llama", "fomaml-lora", "method.lora.layers=last-1", CACHE, layers=3, tasks=2)
    states = 2 * 2 * 24 * 32 * 4  # tasks, examples, tokens, width, float32; support and query are the same examples
    assert traced(case, on_cpu=True).peaks["outer"]["cache"] == states
    beside = traced(case)
    assert beside.host == {"cache": states}
    assert all("cache" not in parts for parts in beside.peaks.values())


@pytest.mark.parametrize(
    ("method", "lean"),
    [
        ("fomaml", True),
        ("fomaml", False),
        ("joint", False),
        ("reptile", False),
        pytest.param("joint", True, marks=pytest.mark.long),
    ],
)
def test_offload_leaves_one_set_of_weights_on_the_device(method: str, lean: bool) -> None:
    sets = ["memory.offload=true", f"memory.lean={lean}".lower()]
    case = small("llama", method, *sets, layers=2, dtype="bfloat16")
    found = traced(case)
    weights = traced(replace(case, sets=[])).peaks["load"]["shared values"] // 2  # those are float32
    masters = 0 if lean or method == "joint" else 2 * weights  # float32, beside their cast
    assert found.parts["fast weights"] == masters + weights
    assert "shared values" not in found.parts
    assert "meta-optimizer" not in found.parts
    kept = weights if lean else 2 * weights
    assert found.host["gradients"] == kept
    assert found.host["shared values"] >= kept


def test_loading_and_saving_take_memory_of_their_own_on_a_cpu() -> None:
    case = small("llama", "fomaml", layers=2, dtype="bfloat16")
    settings = shape(case)
    settings.dtype = "float32"  # what is stored
    beside = trace(case.run, settings, tasks(case))
    here = trace(case.run, settings, tasks(case), on_cpu=True)
    assert here.peaks["load"] == beside.peaks["load"]  # more is needed later in that phase
    assert here.peaks["save"]["shared values"] > beside.peaks["save"]["shared values"]
    lora = replace(case, method="lora", sets=["method.lora.r=1"])
    beside = trace(lora.run, settings, tasks(lora))
    here = trace(lora.run, settings, tasks(lora), on_cpu=True)
    assert here.peaks["load"]["base"] == pytest.approx(3 * beside.peaks["load"]["base"], rel=0.01)


# the size of a language model

LLAMA_1B = """
import json, sys
from transformers import LlamaConfig
from rss_child import Case, shape, tasks
from innerloop.planning import tracing
from innerloop.machine import peak_memory
measure, counts = tracing._measure, []
def counted(config, shape, tasks, layers, **options):
    counts.append(len(layers))
    return measure(config, shape, tasks, layers, **options)
tracing._measure = counted
settings = dict(vocab_size=128256, hidden_size=2048, intermediate_size=8192, num_hidden_layers=16,
                num_attention_heads=32, num_key_value_heads=8, head_dim=64, tie_word_embeddings=True)
found = {}
for checkpointing in ("true", "false"):
    case = Case("LlamaConfig", settings, "fomaml-lora", [f"memory.checkpointing={checkpointing}"], dtype="bfloat16",
                examples=8, tokens=512, scored=256)
    found[checkpointing] = tracing.trace(case.run, shape(case), tasks(case)).parts
resident = peak_memory()["rss"]
print(json.dumps([found, counts, resident, "peft" in sys.modules]))
"""


def test_llama_1b_is_traced_with_few_layers_and_in_little_memory() -> None:
    command = [sys.executable, "-c", LLAMA_1B]
    root = Path(__file__).parents[2]
    environment = {"PYTHONPATH": f"{root / 'src'}:{root / 'tests'}"}
    said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment).stdout
    found, counts, resident, peft = json.loads(said.splitlines()[-1])
    assert found["true"]["base"] == found["false"]["base"] == pytest.approx(2 * 1_235_814_400, rel=1e-3)
    assert sum(found["true"].values()) < 5e9
    assert sum(found["false"].values()) < 11e9
    assert sum(counts) <= 2 * 5, "of 16 layers, twice"
    assert resident < 1.5e9
    assert not peft


# resident memory

QWEN = {
    "hidden_size": 384,
    "intermediate_size": 1024,
    "num_hidden_layers": 6,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "vocab_size": 16000,
    "tie_word_embeddings": True,
}
LLAMA = {**QWEN, "num_attention_heads": 8, "num_key_value_heads": 4, "vocab_size": 8000, "tie_word_embeddings": False}
GEMMA = {**QWEN, "num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 96}
RESIDENT = [
    Case("Qwen2Config", QWEN, "lora", examples=8),
    Case("LlamaConfig", LLAMA, "fomaml", [ONE_STEP]),
    Case("Gemma2Config", GEMMA, "maml-lora", [ONE_STEP, "method.lora.layers=last-2"], tasks=2),
]
MORE = [
    Case("LlamaConfig", LLAMA, "reptile", [ONE_STEP, CHECKPOINTING]),
    Case("Qwen2Config", QWEN, "meta-lora", [ONE_STEP, CHECKPOINTING], tasks=4),
    Case("Gemma2Config", GEMMA, "joint", examples=8),
]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can forget a peak")
def test_a_plan_is_the_resident_memory_of_a_process(long: bool) -> None:
    cases = RESIDENT + MORE * long
    plans, taken = [plan(case) for case in cases], measure(*cases)
    table = [(case.method, round(p / 1e6), round(m / 1e6)) for case, p, m in zip(cases, plans, taken, strict=True)]
    for case, planned, found in zip(cases, plans, taken, strict=True):
        assert abs(planned - found) < 0.1 * found, (case, table)
    checkpointed = plan(replace(cases[0], sets=[CHECKPOINTING]))
    assert abs(checkpointed - taken[0]) > 0.1 * taken[0] > abs(plans[0] - taken[0])  # the bound is no wide one
