"""Training on live objects, as people know it from transformers; the code is that of a YAML run.

MetaTrainer   check(), plan(), train(), evaluate(), learned
meta_train    the same in one call; or a config, as `innerloop train` reads it
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from innerloop.api.arguments import MetaTrainingArguments
from innerloop.api.callbacks import Callbacks
from innerloop.api.lora_config import lora_keys
from innerloop.api.models import given_adapter, given_model
from innerloop.config.loading import RunConfig, load_config
from innerloop.config.output_dir import read_manifest
from innerloop.data.examples import read_tasks
from innerloop.data.given import TASK, GivenTasks, given_tasks
from innerloop.data.sampler import fitting_sizes, prompts_of
from innerloop.engine.dtypes import of_dtype
from innerloop.engine.groundwork import Groundwork, groundwork
from innerloop.engine.metrics import Metrics, ValidationScore
from innerloop.errors import Fault, Faults, UserError
from innerloop.learning.methods import METHODS
from innerloop.loading.shapes import skeleton
from innerloop.planning import budget
from innerloop.planning.devices import chosen
from innerloop.progress import Busy, busy
from innerloop.runs import meta_train as runs
from innerloop.runs.adapters import Ask
from innerloop.runs.again import done_before
from innerloop.runs.checkpoint import newest
from innerloop.runs.evaluating import Evaluation
from innerloop.runs.header import Header
from innerloop.runs.learned import Learned

if TYPE_CHECKING:
    from peft import LoraConfig
    from transformers import PreTrainedTokenizerBase, TrainerCallback


class MetaTrainer:
    """Trains an initialization on tasks in memory and writes what YAML would to `args.output_dir`.

    >>> args = MetaTrainingArguments(output_dir="runs/one", method="meta-lora", max_steps=2, tasks_per_step=2)
    >>> trainer = MetaTrainer(model, args, train_dataset=tasks, held_out=["dee"], tokenizer=tokenizer)
    >>> adapted = trainer.train().adapt(examples)
    >>> adapted.save_pretrained("adapters/acme")

    model            a hub id, a folder, a transformers model, or a PEFT model, whose LoRA is the start
    args             the settings; sizes that it leaves out are what the smallest task allows
    train_dataset    a mapping of names to records, a Dataset with a column of tasks, or a DatasetDict with roles
    eval_dataset     the same, of validation tasks, which train nothing: they are evaluated every eval_steps, and choose
                     rates and steps in comparisons
    peft_config      PEFT's LoraConfig, for methods that train LoRA
    processing_class, tokenizer   of a model that is an object
    callbacks        transformers' TrainerCallbacks: told of the beginning, each step and evaluation, logs, checkpoints
                     and the end
    held_out         names of tasks of train_dataset that training never sees
    Raises UserError with everything that is wrong with settings or data, before any weights are read.
    """

    def __init__(
        self,
        model: Any,
        args: MetaTrainingArguments,
        *,
        train_dataset: Any,
        eval_dataset: Any = None,
        peft_config: "LoraConfig | None" = None,
        processing_class: "PreTrainedTokenizerBase | None" = None,
        tokenizer: "PreTrainedTokenizerBase | None" = None,
        held_out: Sequence[str] = (),
        task_column: str = TASK,
        callbacks: "Sequence[TrainerCallback]" = (),
    ) -> None:
        self.args, self.task_column = args, task_column
        name, self.model = given_model(model, processing_class or tokenizer)
        tasks = given_tasks(train_dataset, task_column=task_column, held_out=held_out)
        if eval_dataset is not None:
            tasks = _with_validation(tasks, given_tasks(eval_dataset, task_column=task_column))
        self.tasks = tasks
        adapter = given_adapter(model)
        tree = _tree(args, name, tasks, lora_keys(adapter.config if adapter else peft_config))
        if self.model is not None and "revision" in tree["model"]:
            given, right = tree["model"]["revision"], "leave it out; or the hub id as model"
            raise UserError(Fault("a model in memory has no revisions", "model.revision", given, right))
        path = Path(tree["output_dir"])
        if adapter:
            _check_alone(args, peft_config)
            tree["start_from"] = str(path.with_name(f"{path.name}.start"))
        source = path.with_name(f"{path.name}.tasks.jsonl")
        new = tasks.write(source)
        try:
            self.config: RunConfig = load_config(_sized(tree, source, args))
            self.callbacks = Callbacks(callbacks, args, self.config)
            if adapter:
                adapter.write(Path(tree["start_from"]))
        except UserError:
            if new:
                source.unlink()
            raise
        self._learned: Learned | None = None

    def __repr__(self) -> str:
        return f"MetaTrainer({self.config.method.name}, {self.tasks!r}, {self.config.output_dir})"

    def check(self) -> Groundwork:
        """Everything but the weights. Raises UserError with every fault.

        >>> ground = MetaTrainer(model, args, train_dataset=tasks, held_out=["dee"], tokenizer=tokenizer).check()
        >>> len(ground.train), len(ground.held_out)
        (5, 1)
        """
        return groundwork(self.config, model=self.model)

    def plan(self) -> budget.Plan:
        """What training will take, by `innerloop plan`: tasks, tokens, bytes and time; printed, all that it knows.

        >>> MetaTrainer(model, args, train_dataset=tasks, tokenizer=tokenizer).plan()
        Plan(fits: 6 training tasks, ... tokens, ... MB, ...; trains ... parameters, ... % of the model's)

        Raises UserError as `check`.
        """
        config, model = self.config, self.model
        if model is not None:  # planned without its weights, which would be copied where all of them are trained
            config, bare = of_dtype(config, model.model.dtype), skeleton(model.model.config)
            model = replace(model, model=bare)
        ground = groundwork(config, model=model)
        device = str(self.model.model.device) if self.model else config.model.device
        return budget.plan(ground.config, chosen(None, model_device=device), ground=ground)

    def train(self, *, resume_from_checkpoint: bool | str | Path | None = None) -> Learned:
        """Train and write. A run that is done is not trained again: what it learned is loaded.

        >>> trainer = MetaTrainer(model, args, train_dataset=tasks, tokenizer=tokenizer)
        >>> trainer.train(resume_from_checkpoint="auto")
        Learned(meta-lora on ..., runs/other)
        >>> trainer.train(resume_from_checkpoint="auto")
        Learned(meta-lora on ..., runs/other)

        resume_from_checkpoint   "auto": go on with what an earlier start left in output_dir, or begin; True: go on, and
                                 something has to be there; a path: output_dir, or the newest checkpoint in it
        Raises as `meta_train`, and UserError with all that changed since an earlier start.
        """
        resume = self._resumes(resume_from_checkpoint)
        with busy("looking for an earlier start", shown=not self.args.disable_tqdm) as now:
            self._learned = done_before(self.config, model=self.model) if resume else None
            if self._learned is None:
                self._learned = self._train(now, resume)
        return self._learned

    def _train(self, now: Busy, resume: bool) -> Learned:
        steps = self.config.outer.steps

        def on_step(name: str, metrics: Metrics) -> Ask:
            now.step(name, metrics, steps)
            return self.callbacks.step(name, metrics)

        def on_evaluation(found: ValidationScore, best: ValidationScore | None) -> Ask:
            now.evaluated(found, best)
            return self.callbacks.evaluated(found, best)

        self.callbacks.begins()
        told = {"on_step": on_step, "on_evaluation": on_evaluation, "on_stage": now.say}
        learned = runs.meta_train(self.config, model=self.model, resume=resume, **told)
        self.callbacks.ends()
        return learned

    def _resumes(self, how: bool | str | Path | None) -> bool:
        folder, where, faults = self.config.output_dir, "resume_from_checkpoint", Faults()
        if not how or how == "auto":
            return bool(how)
        there = read_manifest(folder) is not None
        if how is True:
            if not there:
                faults.add("nothing is there to go on with", where, str(folder), '"auto", which begins then')
        elif not isinstance(how, str | Path):
            faults.add("not a way to go on", where, how, 'True, "auto" or a path')
        elif not there or Path(how).resolve() not in (folder.resolve(), *_newest(folder)):
            right = f"{folder}, the output_dir, or the newest checkpoint in it"
            faults.add("not what this run can go on with", where, str(how), right)
        faults.raise_if_any()
        return True

    def evaluate(self, tasks: Any = None, *, k: Sequence[int] = (0, 8), draws: int = 5) -> Evaluation:
        """How well what was learned adapts to k examples of each task, as `Learned.evaluate` has it.

        >>> print(trainer.evaluate(k=[0, 4], draws=2))
        1 tasks, ...
        k     exact answers                 nats per answer token
        0     ...
        4     ...

        tasks   by default those that were held out
        Raises UserError before `train`, and as `Learned.evaluate`.
        """
        learned = self.learned
        with busy("reading the tasks", shown=not self.args.disable_tqdm) as now:
            return learned.evaluate(tasks, k=k, draws=draws, task_column=self.task_column, say=now.say)

    @property
    def learned(self) -> Learned:
        """What was trained. Raises UserError before `train`.

        >>> trainer.learned
        Learned(meta-lora on ..., runs/done)
        """
        if self._learned is None:
            raise UserError(Fault("nothing is trained yet", "learned", expected="trainer.train() first, or load_run"))
        return self._learned


def meta_train(
    config: Any,
    tokenizer: "PreTrainedTokenizerBase | None" = None,
    *,
    tasks: Any = None,
    held_out: Sequence[str] = (),
    validation: Any = None,
    peft_config: "LoraConfig | None" = None,
    task_column: str = TASK,
    **more: Any,
) -> Learned:
    """Train an initialization; what was learned, with its folder on disk.

    >>> learned = meta_train(model, tokenizer, tasks=tasks, output_dir="runs/two", max_steps=2)
    >>> learned.save_pretrained("adapters/initial")
    >>> meta_train(load_config("run.yaml"))
    Learned(fomaml-lora on ..., runs/three)

    config   a YAML file, a mapping like one, or a RunConfig; with `tasks`, a model: hub id, folder or object
    tasks    as `MetaTrainer`'s train_dataset; held_out and validation as its held_out and eval_dataset
    more     with `tasks`, the names of MetaTrainingArguments; without, what `innerloop.runs.meta_train` takes, and
             disable_tqdm
    Raises as `MetaTrainer` and `innerloop.runs.meta_train.meta_train`.
    """
    if tasks is None:
        return _shown(config, **more)
    resume = more.pop("resume", False)
    trainer = MetaTrainer(
        config,
        MetaTrainingArguments(**more),
        train_dataset=tasks,
        eval_dataset=validation,
        peft_config=peft_config,
        tokenizer=tokenizer,
        held_out=held_out,
        task_column=task_column,
    )
    return trainer.train(resume_from_checkpoint=resume)


def _shown(config: Any, *, disable_tqdm: bool = False, **more: Any) -> Learned:
    """With its progress, unless the caller is told of it."""
    steps = 0

    told = more.keys() & {"on_header", "on_stage", "on_step"}
    with busy("reading the config", shown=not (disable_tqdm or told)) as now:

        def on_header(header: Header) -> None:
            nonlocal steps
            steps = header.steps

        def on_step(name: str, metrics: Metrics) -> None:
            now.step(name, metrics, steps)

        ours = {"on_header": on_header, "on_stage": now.say, "on_step": on_step}
        return runs.meta_train(config, **(more if told else ours | more))


def _newest(folder: Path) -> list[Path]:
    found = newest(folder).path
    return [found.resolve()] if found else []


def _check_alone(args: MetaTrainingArguments, peft_config: "LoraConfig | None") -> None:
    """A PEFT model has its adapter's settings and is where training starts."""
    faults = Faults()
    if peft_config is not None:
        faults.add("the model has an adapter already", "peft_config", "LoraConfig", "leave it out, or model.unload()")
    for key in (key for key in args.values if key == "start_from" or key.startswith("method.lora.")):
        faults.add("the model's adapter says this", key, args.values[key], "leave it out, or give the base model")
    faults.raise_if_any()


def _with_validation(tasks: GivenTasks, more: GivenTasks) -> GivenTasks:
    if both := sorted(tasks.records.keys() & more.records.keys()):
        right = "each task in one of the two; examples to test a task on are its own, set by test"
        raise UserError(Fault("tasks of train_dataset too", "eval_dataset", ", ".join(both), right))
    return GivenTasks({**tasks.records, **more.records}, (*tasks.validation, *more.records), tasks.held_out)


def _tree(args: MetaTrainingArguments, model: str, tasks: GivenTasks, lora: Mapping[str, Any]) -> dict[str, Any]:
    keys = {
        "model.name": model,
        "method.name": "meta-lora",
        "tasks.validation": list(tasks.validation),
        "tasks.held_out": list(tasks.held_out),
        **lora,
    }
    if "output_dir" not in args.values:
        raise UserError(Fault("missing", "output_dir", expected="the folder of the run, new or empty"))
    if "evaluate.every" in args.values and not tasks.validation:
        right = "validation tasks; or a split validation in train_dataset"
        raise UserError(Fault("there are no tasks to evaluate on during training", "eval_dataset", None, right))
    return args.config(keys)


def _sized(tree: dict[str, Any], written: Path, args: MetaTrainingArguments) -> dict[str, Any]:
    """With the file of tasks, and with sizes that the smallest of them allows where none is given."""
    tree["tasks"]["folder"] = str(written)
    columns: Mapping[str, str] | None = tree["tasks"].get("columns")
    tasks = read_tasks(written, columns=columns, test=0).tasks
    sizes = fitting_sizes(min(len(prompts_of(task.pool)) for task in tasks))
    row = METHODS.get(tree["method"]["name"])
    for name, size in sizes._asdict().items():
        reads = name != "query" or row is None or row.reads_query
        if reads and f"tasks.{name}" not in args.values:
            tree["tasks"][name] = size
    return tree
