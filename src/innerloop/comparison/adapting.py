"""A run adapted to new tasks: an adapter each, as many tasks per forward as fit, and whether it was worth it.

Legend: T = tasks, K = inner steps.

Choosing       makes each task's inner loop from that, and counts what choosing took
adapt_to       encoded tasks -> AdaptedTasks: adapted, exported, judged
AdaptedTask    what became of one task
AdaptedTasks   of all of them, for programs and for people
prompt_of_text a prompt of the command line
"""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from innerloop.artifacts.card import AdaptedTo
from innerloop.comparison.adapt_arguments import Uses, Wanted
from innerloop.comparison.expected import Cost
from innerloop.comparison.judging import Measured, Together, each_adapted, judge, measured_part, parts_of
from innerloop.comparison.side_by_side import SideBySide, arm_table, covered, finding, over_tasks, task_table
from innerloop.data.encoder import Prompt, form_of
from innerloop.data.encoding import EncodedTask
from innerloop.engine.groundwork import Say
from innerloop.evaluation.cross_validation import choose_steps
from innerloop.evaluation.kshot import fitting, score, training_loss
from innerloop.learning.inner_loop import InnerLoop
from innerloop.machine import peak_memory, reset_peak_memory
from innerloop.planning.forecast import duration
from innerloop.runs.adapted import Adapted
from innerloop.runs.learned import Learned
from innerloop.spaces.space import ParameterSpace


@dataclass
class Choosing:
    """Called as `judging.Loops`. nats: task -> mean nats of left-out examples after 0, 1, ... steps, of the last call.

    forwards, tokens, seconds: that choosing took, of all calls
    """

    learned: Learned
    wanted: Wanted
    say: Say
    nats: dict[str, tuple[float, ...]] = field(default_factory=dict[str, tuple[float, ...]])
    forwards: int = 0
    tokens: int = 0
    seconds: float = 0.0
    _known: list[tuple[ParameterSpace, list[InnerLoop]]] = field(
        default_factory=list[tuple[ParameterSpace, list[InnerLoop]]]
    )

    def __call__(self, space: ParameterSpace, tasks: Sequence[EncodedTask]) -> list[InnerLoop]:
        if self.wanted.steps == "auto":
            return self._chosen(space, tasks)
        pairs = [(self.wanted.inner(self.learned, len(task.pool)), task) for task in tasks]
        return [fitting(inner, task.in_context, len(task.pool)) for inner, task in pairs]

    def _chosen(self, space: ParameterSpace, tasks: Sequence[EncodedTask]) -> list[InnerLoop]:
        """Once for a space: the tasks are always the same."""
        for known, loops in self._known:
            if known is space:
                return loops
        self.say("choosing the number of steps", 0, 0)
        started, loop = time.perf_counter(), self.wanted.inner(self.learned, 1)
        found = choose_steps(space, loop, tasks, on_pass=self._count)
        self.seconds += time.perf_counter() - started
        self.nats = {task.task.name: each.nats for task, each in zip(tasks, found, strict=True)}
        loops = [replace(loop, steps=each.steps) for each in found]
        self._known.append((space, loops))
        return loops

    def _count(self, tokens: int) -> None:
        self.forwards += 1
        self.tokens += tokens


