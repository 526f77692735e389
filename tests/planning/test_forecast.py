"""Forecasts: arithmetic, files and cached states as a real run has them; times and totals by hand."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from innerloop.config.loading import load_config
from innerloop.engine.hidden_states import HiddenStates
from innerloop.engine.session import prepare
from innerloop.errors import UserError
from innerloop.planning.devices import ALLOCATOR_SLACK, DEVICES, Device, cpu
from innerloop.planning.forecast import SLACK, Forecast, _shortened, bytes_in_words, duration, forecast, significant
from innerloop.planning.forecaster import Forecaster
from innerloop.planning.tracing import trace
from innerloop.planning.workload import workload_of
from innerloop.runs.meta_train import meta_train
from small_runs import World, settings, small_run, tensors_of

H200 = DEVICES["h200"]
LONG = pytest.mark.long
CPU_DEVICE = cpu()

Predict = Callable[..., Forecast]


@pytest.fixture
def predict(world: World) -> Predict:
    def of(method: str = "fomaml-lora", device: Device = CPU_DEVICE, *, gpus: int = 1, **changes: Any) -> Forecast:
        work = workload_of(load_config(settings(world, method, Path("unused"), changes)), kind=device.kind)
        return forecast(work, device, gpus=gpus)

    return of


# against real runs


CASES = [
    ("fomaml", 1),
    ("fomaml-lora", 1),
    ("fomaml-lora", 2),
    ("maml-lora", 2),
    pytest.param("joint-lora", 2, marks=LONG),
    pytest.param("reptile-lora", 2, marks=LONG),
]


@pytest.mark.parametrize(("method", "tasks_per_forward"), CASES)
def test_operations_are_those_of_a_real_step(
    world: World, predict: Predict, method: str, tasks_per_forward: int
) -> None:
    """torch's own counter, on a step with as many forwards as it takes."""
    changes = {"outer.steps": 1, "outer.tasks_per_step": 3, "memory.tasks_per_forward": tasks_per_forward}
    session = prepare(load_config(settings(world, method, Path("unused"), changes)), model=world.model)
    ((_, batches),) = session.streams()
    trainer = session.trainer(session.space(), batches)
    with FlopCounterMode(display=False, custom_mapping=UNCOUNTED) as counter:
        trainer.step(batches[0])
    found = predict(method, **changes)
    # Steps are taken to be as large as their packed tokens. Attention works on rows, which go with them less closely,
    # and a second derivative does most in attention.
    assert found.flops == pytest.approx(counter.get_total_flops(), rel=0.06 if method == "maml-lora" else 0.02)
    assert found.tasks_per_forward == tasks_per_forward
    assert found.workload.tokens_per_step == trainer.step(batches[0]).tokens


def in_place(_: Any, left: Any, right: Any, *__: Any, **___: Any) -> int:
    return 2 * left[0] * left[1] * right[1]


