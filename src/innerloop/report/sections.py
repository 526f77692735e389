"""The parts of a report in their order, as blocks that HTML and Markdown are both made of.

sections   the first screen, answers and curves; then, folded, what they rest on: every verdict, notes, the smallest
           difference that could have been found, the two tables that are never mixed, contrasts, the matrix,
           adaptation, training, and how to run it again

What the results don't hold is left out, and so is a part that would be empty.
"""

from collections.abc import Sequence

from innerloop.report import tables, tables_adaptation
from innerloop.report.front import opening
from innerloop.report.page import (
    Block,
    Figure,
    Heading,
    Listing,
    PageSection,
    Span,
    Table,
    TableCell,
    cell,
    counted,
    listed,
    say,
)
from innerloop.report.tables_matrix import matrix
from innerloop.report.verdict import chances, compared, detectable, headline, primary, verdicts
from innerloop.report.words import MAIN_METRICS, METRIC, NOT_DONE, absence, budget_title, how_title
from innerloop.results.names import COST, REFERENCE
from innerloop.results.schema import Results
from innerloop.results.statistics import FEWEST_TASKS, unjudged

Drawn = Sequence[Figure]


def sections(results: Results, drawn: Drawn) -> list[PageSection]:
    first = opening(results, drawn)
    drawn = [item for item in drawn if not any(item in part.blocks for part in first)]
    parts = [
        *first,
        _verdict(results),
        _notes(results),
        PageSection("detectable", "Smallest detectable difference", [*detectable(results)]),
        *_unseen(results, drawn),
        _seen(results, drawn),
        _contrasts(results),
        _matrix(results, drawn),
        _adaptation(results, drawn),
        _training(results, drawn),
        _rerun(results),
        _environment(results),
    ]
    return [part for part in parts if part.blocks]


def _verdict(results: Results) -> PageSection:
    blocks: list[Block] = []
    if results.budgets:
        blocks += [primary(results), *filter(None, [chances(results)])]
    for budget in results.budgets:
        for how in results.hows(budget):
            blocks.append(Heading(f"{budget_title(budget).capitalize()}, {how_title(how)}"))
            blocks += [headline(results, budget, how), *verdicts(results, budget, how)]
    return PageSection("verdict", "Every verdict, arm by arm", blocks)


def _notes(results: Results) -> PageSection:
    blocks: list[Block] = [say(note, style="item") for note in results.notes]
    seeds = results.protocol.seeds
    if seeds and unjudged(tasks=FEWEST_TASKS, seeds=len(seeds)):
        sentence = f"{counted(len(seeds), 'training seed')}: every number is of these trained values, none of a method."
        blocks.append(say(sentence, " It takes 3 seeds for a verdict.", style="item"))
    for row in results.rows:
        if row.status in NOT_DONE:
            what = Span(absence(results, row.group, row.arm), "failed")
            where = f", {budget_title(row.group)}: "
            blocks.append(say(Span(row.arm, "strong"), where, what, style="item", arm=row.arm))
    blocks.append(
        say(
            "Differences are paired by example and averaged over examples and draws of the support set: one for each "
            "task and seed. Intervals are 95 % t intervals of their mean over tasks and training seeds, both taken as "
            "drawn from others like them (crossed random effects, Satterthwaite's degrees of freedom), each for one "
            "comparison alone. A verdict needs an interval that leaves out 0, at least 3 seeds and 2 tasks."
        )
    )
    if (shared := results.overlaps) is not None:
        none = (
            "No example of a held-out or validation task is also in a task of another role (equal prompt and answer)."
        )
        blocks.append(tables.overlaps(shared) if shared else say(none))
    if rows := _protocol(results):
        blocks.append(Table("protocol", "Protocol", ["setting", "value"], rows))
    return PageSection("notes", "Notes", blocks)


def _protocol(results: Results) -> list[list[TableCell]]:
    names = {
        "k": "k: examples of a test task",
        "draws": "draws of the support set",
        "seeds": "seeds",
        "test_examples": "test examples per task",
        "held_out": "held-out tasks",
        "validation": "validation tasks",
        "train": "training tasks",
    }
    protocol = results.protocol
    given = [(title, getattr(protocol, key)) for key, title in names.items() if key in protocol.model_fields_set]
    return [
        [cell(title), cell(", ".join(map(str, value)) if isinstance(value, list) else value)] for title, value in given
    ]


