"""What one figure is of: the part of the results it shows, and the words that say which part that is.

View   results, looks of the arms, and one budget, adaptation, metric and table
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from innerloop.report.figure_style import MUTED, Look, render
from innerloop.report.page import Figure
from innerloop.report.words import MAIN_METRICS, Metric, absence, budget_title, how_title
from innerloop.results.entries import Difference, MeanScore
from innerloop.results.names import How, TaskSet
from innerloop.results.schema import Results

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas


@dataclass(frozen=True)
class View:
    results: Results
    looks: dict[str, Look]
    budget: str
    how: How = "none"
    metric: Metric = MAIN_METRICS[0]
    table: TaskSet | None = "unseen"  # None: of what has no score

    def of(self, metric: Metric) -> "View":
        return replace(self, metric=metric)

    @property
    def k(self) -> int:
        """The largest k: where figures without an axis of k are read."""
        return 0 if self.table == "seen" else max(self.results.ks, default=0)

    @property
    def subject(self) -> str:
        """Where the numbers come from, as a figure's heading."""
        if self.table is None:
            parts = ["training", budget_title(self.budget)]
        elif self.table == "seen":
            parts = ["T1 seen tasks", "shared adapter, k = 0", budget_title(self.budget)]
        else:
            adapted = {"own": "own inner loop", "tuned": "tuned lr and steps"}.get(self.how, how_title(self.how))
            parts = ["T2 unseen tasks", adapted, budget_title(self.budget)]
        return " · ".join(parts)

    def arms(self) -> list[str]:
        return self.results.arms(self.budget)

    def score(self, arm: str) -> MeanScore | None:
        """At the largest k that the arm was scored at."""
        if self.table == "seen":
            return self.results.score(self.budget, arm, self.how, 0, self.metric.name, self.table)
        return next(reversed(self.results.curve(self.budget, arm, self.how, self.metric.name)), None)

    def difference(self, arm: str) -> Difference | None:
        assert self.table is not None
        return self.results.difference(self.budget, arm, self.how, self.k, self.metric.name, self.table)

    def tell(self, score: MeanScore) -> str:
        """With its interval, in words."""
        middle = self.metric.plain(score.mean)
        if score.low is None or score.high is None:
            return middle
        return f"{middle} ({self.metric.plain(score.low)} to {self.metric.plain(score.high)})"

    def left_out(self, shown: Iterable[str], *, without: str = "") -> str:
        """ "Left out: joint (cost only, not scored).", or nothing. without: what an arm that has a score lacks."""
        missing = [arm for arm in self.arms() if arm not in set(shown)]
        why = {
            arm: without if without and self.score(arm) else absence(self.results, self.budget, arm) for arm in missing
        }
        return f" Left out: {'; '.join(f'{arm} ({reason})' for arm, reason in why.items())}." if why else ""

    def finish(self, canvas: "Canvas", kind: str, *, title: str, caption: str, alt: str) -> Figure:
        canvas.suptitle(self.subject, x=0.01, ha="left", fontsize=7.5, color=MUTED)
        svg, png = render(canvas)
        name = self._name(kind)
        return Figure(name, self._place(kind), title, caption, alt, svg, png)

    def _place(self, kind: str) -> tuple[str, str, str]:
        return ("seen" if self.table == "seen" else kind.split("-")[0], self.budget, self.how)

    def _name(self, kind: str) -> str:
        how = [] if self.how == "none" else [self.how]
        words = "-".join(part for part in (self.budget, self.table, *how, kind) if part)
        return re.sub(r"[^a-z0-9]+", "-", words.lower()).strip("-")
