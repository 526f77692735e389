"""The page of one run: does it learn, what adapting brings, what it took, and how to run it again.

write_run_report   a run's folder -> report.html in it
run_sections       the parts of the page
facts              how it ended, how far it came, on which model
sentences          what was run, whether it learns, what adapting brings, what it took
"""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from innerloop.report import figures_run, tables
from innerloop.report.figure_style import style
from innerloop.report.front import asked_of, lasted
from innerloop.report.page import (
    Block,
    Figure,
    Listing,
    PageSection,
    Prose,
    Span,
    Table,
    TableCell,
    cell,
    counted,
    listed,
    say,
    size,
    whole,
)
from innerloop.report.report import Masthead, page, require_report, write_page
from innerloop.report.run_record import EvalLine, PhaseBytes, RunRecord, StepLine, read_run
from innerloop.report.tables_adaptation import one_arm
from innerloop.report.words import METRIC, how_title, signed

FEWEST_STEPS = 10  # fewer tell nothing of a trend
STATUS = {"done": "Finished", "running": "Not finished"}


def write_run_report(folder: Path) -> Path:
    """Of a run as far as it has come. Raises UserError for a folder that holds none, and as `write_report` does."""
    require_report()
    run = read_run(folder)
    with style():
        figures = [figures_run.losses(run.steps, run.evaluations), figures_run.gains(run.steps)]
        figures.append(figures_run.answered(run.evaluations))
    parts = run_sections(run, [figure for figure in figures if figure])
    head = Masthead(run.name, "run", facts(run), arms=[run.manifest.plan.method])
    write_page(folder, {"report.html": page(head, parts)})
    return folder / "report.html"


def facts(run: RunRecord) -> list[str]:
    """How it ended, how far it came, on which model."""
    plan, status = run.manifest.plan, run.manifest.status
    came = f"{whole(len(run.steps))} of {whole(plan.steps * plan.adapters)} steps"
    return [STATUS.get(status, status.capitalize()), came, run.manifest.model.name]


def run_sections(run: RunRecord, figures: Sequence[Figure]) -> list[PageSection]:
    first, rest = list(figures[:1]), list(figures[1:])
    reason = f"{run.manifest.status.capitalize()}: {run.manifest.reason}"
    ended = [say(reason, style="warning")] if run.manifest.reason else []
    warnings = [say(warning, style="warning") for warning in run.manifest.plan.warnings]
    parts = [
        PageSection("result", "Does it learn?", [*ended, *first, *sentences(run), *_ended(run)], folded=False),
        PageSection("adapting", "Adapting to a task", [*rest], folded=False),
        PageSection("scores", "On tasks that it held out", _scores(run), folded=False),
        PageSection("answers", "What was answered", _answers(run), folded=False),
        PageSection("warnings", "Warnings of the data", [*warnings], folded=False),
        PageSection("validation", "Validation tasks, one by one", _validation(run.evaluations)),
        PageSection("data", "Tasks and examples", _data(run)),
        PageSection("memory", "Memory and time", _memory(run)),
        PageSection("rerun", "Config and command to run it again", _rerun(run)),
        PageSection("environment", "Environment", _environment(run)),
    ]
    return [part for part in parts if part.blocks]


def sentences(run: RunRecord) -> list[Prose]:
    found = [_what(run), _held_out(run), _learns(run), _adapts(run.steps), _took(run)]
    return [sentence for sentence in found if sentence]


def _ended(run: RunRecord) -> list[Prose]:
    """Why before its last step, and with which values."""
    said, found = run.manifest, list[Prose]()
    if said.stopped_after is not None:
        found.append(
            say(Span("Ended", "strong"), f" after {said.stopped_after} steps, by {said.stopped_by}.", style="item")
        )
    if said.validation:
        which = ", the best on validation tasks" if said.validation.exported == "best" else ""
        what = f" are the values after step {said.validation.exported_step}{which}."
        found.append(say(Span("Exported", "strong"), what, style="item"))
    return found


def _what(run: RunRecord) -> Prose:
    plan, trained = run.manifest.plan, run.manifest.plan.trained
    share = f" ({trained.percent:.2g} %)" if trained.parameters else ""
    title = f" ({plan.algorithm})" if plan.algorithm else ""
    start = f"{title} trains {whole(trained.parameters)} parameters{share} of {run.manifest.model.name}"
    tasks = f" on {counted(plan.tasks, 'task')}, {plan.tasks_per_step} in a step"
    inner = f"; each adapts in {plan.inner.partition(',')[0]}" if plan.inner else ""
    return say(Span(plan.method or "This run", "strong"), start, tasks, inner, ".", style="item")


