"""The parts of a report in their order, as blocks that HTML and Markdown are both made of.

sections   the verdict first; then what it rests on: notes, the smallest difference that could have been found, the
           two tables that are never mixed, contrasts, the matrix, adaptation, training, and how to run it again

What the results don't hold is left out, and a sentence in its place says so.
"""

from collections.abc import Callable, Iterable, Sequence

from innerloop.report import tables, tables_adaptation
from innerloop.report.page import (
    Absent,
    Block,
    Cell,
    Figure,
    Heading,
    Listing,
    Section,
    Span,
    Table,
    cell,
    counted,
    listed,
    say,
)
from innerloop.report.tables_matrix import matrix
from innerloop.report.verdict import chances, compared, detectable, headline, primary, verdicts
from innerloop.results.lookup import (
    COST,
    METRIC,
    METRICS,
    REFERENCE,
    Results,
    budget_title,
    group,
    how_title,
    unique,
)
from innerloop.results.statistics import FEWEST_TASKS, unjudged

Drawn = Sequence[Figure | Absent]
CONTRASTS = {"algorithm": "meta-lora - fomaml-lora", "parametrization": "fomaml - fomaml-lora"}


def sections(results: Results, drawn: Drawn) -> list[Section]:
    return [
        _verdict(results),
        _notes(results),
        Section("detectable", "Smallest detectable difference", [*detectable(results)]),
        *_unseen(results, drawn),
        _seen(results, drawn),
        _contrasts(results),
        _matrix(results, drawn),
        _adaptation(results, drawn),
        _training(results, drawn),
        _rerun(results),
        _environment(results),
    ]


def _verdict(results: Results) -> Section:
    blocks: list[Block] = []
    lacking = [row for row in results.rows if row.get("status") != "done"]
    if lacking or results.given.get("status") != "done":
        count = f"{len(lacking)} of {len(results.rows)} rows of the matrix failed or are not done" if lacking else ""
        sentence = f"This comparison is not finished{': ' if count else ''}{count}."
        if results.given.get("status") == "done":
            sentence = f"{count.capitalize()}; the rest is final."
        blocks.append(say(sentence, " The notes say which and why." if lacking else "", style="warning"))
    if results.budgets:
        blocks += [primary(results), *filter(None, [chances(results)])]
    for budget in results.budgets:
        for how in results.hows(budget):
            blocks.append(Heading(f"{budget_title(budget).capitalize()}, {how_title(how)}"))
            blocks += [headline(results, budget, how), *verdicts(results, budget, how)]
    if not results.budgets:
        blocks.append(say("Nothing in these results was scored.", style="note"))
    return Section("verdict", "Verdict", blocks)


def _notes(results: Results) -> Section:
    blocks: list[Block] = [say(str(note), style="item") for note in results.given.get("notes") or []]
    held_out, seeds = results.tasks("unseen"), results.protocol.get("seeds") or []
    told = " ".join(str(note) for note in results.given.get("notes") or [])
    if len(held_out) < 10 and "these tasks only" not in told:
        blocks.append(say(f"{counted(len(held_out), 'held-out task')}: valid for these tasks only.", style="item"))
    if seeds and unjudged(tasks=FEWEST_TASKS, seeds=len(seeds)):
        sentence = f"{counted(len(seeds), 'training seed')}: every number is of these trained values, none of a method."
        blocks.append(say(sentence, " It takes 3 seeds for a verdict.", style="item"))
    for row in results.rows:
        if row.get("status") in ("failed", "missing"):
            arm, budget = str(row.get("arm")), group(row)
            what = Span(results.absence(budget, arm), "failed")
            blocks.append(say(Span(arm, "strong"), f", {budget_title(budget)}: ", what, style="item", arm=arm))
    blocks.append(
        say(
            "Differences are paired by example and averaged over examples and draws of the support set: one for each "
            "task and seed. Intervals are 95 % t intervals of their mean over tasks and training seeds, both taken as "
            "drawn from others like them (crossed random effects, Satterthwaite's degrees of freedom), each for one "
            "comparison alone. A verdict needs an interval that leaves out 0, at least 3 seeds and 2 tasks."
        )
    )
    if (shared := results.given.get("overlaps")) is not None:
        none = (
            "No example of a held-out or validation task is also in a task of another role (equal prompt and answer)."
        )
        blocks.append(tables.overlaps(shared) if shared else say(none))
    if rows := _protocol(results):
        blocks.append(Table("protocol", "Protocol", ["setting", "value"], rows))
    return Section("notes", "Notes", blocks)