@dataclass(frozen=True)
class AdaptedTask:
    """One task's adapter.

    losses       of the support before each step and after the last: nats per scored token
    nats, exact  of the support's answers
    answers      to the prompts that were asked
    seconds      to adapt, a part of what tasks of one forward took together
    chosen       how steps and rate were, in words, where they aren't the run's own or given
    step_nats    of left-out examples after 0, 1, ... steps, where these chose the number of steps
    judged       None where nothing was judged
    """

    k: int
    inner: InnerLoop
    losses: tuple[float, ...]
    nats: float
    exact: float
    answers: tuple[str, ...]
    output: str | None
    seconds: float
    chosen: str = ""
    step_nats: tuple[float, ...] | None = None
    judged: SideBySide | None = None

    def facts(self, prompts: Sequence[str]) -> dict[str, Any]:
        """For programs."""
        judged = self.judged
        return {
            "k": self.k,
            "steps": self.inner.steps,
            "optimizer": type(self.inner.optimizer).__name__.lower(),
            "lr": self.inner.optimizer.lr,
            "support_loss": list(self.losses),
            "support_nats": self.nats,
            "support_exact": self.exact,
            "answers": dict(zip(prompts, self.answers, strict=True)),
            "output": self.output,
            "seconds": self.seconds,
            **({"left_out_nats": list(self.step_nats)} if self.step_nats else {}),
            **({"leave_one_out" if judged.folds else "test": judged.facts()} if judged else {}),
        }

    def lines(self, prompts: Sequence[str]) -> list[str]:
        """For people."""
        inner = self.inner
        return [
            f"adapted in {inner.steps} steps of {type(inner.optimizer).__name__.lower()}, lr {inner.optimizer.lr:g}"
            f"{self.chosen}: {duration(self.seconds)}",
            f"support loss {self.losses[0]:.3f} -> {self.losses[-1]:.3f} nats per scored token; "
            f"{self.nats:.3f} per token of an answer, {self.exact:.0%} of its answers exact",
            *(f"{asked!r} -> {answer!r}" for asked, answer in zip(prompts, self.answers, strict=True)),
            *([f"wrote {self.output}"] if self.output else []),
        ]


@dataclass(frozen=True)
class AdaptedTasks:
    """By name. choosing: of their steps; took: measured, with the model's own memory."""

    tasks: Mapping[str, AdaptedTask]
    uses: Uses
    choosing: Choosing
    took: Cost

    @property
    def judged(self) -> dict[str, SideBySide]:
        """Of the tasks that could be."""
        return {name: task.judged for name, task in self.tasks.items() if task.judged}

    def facts(self) -> dict[str, Any]:
        """For programs."""
        each = {name: task.facts(self.uses.prompts) for name, task in self.tasks.items()}
        took = {"forwards": self.choosing.forwards, "tokens": self.choosing.tokens, "seconds": self.choosing.seconds}
        chosen = {"choosing": took} if self.choosing.forwards else {}
        if not self.uses.folder:
            return next(iter(each.values())) | chosen
        means = {name: each._asdict() for name, each in over_tasks(list(self.judged.values())).items()}
        return {"tasks": each, "over_tasks": means, **chosen}

    def lines(self) -> list[str]:
        """For people."""
        lines = self._of_several() if self.uses.folder else next(iter(self.tasks.values())).lines(self.uses.prompts)
        if self.choosing.forwards:
            took = duration(self.choosing.seconds)
            lines.append(
                f"choosing steps took {took}, {self.choosing.forwards} forwards of {self.choosing.tokens:,} tokens"
            )
        if not (judged := self.judged):
            return lines
        steps = self.choosing.wanted.steps == "auto"
        notes = covered(folds=any(each.folds for each in judged.values()), chosen=steps, tasks=len(judged))
        if self.uses.folder:
            return [*lines, "", *task_table(judged), *_over(judged), *notes]
        (each,) = judged.values()
        return [*lines, "", *each.lines(), *notes, "", *each.samples()]

    def _of_several(self) -> list[str]:
        lines = list[str]()
        for name, task in self.tasks.items():
            said = task.lines(self.uses.prompts)
            lines += [f"{name}: {line}" for line in (said[2:] if task.judged else said)]
        each = [task.seconds for task in self.tasks.values()]
        lines.append(
            f"adapted to {len(each)} tasks in {duration(sum(each))}, {duration(sum(each) / len(each))} per task"
        )
        return lines


def _over(judged: Mapping[str, SideBySide]) -> list[str]:
    """The arms over tasks, where there are some."""
    if len(judged) < 2:
        return []
    every = over_tasks(list(judged.values()))
    rows = [(name, each.accuracy, each.nats, each.nats_against_this_run, "") for name, each in every.items()]
    gaps = {name: each.nats_against_this_run for name, each in every.items() if each.nats_against_this_run}
    left_out = {f"{name}: left out: {why}" for each in judged.values() for name, why in each.left_out.items()}
    return ["", f"over {len(judged)} tasks", *arm_table(rows), *sorted(left_out), finding(gaps)]


