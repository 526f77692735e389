"""The methods, side by side, and their table.

Legend: theta = shared values; phi_i = adapt(theta, S_i) = theta after K inner steps on task i's support set S_i;
Q_i = its query set; L = loss per answer token (nats); n = tasks per step; g = what the outer optimizer is given.

A rule adds the sum over its tasks to `into`; the trainer divides by n. A pass is one forward run of one task's
examples with what is differentiated of it: a gradient, or a Hessian-vector product. docs/methods.md is made from the
table and the rules' docstrings.

Method    a rule: how tasks give a gradient of the shared values
option    a field of a rule that a config may set: its default, and the values it takes
METHODS   name -> Row. A method combines a rule (how tasks give a gradient) with a space (which tensors are trained).
          The command line, the config, the docs page and the laws' tests read this table: a new first-order method is
          about ten lines and one row.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from functools import partial
from typing import Any, ClassVar, Literal, NamedTuple, Self, cast, get_args, get_origin, get_type_hints

from torch import Tensor

from innerloop.data.in_context import Asks
from innerloop.data.tasks import Batch, TaskBatch
from innerloop.learning.inner_loop import InnerLoop
from innerloop.learning.passes import Way, added_at, how_far, query_gradient, query_of
from innerloop.learning.second_order import sweep
from innerloop.numerics.optimizers import AdamW, Sgd
from innerloop.numerics.tensors import TensorSet, accumulate, accumulate_difference, clone
from innerloop.spaces.kinds import ALL_PARAMETERS, LORA, SpaceKind, Steps
from innerloop.spaces.space import ParameterSpace

ON_THE_WAY = frozenset({"anchor", "multi_step", "train"})
FIRST_ORDER = ON_THE_WAY | {"learned_rates"}


class Outcome(NamedTuple):
    """loss: (T,) what the method's gradient was taken of; support_loss: (K, T) before each inner step;
    adapted: (T, ...) values after the inner steps, where the rule keeps them; moved: (T,) how far those went."""

    loss: Tensor
    support_loss: Tensor | None = None
    adapted: TensorSet | None = None
    moved: Tensor | None = None


def option(default: Any, *, means: str = "", **limits: Any) -> Any:
    """A rule's own option, `method.<its name>` in a config.

    >>> @dataclass(frozen=True, kw_only=True)
    ... class Damped(Fomaml):
    ...     share: float = option(0.5, means="number above 0, at most 1", gt=0, le=1)
    >>> Damped(inner=InnerLoop(steps=3, optimizer=Sgd(lr=0.1))).share
    0.5

    means   the values it takes, in words, where its type doesn't say it
    limits  of a number: gt, ge, lt, le
    """
    return field(default=default, metadata={"means": means, **limits})


class Method(ABC):
    """A rule. Its dataclass fields are all the options it reads: `inner`, and others that `option` makes.

    reads_query      it needs query examples
    second_order     it differentiates through all inner steps, which have to be SGD's
    from_difference  its gradient is how far the inner steps moved the values
    takes            the options of `InnerLoop` that change the gradient and that it heeds
    """

    reads_query: ClassVar[bool] = True
    second_order: ClassVar[bool] = False
    from_difference: ClassVar[bool] = False
    takes: ClassVar[frozenset[str]] = frozenset()

    @property
    def loop(self) -> InnerLoop | None:
        """Its inner loop, where it has one."""
        return cast(InnerLoop | None, getattr(self, "inner", None))

    @property
    def keeps_adapted(self) -> bool:
        """Whether an outcome has the adapted values of every task."""
        return False

    @property
    def passes_per_step(self) -> int:
        """How often the examples of one inner step go through the model."""
        return 1

    def at(self, tasks: TaskBatch) -> Self:
        """The rule of one outer step: what changes over training is its inner loop's."""
        return replace(self, inner=self.loop.at(tasks)) if self.loop else self  # pyright: ignore[reportUnknownVariableType, reportArgumentType]

    def forwards(self, tasks: TaskBatch) -> list[Batch]:
        """Every batch that goes through the model in one outer step on these tasks, as often as it does."""
        if self.loop is None:
            return [query_of(tasks)]
        loop = self.loop.at(tasks)
        inner = [batch for batch in tasks.support for _ in range(self.passes_per_step)]
        anchor = list(tasks.support[:1]) if loop.anchor else []
        queries = sum(weight > 0 for weight in loop.weights)
        return [*inner, *anchor, *([query_of(tasks)] * queries if self.reads_query else [])]

    def tokens(self, tasks: TaskBatch) -> int:
        """Of the examples that go through the model in one outer step: every forward counted, padding left out."""
        return sum(batch.token_count for batch in self.forwards(tasks))

    @abstractmethod
    def outer_gradient(
        self, space: ParameterSpace, start: Mapping[str, Tensor], tasks: TaskBatch, into: TensorSet
    ) -> Outcome:
        """Add the shared values' gradient, summed over tasks, to `into` (...); `start` (T, ...) is only read."""

    @classmethod
    def options(cls) -> frozenset[str]:
        return frozenset(each.name for each in fields(cls))  # pyright: ignore[reportArgumentType]


