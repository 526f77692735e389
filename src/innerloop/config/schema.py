"""The sections of a run's config: every key, the values it takes, and the object it becomes.

RunConfig          all that a run reads, defaults filled in; a key that it doesn't read is None
KEYS, SECTIONS     every key and every section of the schema, dotted; EVERYTHING: both
FIELDS             a key's type, limits and, in words, the values it takes
BROKEN_METHODS     of other packages, that can't be used: why, by name
OPTIMIZERS         their names in a config
NULLABLE           keys for which null is a value
DEFAULTS           defaults that depend on no other key
json_schema        of a run's YAML file, for editors
get, nested        from a tree to a dotted key's value, and from dotted keys to a tree

docs/config.md has a line for each key.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, create_model
from pydantic.fields import FieldInfo

from innerloop.data.in_context import Asks
from innerloop.data.suites.drawing import Difficulty
from innerloop.data.verifiers import verifier_names
from innerloop.learning.inner_loop import InnerLoop
from innerloop.learning.installed import install
from innerloop.learning.methods import METHODS, Method, Row, own_options
from innerloop.numerics.loss import CHUNK_ROWS
from innerloop.numerics.optimizers import AdamW, AdamW8bit, Optimizer, Sgd
from innerloop.spaces.lora import ALL_LINEAR, LoraSettings
from innerloop.trackers import TRACKERS

BROKEN_METHODS = install()
VERIFIER_NAMES = verifier_names()
NULLABLE = {"tasks.examples_per_task", "method.inner.clip", "outer.clip", "evaluate.patience"}
OPTIMIZERS: dict[str, type[Optimizer]] = {"sgd": Sgd, "adamw": AdamW}
ABSENT: Any = object()


def _key(default: Any = ..., *, means: str, **limits: Any) -> Any:
    """A key and, in words, the values it takes."""
    return Field(default, description=means, **limits)


def _count(default: Any = ..., *, means: str = "whole number above 0") -> Any:
    return _key(default, means=means, gt=0)


def _positive(default: Any = ..., *, means: str = "number above 0") -> Any:
    return _key(default, means=means, gt=0)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:-1]) + f" or {names[-1]}"


def _different(names: tuple[Any, ...]) -> tuple[Any, ...]:
    if len(set(names)) < len(names):
        raise ValueError("repeated")
    return names


def _real_day(day: str) -> str:
    date.fromisoformat(day)  # raises ValueError
    return day


def _known_method(name: str) -> str:
    if name not in METHODS or name in BROKEN_METHODS:
        raise ValueError("unknown")
    return name


def _known_verifier(name: str) -> str:
    if name not in VERIFIER_NAMES:
        raise ValueError("unknown")
    return name


def _known_tracker(name: str) -> str:
    if name not in TRACKERS:
        raise ValueError("unknown")
    return name


def _as_path(value: Any) -> Any:
    """Text that can name a folder becomes a path; the strict type refuses the rest."""
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        return value
    return value if any("\ud800" <= letter <= "\udfff" for letter in value) else Path(value)


_Tuple = BeforeValidator(lambda value: tuple(value) if isinstance(value, list) else value)
_Text = Annotated[str, Field(pattern=r"\S")]
_Names = Annotated[tuple[_Text, ...], _Tuple, AfterValidator(_different)]
_Folder = Annotated[Path, BeforeValidator(_as_path)]
_Beta = Annotated[float, Field(ge=0, lt=1)]
_HubId = Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w.-]*/[A-Za-z0-9_][\w.-]*$")]
_Day = Annotated[str, Field(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$"), AfterValidator(_real_day)]
_Layers = Annotated[str, Field(pattern=r"^(all|last-[1-9][0-9]*)$")]
_LayerList = Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1), _Tuple, AfterValidator(_different)]
_StepList = Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1), _Tuple, AfterValidator(_different)]
TrackerName = Annotated[str, AfterValidator(_known_tracker)]
_NAMES = "list of different names"


class Section(BaseModel):
    """Refuses unknown keys, infinity, later changes, and conversions (a whole number is a number, though)."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class ModelSection(Section):
    name: _Text = _key(means="text: a hub id, a folder or a packaged model")
    hub_id: _HubId | None = _key(None, means="text: owner/name on the hub")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = _key(
        "float32", means="auto, float32, bfloat16 or float16"
    )
    revision: _Text | None = _key(None, means="text: a branch, tag or commit of a hub id")
    attn_implementation: Literal["eager", "sdpa"] | None = _key(
        None, means="eager or sdpa, which takes flash kernels by itself where the device has them"
    )
    device: str = _key("auto", means="auto, cpu, cuda or cuda:N", pattern=r"^(auto|cpu|cuda(:[0-9]+)?)$")