def attention(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return sdpa_flop_count(query, key, value)


def attention_backward(out: Any, query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return sdpa_backward_flop_count(out, query, key, value)


UNCOUNTED = {  # operators that torch's counter passes over
    torch.ops.aten.addmm_: in_place,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: attention,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: attention_backward,
}


@pytest.mark.parametrize("method", ["fomaml", "fomaml-lora", "lora", "meta-lora"])
def test_disk_is_what_a_run_writes(world: World, predict: Predict, tmp_path: Path, method: str) -> None:
    changes = {"method.keep_task_adapters": True} if method == "meta-lora" else {}
    small_run(world, method, tmp_path / "run", changes)
    written = sum(value.numel() * value.element_size() for value in tensors_of(tmp_path / "run").values())
    disk = predict(method, **changes).disk
    assert sum(size for what, size in disk.items() if what != "checkpoints") == written
    assert disk.keys() - {"checkpoints"} <= {"model", *(path.name for path in (tmp_path / "run").iterdir())}


@pytest.mark.parametrize(
    ("method", "changes"),
    [
        ("fomaml-lora", {}),
        ("fomaml", {"outer.optimizer": {"name": "sgd", "lr": 0.1}}),
        ("fomaml", {"memory.lean": True, "model.dtype": "bfloat16"}),
    ],
)
def test_checkpoints_take_what_was_predicted(
    world: World, predict: Predict, tmp_path: Path, method: str, changes: dict[str, Any]
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        meta_train(settings(world, method, tmp_path / "run", changes | {"save.every": 1}), on_step=stop)
    kept = sum(value.numel() * value.element_size() for value in tensors_of(tmp_path / "run").values())
    found = predict(method, **changes)
    assert found.checkpoint_bytes == pytest.approx(kept, rel=0.1 if "memory.lean" in changes else 0)
    assert found.disk["checkpoints"] == 3 * found.checkpoint_bytes


def test_the_trunk_cache_is_counted_as_it_is_in_the_end(world: World, predict: Predict, tmp_path: Path) -> None:
    changes = {"method.lora.layers": "last-1", "memory.trunk_cache": True, "outer.steps": 12}
    store = HiddenStates()
    meta_train(settings(world, "fomaml-lora", tmp_path / "run", changes), model=world.model, store=store)
    kept = store.kept
    found = predict(**changes)
    assert found.footprint.peaks["outer"]["cache"] == pytest.approx(kept, rel=0.25)
    after_a_step = predict(**changes | {"outer.steps": 1}).footprint.peaks["outer"]["cache"]
    assert after_a_step < 0.75 * kept  # the pools of two tasks of three
    assert "cache" not in found.footprint.peaks["load"]


def test_the_trunk_cache_is_no_larger_than_its_bound(predict: Predict) -> None:
    changes = {"method.lora.layers": "last-1", "memory.trunk_cache": True, "outer.steps": 12}
    whole, bounded = predict(**changes), predict(**changes, **{"memory.trunk_cache_gb": 1e-6})
    assert bounded.footprint.peaks["outer"]["cache"] == bounded.disk["hidden_states"] == 1000
    assert whole.footprint.peaks["outer"]["cache"] == whole.disk["hidden_states"] > 1000
    assert whole.peak > bounded.peak


def test_beside_a_gpu_the_trunk_cache_is_in_host_memory(predict: Predict) -> None:
    changes = {"method.lora.layers": "last-1", "memory.trunk_cache": True, "outer.steps": 12}
    found, none = predict(device=H200, **changes), predict(device=H200, **changes | {"memory.trunk_cache": False})
    kept = predict(**changes).footprint.peaks["outer"]["cache"]
    assert found.footprint.host == {"cache": kept}
    assert all("cache" not in parts for parts in found.phases.values())
    assert none.footprint.host == {}
    assert f"host     {bytes_in_words(kept)} beside it: cache {bytes_in_words(kept)}" in found.lines()
    assert any(
        line.startswith("disk ") and f", {bytes_in_words(kept)} hidden_states, " in line for line in found.lines()
    )
    assert set(none.disk) == {"adapter", "checkpoints"}


def test_what_a_run_took_has_its_trunk_cache(world: World, tmp_path: Path) -> None:
    changes = {"method.lora.layers": "last-1", "memory.trunk_cache": True, "outer.steps": 1}
    tree = settings(world, "fomaml-lora", tmp_path / "run", changes)
    store, said = HiddenStates(), list[Forecast]()
    meta_train(tree, model=world.model, store=store, forecaster=Forecaster(said.append, longer_than=0))
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    for phase in ("inner", "query", "outer"):
        assert manifest["host"]["measured"]["phases"][phase]["cache"] == store.kept
        assert manifest["forecast"]["phases"][phase]["cache"] == pytest.approx(store.kept, rel=0.25)


def test_joint_steps_are_forecast_with_the_methods_own(world: World) -> None:
    """Each phase's peak is the higher one; operations are a mean over the run's steps."""

    def of(method: str, **changes: Any) -> Forecast:
        tree = settings(world, method, Path("unused"), {"outer.steps": 4, **changes})
        return forecast(workload_of(load_config(tree), kind="cpu"), CPU_DEVICE)

    both = of("meta-lora", **{"outer.joint_steps": 1})
    joint, own = of("joint-lora", **{"outer.steps": 1}), of("meta-lora")  # the joint step's batch is the first one
    assert joint.flops < both.flops < own.flops
    peaks = [{phase: sum(parts.values()) for phase, parts in each.phases.items()} for each in (both, joint, own)]
    assert peaks[1]["query"] > peaks[2]["query"], "a joint batch is support and query"
    assert peaks[0] == {phase: max(size, peaks[1].get(phase, 0)) for phase, size in peaks[2].items()}
    assert list(both.phases) == list(own.phases)
    assert any("in each of the first 1" in line for line in both.lines())


FLAT = ["fomaml", "meta-lora", *(pytest.param(name, marks=LONG) for name in ("fomaml-lora", "reptile", "reptile-lora"))]


@pytest.mark.parametrize("method", FLAT)
def test_memory_is_flat_in_the_inner_steps_of_a_first_order_method(world: World, method: str) -> None:
    """Which is why one inner step is traced."""
    work = workload_of(load_config(settings(world, method, Path("unused"), {"method.inner.steps": 3})), kind="cuda")
    config, chunk = work.session.config, work.stretches[0].largest_chunk(1)
    traced, one_step = _shortened(config, chunk)
    assert len(one_step.support) == 1
    whole, short = trace(config, work.shape, chunk).peak, trace(traced, work.shape, one_step).peak
    losses = 4 * 3  # of each inner step, for the metrics
    assert short <= whole <= short + losses


@pytest.mark.parametrize("method", ["maml", pytest.param("maml-lora", marks=LONG)])
def test_all_inner_steps_of_the_second_order_are_traced(world: World, method: str) -> None:
    """It stores their values, so that memory grows with them."""
    short, long = (
        workload_of(load_config(settings(world, method, Path("unused"), {"method.inner.steps": steps})), kind="cpu")
        for steps in (1, 2)
    )
    assert _shortened(long.session.config, long.stretches[0].largest_chunk(1))[0] is long.session.config
    assert forecast(long, CPU_DEVICE).peak > forecast(short, CPU_DEVICE).peak + 2 * short.trained


# by hand


def test_slack_is_a_share_of_a_gpus_bytes_and_none_of_a_cpus(predict: Predict) -> None:
    here, there = predict(), predict(device=H200)
    for phase, parts in there.phases.items():
        plain = sum(size for part, size in parts.items() if part != SLACK)
        assert parts[SLACK] == int(ALLOCATOR_SLACK * plain)
        assert SLACK not in here.phases[phase]
    assert there.peak == max(sum(parts.values()) for parts in there.phases.values())
    assert there.peak == sum(there.phases[there.peak_phase].values())
    assert here.peak >= here.workload.base_bytes


def test_a_step_takes_its_operations_at_the_devices_rate(predict: Predict) -> None:
    found = predict(device=H200, **{"model.dtype": "bfloat16", "outer.steps": 30})
    assert found.seconds == pytest.approx(found.flops / (0.4 * 989e12))
    assert found.total_seconds == pytest.approx(30 * found.flops / (0.4 * 989e12))
    unknown = predict(**{"model.dtype": "bfloat16"})
    assert unknown.seconds is unknown.total_seconds is None
    assert "time     unknown: no rate is known for bfloat16 on this machine's CPU" in unknown.lines()


def test_evaluations_take_their_time_and_their_part_of_a_checkpoint(predict: Predict) -> None:
    changes = {"model.dtype": "bfloat16", "outer.steps": 9, "tasks.validation": ["ada"]}
    without, found, last = (
        predict(device=H200, **changes, **more)
        for more in ({}, {"evaluate.every": 4}, {"evaluate.every": 4, "evaluate.export": "last"})
    )
    assert found.config.evaluate is not None
    times, steps, support, test = 4, 2, 3, 2
    tokens = times * (steps * support + test / 3) * found.workload.tokens_per_example
    assert found.workload.evaluation_tokens == pytest.approx(tokens)
    assert without.total_seconds is not None
    assert found.total_seconds is not None
    assert found.evaluation_seconds == pytest.approx(found.total_seconds - without.total_seconds)
    assert found.seconds is not None
    assert found.evaluation_seconds == pytest.approx(found.seconds * tokens / found.workload.tokens_per_step)
    assert any("9 steps and 4 evaluations (about" in line for line in found.lines())
    assert without.evaluation_seconds == 0
    assert not any("evaluations" in line for line in without.lines())
    assert found.checkpoint_bytes - without.checkpoint_bytes == 4 * found.workload.trained
    assert last.checkpoint_bytes == without.checkpoint_bytes


def test_gpus_share_the_tasks_of_a_step(predict: Predict) -> None:
    changes = {"outer.tasks_per_step": 3, "memory.tasks_per_forward": 3}
    one, two = (predict(device=H200, gpus=gpus, **changes) for gpus in (1, 2))
    assert (one.tasks_per_forward, two.tasks_per_forward) == (3, 2)
    assert one.flops == pytest.approx(two.flops, rel=0.02)
    assert predict(device=H200, **changes | {"outer.tasks_per_step": 2}).flops < 0.8 * one.flops
    assert two.seconds is not None
    assert one.seconds is not None
    assert two.seconds / one.seconds == pytest.approx(2 / 3, rel=0.02)
    assert two.peak < one.peak


def test_adapters_of_single_tasks_are_shared_out_over_gpus(predict: Predict) -> None:
    one, two, four = (predict("lora", H200, gpus=gpus) for gpus in (1, 2, 4))
    assert (one.workload.adapters, one.config.outer.steps) == (2, 2)
    assert one.seconds is not None
    assert one.total_seconds == pytest.approx(2 * 2 * one.seconds)
    assert two.total_seconds == four.total_seconds == pytest.approx(2 * one.seconds)
    assert any(line.startswith("adapters 2, one per task of tasks.held_out") for line in one.lines())


# what is said


def test_the_table_adds_up(predict: Predict) -> None:
    header, *rows = predict(device=H200).table()
    columns = [[float(cell) if cell != "-" else 0 for cell in row[25:].split()] for row in rows]
    assert header.split()[-5:] == ["load", "inner", "query", "outer", "save"]
    assert rows[-1].startswith("together")
    for place, total in enumerate(columns[-1]):
        assert sum(row[place] for row in columns[:-1]) == pytest.approx(total, abs=0.05)


def test_lines_say_where_tokens_and_rates_come_from(world: World, predict: Predict, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text((world.base / "config.json").read_text())
    counted = "\n".join(predict(device=H200).lines())
    assumed = "\n".join(predict(device=H200, **{"model.name": str(tmp_path)}).lines())
    assert "per step, the mean of 2 steps" in counted
    assert "every example taken as 512 (tasks.max_length), all scored: no tokenizer is here" in assumed
    assert "40% of the vendor's 67 TFLOP/s in float32, assumed" in counted
    assert "measured on 2 cores" in "\n".join(predict().lines())
    assert [line for line in predict(device=H200).lines() if len(line) > 120 and "fomaml-lora on" not in line] == []


def test_facts_are_json(predict: Predict) -> None:
    found = predict(device=H200)
    facts = json.loads(json.dumps(found.facts()))
    assert facts["peak_bytes"] == found.peak
    assert sum(facts["phases"][facts["peak_phase"]].values()) == found.peak
    assert facts["tokens_from"] == "encoded tasks"
    assert facts["rate"]["assumed"] is True


@pytest.mark.parametrize("number", [0.0031, 0.31, 4.5, 29.0, 1234.0])
def test_numbers_have_two_digits_and_no_exponent(number: float) -> None:
    assert float(significant(number).replace(",", "")) == pytest.approx(number)
    assert significant(0) == "0"


@given(st.floats(1e-6, 1e9))
def test_durations_and_sizes_read_back(number: float) -> None:
    amount, unit = duration(number).split()
    assert float(amount.replace(",", "")) * {"s": 1, "min": 60, "h": 3600}[unit] == pytest.approx(number, rel=0.06)
    size, unit = bytes_in_words(math.ceil(number)).split()
    assert float(size) * {"MB": 1e6, "GB": 1e9}[unit] == pytest.approx(math.ceil(number), rel=0.06)


# refusals


def test_what_the_device_or_the_model_has_not_is_refused(predict: Predict) -> None:
    with pytest.raises(UserError, match=r"memory.offload: nothing to offload from"):
        predict("fomaml", **{"memory.offload": True})
    with pytest.raises(UserError, match=r"method.lora.layers"):
        predict(**{"method.lora.layers": "last-9"})
