"""What a tracker counts: storages while they live, the peak of each window, the part they belong to."""

from typing import Any

import pytest
import torch

from innerloop.planning.tracking import PARTS, PHASES, ByteTracker, Footprint, StepWindow, footprint

CPU = torch.device("cpu")
ROW = 4 * 1000  # bytes of a thousand float32 numbers


def tracked(*, phase: str = "inner", stage: str = "between", **options: Any) -> ByteTracker:
    tracker = ByteTracker(CPU, **options)
    tracker.at(phase=phase, stage=stage)
    return tracker


def total(tracker: ByteTracker, phase: str = "inner") -> int:
    return footprint(tracker.peaks, {}, {}).peaks[phase]["activations"]


def test_a_peak_counts_what_lives_at_once() -> None:
    with tracked() as tracker:
        first = torch.zeros(1000)
        second = first + 1
        del first
        third = second + 1
        del second, third
    assert total(tracker) == 2 * ROW
    assert sum(tracker.parts().values()) == 0


def test_without_the_frees_the_peak_would_be_higher() -> None:
    with tracked() as tracker:
        kept = [torch.zeros(1000)]
        kept.append(kept[-1] + 1)
        kept.append(kept[-1] + 1)
    assert total(tracker) == 3 * ROW


def test_views_and_changes_in_place_take_nothing() -> None:
    with tracked() as tracker:
        value = torch.zeros(10, 100)
        value.T.add_(1)
        value[2:].flatten().mul_(2)
        value.expand(5, 10, 100)
    assert total(tracker) == ROW


def test_what_autograd_keeps_is_live_until_the_backward_pass_is_over() -> None:
    with tracked(stage="forward") as tracker:
        leaf = torch.zeros(1000, requires_grad=True)
        loss = leaf.exp().exp().sum()  # each exp keeps its result
        assert tracker.parts()["activations"] == 3 * ROW + 4
        loss.backward()
        del loss
        assert tracker.parts()["activations"] == 2 * ROW  # the leaf and its gradient


@pytest.mark.parametrize("engine", [True, False])
def test_autograd_adds_gradients_in_place(engine: bool) -> None:
    """Where a mode looks on, torch makes a third tensor; a run doesn't. The same sum in a rule's own code is one."""
    with tracked(stage="backward") as tracker, torch.set_grad_enabled(not engine):
        left, right = torch.zeros(1000), torch.zeros(1000)
        both = left + right
    assert both.shape == (1000,)
    assert total(tracker) == (2 if engine else 3) * ROW


def test_what_was_there_before_is_counted_where_it_is_adopted() -> None:
    there = torch.zeros(1000)
    tracker = tracked()
    tracker.adopt("base", [there, there[5:]])
    assert tracker.parts() == {"base": ROW}
    tracker.adopt("shared values", [there])
    assert tracker.parts() == {"shared values": ROW}
    del there
    assert tracker.parts() == {}


TRAINED, HEAD, VOCABULARY = (30, 20), (50, 20), 50


@pytest.mark.parametrize(
    ("phase", "stage", "shape", "part"),
    [
        ("inner", "enter", TRAINED, "fast weights"),
        ("inner", "between", (1, *TRAINED), "fast weights"),
        ("query", "between", (1, *TRAINED), "gradients"),
        ("inner", "backward", TRAINED, "gradients"),
        ("inner", "backward", (4, *TRAINED), "gradients"),
        ("inner", "forward", TRAINED, "activations"),
        ("inner", "forward", HEAD, "gradients"),
        ("query", "forward", (7, VOCABULARY), "logits"),
        ("query", "backward", (7, VOCABULARY), "logits"),
        ("query", "forward", (7, 20), "activations"),
        ("outer", "between", TRAINED, "meta-optimizer"),
    ],
)
def test_the_part_of_a_new_storage(phase: str, stage: str, shape: tuple[int, ...], part: str) -> None:
    tracker = tracked(phase=phase, stage=stage)
    tracker.train({"weight": torch.zeros(TRAINED), "head": torch.zeros(HEAD)}, torch.zeros(HEAD))
    with tracker:
        made = torch.zeros(shape)
    assert tracker.parts() == {part: made.nbytes}


def test_each_phase_has_the_parts_of_its_highest_window() -> None:
    peaks = {
        StepWindow("inner", "forward", "low"): {"base": 5, "activations": 1},
        StepWindow("inner", "backward"): {"base": 5, "gradients": 3, "logits": 0},
        StepWindow("outer", "between"): {"meta-optimizer": 4},
    }
    found = footprint(peaks, {"gradients": 2, "base": 0}, {"inner": 7.0, "query": 1.0})
    assert found == Footprint(
        {"inner": {"base": 5, "gradients": 3}, "outer": {"meta-optimizer": 4}}, {"gradients": 2}, found.flops
    )
    assert (found.peak_phase, found.peak, found.total_flops) == ("inner", 8, 8.0)
    assert found.parts == found.peaks["inner"]
    assert set(found.peaks) <= set(PHASES)
    assert set(found.parts) <= set(PARTS)


def test_operations_are_counted_by_phase() -> None:
    left, right = torch.zeros(3, 4), torch.zeros(4, 5)
    with tracked() as tracker:
        product = left @ right
        tracker.at(phase="query")
        product = left @ right @ torch.zeros(5, 2)
    assert product.shape == (3, 2)
    assert tracker.flops == {"inner": 2 * 3 * 4 * 5, "query": 2 * 3 * 4 * 5 + 2 * 3 * 5 * 2}


@pytest.mark.parametrize("causal", [True, False])
def test_attention_is_counted_as_torch_counts_it_on_a_gpu(causal: bool) -> None:
    query, key, value = (torch.zeros(2, heads, 16, 8, requires_grad=True) for heads in (4, 2, 2))
    with tracked() as tracker:
        out = torch.nn.functional.scaled_dot_product_attention(query, key, value, is_causal=causal, enable_gqa=True)
        forward = tracker.flops["inner"]
        out.sum().backward()
    product = 2 * (2 * 4) * 16 * 16 * 8  # batch x heads of queries, each 16 x 8 by 8 x 16
    assert forward == 2 * product
    assert tracker.flops["inner"] - forward == 5 * product


def test_host_memory_beside_the_device_is_counted_apart() -> None:
    shared, tracker = torch.zeros(1000), tracked(phase="query", host_follows=True)
    tracker.adopt("shared values", [shared], host=True)
    with tracker:
        made = shared + 1  # of a host tensor, in a step of the host
        tracker.at(stage="enter")
        copy = shared.clone()  # what a GPU would copy to itself
        assert tracker.stands_for_host(made)
        assert not tracker.stands_for_host(copy)
    found = footprint(tracker.peaks, tracker.host_peak, {})
    assert found.peaks["query"] == {"fast weights": ROW}
    assert found.host == {"shared values": ROW, "activations": ROW}
