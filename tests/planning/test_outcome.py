"""What a run took stands beside what was forecast, part by part and in one unit."""

from typing import Any

from innerloop.planning.outcome import beside, highest

GB = 10**9


def manifest(scale: int = GB, **changes: Any) -> dict[str, Any]:
    """The query phase is the highest of a step; loading is no part of one."""
    expected = {
        "load": {"base": 90 * scale},
        "inner": {"base": 2 * scale, "activations": scale},
        "query": {"base": 2 * scale, "activations": 3 * scale},
    }
    query = {"base": 2 * scale, "activations": 4 * scale, "logits": scale // 999}
    measured = {"inner": {"base": 2 * scale}, "query": query}
    taken = {"phases": measured, "resident_before": scale // 2}
    return {
        "forecast": {"phases": expected, "seconds": 60},
        "host": {"measured": taken, "peak_bytes": {"rss": 7 * scale}},
        "timing": {"seconds": 90.0},
        **changes,
    }


def test_the_highest_phase_of_a_step_is_shown_by_part() -> None:
    assert highest(manifest()["forecast"]["phases"]) == {"base": 2 * GB, "activations": 3 * GB}
    lines = [line.split() for line in beside(manifest())]
    assert lines[0][0] == "GB"
    assert lines[1:4] == [["base", "2.00", "2.00"], ["activations", "3.00", "4.00"], ["together", "5.00", "6.00"]]
    assert beside(manifest())[4:] == [
        "process   7 GB resident at most, 0.5 GB of it before the model was read",
        "time      predicted 60 s, took 90 s",
    ]


def test_a_small_run_is_told_in_megabytes() -> None:
    lines = [line.split() for line in beside(manifest(10**6))]
    assert lines[0][0] == "MB"
    assert lines[1] == ["base", "2.00", "2.00"]


def test_where_no_time_was_predicted_that_is_said() -> None:
    said = manifest()
    said["forecast"]["seconds"] = None
    assert beside(said)[-1] == "time      not predicted, took 90 s"


def test_a_gpu_has_what_was_allocated_and_held() -> None:
    said = manifest()
    said["host"]["peak_bytes"] |= {"allocated": 6 * GB, "reserved": 8 * GB}
    assert beside(said)[-2] == "CUDA      6 GB allocated, 8 GB reserved, at most"
