"""The first screen of a comparison: one chart, three plain sentences, and what the words mean.

Focus       the budget, adaptation and k that the first screen is of
focus       that of the primary contrast, or else the first budget, the last adaptation and the largest k
standing    arm -> its score there; an arm that is never adapted stands with the one score it has
opening     the parts of the page that stand open: the result, what was answered, and curves over k
asked_of    what was asked, with every arm's answer
answer      what was best, whether the difference is shown, and what it cost
answer_lines  the same as lines for a terminal
glossary    the words of a comparison, in a line
lasted      seconds, in words
"""

from collections.abc import Sequence
from typing import NamedTuple

from innerloop.report.figures_cost import memory
from innerloop.report.page import (
    Asked,
    Block,
    Figure,
    PageSection,
    Prose,
    Reply,
    Span,
    counted,
    listed,
    say,
    size,
    whole,
)
from innerloop.report.verdict import UNJUDGED, compared, why_unjudged
from innerloop.report.words import MAIN_METRICS, METRIC, Metric, how_title, printable
from innerloop.results.entries import Judged, MeanScore, PrimaryContrast
from innerloop.results.names import NO_BUDGET, REFERENCE, How
from innerloop.results.schema import Results

QUESTIONS = 6  # on the page


class Focus(NamedTuple):
    """metric: accuracy, where anything has it."""

    budget: str
    how: How
    k: int
    metric: Metric


def focus(results: Results) -> Focus | None:
    """None where nothing was scored."""
    if not results.budgets or not results.ks:
        return None
    named = results.primary
    budget = named.budget if named else results.budgets[0]
    how = named.adaptation if named else results.hows(budget)[-1]
    k = named.k if named else results.ks[-1]
    for metric in reversed(MAIN_METRICS):
        if standing(results, found := Focus(budget, how, k, metric)):
            return found
    return None


def standing(results: Results, at: Focus) -> dict[str, MeanScore]:
    found: dict[str, MeanScore] = {}
    for arm in results.arms(at.budget):
        curve = results.curve(at.budget, arm, at.how, at.metric.name)
        here = next((score for score in curve if score.k == at.k), None)
        if here or (curve and curve[-1].k == 0 and not _is_adapted(results, at.budget, arm)):
            found[arm] = here or curve[-1]
    return found


def opening(results: Results, drawn: Sequence[Figure]) -> list[PageSection]:
    at = focus(results)
    blocks: list[Block] = _unfinished(results)
    if at is None:
        blocks.append(say("Nothing in these results was scored.", style="note"))
        return [PageSection("result", "Result", blocks, folded=False)]
    blocks += [figure for figure in drawn if figure.place[0] == "right"]
    blocks += [*answer(results), *filter(None, [glossary(results)])]
    curves = [figure for figure in drawn if figure.place == ("curves", at.budget, at.how)]
    asked: list[Block] = [*asked_of(results, at.budget, at.how)]
    told = f"The first test examples of {'each task' if len(asked) > 1 else 'a task'}, however they went."
    return [
        PageSection("result", "Result", blocks, folded=False),
        PageSection("answers", "What was answered", [say(told, style="note"), *asked] if asked else [], folded=False),
        PageSection("growth", "With more examples", [*curves], folded=False),
    ]


def _unfinished(results: Results) -> list[Block]:
    lacking = [row for row in results.rows if row.status != "done"]
    if not lacking and results.status == "done":
        return []
    count = f"{len(lacking)} of {len(results.rows)} rows of the matrix failed or are not done" if lacking else ""
    sentence = f"This comparison is not finished{': ' if count else ''}{count}."
    if results.status == "done":
        sentence = f"{count.capitalize()}; the rest is final."
    return [say(sentence, " The notes say which and why." if lacking else "", style="warning")]


def asked_of(results: Results, budget: str, how: How) -> list[Asked]:
    """A question of each task before the second of any."""
    arms = results.arms(budget)
    turns: dict[str, int] = {}
    ordered: list[tuple[int, Asked]] = []
    for question in results.questions:
        given = {a.arm: a for a in question.answers if a.budget in (budget, NO_BUDGET) and a.how in (how, "none")}
        replies = [Reply(arm, given[arm].text, given[arm].correct == 1) for arm in arms if arm in given]
        turns[question.task] = turns.get(question.task, 0) + 1
        ordered.append((turns[question.task], Asked(question.task, question.prompt, question.right, replies)))
    return [asked for _, asked in sorted(ordered, key=lambda each: each[0])[:QUESTIONS]]


def answer(results: Results) -> list[Prose]:
    at = focus(results)
    if at is None:
        return []
    best, sentence = _best(results, at)
    return [sentence, *filter(None, [_difference(results, at, best), _cost(results, at)])]