def _unseen(results: Results, drawn: Drawn) -> list[PageSection]:
    """T2, a section for each budget."""
    found = []
    for budget in results.budgets:
        blocks: list[Block] = [
            say("Tasks that training never saw; each arm adapts to k examples and is tested on others.")
        ]
        for how in results.hows(budget):
            blocks.append(Heading(how_title(how).capitalize()))
            blocks += _figures(drawn, "curves", budget, how)
            blocks += [tables.scores(results, budget, how, metric) for metric in MAIN_METRICS]
            blocks += _figures(drawn, "differences", budget, how)
            blocks += [tables.differences(results, budget, how, metric) for metric in MAIN_METRICS]
            blocks += _figures(drawn, "heat", budget, how)
        blocks += filter(None, [tables.others(results, budget, "unseen")])
        found.append(
            PageSection(
                f"t2-{budget or 'all'}", f"T2 · Unseen tasks, k-shot adaptation · {budget_title(budget)}", blocks
            )
        )
    return found


def _seen(results: Results, drawn: Drawn) -> PageSection:
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
    blocks = blocks if len(blocks) > 1 else []
    return PageSection("t1", "T1 · Seen tasks, shared adapter, no adaptation", blocks)


def _contrasts(results: Results) -> PageSection:
    blocks: list[Block] = [
        say("What the schedule buys, and what training fewer parameters costs: two differences, exploratory.")
    ]
    if not results.contrasts:
        return PageSection("contrasts", "", [])
    for budget in results.budgets:
        found = [entry for entry in results.contrasts if entry.budget == budget]
        last = max((entry.k for entry in found), default=0)
        for entry in (entry for entry in found if entry.k == last):
            one, other = entry.pair
            words = compared(METRIC[entry.metric], entry, other)
            where = f" at {budget_title(budget)}, k = {entry.k}, {how_title(entry.how)}: {one}, "
            blocks.append(say(Span(entry.name, "strong"), where, *words, ".", style="item"))
        blocks += [tables.contrasts(found, budget)] if found else []
    return PageSection("contrasts", "The two contrasts", blocks)


def _matrix(results: Results, drawn: Drawn) -> PageSection:
    blocks: list[Block] = [
        say(
            "Measured numbers are plain. ",
            Span("≈ italic", "predicted"),
            " marks a predicted one. Nothing else is estimated. Numbers are means over seeds.",
        ),
        say(f"Every row: {_where(results)}."),
    ]
    costs = [COST] if any(row.cost_only for row in results.rows) else []
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
    return PageSection("matrix", "The matrix", blocks)


def _adaptation(results: Results, drawn: Drawn) -> PageSection:
    blocks: list[Block] = [
        say(
            "The gap is test loss minus support loss after adapting: what was learned of the examples, not of the task."
        )
    ]
    kinds = (tables_adaptation.adaptation, tables_adaptation.targets, tables_adaptation.forgetting)
    for budget in results.budgets:
        figures = [each for how in results.hows(budget) for each in _figures(drawn, "adaptation", budget, how)]
        held = [*figures, *filter(None, (build(results, budget) for build in kinds))]
        blocks += [Heading(budget_title(budget).capitalize()), *held] if held else []
    return PageSection("adaptation", "Adaptation and forgetting", blocks if len(blocks) > 1 else [])


def _training(results: Results, drawn: Drawn) -> PageSection:
    blocks: list[Block] = [block for budget in results.budgets for block in _figures(drawn, "training", budget)]
    return PageSection("training", "Training curves", blocks)


def _rerun(results: Results) -> PageSection:
    whole = results.command or results.matrix_yaml
    blocks: list[Block] = [Listing("The whole comparison", results.command, results.matrix_yaml)] if whole else []
    for row in results.rows:
        if row.config_yaml or row.command:
            title = f"{row.arm} · {budget_title(row.group)}"
            blocks.append(Listing(title, row.command or "", row.config_yaml or ""))
    return PageSection("rerun", "Configs and commands to run it again", blocks)


def _environment(results: Results) -> PageSection:
    known = results.environment.model_dump(exclude={"packages"}, exclude_unset=True)
    flat = known | {"cuda": results.environment.cuda or "none: CPU"} | results.environment.packages
    rows = [[cell(key), cell(value)] for key, value in {**flat, "started": results.started}.items()]
    return PageSection("environment", "Environment", [Table("environment", "Environment", ["what", "value"], rows)])


def _where(results: Results) -> str:
    environment = results.environment
    parts = [f"device {environment.cuda or 'CPU'}"]
    parts += [f"{environment.threads} threads"] if environment.threads else []
    parts += [f"{name} {version}" for name, version in environment.packages.items()]
    return ", ".join([*parts, f"commit {environment.commit or 'unknown'}"])


def _figures(drawn: Drawn, kind: str, budget: str, how: str = "none") -> list[Figure]:
    return [item for item in drawn if item.place == (kind, budget, how)]
