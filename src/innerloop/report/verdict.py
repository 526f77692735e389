"""What a comparison found, in sentences: every arm against joint-lora, a null result in the same place as a win.

primary      the contrast that was named before anything ran
chances      how many others there are, which are exploratory
verdicts     a sentence for each arm of a budget and adaptation
headline     one sentence for a budget and adaptation
compared     a difference in words, its verdict marked
detectable   the smallest differences that could have been found
"""

from collections.abc import Sequence

from innerloop.report.page import Prose, Span, chance, counted, listed, say
from innerloop.results.lookup import (
    METRIC,
    METRICS,
    REFERENCE,
    Entry,
    Metric,
    Results,
    budget_title,
    how_title,
    unequal,
)
from innerloop.results.statistics import FEWEST, LEVEL, THESE_VALUES, THIS_TASK, unjudged

NULL = f"no detectable difference from {REFERENCE}"
UNJUDGED = (THESE_VALUES, THIS_TASK)


def primary(results: Results) -> Prose:
    """What was asked, and the answer, whatever it is."""
    named = results.primary
    if not named:
        sentence = "No primary contrast was named before this comparison ran: every difference is exploratory."
        return say(sentence, style="lede")
    metric, against = METRIC[named["metric"]], named["against"]
    where = f"at {budget_title(named['budget'])}, k = {named['k']}, {how_title(named['adaptation'])}"
    start = f", named before the comparison ran ({where}): "
    if named.get("mean") is None:
        what = (Span(named["arm"], "strong"), f" against {against} in {metric.title} has no scores yet.")
    else:
        told = compared(metric, {**named, "reference": against}, f"no detectable difference from {against}")
        what = (Span(named["arm"], "strong"), ": ", *told, ".")
    return say(Span("Primary contrast", "strong"), start, *what, style="lede")


def chances(results: Results) -> Prose | None:
    """What is to be expected of so many comparisons; None where there are none with a verdict."""
    if not (count := results.exploratory):
        return None
    few = max(1, round(count * LEVEL))
    told = f"about {counted(few, 'verdict')} of better or worse would come from chance alone if no arm differed"
    others = f"All others are exploratory, each tested by itself: of {counted(count, 'comparison')}, {told}."
    return say(others, style="note")


def verdicts(results: Results, budget: str, how: str) -> list[Prose]:
    """On unseen tasks, each arm at the largest k it was compared at; one that has no score says why."""
    return [_verdict(results, budget, how, arm) for arm in results.arms(budget)]


def headline(results: Results, budget: str, how: str) -> Prose:
    """Who is better, in which metric: one sentence, whatever the outcome, and that it is exploratory."""
    found = {m: [e for a in results.arms(budget) if (e := _main(results, budget, how, a, m))] for m in METRICS}
    if not any(found.values()):
        return say(f"At {budget_title(budget)} nothing was compared with {REFERENCE}.")
    k = max(int(entry["k"]) for entries in found.values() for entry in entries)
    start = f"At {budget_title(budget)} and k = {k}, with {how_title(how)}, on tasks that training never saw, "
    verdicts = [str(entry.get("verdict")) for entries in found.values() for entry in entries]
    if all(verdict in UNJUDGED for verdict in verdicts):
        entries = [entry for each in found.values() for entry in each]
        seeds, tasks = (max(len(entry.get(key) or []) for entry in entries) for key in ("seeds", "tasks"))
        return say(start, f"no verdict on a method: {_why(tasks=tasks, seeds=seeds)}.")
    winners = {metric: _winners(entries, k) for metric, entries in found.items() if entries}
    if len({tuple(names) for names in winners.values()}) == 1:
        return say("Exploratory: at", start[2:], *_clause(next(iter(winners.values())), [*winners]), ".")
    clauses = [_clause(names, [metric]) for metric, names in winners.items()]
    return say("Exploratory: at", start[2:], *clauses[0], "; ", *clauses[1], ".")


def compared(metric: Metric, difference: Entry, null: str = NULL) -> list[str | Span]:
    """ "better than joint-lora in nats: 0.120 lower (95 % interval 0.050 to 0.190 lower; p = 0.012)"."""
    mark, phrase = judged(difference, null)
    size = metric.words(difference["mean"])
    if phrase in UNJUDGED:
        beside = f"{size} than" if size.endswith(("lower", "higher")) else "no different from"
        whose = f"{difference.get('reference', REFERENCE)}'s"
        pieces: list[str | Span] = [f"{metric.title} {beside} {whose} for ", Span(phrase, mark)]
    else:
        pieces = [Span(phrase, mark), f" in {metric.title}: {size}"]
    facts = []
    if difference.get("low") is not None and difference.get("high") is not None:
        over = " over tasks" if phrase == THESE_VALUES else " over seeds" if phrase == THIS_TASK else ""
        facts.append(f"95 % interval{over} {metric.between(difference['low'], difference['high'])}")
    if difference.get("p") is not None:
        facts.append(f"p {_equals(difference['p'])}")
    facts += [other] if (other := unequal(difference)) else []
    return [*pieces, f" ({'; '.join(facts)})"] if facts else pieces