class TasksSection(Section):
    suite: _Text | None = _key(None, means="name of a built-in suite")
    folder: _Folder | None = _key(None, means="path")
    difficulty: Difficulty | None = _key(None, means="easy, default or hard")
    instances: int | None = _count(None)
    columns: dict[str, _Text] | None = _key(None, means="map of names to names")
    prompt: Asks = _key(means="alone or in-context")
    verifier: Annotated[str, AfterValidator(_known_verifier)] | None = _key(None, means=_listed(VERIFIER_NAMES))
    examples_per_task: int | None = _count(None, means="whole number above 0, or null")
    support: int = _count(8)
    query: int | None = _count(None)
    test: int = _count(24)
    only: _Names = _key((), means=_NAMES)
    validation: _Names = _key((), means=_NAMES)
    held_out: _Names = _key((), means=_NAMES)
    max_length: int = _count(512)
    on_too_long: Literal["error", "drop", "truncate"] = _key("error", means="error, drop or truncate")
    date: _Day | None = _key(None, means="a day as text: YYYY-MM-DD")


class OptimizerSection(Section):
    name: Literal["sgd", "adamw"] = _key(means="sgd or adamw")
    lr: float = _positive()
    betas: Annotated[tuple[_Beta, _Beta], _Tuple] | None = _key(None, means="two numbers, 0 or above and below 1")
    eps: float | None = _positive(None)
    weight_decay: float | None = _key(None, means="number, 0 or above", ge=0)

    def build(self, *, clip: float | None, eight_bit: bool = False) -> Optimizer:
        kind = OPTIMIZERS[self.name]
        kind = AdamW8bit if eight_bit and kind is AdamW else kind
        return kind(clip=clip, **self.model_dump(exclude={"name"}, exclude_none=True))


class InnerOptimizerSection(OptimizerSection):
    loraplus_lr_ratio: float | None = _positive(None)


class InnerSection(Section):
    """choices: the numbers of steps that an outer step takes one of; most: the largest, which adapting takes."""

    steps: Annotated[int, Field(gt=0)] | _StepList = _key(
        means="whole number above 0, or list of different whole numbers, 0 or above"
    )
    batch_size: int = _count()
    clip: float | None = _positive(means="number above 0, or null")
    warmup: float = _key(0.0, means="whole number of steps, or a share of them below 1", ge=0)
    anchor: float | None = _key(None, means="number, 0 or above", ge=0)
    multi_step: int | None = _key(None, means="whole number, 0 or above", ge=0)
    train: Annotated[str, Field(pattern=r"^(all|lora-b|last-[1-9][0-9]*)$")] | None = _key(
        None, means="all, lora-b or last-N"
    )
    learned_rates: Literal["none", "tensor", "tensor-step", "entry"] | None = _key(
        None, means="none, tensor, tensor-step or entry"
    )
    optimizer: InnerOptimizerSection

    @property
    def choices(self) -> tuple[int, ...]:
        return (self.steps,) if isinstance(self.steps, int) else self.steps

    @property
    def most(self) -> int:
        return max(self.choices)

    @property
    def said_steps(self) -> str:
        """In words."""
        *others, last = map(str, self.choices)
        one = "1 step" if last == "1" else f"{last} steps"
        return f"{', '.join(others)} or {last} steps, drawn for each outer step" if others else one

    def build(self) -> InnerLoop:
        """What `warmup` is a share of, the run knows: `engine.parts`."""
        heeded = {"anchor": self.anchor, "multi_step": self.multi_step, "train": self.train}
        given = {option: value for option, value in heeded.items() if value is not None}
        return InnerLoop(steps=self.most, optimizer=self.optimizer.build(clip=self.clip), **given)