def answer_lines(results: Results) -> list[str]:
    read = printable(results)
    return ["".join(span.text for span in prose.spans) for prose in answer(read)] or ["Nothing was scored."]


def glossary(results: Results) -> Prose | None:
    at = focus(results)
    if at is None:
        return None
    rows = {row.arm: row.algorithm for row in results.rows_of(at.budget) if row.algorithm}
    arms = "".join(f"{arm}: {algorithm}. " for arm, algorithm in rows.items())
    words = (
        "k: examples of an unseen task that an arm adapts to, or reads in its prompt. Right: answers that pass the "
        "task's own check. Nats: loss per token of the right answer, lower is better. Seed: one training of every arm. "
    )
    return say(Span("Words. ", "strong"), words, arms, f"Adapted here: {how_title(at.how)}.", style="note")


def lasted(seconds: float) -> str:
    """231.4 -> "3.9 min"."""
    for unit, name in ((3600, "h"), (60, "min")):
        if seconds >= 1.5 * unit:
            return f"{seconds / unit:.1f} {name}"
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"


def _is_adapted(results: Results, budget: str, arm: str) -> bool:
    """Whether the arm is scored at a k above 0 in any way, or is going to be."""
    row = results.row(budget, arm)
    return bool(row and row.budget) or any(score.arm == arm and score.k for score in results.scores)


def _best(results: Results, at: Focus) -> tuple[str, Prose]:
    found = standing(results, at)
    order = sorted(found, key=lambda arm: found[arm].mean, reverse=not at.metric.lower_is_better)
    first = [arm for arm in order if at.metric.plain(found[arm].mean) == at.metric.plain(found[order[0]].mean)]
    tasks = counted(len(results.tasks("unseen")), "task")
    where = f" on {tasks} that training never saw, after {counted(at.k, 'example')} of each: "
    rest = [f"{arm} {_value(at.metric, found[arm], interval=False)}" for arm in order if arm not in first]
    most = "the lowest loss" if at.metric.lower_is_better else "most answers right"
    own = _value(at.metric, found[order[0]], interval=True)
    have = " has " if len(first) == 1 else " have "
    beside = f"; {listed(rest)}" if rest else ""
    return order[0], say(Span(listed(first), "strong"), have, most, where, own, beside, ".", style="item")


def _difference(results: Results, at: Focus, best: str) -> Prose | None:
    """Of the contrast that was named before anything ran; else of the best arm, or the next, and the reference."""
    named = results.primary
    if named is not None:
        arm, against, metric = named.arm, named.against, METRIC[named.metric]
        found: Judged | None = named if isinstance(named, PrimaryContrast) else None
        when = " This contrast was named before anything ran."
    else:
        candidates = [best, *results.arms(at.budget)]
        against, metric, when = REFERENCE, at.metric, " Exploratory: no contrast was named before the comparison ran."
        pairs = ((a, results.difference(at.budget, a, at.how, at.k, metric.name)) for a in candidates)
        arm, found = next(((a, each) for a, each in pairs if each), ("", None))
        if found is None:
            return None
    if found is None:
        return say(Span(arm, "strong"), f" against {against} has no scores yet.{when}", style="item")
    words = compared(metric, found, against)
    if found.verdict in UNJUDGED:
        few = why_unjudged(tasks=len(found.tasks), seeds=len(found.seeds))
        start = [Span("Nothing is shown of a method", "strong"), f": {few}. Of {arm}: "]
    elif found.verdict in ("better", "worse"):
        start = [Span("The difference is shown", "strong"), f": {arm} is "]
    else:
        start = [Span("No difference is shown", "strong"), f": {arm} has "]
    return say(*start, *words, ".", when, style="item")


def _cost(results: Results, at: Focus) -> Prose | None:
    rows = [row for row in results.rows_of(at.budget) if row.status == "done" and row.tokens and row.seconds]
    if not rows:
        return None
    times = listed([f"{lasted(row.seconds or 0)} for {row.arm}" for row in rows])
    tokens = [row.tokens or 0 for row in rows]
    least, most = min(tokens), max(tokens)
    amount = f"about {whole(most)} tokens each" if least > 0.9 * most else f"{whole(least)} to {whole(most)} tokens"
    held = memory(rows)
    peak = max((value for row in rows if (value := held.value(row))), default=None)
    room = f", with {size(peak)} of {'GPU ' if 'GPU' in held.title else ''}memory at most" if peak else ""
    return say(Span("Training took", "strong"), f" {times}, on {amount}{room}.", style="item")


def _value(metric: Metric, score: MeanScore, *, interval: bool) -> str:
    unit = " %" if metric.unit == "points" else ""
    bounds = ""
    if interval and score.low is not None and score.high is not None:
        bounds = f" (95 % interval {metric.plain(score.low)} to {metric.plain(score.high)})"
    return f"{metric.plain(score.mean)}{unit}{bounds}"
