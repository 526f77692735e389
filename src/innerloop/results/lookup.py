"""A comparison's results.json, looked up: its budgets, arms and adaptations, and the numbers of each.

Legend: arm = a contender; budget = what the arms have equal; how = "none", "own" or "tuned" adaptation; k = examples
of a test task; table = "unseen" (T2) or "seen" (T1); reference = the arm that every other is compared with.

Results   the one reader of that format; text that no page can hold is replaced on the way in
Metric    nats or accuracy: its unit, which way is better, how it is written
METRICS   the two that headline, in the order of the page; STOPPING: what ends an answer; METRIC: by name
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from innerloop.errors import Fault, UserError

FORMAT = 1
REFERENCE = "joint-lora"
COST, UNTRAINED = "cost", ""  # budgets of cells that aren't scored, and of arms that aren't trained
BUDGETS = {"tokens": "equal tokens", "examples": "equal examples", "seconds": "equal seconds", COST: "cost only"}
HOWS = {"own": "the run's own inner loop", "tuned": "learning rate and steps tuned on validation tasks"}

Entry = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Metric:
    """How one score is written. A value times `scale` is in `unit`."""

    name: str
    title: str
    unit: str
    scale: float
    digits: int
    lower_is_better: bool
    least: (
        float  # what an axis spans at least, in units: rounding noise of equal scores must not look like a difference
    )

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


METRICS = (
    Metric(name="nats", title="nats an answer token", unit="nats", scale=1, digits=3, lower_is_better=True, least=0.1),
    Metric(name="accuracy", title="accuracy", unit="points", scale=100, digits=1, lower_is_better=False, least=10),
)


STOPPING = Metric(
    name="stop_nats", title="nats of stopping", unit="nats", scale=1, digits=3, lower_is_better=True, least=0.1
)
METRIC = {metric.name: metric for metric in (*METRICS, STOPPING)}


class Results:
    """Raises UserError for another format. Whatever is absent is empty here, and left to the page to say."""

    def __init__(self, given: Mapping[str, Any]) -> None:
        if given.get("format") != FORMAT:
            problem = "these results are not in a format that this version reads"
            raise UserError(Fault(problem, "results.json: format", given.get("format"), str(FORMAT)))
        self.given: Entry = _clean(given)
        self.name = str(self.given.get("name", "comparison"))
        self.protocol: Entry = self.given.get("protocol") or {}
        self.rows: Sequence[Entry] = self.given.get("rows") or []
        self._scores, self._differences = (_index(self.entries(key)) for key in ("scores", "differences"))
        trained = [group(row) for row in self.rows] + [key[1] for key in (*self._scores, *self._differences)]
        self.budgets = unique(budget for budget in trained if budget not in (COST, UNTRAINED))
        if not self.budgets and UNTRAINED in trained:
            self.budgets = [UNTRAINED]

    def entries(self, key: str) -> Sequence[Entry]:
        """The entries of a list of the file; of differences only those from the reference."""
        found = self.given.get(key) or []
        return [entry for entry in found if entry.get("reference", REFERENCE) == REFERENCE]

    def others(self, budget: str, table: str) -> list[Entry]:
        """The differences from another arm than the reference."""
        found = [e for e in self.given.get("differences") or [] if (e["budget"], e["table"]) == (budget, table)]
        return [entry for entry in found if entry.get("reference", REFERENCE) != REFERENCE]

    def rows_of(self, budget: str) -> list[Entry]:
        """Its rows; the arms that aren't trained count in every budget but that of cost."""
        groups = (COST,) if budget == COST else (budget, UNTRAINED)
        return [row for row in self.rows if group(row) in groups]

    def row(self, budget: str, arm: str) -> Entry:
        return next((row for row in self.rows_of(budget) if row.get("arm") == arm), {})

    def arms(self, budget: str) -> list[str]:
        """In the matrix's order; those that only the scores know come last."""
        scored = [key[2] for key in self._scores if key[1] in (budget, UNTRAINED)]
        return unique([*(str(row.get("arm")) for row in self.rows_of(budget)), *scored])

    def hows(self, budget: str) -> list[str]:
        """The adaptations that were scored; one nameless when there is none, so that k = 0 is still shown."""
        found = {key[3] for key in self._scores if key[0] == "unseen" and key[1] in (budget, UNTRAINED)}
        return [how for how in HOWS if how in found] or ["none"]

    def holds(self, table: str, budget: str) -> bool:
        """Whether an arm of this very budget was scored."""
        return any(key[:2] == (table, budget) for key in self._scores)

    @property
    def ks(self) -> list[int]:
        return sorted({int(k) for k in self.protocol.get("k", [])} | {key[4] for key in self._scores})

    @property
    def metrics(self) -> list[Metric]:
        """Those that have a score, STOPPING behind the nats of the answer."""
        found = {key[5] for key in self._scores}
        return [metric for metric in (METRICS[0], STOPPING, METRICS[1]) if metric in METRICS or metric.name in found]

    @property
    def primary(self) -> Entry:
        """The contrast that was named before anything ran; empty where none was."""
        return self.given.get("primary") or {}

    @property
    def exploratory(self) -> int:
        """How many other differences have a verdict on a method."""
        found = [*(self.given.get("differences") or []), *(self.given.get("contrasts") or [])]
        return sum(entry.get("p") is not None and not self.is_primary(entry) for entry in found)

    def is_primary(self, entry: Entry) -> bool:
        """Whether a difference is the primary contrast."""
        named = self.primary
        return entry.get("table", "unseen") == "unseen" and all(
            (
                entry.get("arm") == named.get("arm"),
                entry.get("reference") == named.get("against"),
                *(entry.get(key) == named.get(key) for key in ("budget", "metric", "k")),
                entry.get("how") in (named.get("adaptation"), "none"),
            )
        )

    def tasks(self, table: str) -> list[str]:
        known = self.protocol.get("held_out" if table == "unseen" else "train") or []
        scored = (task for key, entry in self._scores.items() if key[0] == table for task in entry.get("tasks") or {})
        return unique([*known, *scored])

    def of(self, key: str, budget: str) -> list[Entry]:
        """The entries of `key` that count in a budget."""
        return [entry for entry in self.entries(key) if entry.get("budget") in (budget, UNTRAINED)]

    def score(self, budget: str, arm: str, how: str, k: int, metric: str, table: str = "unseen") -> Entry | None:
        return _find(self._scores, table, budget, arm, how, k, metric)

    def difference(self, budget: str, arm: str, how: str, k: int, metric: str, table: str = "unseen") -> Entry | None:
        return _find(self._differences, table, budget, arm, how, k, metric)

    def curve(self, budget: str, arm: str, how: str, metric: str) -> list[Entry]:
        """Its scores on unseen tasks in the order of k, each with its k."""
        found = (self.score(budget, arm, how, k, metric) for k in self.ks)
        return [entry for entry in found if entry is not None]

    def last_difference(self, budget: str, arm: str, how: str, metric: str) -> Entry | None:
        """The difference at the largest k that the arm was compared at."""
        found = (self.difference(budget, arm, how, k, metric) for k in reversed(self.ks))
        return next((entry for entry in found if entry is not None), None)

    def absence(self, budget: str, arm: str) -> str:
        """Why an arm has no score: "failed: out of memory", "not run yet", "cost only, not scored", or else."""
        row = self.row(budget, arm)
        status, reason = row.get("status"), str(row.get("reason") or "")
        if status in ("failed", "missing"):
            word = "failed" if status == "failed" else "not run yet"
            return f"{word}: {reason}" if reason else word
        return "cost only, not scored" if row.get("cost_only") else "no score in these results"


