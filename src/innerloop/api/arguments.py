"""Settings by the flat names of transformers' TrainingArguments, and the config keys that they are.

MetaTrainingArguments   what a MetaTrainer is given
FLAT                    flat name -> dotted config key, and what it sets
REFUSED                 names of transformers that can't mean anything here, with the reason
NEUTRAL                 names of transformers whose one value changes nothing, and that are read so
CHECKED                 names of transformers that have to agree with others
METRICS                 metric_for_best_model -> evaluate.metric
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from innerloop.config.other_names import OTHERS, TRANSFORMERS
from innerloop.config.schema import KEYS, nested
from innerloop.errors import Fault, Faults, did_you_mean
from innerloop.runs.learned import Learned


class Flat(NamedTuple):
    """read: the flat value -> the key's."""

    key: str
    read: Callable[[Any], Any]


def _same(given: Any) -> Any:
    return given


def _trackers(given: Any) -> list[str]:
    """As transformers has it: a name, a list of names, or "none"."""
    return [] if given in ("none", None) else [given] if isinstance(given, str) else list(given)


def _word(given: Any) -> str:
    """Of transformers' enumerations, or as text."""
    return str(getattr(given, "value", given))


METRICS = {name: kind for kind in ("nats", "exact") for name in (kind, f"eval_{kind}")}
METRICS |= {"loss": "nats", "eval_loss": "nats"}
_OPTIMIZERS = {"adamw_torch": "adamw", "adamw_torch_fused": "adamw"}

_READ: dict[str, Callable[[Any], Any]] = {
    "output_dir": str,
    "optim": lambda name: _OPTIMIZERS.get(name, name),
    "lr_scheduler_type": _word,
    "inner_optim": lambda name: _OPTIMIZERS.get(name, name),
    "bf16": lambda on: "bfloat16" if on else "float32",
    "use_cpu": lambda on: "cpu" if on else "auto",
    "metric_for_best_model": lambda name: METRICS.get(name, name),
    "load_best_model_at_end": lambda on: "best" if on else "last",
    "start_from": lambda start: str(start.folder) if isinstance(start, Learned) else start,
    "report_to": _trackers,
}
FLAT = {name: Flat(key, _READ.get(name, _same)) for name, key in TRANSFORMERS.items()}

_UNIT = "the unit is a task: tasks_per_step tasks per step, support and query examples of each"
REFUSED = {
    "num_train_epochs": f"{_UNIT}, drawn anew each step: max_steps says how long",
    "per_device_train_batch_size": _UNIT,
    "per_device_eval_batch_size": "evaluation fills forwards up to a number of tokens by itself",
    "gradient_accumulation_steps": "a step is over tasks_per_step tasks, tasks_per_forward of them at a time",
    "fp16": "float16 gradients overflow without loss scaling: bf16=True",
    "deepspeed": "a run is one process on one device",
    "fsdp": "a run is one process on one device",
    "auto_find_batch_size": "a step that doesn't fit is split by itself",
}
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "push_to_hub": (False,),
    "save_strategy": ("steps",),
    "logging_strategy": ("steps",),
    "logging_steps": (1,),
    "remove_unused_columns": (True, False),
    "disable_tqdm": (True, False),
    "run_name": (None,),
}
CHECKED = ("eval_strategy", "greater_is_better")


class MetaTrainingArguments:
    """The settings of a run, by flat names; what is left out has the default of docs/config.md.

    Also a dotted config key, with two underscores for each dot (`method__lora__layers="last-8"`), sets that key.

    >>> MetaTrainingArguments(output_dir="runs/one", method="meta-lora", max_steps=300, inner_steps=3)
    MetaTrainingArguments(output_dir='runs/one', method='meta-lora', max_steps=300, inner_steps=3)

    Raises UserError for every name that is unknown, or can't mean anything here, with what to use in its place.
    """

    def __init__(self, **given: Any) -> None:
        faults = Faults()
        values: dict[str, Any] = {}
        for name, value in given.items():
            key = name.replace("__", ".")
            if name in FLAT:
                values[FLAT[name].key] = FLAT[name].read(_plain(value))
            elif key in KEYS:
                values[key] = _plain(value)
            elif name in CHECKED:
                continue
            elif name in REFUSED:
                faults.append(Fault(f"not an argument here: {REFUSED[name]}", name, value))
            elif name not in NEUTRAL:
                faults.add("unknown argument", name, value, _suggestion(name))
            elif value not in NEUTRAL[name]:
                right = " or ".join(map(repr, NEUTRAL[name]))
                faults.add("not supported yet", name, value, f"{right}, or leave it out")
        _check_evaluations(given, values, faults)
        faults.raise_if_any()
        self.given, self.values = given, values

    @property
    def disable_tqdm(self) -> bool:
        """Whether no progress is shown."""
        return bool(self.given.get("disable_tqdm"))

    def __repr__(self) -> str:
        return f"MetaTrainingArguments({', '.join(f'{name}={value!r}' for name, value in self.given.items())})"

    def config(self, more: Mapping[str, Any]) -> dict[str, Any]:
        """The same as a YAML file's tree, with `more` dotted keys that these arguments don't set."""
        return nested({**more, **self.values})


def _check_evaluations(given: Mapping[str, Any], values: dict[str, Any], faults: Faults) -> None:
    """What is said of evaluations during training has to agree; load_best_model_at_end=False says nothing alone."""
    strategy, every = (
        _word(given.get("eval_strategy", "steps" if "evaluate.every" in values else "no")),
        "evaluate.every",
    )
    if strategy not in ("no", "steps"):
        right = '"steps" with eval_steps: a step draws tasks anew, so there are no epochs'
        faults.add("no way to evaluate", "eval_strategy", strategy, right)
    elif strategy == "steps" and every not in values:
        faults.add("missing", "eval_steps", expected="outer steps from one evaluation to the next")
    elif strategy == "no" and every in values:
        faults.add("nothing is evaluated with eval_strategy='no'", "eval_steps", values[every], "leave one of them out")
    if strategy == "no":
        for name in ("load_best_model_at_end", "metric_for_best_model", "greater_is_better"):
            if given.get(name) not in (None, False):
                faults.add("read only with evaluations", name, given[name], 'eval_strategy="steps" with eval_steps')
            values.pop(FLAT[name].key if name in FLAT else "", None)
    elif (higher := given.get("greater_is_better")) is not None:
        metric = values.get("evaluate.metric", "nats")
        if higher != (metric == "exact"):
            faults.add(f"the metric is {metric}", "greater_is_better", higher, f"{metric == 'exact'}, or leave it out")


def _suggestion(name: str) -> str:
    """The flat name of what other projects call so, or its key; else the nearest name."""
    if key := OTHERS.get(name):
        return next((flat for flat, own in TRANSFORMERS.items() if own == key), key.replace(".", "__"))
    return did_you_mean(name, [*FLAT, *CHECKED, *KEYS])


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    return list(value) if isinstance(value, tuple) else value