class LoraSection(Section):
    """The options of `spaces.lora.LoraSettings`, which has the defaults."""

    r: int = _count(LoraSettings.r)
    lora_alpha: float = _positive(LoraSettings.lora_alpha)
    target_modules: Literal["all-linear"] | Annotated[_Names, Field(min_length=1)] = _key(
        ALL_LINEAR, means='"all-linear" or list of module names'
    )
    lora_dropout: float = _key(LoraSettings.lora_dropout, means="number, 0 or above and below 1", ge=0, lt=1)
    use_rslora: bool = _key(LoraSettings.use_rslora, means="true or false")
    init_lora_weights: Literal[True, "gaussian"] = _key(
        True, means="true or gaussian; PEFT's others change the base, which all tasks share, or read data first"
    )
    layers: _Layers | _LayerList = _key(LoraSettings.layers, means='"all", "last-N" or list of layer numbers')


class MethodSection(Section):
    """With a field for each option that a rule has of its own."""

    name: Annotated[str, AfterValidator(_known_method)] = _key(means="name of a method")
    inner: InnerSection | None = None
    lora: LoraSection | None = None

    @property
    def row(self) -> Row:
        return METHODS[self.name]

    def build(self) -> Method:
        """The rule with the options that it reads."""
        options: dict[str, Any] = {name: getattr(self, name) for name in self.row.rule.options()}
        if self.inner is not None:
            options["inner"] = self.inner.build()
        return self.row.rule(**options)

    def lora_settings(self) -> LoraSettings | None:
        return self.lora and LoraSettings(**self.lora.model_dump())


def option_fields(rules: Iterable[type[Method]]) -> dict[str, Any]:
    """The fields of a section for the options that the rules have of their own; None = isn't read."""
    options = {each.name: each for rule in rules for each in own_options(rule)}
    return {
        name: (each.kind | None, _key(None, means=each.means, **each.limits)) for name, each in sorted(options.items())
    }


if TYPE_CHECKING:
    _MethodSection = MethodSection
else:
    _rules = (row.rule for row in METHODS.values())
    _MethodSection = create_model("MethodSection", __base__=MethodSection, **option_fields(_rules))


class OuterSection(Section):
    steps: int = _count(100)
    optimizer: OptimizerSection
    tasks_per_step: Literal["all"] | Annotated[int, Field(gt=0)] = _key(means="all or whole number above 0")
    clip: float | None = _positive(1.0, means="number above 0, or null")
    schedule: Literal["constant", "linear", "cosine"] = _key("constant", means="constant, linear or cosine")
    warmup: float = _key(0.0, means="whole number of steps, or a share of them below 1", ge=0)
    rates_lr: float | None = _positive(None)
    joint_steps: float | None = _key(None, means="whole number of steps, or a share of them below 1", ge=0)
    ema: float | None = _key(None, means="number above 0 and below 1", gt=0, lt=1)
    on_non_finite: Literal["error", "skip"] = _key("error", means="error or skip")

    @property
    def tasks_in_step(self) -> int:
        """Of a run whose tasks are known: `all` is their number then."""
        assert isinstance(self.tasks_per_step, int)
        return self.tasks_per_step

    def build_optimizer(self, *, eight_bit: bool = False) -> Optimizer:
        return self.optimizer.build(clip=self.clip, eight_bit=eight_bit)


class MemorySection(Section):
    tasks_per_forward: Literal["auto"] | Annotated[int, Field(gt=0)] = _key(
        "auto", means="auto or whole number above 0"
    )
    checkpointing: bool = _key(False, means="true or false")
    logit_rows: int = _count(CHUNK_ROWS)
    trunk_cache: bool = _key(False, means="true or false")
    trunk_cache_gb: float | None = _positive(None)
    lean: bool = _key(False, means="true or false")
    offload: bool = _key(False, means="true or false")

    @property
    def trunk_cache_bytes(self) -> int:
        return int(min(1e9 * (self.trunk_cache_gb or 0), 2**62))


