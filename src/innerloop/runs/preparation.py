"""Everything before the first step: a config becomes a model, encoded tasks, a space and a trainer.

Session       what a run works with; several runs may share a model and the hidden states below the cut
TaskBatches   the batches of each outer step
prepare       config -> Session, with all faults of the data in one error
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

import torch

from innerloop.architecture import decoder_layers, longest_alone, packs, too_long
from innerloop.data.batches import task_batch, with_masks
from innerloop.data.doubts import doubts
from innerloop.data.encoder import Encoder
from innerloop.data.encoding import EncodedTask
from innerloop.data.examples import raise_first, read_tasks
from innerloop.data.leaks import Overlap, overlaps
from innerloop.data.roles import assign_roles
from innerloop.data.sampler import TaskStream, prompts_of
from innerloop.data.suites import build_suite
from innerloop.data.tasks import Task, TaskBatch
from innerloop.data.templates import writes_date
from innerloop.data.token_cache import encode_cached
from innerloop.data.verifiers import unreadable, verifier_of
from innerloop.errors import Fault, Faults, UserError
from innerloop.learning.methods import METHODS
from innerloop.models import LoadedModel, load
from innerloop.runs.config import RunConfig
from innerloop.runs.hidden_states import HiddenStates
from innerloop.runs.inspection import check_tokens, warnings_of
from innerloop.runs.trainer import Trainer
from innerloop.spaces.all_parameters import AllParameters
from innerloop.spaces.answers import AnswerLoss
from innerloop.spaces.compiled import CompiledLayers
from innerloop.spaces.lora import LoraSpace, chosen_layers
from innerloop.spaces.space import ParameterSpace

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# On two cores 1,024 tokens a forward were slower than 512 and took half as much memory again (benchmarks/step.py).
# A GPU is assumed, not measured, to be busy from about 8,192 on.
AUTO_TOKENS_PER_FORWARD = {"cpu": 512, "cuda": 8192}


@dataclass
class Session:
    """A config with its model and tasks.

    train     what meta-training reads; for a method that trains one task at a time, the held-out tasks
    dropped   records left out on the way, by reason
    overlaps  examples that tasks of two roles share
    warnings  what looks wrong in the data, and is no fault
    store     hidden states below the cut
    layers    compiled, where `runs.compiling` has made them; compiled: what it says about that, None = wasn't asked
    """

    config: RunConfig
    model: LoadedModel
    train: list[EncodedTask]
    validation: list[EncodedTask]
    held_out: list[EncodedTask]
    dropped: dict[str, int]
    store: HiddenStates = field(default_factory=HiddenStates)
    overlaps: list[Overlap] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    device: torch.device = field(init=False)
    dtype: torch.dtype = field(init=False)
    layers: CompiledLayers | None = field(init=False, default=None)
    compiled: str | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        # of the forward; at rest, a space may keep the model's tensors elsewhere and in another dtype
        self.device, self.dtype = self.model.model.device, self.model.model.dtype

    def space(self) -> ParameterSpace:
        """A space at its starting values: the model's own weights, or a fresh LoRA."""
        settings, memory, model = self.config.method.lora_settings(), self.config.memory, self.model.model
        options: dict[str, Any] = {"checkpointing": memory.checkpointing, "logit_rows": memory.logit_rows}
        if settings is not None:
            below = self.store.below(model, self.cut, most=memory.trunk_cache_bytes)
            loss = AnswerLoss(model, cut=self.cut, store=below, compiled=self.layers, **options)
            return LoraSpace(model, loss, settings, seed=self.config.seed, compiled=self.layers)
        return AllParameters(
            model,
            AnswerLoss(model, **options),
            dtype=self.dtype,
            device=self.device,
            lean=memory.lean,
            offload=memory.offload,
        )

    @property
    def encoder(self) -> Encoder:
        return encoder_of(self.config, self.model)

    @property
    def even(self) -> bool:
        """How the examples of a forward are packed; a compiler that failed leaves no trace."""
        return evenly(self.device.type, compiled=self.layers is not None)

    @property
    def cut(self) -> int:
        """Layers below this one run once for each example; 0 = none."""
        settings = self.config.method.lora_settings()
        if settings is None or not self.config.memory.trunk_cache:
            return 0
        return min(chosen_layers(settings.layers, len(decoder_layers(self.model.model))))

    def streams(self) -> "list[tuple[str, TaskBatches]]":
        """(name, batches) of each adapter to train: one for all tasks, or one a task."""
        if METHODS[self.config.method.name].one_task:
            return [(task.task.name, self._batches([task])) for task in self.train]
        return [("", self._batches(self.train))]

    def _batches(self, tasks: Sequence[EncodedTask]) -> "TaskBatches":
        return TaskBatches(self.config, tasks, packed=packs(self.model.model), even=self.even)

    def trainer(self, space: ParameterSpace, batches: "TaskBatches") -> Trainer:
        config = self.config
        method, optimizer = config.method.build(), config.outer.build_optimizer(eight_bit=config.memory.lean)
        tasks_per_forward = self.tasks_per_forward(batches)
        return Trainer(
            space,
            method,
            optimizer,
            tasks_per_forward=tasks_per_forward,
            seed=config.seed,
            skip_non_finite=config.outer.on_non_finite == "skip",
        )

    def tasks_per_forward(self, batches: "TaskBatches") -> int:
        """As configured; before it was measured (runs/pace.py), `auto` is what fits a token budget."""
        asked = self.config.memory.tasks_per_forward
        if asked != "auto":
            return asked
        return tasks_that_fit(self.config, batches[0], self.device)