def group(row: Entry) -> str:
    """The budget that a row is shown under: cells of a few steps are never beside trained ones."""
    return COST if row.get("cost_only") else str(row.get("budget") or UNTRAINED)


def is_predicted(row: Entry, field: str) -> bool:
    """Whether a number of a row was predicted; `peak_bytes` names all kinds of memory at once."""
    names = row.get("predicted") or []
    return field in names or field.split(".")[0] in names or field.split(".")[-1] in names


def budget_title(budget: str) -> str:
    return BUDGETS.get(budget, f"equal {budget}" if budget else "no training")


def how_title(how: str) -> str:
    return HOWS.get(how, "no adaptation")


def unequal(difference: Entry) -> str:
    """What a difference says beside its numbers where the two arms adapted differently: "joint-lora tuned"."""
    how = difference.get("reference_how") or difference.get("how")
    return "" if how == difference.get("how") else f"{difference.get('reference', REFERENCE)} {how}"


def signed(text: str) -> str:
    return text.replace("-", "\N{MINUS SIGN}")


def unique(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))


_Key = tuple[str, str, str, str, int, str]


def _index(entries: Sequence[Entry]) -> dict[_Key, Entry]:
    return {
        (entry["table"], entry.get("budget") or "", entry["arm"], entry["how"], int(entry["k"]), entry["metric"]): entry
        for entry in entries
        if entry.get("mean") is not None
    }


def _find(
    index: Mapping[_Key, Entry], table: str, budget: str, arm: str, how: str, k: int, metric: str
) -> Entry | None:
    """An arm that isn't trained has no budget, and one that isn't adapted (k = 0, in-context) no `how`."""
    keys = ((table, b, arm, h, k, metric) for b in (budget, UNTRAINED) for h in (how, "none"))
    return next((index[key] for key in keys if key in index), None)


def _clean(value: Any) -> Any:
    """Control characters and lone surrogates, which neither SVG nor UTF-8 can hold, become U+FFFD."""
    if isinstance(value, str):
        return re.sub(r"[^\t\n\x20-\x7e\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "�", value)
    if isinstance(value, Mapping):
        return {_clean(key): _clean(item) for key, item in value.items()}
    return [_clean(item) for item in value] if isinstance(value, list | tuple) else value