class SaveSection(Section):
    """Checkpoints: how many outer steps apart, and how many stay."""

    every: int = _count(25)
    keep: int = _count(2)


class EvaluateSection(Section):
    """Validation tasks during training: how often, how, and what follows from it."""

    every: int = _count()
    k: int = _key(means="whole number, 0 or above", ge=0)
    metric: Literal["nats", "exact"] = _key("nats", means="nats or exact")
    patience: int | None = _count(None, means="whole number above 0, or null")
    export: Literal["best", "last"] = _key("best", means="best or last")

    def times(self, steps: int) -> int:
        """Evaluations of a run of so many steps: of its start, and up to its last one."""
        return 1 + math.ceil(steps / self.every)


class RunConfig(Section):
    """Made by `load_config`, which also checks what goes together."""

    model: ModelSection
    tasks: TasksSection
    method: _MethodSection
    outer: OuterSection
    memory: MemorySection
    save: SaveSection
    evaluate: EvaluateSection | None = None
    start_from: _Folder | None = _key(None, means="path")
    report_to: Annotated[tuple[TrackerName, ...], _Tuple, AfterValidator(_different)] = _key(
        (), means=f"list of different ones of {', '.join(TRACKERS)}"
    )
    seed: int = _key(7, means="whole number from 0 to 2**32 - 1", ge=0, lt=2**32)
    output_dir: _Folder = _key(means="path")

    def flat(self) -> dict[str, Any]:
        """Every key that this run reads, dotted."""
        tree = self.resolved()
        return {key: value for key in KEYS if (value := get(tree, key)) is not ABSENT}

    def resolved(self) -> dict[str, Any]:
        """Every key that this run reads, as plain JSON values; `load_config` makes an equal config of it."""
        dumped = self.model_dump(mode="json")
        values = {key: get(dumped, key) for key in KEYS}
        return nested({key: value for key, value in values.items() if _is_read(key, value)})


def json_schema() -> dict[str, Any]:
    """What a run's YAML file may say. Which keys go together, and what each method reads, `innerloop check` says."""
    schema = RunConfig.model_json_schema()
    schema["required"] = ["model", "tasks", "method", "output_dir"]
    for name, section in schema["$defs"].items():  # what has a default that depends on other keys may be left out
        section.pop("required", None)
        if name in (ModelSection.__name__, MethodSection.__name__):
            section["required"] = ["name"]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def get(tree: Any, key: str) -> Any:
    """The value at a dotted key, or ABSENT."""
    for part in key.split("."):
        if not isinstance(tree, Mapping) or part not in tree:
            return ABSENT
        tree = tree[part]
    return tree


def nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """{"a.b": 1} -> {"a": {"b": 1}}."""
    tree: dict[str, Any] = {}
    for key, value in values.items():
        *sections, last = key.split(".")
        section = tree
        for name in sections:
            section = section.setdefault(name, {})
        section[last] = value
    return tree


def _is_read(key: str, value: Any) -> bool:
    return value is not ABSENT and (value is not None or key in NULLABLE)


def _section_of(field: FieldInfo) -> type[Section] | None:
    kinds = (field.annotation, *get_args(field.annotation))
    return next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Section)), None)


def _walk(section: type[Section], prefix: str = "") -> Iterator[tuple[str, FieldInfo | type[Section]]]:
    """Every key with its field, and every section with its class."""
    for name, field in section.model_fields.items():
        inside = _section_of(field)
        yield prefix + name, inside or field
        if inside:
            yield from _walk(inside, f"{prefix}{name}.")


_SCHEMA = dict(_walk(RunConfig))
FIELDS: dict[str, FieldInfo] = {key: field for key, field in _SCHEMA.items() if isinstance(field, FieldInfo)}
KEYS = tuple(FIELDS)
SECTIONS = tuple(key for key in _SCHEMA if key not in FIELDS)
EVERYTHING = (*SECTIONS, *KEYS)
DEFAULTS = {
    key: field.default for key, field in FIELDS.items() if not field.is_required() and field.default is not None
}