@dataclass(frozen=True, kw_only=True)
class Fomaml(Method):
    """First-order MAML: Finn et al. 2017, arXiv:1703.03400, section 5.2.

        phi_i = adapt(theta, S_i)
        g     = mean_i grad L(phi_i; Q_i)           taken at phi_i, applied to theta

    Passes: n * (K + 1) gradients.
    """

    takes: ClassVar[frozenset[str]] = FIRST_ORDER
    inner: InnerLoop

    def outer_gradient(
        self, space: ParameterSpace, start: Mapping[str, Tensor], tasks: TaskBatch, into: TensorSet
    ) -> Outcome:
        way = Way(self.inner, space, start, tasks, into)
        adapted = self.inner.adapt(space, start, tasks.support, before_step=way.passed)
        moved = how_far(start, adapted)
        return Outcome(way.query(adapted.values), adapted.losses, moved=moved)


@dataclass(frozen=True, kw_only=True)
class Maml(Method):
    """MAML with the exact second order: Finn et al. 2017, arXiv:1703.03400, algorithm 1. Inner SGD only.

        phi_i = adapt(theta, S_i)
        g     = mean_i J_i^T grad L(phi_i; Q_i)     J_i = d phi_i / d theta, through all K steps

    Passes: n * (K + 1) gradients, n * K Hessian-vector products, n * K gradients more with inner.clip.
    """

    second_order: ClassVar[bool] = True
    takes: ClassVar[frozenset[str]] = ON_THE_WAY
    inner: InnerLoop

    def __post_init__(self) -> None:
        if not isinstance(self.inner.optimizer, Sgd):
            raise ValueError("maml differentiates through inner SGD steps only")

    @property
    def passes_per_step(self) -> int:
        return 2 if self.inner.optimizer.clip is None else 3

    def outer_gradient(
        self, space: ParameterSpace, start: Mapping[str, Tensor], tasks: TaskBatch, into: TensorSet
    ) -> Outcome:
        trajectory: list[tuple[TensorSet, Batch]] = []
        adapted = self.inner.adapt(
            space, start, tasks.support, before_step=lambda phi, batch: trajectory.append((clone(phi), batch))
        )
        moved = how_far(start, adapted)
        loss, gradient = query_gradient(space, adapted.values, tasks, weight=self.inner.weights[-1])
        assert gradient is not None
        assert isinstance(self.inner.optimizer, Sgd)
        beside = partial(added_at, self.inner, space, tasks)
        accumulate(
            into, sweep(space, trajectory, self.inner.optimizer, gradient, only=self.inner.moves(space), beside=beside)
        )
        return Outcome(loss, adapted.losses, moved=moved)


@dataclass(frozen=True, kw_only=True)
class MetaLora(Method):
    """META-LORA: Cheng et al. 2025, arXiv:2510.11598.

        phi_i = adapt(theta, S_i)                   stage 1, every task on its own
        g     = mean_i grad L(phi_i; Q_i)           stage 2, taken at phi_i, applied to theta

    At equal settings and data this is FOMAML's gradient. keep_task_adapters hands out the phi_i.

    Passes: n * (K + 1) gradients.
    """

    takes: ClassVar[frozenset[str]] = FIRST_ORDER
    inner: InnerLoop
    keep_task_adapters: bool = option(False)

    @property
    def keeps_adapted(self) -> bool:
        return self.keep_task_adapters

    def outer_gradient(
        self, space: ParameterSpace, start: Mapping[str, Tensor], tasks: TaskBatch, into: TensorSet
    ) -> Outcome:
        way = Way(self.inner, space, start, tasks, into)
        adapted = self.inner.adapt(space, start, tasks.support, before_step=way.passed)  # stage 1
        moved = how_far(start, adapted)
        loss = way.query(adapted.values)  # stage 2
        kept = adapted.values if self.keep_task_adapters else None
        return Outcome(loss, adapted.losses, kept, moved=moved)


