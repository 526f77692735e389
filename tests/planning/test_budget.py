"""Budgets: the first setting that fits, that it is one a run accepts, and that nothing smaller is claimed."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from innerloop.config.loading import RunConfig, load_config
from innerloop.errors import UserError
from innerloop.planning import budget
from innerloop.planning.budget import Plan, as_arguments, as_yaml, parse_size, plan
from innerloop.planning.devices import DEVICES, cpu
from innerloop.planning.forecast import forecast
from innerloop.planning.workload import workload_of
from small_runs import World, settings

H200 = DEVICES["h200"]


def config_of(world: World, method: str = "fomaml-lora", **changes: Any) -> RunConfig:
    return load_config(settings(world, method, Path("unused"), changes))


def answer(world: World, method: str, limit: float, **changes: Any) -> Plan:
    return plan(config_of(world, method, **changes), H200, budget=int(limit))


OWN: dict[str, dict[str, Any]] = {
    "fomaml-lora": {"memory.tasks_per_forward": 2, "method.inner.steps": 1},
    "fomaml": {"model.dtype": "bfloat16", "method.inner.steps": 1},
    "maml": {"model.dtype": "bfloat16", "method.inner.steps": 1},
}


@pytest.fixture(scope="module")
def every(world: World) -> dict[str, Plan]:
    """All settings there are, because none fits in what the weights alone take."""
    works = {method: workload_of(config_of(world, method, **changes), kind="cuda") for method, changes in OWN.items()}
    return {method: answer(world, method, works[method].base_bytes, **changes) for method, changes in OWN.items()}


# settings


def test_settings_are_tried_in_the_order_of_what_they_cost(every: dict[str, Plan]) -> None:
    lora, full, second = ([list(keys) for keys, _ in every[name].tried] for name in ("fomaml-lora", "fomaml", "maml"))
    forward, layers, rows, lean, offload = (
        f"memory.{key}" for key in ("tasks_per_forward", "checkpointing", "logit_rows", "lean", "offload")
    )
    assert lora == [[], [forward], [forward, layers], [forward, layers, rows]]
    assert full == [[], [layers], [layers, rows], [layers, rows, lean], [layers, rows, lean, offload]]
    assert second == [[], [layers], [layers, rows], [layers, rows, offload]]  # lean is for first-order methods
    assert [dict(keys) for keys, _ in every["fomaml-lora"].tried][1] == {forward: 1}


def test_the_smallest_need_is_the_smallest_that_was_found(every: dict[str, Plan]) -> None:
    for found in every.values():
        assert not found.fits
        peaks = [peak for _, peak in found.tried]
        assert found.forecast.peak == min(peaks) < peaks[0]
        assert found.keys == found.tried[peaks.index(min(peaks))][0]


@pytest.mark.parametrize(("method", "place"), [("fomaml-lora", 1), ("fomaml", 3)])
def test_the_first_that_fits_is_taken_and_a_run_with_it_needs_that_much(
    world: World, every: dict[str, Plan], method: str, place: int
) -> None:
    keys, peak = every[method].tried[place]
    assert peak < min(before for _, before in every[method].tried[:place])
    found = answer(world, method, peak, **OWN[method])
    assert (found.fits, found.keys, found.forecast.peak) == (True, keys, peak)
    assert found.tried == every[method].tried[: place + 1]
    sets = as_arguments(keys).replace("--set ", "").split()
    by_hand = load_config(settings(world, method, Path("unused"), OWN[method]), sets)
    assert forecast(workload_of(by_hand, kind="cuda"), H200).peak == peak


def test_a_cpu_has_nothing_to_offload_to(world: World) -> None:
    config = config_of(world, "fomaml")
    found = plan(config, cpu(), budget=workload_of(config, kind="cpu").base_bytes)
    assert not any("memory.offload" in keys for keys, _ in found.tried)


# what is said


def test_the_keys_are_printed_for_the_command_line_and_the_file(every: dict[str, Plan]) -> None:
    keys = {"memory.tasks_per_forward": 2, "memory.checkpointing": True}
    assert as_arguments(keys) == "--set memory.tasks_per_forward=2 --set memory.checkpointing=true"
    assert as_yaml(keys) == ["memory:", "  tasks_per_forward: 2", "  checkpointing: true"]
    said = "\n".join(every["fomaml"].lines())
    assert said.startswith("does not fit in ")
    assert "the smallest need is" in said
    assert "LoRA (method.name: fomaml-lora)" in said
    assert "and --set memory.lean=true" in said
    facts = json.loads(json.dumps(every["fomaml"].facts()))
    assert facts["fits"] is False
    assert facts["set"] == dict(every["fomaml"].keys)
    assert [row["peak_bytes"] for row in facts["tried"]] == [peak for _, peak in every["fomaml"].tried]


def test_a_run_that_fits_as_it_is_says_so_first(world: World) -> None:
    found = plan(config_of(world), H200)
    assert (found.fits, found.keys, found.limited_by) == (True, {}, "NVIDIA H200")
    assert found.lines()[0] == "fits in 141 GB (NVIDIA H200) as configured"
    assert plan(config_of(world), H200, budget=10**12).limited_by == "NVIDIA H200"
    assert plan(config_of(world), H200, budget=10**9).lines()[0] == "fits in 1 GB (--budget) as configured"


# refusals


def test_less_than_the_weights_is_refused_before_anything_is_traced(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def traced(*_: Any, **__: Any) -> None:
        raise AssertionError("traced")

    monkeypatch.setattr(budget, "forecast", traced)
    base = workload_of(config_of(world), kind="cpu").base_bytes
    with pytest.raises(UserError, match=r"--budget: less than the weights of .* alone[\s\S]*model.dtype: bfloat16"):
        answer(world, "fomaml-lora", base - 1)
    with pytest.raises(UserError, match=r"in bfloat16; a smaller model"):
        answer(world, "fomaml-lora", base / 2 - 1, **{"model.dtype": "bfloat16"})
    with pytest.raises(AssertionError, match="traced"):
        answer(world, "fomaml-lora", base)


@given(number=st.integers(1, 10**6), unit=st.sampled_from(["MB", "GB", "gb", "MiB", "GiB", " GB"]))
def test_a_size_is_its_number_times_its_unit(number: int, unit: str) -> None:
    power = 2 if "M" in unit else 3
    assert parse_size(f"{number}{unit}") == number * (1024 if "i" in unit else 1000) ** power


def test_a_size_may_have_decimals() -> None:
    assert (parse_size("1.5GB"), parse_size("0.5 TB")) == (1_500_000_000, 500_000_000_000)


@pytest.mark.parametrize("text", ["24", "24 G", "GB", "-1GB", "0GB", "1e9GB", "24 000 MB", "٣GB", "1" * 400 + "GB", ""])
def test_other_sizes_are_refused(text: str) -> None:
    with pytest.raises(UserError, match=r"--budget: not a size[\s\S]*such as 24GB or 24GiB"):
        parse_size(text)


@given(st.text(max_size=8))
def test_any_text_is_a_size_or_an_error(text: str) -> None:
    with suppress(UserError):
        assert parse_size(text) > 0