def tasks_that_fit(config: RunConfig, first: TaskBatch, device: torch.device) -> int:
    """Tasks a forward that keep the first step's within the token budget of a device."""
    if METHODS[config.method.name].trains == "all":
        return 1
    largest = max(max(batch.packing.sizes) if batch.packing else batch.tokens[0].numel() for batch in first.batches)
    return max(1, min(len(first.names), AUTO_TOKENS_PER_FORWARD[device.type] // largest))


def evenly(kind: str, *, compiled: bool) -> bool:
    """Whether the tasks of a packed forward are filled up to equally many tokens, on a device of this kind.

    One launch on a GPU is for all of them, and so is a compiled layer; a CPU goes through them one by one.
    """
    return kind != "cpu" or compiled


class TaskBatches:
    """The batches of each outer step in host memory, a pure function of the step's number.

    packed: for a model that `packs`; even: packed `evenly`.
    """

    def __init__(
        self, config: RunConfig, tasks: Sequence[EncodedTask], *, packed: bool = False, even: bool = True
    ) -> None:
        self.inner, self.seed = config.method.inner, config.seed
        self.layout = {"packed": packed, "even": even}
        self.dropout = config.method.lora is not None and config.method.lora.lora_dropout > 0
        self.names = [task.task.name for task in tasks]
        self.pools = [task.pool for task in tasks]
        support, query = examples_a_round(config)
        self.draws = TaskStream(
            self.names,
            [prompts_of(task.task.pool) for task in tasks],
            seed=config.seed,
            tasks_per_step=config.outer.tasks_per_step,
            support=support,
            query=query,
        )

    def __getitem__(self, step: int) -> TaskBatch:
        steps, size = (self.inner.steps, self.inner.batch_size) if self.inner else (0, 0)
        draw = self.draws.draw(step)
        batch = task_batch(self.pools, self.names, draw, inner_steps=steps, batch_size=size, **self.layout)
        return with_masks(batch, seed=self.seed, step=step) if self.dropout else batch


def examples_a_round(config: RunConfig) -> tuple[int, int]:
    """(support, query) examples that a step draws of a task; without an inner loop, all are trained on."""
    support, query = config.tasks.support, config.tasks.query or 0
    return (support, query) if config.method.inner else (0, support + query)


def prepare(config: RunConfig, *, model: LoadedModel | None = None, store: HiddenStates | None = None) -> Session:
    """Read and encode the tasks, give them roles, load the model (unless one is passed in), check the sizes.

    Raises UserError with all faults of the tasks.
    """
    tasks, dropped = read(config)
    names = config.tasks
    roles = assign_roles(tasks, only=names.only, validation=names.validation, held_out=names.held_out)
    raise_first(Faults(unreadable(names.verifier, (task for group in roles for task in group))))
    if model is None:
        loaded = load(config.model.name, dtype=config.model.dtype, device=chosen_device(config.model.device))
    elif METHODS[config.method.name].trains == "all":  # trains the model's own tensors: the caller keeps theirs
        loaded = replace(model, model=copy.deepcopy(model.model))
    else:
        loaded = model
    given = [task for group in roles for task in group]
    config = on_a_day(config, loaded.tokenizer)
    every = encode_cached(given, encoder_of(config, loaded))
    rest = iter(every)
    train, validation, held_out = ([next(rest) for _ in group] for group in roles)
    dropped |= {
        "too long": sum(task.dropped for task in every),
        "truncated": sum(task.truncated for task in every),
    }
    one_task = METHODS[config.method.name].one_task
    session = Session(
        config=config,
        model=loaded,
        train=held_out if one_task else train,
        validation=validation,
        held_out=held_out,
        dropped={reason: count for reason, count in dropped.items() if count},
        store=HiddenStates() if store is None else store,
        overlaps=overlaps(roles._replace(train=[] if one_task else roles.train)._asdict()),
        warnings=[*doubts(given), *warnings_of(every, loaded.tokenizer)],
    )
    check_tokens(every, loaded)
    check_sizes(session)
    _check_lengths(loaded, every)
    if config.memory.offload and session.device.type == "cpu":
        right = "false: there is no other memory than the host's; or a cuda device"
        raise UserError(Fault("nothing to offload from", "memory.offload", True, right))
    return session


def encoder_of(config: RunConfig, model: LoadedModel) -> Encoder:
    """The one reader of a run's examples and prompts."""
    tasks = config.tasks
    return Encoder(model.tokenizer, tasks.max_length, tasks.on_too_long, tasks.columns or {}, tasks.date)


def on_a_day(config: RunConfig, tokenizer: "PreTrainedTokenizerBase") -> RunConfig:
    """The config with today's date where the chat template writes one and the config has none."""
    if config.tasks.date or not writes_date(tokenizer):
        return config
    tasks = config.tasks.model_copy(update={"date": datetime.now().date().isoformat()})  # as a template sees it
    return config.model_copy(update={"tasks": tasks})


def read(config: RunConfig) -> tuple[list[Task], dict[str, int]]:
    """The tasks of the suite or folder, and how many records were left out."""
    tasks = config.tasks
    if tasks.suite is not None:
        assert tasks.examples_per_task is not None
        assert tasks.difficulty is not None
        built = build_suite(
            tasks.suite,
            seed=config.seed,
            examples_per_task=tasks.examples_per_task,
            test_examples=tasks.test,
            difficulty=tasks.difficulty,
            instances=tasks.instances,
            only=tasks.only,
        )
        return built, {}
    assert tasks.folder is not None
    assert tasks.verifier is not None
    verifier = verifier_of(tasks.verifier)
    found = read_tasks(tasks.folder, columns=tasks.columns, test=tasks.test)
    dropped = {
        "with pictures": sum(file.pictures for file in found.files),
        "repeated": sum(file.duplicates for file in found.files),
        "whose prompt is that of a test example": found.left_out,
        "files of no known kind": len(found.ignored),
    }
    checked = [replace(task, verifier=verifier) for task in found.tasks]
    return [_capped(task, tasks.examples_per_task) for task in checked], dropped


def _capped(task: Task, pool: int | None) -> Task:
    """The task with the `pool` examples of the smallest ids, whatever the order of the rows."""
    if pool is None or len(task.pool) <= pool:
        return task
    return replace(task, pool=tuple(sorted(task.pool, key=lambda example: example.id)[:pool]))


def check_sizes(session: Session) -> None:
    """Raises UserError where the tasks are too few or too small for a step."""
    config, faults = session.config, Faults()
    if not session.train:
        key = "tasks.held_out" if METHODS[config.method.name].one_task else "tasks"
        raise UserError(Fault("no task is left to train on", key, expected="at least one task"))
    need = sum(examples_a_round(config))
    for task in session.train:
        if (prompts := len(prompts_of(task.task.pool))) < need:
            kind = "examples" if prompts == len(task.pool) else "different prompts"
            right = f"at least {need} {kind} beside the {config.tasks.test} test examples (tasks.test)"
            faults.add("a batch larger than the pool", f"task {task.task.name}", prompts, right)
    if config.outer.tasks_per_step > len(session.train):
        right = f"at most {len(session.train)}, the tasks to train on"
        faults.add("more tasks than there are", "outer.tasks_per_step", config.outer.tasks_per_step, right)
    raise_first(faults)


def _check_lengths(model: LoadedModel, tasks: Sequence[EncodedTask]) -> None:
    """Raises UserError for the longest example of a task that is too long to stand beside others."""
    faults, most = Faults(), longest_alone(model.model)
    for task in tasks if most is not None else ():
        tokens, longest = max((len(example.tokens), example.id) for example in (*task.pool, *task.test))
        if most is not None and tokens > most:
            named = next(each.named for each in (*task.task.pool, *task.task.test) if each.id == longest)
            faults.append(too_long(tokens, most, f"task {task.task.name}, {named}"))
    raise_first(faults)


def chosen_device(name: str) -> str:
    """`auto` is CUDA where there is one. Raises UserError for a device that is not here."""
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise UserError(Fault("no CUDA device is here", "model.device", name, "cpu or auto"))
    return name if name != "auto" else "cuda" if torch.cuda.is_available() else "cpu"


def roles(session: Session) -> Mapping[str, Any]:
    """Which task had which role, for the manifest."""
    groups = {"train": session.train, "validation": session.validation, "held_out": session.held_out}
    return {role: [task.task.name for task in group] for role, group in groups.items()}
