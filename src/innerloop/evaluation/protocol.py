"""What is measured of one initialization: k examples, several draws of them, the same test examples every time.

Protocol            k, draws, the grid to tune on, how long an answer may be
Initialization      what is evaluated, and how it adapts
Piece               one measurement: which tasks, which draw, how many examples, adapted how
pieces              every piece of a protocol
adaptations         how what was trained is adapted where k is above 0
tune                for each k, the adaptation that validation tasks choose
measure             one piece -> its scores, for JSON

A piece depends on the initialization, the seed and itself alone, so pieces may be measured in any order, and again.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from innerloop.data.encoding import EncodedTask
from innerloop.data.token_ids import Encoded
from innerloop.evaluation.generation import answers
from innerloop.evaluation.kshot import Chunk, TaskScore, adapt, choose, draw_support, fitting, score
from innerloop.evaluation.scoring import samples, verified
from innerloop.learning.inner_loop import InnerLoop
from innerloop.loading.models import LoadedModel
from innerloop.numerics.optimizers import AdamW
from innerloop.numerics.tensors import TensorSet
from innerloop.results.names import How, TaskSet
from innerloop.spaces.kinds import LORA, Grid
from innerloop.spaces.space import ParameterSpace

TUNED_WITH = AdamW(lr=3e-3, betas=(0.9, 0.99), clip=1.0)  # its lr and steps come from the grid


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """k: numbers of support examples; draws of them; grid: what "tuned" chooses from; seed: of the draws.

    max_new_tokens: of a generated answer; None: the task's longest right one and a few
    """

    k: tuple[int, ...] = (0, 5, 10, 25, 50)
    draws: int = 5
    grid: Grid = LORA.grid
    max_new_tokens: int | None = None
    seed: int = 7


class Piece(NamedTuple):
    table: TaskSet
    k: int
    draw: int
    how: How

    @property
    def name(self) -> str:
        return f"{self.table}-k{self.k}-draw{self.draw}-{self.how}"


class Initialization(NamedTuple):
    """What is evaluated. own: the adaptation it was trained for; tuned: k -> the one that validation tasks chose."""

    space: ParameterSpace
    model: LoadedModel
    own: InnerLoop
    tuned: Mapping[int, InnerLoop]

    def inner(self, piece: Piece) -> InnerLoop:
        if piece.how == "tuned":
            return self.tuned[piece.k]
        return self.own if piece.how == "own" else replace(self.own, steps=0)


def pieces(protocol: Protocol, *, hows: Sequence[How], seen: bool = False, bare: bool = True) -> list[Piece]:
    """k = 0 has one draw and nothing to adapt on.

    hows  how to adapt where k is above 0; "none": the examples are in the prompt, and no step is taken
    seen  the training tasks too, as the initialization stands
    bare  held-out tasks at k = 0 (a fresh LoRA is the base model there)
    """
    found = [Piece("seen", 0, 0, "none")] if seen else []
    if bare and 0 in protocol.k:
        found.append(Piece("unseen", 0, 0, "none"))
    some = [k for k in protocol.k if k]
    return found + [Piece("unseen", k, draw, how) for k in some for draw in range(protocol.draws) for how in hows]


def adaptations(*, in_context: bool) -> list[How]:
    """Of what was trained. In context, examples in the prompt alone are a way to use them."""
    return ["none", "own", "tuned"] if in_context else ["own", "tuned"]


def tune(
    space: ParameterSpace,
    protocol: Protocol,
    validation: Sequence[EncodedTask],
    on_choice: Callable[[int, int], None] = lambda *_: None,
) -> dict[int, InnerLoop]:
    """For each k above 0, the lr and steps of the grid with the lowest mean nats on the validation tasks.

    on_choice: told how many of how many are chosen.
    """
    start, chosen = InnerLoop(steps=1, optimizer=TUNED_WITH), dict[int, InnerLoop]()
    asked = [k for k in protocol.k if k]
    on_choice(0, len(asked))
    for number, k in enumerate(asked, 1):
        chosen[k] = choose(space, start, protocol.grid, validation, k=k, seed=protocol.seed)
        on_choice(number, len(asked))
    return chosen


def measure(piece: Piece, what: Initialization, tasks: Sequence[EncodedTask], protocol: Protocol) -> dict[str, Any]:
    """Nats and verified answers of every test example, the support loss that was reached, and nats on the way."""
    inner, space = fitting(what.inner(piece), tasks[0].in_context, piece.k), what.space
    supports = [draw_support(task, piece.k, seed=protocol.seed, draw=piece.draw) for task in tasks]
    found: dict[str, dict[str, Any]] = {}
    curve: dict[int, list[float]] = {}
    looks = _looks(inner.steps)

    def look(taken: int, values: TensorSet, chunk: Chunk) -> None:
        if taken not in looks:
            return
        scores = score(space, values, chunk.tasks)
        curve.setdefault(taken, []).extend(each.mean_nats for each in scores)
        if taken == inner.steps:
            found.update(_final(what, values, chunk, scores, protocol=protocol, adapted=bool(taken)))

    adapt(space, inner, supports, tasks, look=look)
    chosen = {"steps": inner.steps, "lr": inner.optimizer.lr if inner.steps else None}
    means = [[step, sum(nats) / len(nats)] for step, nats in sorted(curve.items())]
    return {**piece._asdict(), **chosen, "tasks": found, "curve": means}


def _final(
    what: Initialization,
    values: TensorSet,
    chunk: Chunk,
    scores: Sequence[TaskScore],
    *,
    protocol: Protocol,
    adapted: bool,
) -> dict[str, dict[str, Any]]:
    """What is kept of tasks that are adapted as far as they will be."""
    tasks = chunk.tasks
    written = answers(what.space, values, tasks, tokenizer=what.model.tokenizer, max_new_tokens=protocol.max_new_tokens)
    reached: Sequence[float | None] = [None] * len(tasks)
    if adapted:
        held = [_support_asked(task, support) for task, support in zip(tasks, chunk.support, strict=True)]
        reached = [each.mean_nats for each in score(what.space, values, held)]
    found: dict[str, dict[str, Any]] = {}
    for task, each, own, nats in zip(tasks, scores, written, reached, strict=True):
        unchecked: list[str] = []
        texts = [answer.text for answer in own]
        correct = verified(task.task, texts, on_failure=unchecked.append)
        found[task.task.name] = {
            "ids": [example.id for example in task.task.test],  # in-context encodings have ids of their own
            "nats": list(each.nats),
            "stop_nats": list(each.stop_nats),
            "correct": correct,
            "unchecked": unchecked,
            "cut": sum(answer.cut for answer in own),
            "support_nats": nats,
            "samples": samples(task.task, texts, correct),
        }
    return found


def _support_asked(task: EncodedTask, support: Sequence[Encoded]) -> EncodedTask:
    """The support in place of the test examples; in context each behind the others."""
    if task.in_context is None:
        return replace(task, test=tuple(support))
    others = [[other for other in support if other is not each] for each in support]
    return replace(task, test=tuple(map(task.in_context.asked, support, others)))


def _looks(steps: int) -> set[int]:
    """Before the first step, after the last, and after 1, 3, 10, 30, ... between them."""
    between = {round(10 ** (power / 2)) for power in range(20)}
    return {0, steps} | {step for step in between if step < steps}
