"""The words of a report for what results.json names: metrics, budgets, adaptations, and why a score is absent.

Metric            its unit, which way is better, how it is written
MAIN_METRICS      the two that headline, in the order of the page; STOPPING: what ends an answer; METRIC: by name
reported_metrics  those that some results have a score of
printable         results without characters that no page can hold
"""

import re
from dataclasses import dataclass
from typing import Any

from innerloop.results.entries import Difference
from innerloop.results.names import COST, HIGHER_IS_BETTER, OWN_BUDGET, How, MetricName, Record
from innerloop.results.schema import Results

BUDGETS = {"tokens": "equal tokens", "examples": "equal examples", "seconds": "equal seconds", COST: "cost only"}
BUDGETS |= {OWN_BUDGET: "the run's own budget"}
HOWS = {"own": "the run's own inner loop", "tuned": "learning rate and steps tuned on validation tasks"}
NOT_DONE = {"failed": "failed", "missing": "not run yet"}  # of a row's status


@dataclass(frozen=True, kw_only=True)
class Metric:
    """How one score is written. A value times `scale` is in `unit`."""

    name: MetricName
    title: str
    unit: str
    scale: float
    digits: int
    least: float  # what an axis spans at least, in units: rounding of equal scores must not look like a difference

    @property
    def lower_is_better(self) -> bool:
        return not HIGHER_IS_BETTER[self.name]

    @property
    def heading(self) -> str:
        return f"{self.title}, %" if self.unit == "points" else self.title

    @property
    def differences(self) -> str:
        """What its differences are in."""
        return self.title if self is STOPPING else self.unit

    @property
    def better(self) -> str:
        return "lower is better" if self.lower_is_better else "higher is better"

    def plain(self, value: float) -> str:
        return signed(f"{value * self.scale:.{self.digits}f}")

    def change(self, value: float) -> str:
        text = f"{value * self.scale:+.{self.digits}f}"
        return signed(text if float(text) else text[1:])

    def words(self, value: float) -> str:
        """-0.12 -> "0.120 lower", of accuracy "12.0 points lower"; what rounds to 0 is neither lower nor higher."""
        size = self.size(value)
        told = size if self.unit == "nats" else f"{size} {self.unit}"
        return f"{told} {'lower' if value < 0 else 'higher'}" if float(size) else told

    def between(self, low: float, high: float) -> str:
        """An interval in words: "0.050 to 0.190 lower", or "0.050 lower to 0.020 higher"."""
        if low < 0 < high:
            return f"{self.words(low)} to {self.words(high)}"
        near, far = sorted((low, high), key=abs)
        return f"{self.size(near)} to {self.words(far)}"

    def size(self, value: float) -> str:
        return f"{abs(value) * self.scale:.{self.digits}f}"


_NATS = Metric(name="nats", title="nats per answer token", unit="nats", scale=1, digits=3, least=0.1)
_ACCURACY = Metric(name="accuracy", title="accuracy", unit="points", scale=100, digits=1, least=10)
STOPPING = Metric(name="stop_nats", title="nats of stopping", unit="nats", scale=1, digits=3, least=0.1)
MAIN_METRICS = (_NATS, _ACCURACY)
METRIC: dict[MetricName, Metric] = {metric.name: metric for metric in (_NATS, STOPPING, _ACCURACY)}


def reported_metrics(results: Results) -> list[Metric]:
    """The main ones, and those that have a score; STOPPING behind the nats of the answer."""
    found = {score.metric for score in results.scores}
    return [metric for name, metric in METRIC.items() if metric in MAIN_METRICS or name in found]


def budget_title(budget: str) -> str:
    return BUDGETS.get(budget, f"equal {budget}" if budget else "no training")


def how_title(how: How) -> str:
    return HOWS.get(how, "no adaptation")


def unequal(found: Difference) -> str:
    """What a difference says beside its numbers where the two arms adapted differently: "joint-lora tuned"."""
    return "" if found.reference_how == found.how else f"{found.reference} {found.reference_how}"


def absence(results: Results, budget: str, arm: str) -> str:
    """Why an arm has no score: "failed: out of memory", "not run yet", "cost only, not scored", or else."""
    row = results.row(budget, arm)
    if row is not None and row.status in NOT_DONE:
        return f"{NOT_DONE[row.status]}: {row.reason}" if row.reason else NOT_DONE[row.status]
    return "cost only, not scored" if row is not None and row.cost_only else "no score in these results"


def signed(text: str) -> str:
    return text.replace("-", "\N{MINUS SIGN}")


def printable(value: Any) -> Any:
    """Control characters, which SVG can't hold, become U+FFFD in all texts of a record."""
    if isinstance(value, str):
        return re.sub(r"[^\t\n\x20-\x7e\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "\ufffd", value)
    if isinstance(value, Record):
        return value.model_construct(**{name: printable(getattr(value, name)) for name in value.model_fields_set})
    if isinstance(value, dict):
        return {printable(key): printable(item) for key, item in value.items()}
    return type(value)(map(printable, value)) if isinstance(value, list | tuple) else value