def _protocol(results: Results) -> list[list[Cell]]:
    names = {
        "k": "k: examples of a test task",
        "draws": "draws of the support set",
        "seeds": "seeds",
        "test_examples": "test examples a task",
        "held_out": "held-out tasks",
        "validation": "validation tasks",
        "train": "training tasks",
    }
    given = [(title, results.protocol[key]) for key, title in names.items() if results.protocol.get(key) is not None]
    return [
        [cell(title), cell(", ".join(map(str, value)) if isinstance(value, list) else value)] for title, value in given
    ]


def _unseen(results: Results, drawn: Drawn) -> list[Section]:
    """T2, a section for each budget."""
    found = []
    for budget in results.budgets:
        blocks: list[Block] = [
            say("Tasks that training never saw; each arm adapts to k examples and is tested on others.")
        ]
        for how in results.hows(budget):
            blocks.append(Heading(how_title(how).capitalize()))
            blocks += _figures(drawn, "curves", budget, how, lambda figure: "tasks" not in figure.name)
            blocks += [tables.scores(results, budget, how, metric) for metric in METRICS]
            blocks += _figures(drawn, "differences", budget, how)
            blocks += [tables.differences(results, budget, how, metric) for metric in METRICS]
            blocks += _figures(drawn, "curves", budget, how, lambda figure: "tasks" in figure.name, sentences=False)
            blocks += _figures(drawn, "heat", budget, how)
        blocks += filter(None, [tables.others(results, budget, "unseen")])
        found.append(
            Section(f"t2-{budget or 'all'}", f"T2 · Unseen tasks, k-shot adaptation · {budget_title(budget)}", blocks)
        )
    return found or [
        Section("t2", "T2 · Unseen tasks", [say("No scores on unseen tasks are in these results.", style="note")])
    ]


def _seen(results: Results, drawn: Drawn) -> Section:
    """T1, a table for each budget that has one."""
    blocks: list[Block] = [
        say("The tasks of training, on examples it never saw: the shared adapter as it is, no adaptation (k = 0).")
    ]
    for budget in results.budgets:
        if results.holds("seen", budget):
            blocks.append(tables.seen(results, budget))
            if others := [arm for arm in results.arms(budget) if arm not in tables.seen_arms(results, budget)]:
                blocks.append(say(f"No score on seen tasks: {listed(others)}.", style="note"))
            blocks += _figures(drawn, "seen", budget)
            blocks += filter(None, [tables.others(results, budget, "seen")])
        else:
            blocks.append(say(f"No scores on seen tasks are in these results at {budget_title(budget)}.", style="note"))
    return Section("t1", "T1 · Seen tasks, shared adapter, no adaptation", blocks)


def _contrasts(results: Results) -> Section:
    blocks: list[Block] = [
        say("What the schedule buys, and what training fewer parameters costs: two differences, exploratory.")
    ]
    entries = results.entries("contrasts")
    for name, of in CONTRASTS.items():
        own = [entry for entry in entries if entry.get("name") == name]
        if not own:
            sentence = f"{name.capitalize()} ({of.replace(' - ', ' − ')}): not in these results."
            blocks.append(say(sentence, style="note"))
    for budget in [budget for budget in results.budgets if any(entry.get("budget") == budget for entry in entries)]:
        found = [entry for entry in entries if entry.get("budget") == budget]
        last = max(int(entry["k"]) for entry in found)
        for entry in (entry for entry in found if int(entry["k"]) == last):
            metric = METRIC[entry["metric"]]
            first, _, second = str(entry.get("of", "")).rpartition(" - ")
            words = compared(metric, {**entry, "reference": second}, f"no detectable difference from {second}")
            where = f" at {budget_title(budget)}, k = {entry.get('k')}, {how_title(str(entry.get('how')))}: {first}, "
            blocks.append(say(Span(str(entry["name"]), "strong"), where, *words, ".", style="item"))
        blocks.append(tables.contrasts(found, budget))
    return Section("contrasts", "The two contrasts", blocks)