def _held_out(run: RunRecord) -> Prose | None:
    """At every k that `innerloop eval` looked at, adapted in every way."""
    if run.eval is None or not run.eval.rows:
        return None
    (row, *_), metric = run.eval.rows, METRIC["accuracy"]
    told = []
    for k in run.eval.ks:
        hows = run.eval.hows(row.budget) if k else ["none"]
        found = [(how, run.eval.score(row.budget, row.arm, how, k, metric.name)) for how in hows]
        values = [f"{metric.plain(score.mean)} %{f' ({how})' if k else ''}" for how, score in found if score]
        told += [f"{listed(values)} at k = {k}"] if values else []
    tasks = counted(len(run.eval.tasks("unseen")), "held-out task")
    start = f" on {tasks} after adapting to k examples: {'; '.join(told)}."
    return say(Span("Right answers", "strong"), start, style="item") if told else None


def _learns(run: RunRecord) -> Prose:
    """Of the validation tasks, where there are evaluations; else of the tasks of training, which is said."""
    known = [(each.step, each.eval) for each in run.evaluations if each.eval.nats is not None]
    if len(known) > 1:
        (_, first), (_, last) = known[0], known[-1]
        step, best = min(known, key=lambda each: each[1].nats or math.inf)
        assert first.nats is not None
        assert last.nats is not None
        right = (
            ""
            if first.exact is None or last.exact is None
            else f"; exact answers {first.exact:.0%}, then {last.exact:.0%}"
        )
        trend = "fell" if last.nats < first.nats else "did not fall"
        moved = f": from {first.nats:.3f} to {last.nats:.3f} nats per token, best {best.nats:.3f} after step {step}"
        return say(Span(f"The loss on validation tasks {trend}", "strong"), moved, right, ".", style="item")
    losses = [step.loss for step in run.steps]
    if len(losses) < FEWEST_STEPS:
        return say(f"{counted(len(losses), 'step')} so far: too few to say whether it learns.", style="item")
    before, after = figures_run.ends(losses)
    trend = {-1: "fell", 0: "hardly changed", 1: "rose"}[_moved(losses)]
    moved = f": from {before:.3f} to {after:.3f} nats per token, means of the first and last steps."
    also = "" if run.eval else " It is of the tasks of training: evaluate.every and innerloop eval score others."
    return say(Span(f"The training loss {trend}", "strong"), moved, also, style="item")