def judged(difference: Entry, null: str = NULL) -> tuple[str, str]:
    """The mark and the words of a verdict."""
    verdict = str(difference.get("verdict") or "")
    if verdict in ("better", "worse"):
        return verdict, f"{verdict} than {difference.get('reference', REFERENCE)}"
    if verdict in UNJUDGED:
        return "null", verdict
    return "null", null


def detectable(results: Results) -> list[Prose]:
    """The smallest difference that the comparison could find, said before it ran, and what that rests on."""
    known = results.given.get("detectable") or {}
    sizes = [f"{m.size(known[m.name])} {m.unit}" for m in METRICS if known.get(m.name) is not None]
    seeds, tasks = len(results.protocol.get("seeds") or []), len(results.tasks("unseen"))
    if not sizes and unjudged(tasks=tasks, seeds=seeds):
        return [say(f"This comparison can't tell methods apart: {_why(tasks=tasks, seeds=seeds)}.")]
    if not sizes:
        return [say("These results don't say which difference could have been detected.", style="note")]
    paragraphs = [
        say(
            "This comparison was planned to find differences of about ",
            Span(listed(sizes), "strong"),
            f"; smaller ones it may miss. An arm with {NULL} may still differ by as much.",
        )
    ]
    if assumed := str(known.get("assumptions") or "").strip():
        paragraphs.append(say(f"{assumed[0].upper()}{assumed[1:].rstrip('.')}."))
    return paragraphs


def _why(*, tasks: int, seeds: int) -> str:
    """Why nothing is said of a method."""
    few_seeds = unjudged(tasks=tasks, seeds=seeds) == THESE_VALUES
    count, noun = (seeds, "training seed") if few_seeds else (tasks, "task")
    return f"there {'is' if count == 1 else 'are'} {counted(count, noun)}, and it takes {FEWEST}"


def _main(results: Results, budget: str, how: str, arm: str, metric: Metric) -> Entry | None:
    return None if arm == REFERENCE else results.last_difference(budget, arm, how, metric.name)


def _verdict(results: Results, budget: str, how: str, arm: str) -> Prose:
    if arm == REFERENCE:
        return say(
            Span(arm, "strong"), f" is the reference{_reference_scores(results, budget, how)}.", style="item", arm=arm
        )
    found = [(metric, entry) for metric in METRICS if (entry := _main(results, budget, how, arm, metric))]
    if not found:
        word = results.absence(budget, arm)
        mark = "failed" if word.startswith(("failed", "not run")) else ""
        return say(Span(arm, "strong"), ": ", Span(word, mark), ".", style="item", arm=arm)
    ks = sorted({int(entry["k"]) for _, entry in found})
    pieces: list[str | Span] = [Span(arm, "strong"), f" at k = {listed([str(k) for k in ks])}: "]
    for metric, entry in found:
        pieces += [*compared(metric, entry), "; "]
    return say(*pieces[:-1], ".", style="item", arm=arm)


def _reference_scores(results: Results, budget: str, how: str) -> str:
    told, k = [], 0
    for metric in METRICS:
        if curve := results.curve(budget, REFERENCE, how, metric.name):
            last, k = metric.plain(curve[-1]["mean"]), curve[-1]["k"]
            told.append(f"{last} {metric.title}" if metric.unit == "nats" else f"{last} % {metric.title}")
    if told:
        return f": {listed(told)} at k = {k}"
    return f"; {results.absence(budget, REFERENCE)}, so nothing can be compared with it"


def _winners(entries: Sequence[Entry], k: int) -> list[str]:
    """Only arms at the largest k count: a base without examples is no contender."""
    return [str(entry["arm"]) for entry in entries if judged(entry)[0] == "better" and int(entry["k"]) == k]


def _clause(names: Sequence[str], metrics: Sequence[Metric]) -> list[str | Span]:
    where = f" in {' or in '.join(m.title for m in metrics) if not names else listed([m.title for m in metrics])}"
    if not names:
        return [f"no arm is detectably better than {REFERENCE}{where}"]
    return [Span(listed(names), "strong"), " is" if len(names) == 1 else " are", f" better than {REFERENCE}{where}"]


def _equals(p: float) -> str:
    shown = chance(p)
    return shown if shown.startswith("<") else f"= {shown}"
