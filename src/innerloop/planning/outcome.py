"""Measured memory and time of a run beside its forecast, part by part.

Taken    measured in the first outer step, and over the whole run; facts() for the manifest
beside   the manifest of a run with a forecast -> lines for people
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from innerloop.planning.forecast import bytes_in_words, duration
from innerloop.planning.tracking import PARTS, Footprint

IN_A_STEP = ("inner", "query", "outer")


class Taken(NamedTuple):
    """footprint: of the first outer step, every storage counted; resident_before: bytes, before the model was read."""

    footprint: Footprint
    resident_before: int

    def facts(self) -> dict[str, Any]:
        found = self.footprint
        return {
            "peak_bytes": found.peak,
            "peak_phase": found.peak_phase,
            "phases": found.peaks,
            "host_bytes": found.host,
            "flops": found.total_flops,
            "resident_before": self.resident_before,
        }


def beside(manifest: Mapping[str, Any]) -> list[str]:
    """Predicted and measured bytes of each part at the peak of a step, and time."""
    expected, host = manifest["forecast"], manifest["host"]
    taken, peaks = host["measured"], host["peak_bytes"]
    predicted, measured = highest(expected["phases"]), highest(taken["phases"])
    unit, name = (1e9, "GB") if max(sum(predicted.values()), sum(measured.values())) >= 1e9 else (1e6, "MB")
    parts = [part for part in PARTS if max(predicted.get(part, 0), measured.get(part, 0)) >= unit / 200]
    counted = {part: predicted.get(part, 0) for part in parts}
    rows = [(part, counted[part], measured.get(part, 0)) for part in parts]
    rows.append(("together", sum(predicted.get(part, 0) for part in PARTS), sum(measured.values())))
    lines = [f"{f'{name} at the peak of a step':<27}{'predicted':>10}{'measured':>10}"]
    lines += [f"{part:<27}{left / unit:>10.2f}{right / unit:>10.2f}" for part, left, right in rows]
    return [*lines, _process(taken, peaks), _time(expected["seconds"], manifest["timing"]["seconds"])]


def highest(phases: Mapping[str, Mapping[str, int]]) -> Mapping[str, int]:
    """The parts of the phase of a step with the most bytes."""
    return max((phases[phase] for phase in IN_A_STEP if phase in phases), key=lambda parts: sum(parts.values()))


def _process(taken: Mapping[str, Any], peaks: Mapping[str, int]) -> str:
    if "allocated" in peaks:
        allocated, reserved = (bytes_in_words(peaks[name]) for name in ("allocated", "reserved"))
        return f"CUDA      {allocated} allocated, {reserved} reserved, at most"
    before = f", {bytes_in_words(taken['resident_before'])} of it before the model was read"
    return f"process   {bytes_in_words(peaks['rss'])} resident at most{before}"


def _time(expected: float | None, seconds: float) -> str:
    said = "not predicted" if expected is None else f"predicted {duration(expected)}"
    return f"time      {said}, took {duration(seconds)}"