def _moved(losses: Sequence[float]) -> int:
    """-1, 0 or 1: whether the last steps are below or above the first by more than twice the noise of these means."""
    count = max(1, min(20, len(losses) // 5))
    first, last = np.array(losses[:count]), np.array(losses[-count:])
    noise = math.sqrt((first.var(ddof=1) + last.var(ddof=1)) / count) if count > 1 else 0.0
    change = float(last.mean() - first.mean())
    return 0 if abs(change) <= 2 * noise else int(np.sign(change))


def _adapts(steps: Sequence[StepLine]) -> Prose | None:
    known = [(s.support_loss_first, s.support_loss_last, s.loss) for s in steps]
    whole_ = [(a, b, c) for a, b, c in known if a is not None and b is not None]
    if not whole_:
        return None
    first, last, query = (figures_run.ends(column)[1] for column in zip(*whole_, strict=True))
    gap = f"; on its query examples it is {query:.3f} then, a gap of {signed(f'{query - last:.3f}')}"
    said = f" lowers the loss on a task's support examples from {first:.3f} to {last:.3f}{gap}."
    return say(Span("Adapting", "strong"), said, style="item")


def _took(run: RunRecord) -> Prose | None:
    last = run.steps[-1].timing.seconds if run.steps else None
    seconds = run.manifest.timing.seconds or last
    if not seconds:
        return None
    kind, peak = _peak(run)
    room = f", with {size(peak)} of {kind} memory at most" if peak else ""
    tokens = sum(step.tokens or 0 for step in run.steps)
    return say(Span("It took", "strong"), f" {lasted(seconds)} for {whole(tokens)} tokens{room}.", style="item")


def _peak(run: RunRecord) -> tuple[str, float | None]:
    peaks = run.manifest.host.peak_bytes
    return ("GPU", peaks["allocated"]) if "allocated" in peaks else ("resident", peaks.get("rss"))


def _scores(run: RunRecord) -> list[Block]:
    if run.eval is None or not run.eval.rows:
        return []
    row = run.eval.rows[0]
    said = f"Each task adapts to k examples by itself: {run.eval.command}."
    return [say(said, style="note"), one_arm(run.eval, row.budget, row.arm)]


def _answers(run: RunRecord) -> list[Block]:
    if run.eval is None or not run.eval.rows:
        return []
    budget = run.eval.rows[0].budget
    how = run.eval.hows(budget)[-1]
    told = f"The first test examples of each task, however they went. Adapted: {how_title(how)}."
    asked = asked_of(run.eval, budget, how)
    return [say(told, style="note"), *asked] if asked else []


def _validation(evaluations: Sequence[EvalLine]) -> list[Block]:
    if not evaluations:
        return []
    rows = []
    for task in evaluations[-1].eval.tasks:
        found = [each.eval.tasks[task].nats for each in evaluations if task in each.eval.tasks]
        nats = [value for value in found if value is not None]
        exact = evaluations[-1].eval.tasks[task].exact
        if nats:
            shown = [cell(value, f"{value:.3f}") for value in (nats[0], min(nats), nats[-1])]
            rows.append([cell(task), *shown, cell(exact, None if exact is None else f"{exact:.0%}")])
    columns = ["task", "nats, first", "nats, best", "nats, last", "exact, last"]
    caption = f"Validation tasks, after adapting: {counted(len(evaluations), 'evaluation')}"
    return [Table("validation-tasks", caption, columns, rows)] if rows else []


def _data(run: RunRecord) -> list[Block]:
    plan, names = run.manifest.plan, {"train": "training", "validation": "validation", "held_out": "held out"}
    roles = [(names.get(role, role), tasks) for role, tasks in run.manifest.roles.items() if tasks]
    rows = [[cell(name), cell(len(tasks)), cell(", ".join(tasks))] for name, tasks in roles]
    blocks: list[Block] = [Table("roles", "Tasks by role", ["role", "tasks", "names"], rows, wide=True)] if rows else []
    blocks += [say(f"Dropped: {count} {reason}", style="item") for reason, count in plan.dropped.items()]
    return [*blocks, *([tables.overlaps(plan.overlaps)] if plan.overlaps else [])]


def _memory(run: RunRecord) -> list[Block]:
    """Predicted beside measured: bytes at the peak of each phase, and time."""
    expected, taken = run.manifest.forecast, run.manifest.host.measured
    phases = list(dict.fromkeys([*expected.phases, *taken.phases]))
    rows = [[cell(phase), *_beside(expected, taken, phase)] for phase in phases]
    blocks: list[Block] = []
    if rows:
        caption = "Bytes at the peak of each phase of a step"
        blocks.append(Table("phases", caption, ["phase", "predicted", "measured", "largest parts"], rows))
    peaks = [[cell(kind), cell(value, size(value))] for kind, value in run.manifest.host.peak_bytes.items()]
    if peaks:
        blocks.append(Table("peaks", "Peaks of the whole process", ["memory", "at most"], peaks))
    if expected.seconds and run.manifest.timing.seconds:
        took = lasted(run.manifest.timing.seconds)
        blocks.append(say(f"Time: predicted {lasted(expected.seconds)}, took {took}."))
    return blocks


def _beside(expected: PhaseBytes, taken: PhaseBytes, phase: str) -> list[TableCell]:
    sums = [sum(each.phases[phase].values()) if phase in each.phases else None for each in (expected, taken)]
    predicted, measured = sums
    parts = (taken if phase in taken.phases else expected).phases[phase]
    most = sorted(parts.items(), key=lambda part: -part[1])[:3]
    return [
        cell(predicted, size(predicted), mark="predicted") if predicted is not None else cell(None),
        cell(measured, size(measured)) if measured is not None else cell(None),
        cell(", ".join(f"{name} {size(value)}" for name, value in most)),
    ]


def _rerun(run: RunRecord) -> list[Block]:
    if not run.config_yaml:
        return []
    return [Listing("run.yaml", "innerloop train run.yaml --set output_dir=runs/again", run.config_yaml)]


def _environment(run: RunRecord) -> list[Block]:
    known = run.manifest.host.environment
    flat = known.model_dump(exclude={"packages"}, exclude_unset=True) | {"cuda": known.cuda or "none: CPU"}
    rows = [[cell(key), cell(str(value))] for key, value in {**flat, **known.packages}.items() if value is not None]
    return [Table("environment", "Environment", ["what", "value"], rows)]