@dataclass(frozen=True, kw_only=True)
class Reptile(Method):
    """Reptile: Nichol et al. 2018, arXiv:1803.02999, algorithm 2.

        phi_i = adapt(theta, S_i)
        g     = mean_i (theta - phi_i)

    No query set is read. With LoRA the factors A and B are moved, not their product.

    Passes: n * K gradients.
    """

    reads_query: ClassVar[bool] = False
    from_difference: ClassVar[bool] = True
    inner: InnerLoop

    def outer_gradient(
        self, space: ParameterSpace, start: Mapping[str, Tensor], tasks: TaskBatch, into: TensorSet
    ) -> Outcome:
        adapted = self.inner.adapt(space, start, tasks.support)
        accumulate_difference(into, start, adapted.values)
        return Outcome(adapted.losses[-1], adapted.losses, moved=how_far(start, adapted))


@dataclass(frozen=True, kw_only=True)
class Joint(Method):
    """Ordinary training: all tasks at once, or one task alone (Std LoRA).

        g     = mean_i grad L(theta; S_i + Q_i)

    No inner loop: support and query examples are one batch. In context (MetaICL, Min et al. 2021, arXiv:2110.15943;
    in-context tuning, Chen et al. 2021, arXiv:2110.07814) they are one prompt, and L is that of every answer given the
    examples before it.

    Passes: n gradients.
    """

    def outer_gradient(
        self, space: ParameterSpace, start: Mapping[str, Tensor], tasks: TaskBatch, into: TensorSet
    ) -> Outcome:
        loss, _ = query_gradient(space, start, tasks, into=into)
        return Outcome(loss)


class Option(NamedTuple):
    """kind: of its values, a type; means: those in words; limits: gt, ge, lt, le of a number."""

    name: str
    kind: Any
    default: Any
    means: str
    limits: Mapping[str, Any]


def own_options(rule: type[Method]) -> list[Option]:
    """What a config may set of a rule beside its inner loop, from its dataclass."""
    kinds, found = get_type_hints(rule), list[Option]()
    for each in fields(rule):  # pyright: ignore[reportArgumentType]
        if each.name != "inner":
            limits = dict(each.metadata)
            means = limits.pop("means", "") or _in_words(kinds[each.name])
            found.append(Option(each.name, kinds[each.name], each.default, means, limits))
    return found


def _in_words(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return " or ".join(map(str, get_args(kind)))
    return {bool: "true or false", int: "whole number", float: "number"}.get(kind, "text")


class Row(NamedTuple):
    """rule: the algorithm; space: the kind of space it trains; one_task: one adapter for each task, no sharing.

    inner: defaults of its inner loop, where they aren't those of its kind of space
    prompt: whether its examples stand alone in their prompts, where a config says nothing
    """

    rule: type[Method]
    space: SpaceKind
    title: str
    one_task: bool = False
    inner: Steps | None = None
    prompt: Asks = "alone"

    @property
    def reads_query(self) -> bool:
        """Whether a step draws query examples, where a config says nothing of its prompts."""
        return self.rule.reads_query and (self.prompt == "alone" or "inner" in self.rule.options())

    @property
    def after_joint(self) -> bool:
        """Whether steps of joint training on the same tasks can come before its own."""
        return not self.one_task and self.rule is not Joint

    @property
    def steps(self) -> Steps:
        """Of its inner loop, where a config says nothing."""
        return self.inner or self.space.inner

    @property
    def adaptation(self) -> InnerLoop:
        """Of what it learned, where it has no inner loop of its own."""
        return InnerLoop(**self.space.adaptation._asdict())

    @property
    def adaptation_in_context(self) -> InnerLoop:
        """The same, of what was trained in context: few steps, on prompts that leave an example out."""
        return InnerLoop(**self.space.inner._asdict())


_FAST_ADAMW = Steps(5, AdamW(lr=3e-3, betas=(0.9, 0.99)))

METHODS: dict[str, Row] = {
    "fomaml": Row(Fomaml, ALL_PARAMETERS, "first-order MAML"),
    "maml": Row(Maml, ALL_PARAMETERS, "second-order MAML"),
    "reptile": Row(Reptile, ALL_PARAMETERS, "Reptile"),
    "joint": Row(Joint, ALL_PARAMETERS, "multi-task training"),
    "fomaml-lora": Row(Fomaml, LORA, "first-order MAML"),
    "maml-lora": Row(Maml, LORA, "second-order MAML"),
    "meta-lora": Row(MetaLora, LORA, "two-stage META-LORA", inner=_FAST_ADAMW),
    "reptile-lora": Row(Reptile, LORA, "Reptile", inner=_FAST_ADAMW),
    "joint-lora": Row(Joint, LORA, "multi-task training"),
    "in-context-lora": Row(Joint, LORA, "in-context tuning", prompt="in-context"),
    "lora": Row(Joint, LORA, "Std LoRA, one task", one_task=True),
}