def _matrix(results: Results, drawn: Drawn) -> Section:
    blocks: list[Block] = [
        say(
            "Measured numbers are plain. ",
            Span("≈ italic", "predicted"),
            " marks a predicted one. Nothing else is estimated. Numbers are means over seeds.",
        ),
        say(f"Every row: {_where(results)}."),
    ]
    costs = [COST] if any(group(row) == COST for row in results.rows) else []
    for budget in [*results.budgets, *costs]:
        how = results.hows(budget)[0]
        table, empty = matrix(results, budget, how)
        blocks.append(Heading(budget_title(budget).capitalize()))
        if budget == COST:
            blocks.append(say("A few steps, to show what a step costs; never scored, and not at any equal budget."))
        elif how != "none":
            blocks.append(say(f"Scores with {how_title(how)}; differences are from {REFERENCE}."))
        blocks.append(table)
        if empty:
            blocks.append(say(f"No row has a value for {listed(empty)}.", style="note"))
        blocks += _figures(drawn, "cost", budget)
        for how in results.hows(budget) if budget != COST else ():
            blocks.append(Heading(f"Score against cost, {budget_title(budget)}, {how_title(how)}"))
            blocks += _figures(drawn, "trade", budget, how)
    return Section("matrix", "The matrix", blocks)


def _adaptation(results: Results, drawn: Drawn) -> Section:
    blocks: list[Block] = [
        say(
            "The gap is test loss minus support loss after adapting: what was learned of the examples, not of the task."
        )
    ]
    kinds = (
        (tables_adaptation.adaptation, "adaptation gaps"),
        (tables_adaptation.targets, "targets"),
        (tables_adaptation.forgetting, "measures of forgetting"),
    )
    for budget in results.budgets:
        blocks.append(Heading(budget_title(budget).capitalize()))
        for how in results.hows(budget):
            blocks += _figures(drawn, "adaptation", budget, how)
        for build, what in kinds:
            table = build(results, budget)
            blocks.append(table or say(f"No {what} are in these results at {budget_title(budget)}.", style="note"))
        blocks.append(say("The worst task of each arm stands in the T2 score tables."))
    return Section("adaptation", "Adaptation and forgetting", blocks)


def _training(results: Results, drawn: Drawn) -> Section:
    blocks = [block for budget in results.budgets for block in _figures(drawn, "training", budget)]
    return Section("training", "Training curves", blocks)


def _rerun(results: Results) -> Section:
    given = results.given
    blocks: list[Block] = [
        Listing("The whole comparison", str(given.get("command") or ""), str(given.get("matrix_yaml") or ""))
    ]
    for row in results.rows:
        if row.get("config_yaml") or row.get("command"):
            title = f"{row.get('arm')} · {budget_title(group(row))}"
            blocks.append(Listing(title, str(row.get("command") or ""), str(row.get("config_yaml") or "")))
    return Section("rerun", "Configs and commands to run it again", blocks)


def _environment(results: Results) -> Section:
    environment = results.given.get("environment") or {}
    flat = {key: value for key, value in environment.items() if key != "packages"}
    flat["cuda"] = flat.get("cuda") or "none: CPU"
    flat |= environment.get("packages") or {}
    rows = [[cell(key), cell(value)] for key, value in {**flat, "started": results.given.get("started")}.items()]
    return Section("environment", "Environment", [Table("environment", "Environment", ["what", "value"], rows)])


def _where(results: Results) -> str:
    environment = results.given.get("environment") or {}
    packages = environment.get("packages") or {}
    device = environment.get("cuda") or "CPU"
    parts = [f"device {device}"]
    parts += [f"{environment['threads']} threads"] if environment.get("threads") else []
    parts += [f"{name} {version}" for name, version in packages.items()]
    return ", ".join([*parts, f"commit {environment.get('commit') or 'unknown'}"])


def _figures(
    drawn: Drawn,
    kind: str,
    budget: str,
    how: str = "none",
    wanted: Callable[[Figure], bool] = lambda figure: True,
    *,
    sentences: bool = True,
) -> Iterable[Block]:
    """The figures of a place, then a sentence for each that could not be drawn."""
    here = [item for item in drawn if item.place == (kind, budget, how)]
    yield from (item for item in here if isinstance(item, Figure) and wanted(item))
    if sentences:
        yield from (say(text, style="note") for text in unique(i.sentence for i in here if isinstance(i, Absent)))