def adapt_to(
    learned: Learned,
    tasks: Sequence[EncodedTask],
    wanted: Wanted,
    uses: Uses,
    *,
    judging: bool = True,
    say: Say = lambda stage, done, total: None,
) -> AdaptedTasks:
    """Adapt to each task once; answer, export, and judge on its test examples or by leaving each of its examples out.

    judging  of the tasks that can be; all or none of the tasks have test examples
    """
    reset_peak_memory()
    choosing, started = Choosing(learned, wanted, say), time.perf_counter()
    loops, tested = choosing(learned.space, tasks), judging and bool(tasks[0].test)
    nats, found, ours = choosing.nats, dict[int, AdaptedTask](), dict[int, Measured]()
    say("adapting", 0, len(tasks))
    behind = [task.behind(task.pool) for task in tasks]  # of a run that was trained in context
    for part in each_adapted(learned.space, loops, behind, seed=learned.config.seed):
        for place, one in zip(part.places, _used(learned, part, loops[part.places[0]], uses), strict=True):
            tried = nats.get(tasks[place].task.name)
            found[place] = replace(one, step_nats=tried, chosen=wanted.said(one.k, tried))
        if tested:
            ours |= zip(part.places, measured_part(learned, learned.space, part), strict=True)
        say("adapting", len(found), len(tasks))
    chosen_in, judging_from = choosing.seconds, time.perf_counter()
    if judging:
        places = [place for place, task in enumerate(tasks) if parts_of(task)]
        judged = judge(learned, [tasks[place] for place in places], choosing, ours=ours if tested else None, say=say)
        found |= {place: replace(found[place], judged=one) for place, one in zip(places, judged, strict=True)}
    named = {task.task.name: found[place] for place, task in enumerate(tasks)}
    judged_in = time.perf_counter() - judging_from - (choosing.seconds - chosen_in)
    seconds = {"choosing": choosing.seconds, "adapting": judging_from - started - chosen_in, "judging": judged_in}
    peaks = peak_memory()
    return AdaptedTasks(named, uses, choosing, Cost(seconds, peaks.get("allocated", peaks["rss"])))


def _used(learned: Learned, part: Together, inner: InnerLoop, uses: Uses) -> list[AdaptedTask]:
    """The tasks of one forward: scored on what they learned, asked, and exported."""
    held = [replace(task, test=task.pool) for task in part.tasks]
    scores = score(learned.space, part.values, held)
    after, done = training_loss(learned.space, part.values, [task.pool for task in part.tasks]), list[AdaptedTask]()
    for at, (task, own) in enumerate(zip(part.tasks, scores, strict=True)):
        values = {name: value[at : at + 1] for name, value in part.values.items()}
        losses = tuple(part.losses[:, at].tolist())
        to = AdaptedTo(len(task.pool), inner.optimizer.said, losses)
        kept = task if task.in_context else None
        adapted, pool = Adapted(learned, values, losses, form_of(task.task.pool), to, kept), list(task.task.pool)
        nats, exact = adapted.score(pool) if kept else (own.mean_nats, own.mean_correct)
        prompts: list[Prompt] = [prompt_of_text(text) for text in uses.prompts]
        answers = tuple(adapted.generate(prompts))
        place = uses.place(task.task.name)
        if place:
            adapted.save_pretrained(place)
        done.append(
            AdaptedTask(
                k=len(task.pool),
                inner=inner,
                losses=(*losses, adapted.loss(pool) if kept else float(after[at])),
                nats=nats,
                exact=exact,
                answers=answers,
                output=place and str(place),
                seconds=part.seconds,
            )
        )
    return done


def prompt_of_text(text: str) -> Prompt:
    """A JSON list of messages is a conversation; anything else is the text itself."""
    if not text.lstrip().startswith("["):
        return text
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return found if isinstance(found, list) and found and all(isinstance(turn, dict) for turn in found) else text
