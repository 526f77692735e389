"""Everything of a run except weights, checked: its encoded tasks by role and its model's shape; all faults at once.

Every verb goes through here first, so that what one of them refuses, all of them refuse, in the same words.

Groundwork     what was found
groundwork     config -> Groundwork
checked        a file or a mapping, its own faults among those of its data and folder -> Groundwork
Say            called with each stage and its progress
several_processes   whether this process can run it
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from innerloop.config.loading import RunConfig, sound_part
from innerloop.config.output_dir import occupied
from innerloop.data.doubts import doubts
from innerloop.data.encoding import EncodedTask
from innerloop.data.in_context import Asks, InContext
from innerloop.data.leaks import Overlap, overlaps
from innerloop.data.roles import Roles, assign_roles
from innerloop.data.tasks import Task
from innerloop.data.token_ids import Encoded
from innerloop.data.verifiers import unreadable
from innerloop.engine.inspection import check_prompts, check_tokens, warnings_of
from innerloop.engine.sources import (
    check_sizes,
    check_validation,
    encoder_of,
    on_a_day,
    placeholder_tasks,
    read_run_tasks,
    with_tasks_counted,
)
from innerloop.errors import Fault, Faults
from innerloop.loading.architecture import check_rotation, longest_alone, too_long_to_batch
from innerloop.loading.models import LoadedModel, check_revision, check_weights, load_tokenizer
from innerloop.loading.shapes import has_tokenizer, model_shape, skeleton
from innerloop.machine import chosen_device
from innerloop.spaces.adapting import adapting
from innerloop.spaces.lora import find_targets
from innerloop.trackers import missing

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Sound = Callable[..., bool]  # whether dotted keys have no fault of their own
Say = Callable[[str, int, int], None]  # a stage, and how much of how much of it is done; of 0: that isn't known

# What each part of the look reads, beside what came before it.
_READ = "suite", "folder", "columns", "verifier", "difficulty", "instances", "examples_per_task", "test", "only"
_SOURCE = tuple(f"tasks.{key}" for key in _READ)
_NAMES = ("tasks.validation", "tasks.held_out")
_LENGTHS = ("tasks.max_length", "tasks.on_too_long", "tasks.prompt")
_SIZES = ("tasks.support", "tasks.query", "outer.tasks_per_step", "method.name")


@dataclass(frozen=True, repr=False)
class Groundwork:
    """model: without storage, unless a loaded one was given; dropped: records left out on the way, by reason;
    tokenizer: None where it isn't on this machine and every example counts as `tasks.max_length` tokens, all scored.

    overlaps: examples that tasks of two roles share; warnings: what looks wrong in the data, and is no fault
    train: what meta-training reads; for a method that trains one task at a time, the held-out tasks
    """

    config: RunConfig
    model: "PreTrainedModel"
    tokenizer: "PreTrainedTokenizerBase | None"
    train: list[EncodedTask]
    validation: list[EncodedTask]
    held_out: list[EncodedTask]
    dropped: dict[str, int]
    overlaps: list[Overlap]
    warnings: list[str]

    def __repr__(self) -> str:
        return f"Groundwork({in_a_line(self.config, self.train, self.validation, self.held_out)})"


def in_a_line(config: RunConfig, *tasks: list[EncodedTask]) -> str:
    """tasks: to train on, of validation, held out."""
    train, validation, held_out = map(len, tasks)
    counts = f"{train} training tasks, {validation} for validation, {held_out} held out"
    return f"{config.method.name} on {config.model.name}, {counts}"


def checked(
    source: "RunConfig | Path | str | Mapping[str, Any] | Groundwork",
    sets: Sequence[str] = (),
    *,
    model: LoadedModel | None = None,
    **how: Any,
) -> Groundwork:
    """`groundwork` of a config, or of a YAML file or mapping with `--set` on top; what has been checked stays as it is.

    Raises UserError with the faults of the config, and with those of its data and folder as far as its keys are sound.
    """
    if isinstance(source, Groundwork):
        return source
    if isinstance(source, RunConfig):
        return groundwork(source, model=model, **how)
    faults = Faults()
    part = sound_part(source, sets, faults)
    found = _Look(part.config, model, faults, sound=part.sound, **how).found() if part else None
    faults.raise_if_any()
    assert found is not None
    return found


def groundwork(config: RunConfig, *, model: LoadedModel | None = None, **how: Any) -> Groundwork:
    """Everything about a run that is known before its weights are read.

    model  a loaded one, or one without storage, whose shape and tokenizer are used; else those of model.name are read
    fresh  the run is to begin: nothing may be in its output_dir
    away   it is to run elsewhere: its device, weights and tokenizer need not be here
    say    is told what is looked at
    Raises UserError with all faults.
    """
    faults = Faults()
    found = _Look(config, model, faults, **how).found()
    faults.raise_if_any()
    assert found is not None
    return found


class _Look:
    """One look at a run. Where something has a fault already, what follows from it is left out."""

    def __init__(
        self,
        config: RunConfig,
        model: LoadedModel | None,
        faults: Faults,
        *,
        sound: Sound = lambda *_: True,
        fresh: bool = False,
        away: bool = False,
        say: Say | None = None,
    ) -> None:
        self.config, self.faults, self.sound = config, faults, sound
        self.fresh, self.away, self.say = fresh, away, say or (lambda *_: None)
        self.bare, self.tokenizer = (model.model, model.tokenizer) if model else (None, None)
        self.given, self.assumed, self.warnings = model is not None, False, list[str]()

    def found(self) -> Groundwork | None:
        """None where something is wrong; what that is has been added to the faults."""
        self._machine()
        if self.fresh and self.sound("output_dir"):
            self.faults += occupied(self.config.output_dir)
        self._model()
        tasks, dropped = self._tasks()
        roles = self._roles(tasks) if tasks and self.sound(*_NAMES) else None
        every = self._encoded(roles) if roles and self.sound(*_LENGTHS) else None
        if roles and self.sound(*_SIZES):
            groups = [[task.task for task in group] for group in every] if every else list(roles)
            train = groups[2] if self._one_task else groups[0]
            self.config = with_tasks_counted(self.config, train)
            check_sizes(self.config, train, self.faults)
        if every and not self.assumed and self.sound("evaluate"):
            check_validation(self.config, every[1], self.faults)
        if every is None or roles is None or self.bare is None:
            return None
        read = roles._replace(train=[]) if self._one_task else roles
        train, validation, held_out = every
        dropped |= {
            "too long": sum(task.dropped for group in every for task in group),
            "truncated": sum(task.truncated for group in every for task in group),
        }
        return Groundwork(
            config=self.config,
            model=self.bare,
            tokenizer=self.tokenizer,
            train=held_out if self._one_task else train,
            validation=validation,
            held_out=held_out,
            dropped={reason: count for reason, count in dropped.items() if count},
            overlaps=overlaps(read._asdict()),
            warnings=self.warnings,
        )

    @property
    def _one_task(self) -> bool:
        return self.config.method.row.one_task

    def _machine(self) -> None:
        """One process on one device: where this one is, and whether it can be that."""
        self.faults += several_processes()
        if not self.away and self.sound("report_to"):
            self.faults += missing(self.config.report_to)
        if self.away or not self.sound("model.device"):
            return
        with self.faults.collecting():
            device = chosen_device(self.config.model.device)
            if device == "cpu" and self.sound("memory.offload") and self.config.memory.offload:
                right = "false: there is no other memory than the host's; or a cuda device"
                self.faults.add("nothing to offload from", "memory.offload", True, right)

    def _model(self) -> None:
        """Its shape, which its LoRA has to fit, and its tokenizer."""
        section = self.config.model
        name, revision, attention = section.name, section.revision, section.attn_implementation
        own = getattr(self.bare.config, "_attn_implementation", None) if self.given and self.bare is not None else None
        if None not in (attention, own) and attention != own:
            right = "leave it out; or the name of a model, which is then loaded with it"
            self.faults.add("the given model attends in another way", "model.attn_implementation", attention, right)
        if not self.given and self.sound("model.name"):
            self.say("reading the model's config and tokenizer", 0, 0)
            with self.faults.collecting():
                if not self.away:
                    check_weights(name)
                check_revision(name, revision)
                self.bare = skeleton(model_shape(name, revision=revision), attn_implementation=attention)
                check_rotation(self.bare)
                self.assumed = self.away and not has_tokenizer(name, revision=revision)
                self.tokenizer = None if self.assumed else load_tokenizer(name, revision=revision)
        lora = self.config.method.lora_settings()
        if self.bare is not None and lora is not None and self.sound("method"):
            with self.faults.collecting():
                find_targets(self.bare, lora)
        inner = self.config.method.inner
        if self.bare is not None and inner is not None and self.sound("method"):
            with self.faults.collecting():
                trained = [f"{path}.lora_B" for path in find_targets(self.bare, lora)] if lora else None
                adapting(inner.train or "all", trained or dict(self.bare.named_parameters()), self.bare)

    def _tasks(self) -> tuple[list[Task] | None, dict[str, int]]:
        if self.sound(*_SOURCE):
            self.say("reading the tasks", 0, 0)
            with self.faults.collecting():
                if self.assumed and self.config.tasks.suite is not None:
                    return placeholder_tasks(self.config), {}
                tasks, dropped, self.warnings = read_run_tasks(self.config)
                return tasks, dropped
        return None, {}

    def _roles(self, tasks: list[Task]) -> Roles | None:
        names = self.config.tasks
        with self.faults.collecting():
            roles = assign_roles(tasks, only=names.only, validation=names.validation, held_out=names.held_out)
            self.faults += unreadable(names.verifier, (task for group in roles for task in group))
            return roles
        return None

    def _encoded(self, roles: Roles) -> list[list[EncodedTask]] | None:
        names, given = self.config.tasks, [task for group in roles for task in group]
        if self.assumed:
            return [[_longest(task, names.max_length, names.prompt) for task in group] for group in roles]
        if self.tokenizer is None:
            return None
        self.say("encoding the tasks", 0, 0)
        with self.faults.collecting():
            self.config = on_a_day(self.config, self.tokenizer)
            every = encoder_of(self.config, self.tokenizer).tasks(given)
            self._check_tokens(every)
            rest = iter(every)
            groups = [[next(rest) for _ in group] for group in roles]
            if self.bare is not None and self.sound(*_SIZES):
                self.faults += check_prompts(groups[0], self.config.tasks.support + 1, self.bare)
            return groups
        return None

    def _check_tokens(self, tasks: list[EncodedTask]) -> None:
        if self.bare is None or self.tokenizer is None:
            return
        with self.faults.collecting():
            self.faults += lengths(self.bare, tasks)
            check_tokens(tasks, LoadedModel(self.bare, self.tokenizer, "", "", fingerprint=""))
        self.warnings += [*doubts(task.task for task in tasks), *warnings_of(tasks, self.tokenizer)]


def lengths(model: "PreTrainedModel", tasks: Sequence[EncodedTask]) -> list[Fault]:
    """Of the longest example of each task that is too long to stand beside others."""
    most, found = longest_alone(model), list[Fault]()
    for task in tasks if most is not None else ():
        examples = (*task.pool, *task.test)
        tokens, longest = max(((len(example.tokens), example.id) for example in examples), default=(0, ""))
        if most is not None and tokens > most:
            named = next(each.named for each in (*task.task.pool, *task.task.test) if each.id == longest)
            found.append(too_long_to_batch(tokens, most, f"task {task.task.name}, {named}"))
    return found


def _longest(task: Task, length: int, asks: Asks) -> EncodedTask:
    full = (1,) * length
    pool = tuple(Encoded(example.id, full, 0) for example in task.pool)
    found = EncodedTask(task, pool, test=(), dropped=0, truncated=0)
    return replace(found, in_context=InContext(task.pool, pool, None)) if asks == "in-context" else found


def several_processes() -> list[Fault]:
    """Started as one rank of several: each would train everything, and all of them would write to one folder."""
    text = os.environ.get("WORLD_SIZE", "1").strip()
    if text in ("", "0", "1"):
        return []
    problem = "a run is one process on one device: each of several would train everything, in one folder"
    return [Fault(problem, "WORLD_SIZE", text, "innerloop without torchrun, accelerate launch or srun")]
