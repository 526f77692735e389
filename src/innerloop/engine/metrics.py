"""What is measured during training, a line of metrics.jsonl each: outer steps, and evaluations between them.

Metrics      of a step: loss, gradient norm, tokens
metrics_of   a step's Round -> Metrics
Pass         what went through the model in a forward: pass_of a batch
ValidationScore   of validation tasks: nats, and the share of exact answers
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from innerloop.data.tasks import Batch
from innerloop.engine.diagnosis import a_to_b
from innerloop.engine.non_finite import Round


class Pass(NamedTuple):
    """computed_tokens: with padding."""

    tasks: int
    tokens: int
    computed_tokens: int


def pass_of(batch: Batch) -> Pass:
    return Pass(batch.tasks, batch.token_count, batch.computed_tokens)


class Metrics(NamedTuple):
    """loss, and the support loss before the first and the last inner step: nats per answer token, mean over tasks.

    tokens: of the examples, in every forward that was run, those for Hessian-vector products, for clipping, and of
    tasks that were left out again among them; computed_tokens: with the padding that went through the model;
    inner_steps: taken on each task, where the method has any; passes: runs of one task's examples through the model;
    inner_moved: how far the inner steps went, over the norm of the shared values; a_to_b: the gradient's norm on LoRA's
    A over that on its B; bf16_changed: the share of bfloat16 values that the step changed, of a sample;
    skipped: the tasks left out because a loss or gradient of theirs was not finite.
    """

    step: int
    loss: float
    support_loss_first: float | None
    support_loss_last: float | None
    gradient_norm: float
    tokens: int
    computed_tokens: int
    passes: int
    inner_steps: int | None
    inner_moved: float | None = None
    a_to_b: float | None = None
    bf16_changed: float | None = None
    skipped: tuple[str, ...] = ()

    def numbers(self, prefix: str = "") -> dict[str, float]:
        """What a plot can show of it, by name."""
        values = {**self._asdict(), "skipped": len(self.skipped)}
        del values["step"]
        return {f"{prefix}{name}": float(value) for name, value in values.items() if value is not None}


def metrics_of(
    found: Round, *, step: int, passes: Sequence[Pass], skipped: tuple[str, ...], changed: float | None = None
) -> Metrics:
    """changed: the share of bfloat16 values that the step changed."""
    support, (count, tokens, computed_tokens) = found.support, map(sum, zip(*passes, strict=True))
    first, last = (None, None) if support is None or not len(support) else (support[0], support[-1])
    return Metrics(
        step=step,
        loss=float(found.losses.mean()),
        support_loss_first=None if first is None else float(first.mean()),
        support_loss_last=None if last is None else float(last.mean()),
        gradient_norm=float(found.gradient_norm),
        tokens=tokens,
        computed_tokens=computed_tokens,
        passes=count,
        inner_steps=None if support is None else len(support),
        inner_moved=None if found.moved is None else float(found.moved.mean()),
        a_to_b=a_to_b(found.gradient),
        bf16_changed=changed,
        skipped=skipped,
    )


class ValidationScore(NamedTuple):
    """After `step` outer steps: nats per answer token, and the share of answers that greedy decoding gives exactly.

    Each is a mean over validation tasks, whose own numbers are beside it; nats that aren't finite are None.
    """

    step: int
    nats: float | None
    exact: float
    tasks: Mapping[str, Mapping[str, float | None]]

    def line(self) -> dict[str, Any]:
        """What metrics.jsonl says of it."""
        return {"step": self.step, "eval": {"nats": self.nats, "exact": self.exact, "tasks": self.tasks}}

    @classmethod
    def of_line(cls, line: Mapping[str, Any]) -> "ValidationScore":
        return cls(step=line["step"], **line["eval"])

    @property
    def said(self) -> str:
        """In words."""
        return f"{'no finite' if self.nats is None else f'{self.nats:.3f}'} nats, {self.exact:.0%} exact"

    def numbers(self, prefix: str = "eval/") -> dict[str, float]:
        """What a plot can show of it, by name."""
        return ({} if self.nats is None else {f"{prefix}nats": self.nats}) | {f"{prefix}exact": self.exact}
