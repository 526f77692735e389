"""What a run learned, adapted to one task.

Adapted       generate, score, loss; save_pretrained, peft_model, push_to_hub
changed_inner   an inner loop with other steps and another rate
check_count   whether a number is one of things
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from innerloop.artifacts.card import AdaptedTo
from innerloop.artifacts.hub import push_to_hub
from innerloop.artifacts.peft_model import peft_model
from innerloop.data.encoder import Examples, Form, Prompt
from innerloop.data.encoding import EncodedTask
from innerloop.data.token_ids import Encoded
from innerloop.errors import Fault, Faults, UserError
from innerloop.evaluation.generation import generate
from innerloop.evaluation.kshot import score_examples, training_loss
from innerloop.learning.inner_loop import InnerLoop
from innerloop.numerics.tensors import TensorSet

if TYPE_CHECKING:
    from peft import PeftModel

    from innerloop.artifacts.portable import Portable
    from innerloop.runs.learned import Learned


@dataclass(frozen=True)
class Adapted:
    """Values (1, ...) of one task, and the support loss before each inner step.

    to    what they were adapted to, where they were
    kept  the examples that stand in its prompts, where the run was trained in context

    >>> adapted = learned.adapt(examples, steps=3)
    >>> len(adapted.losses), adapted.losses[-1] < adapted.losses[0]
    (3, True)
    """

    learned: "Learned"
    values: TensorSet
    losses: tuple[float, ...]
    form: Form | None = "prompt"
    to: AdaptedTo | None = None
    kept: EncodedTask | None = None

    def __repr__(self) -> str:
        losses = " -> ".join(f"{loss:.3f}" for loss in self.losses[:: max(len(self.losses) - 1, 1)]) or "unknown"
        return (
            f"Adapted(steps={len(self.losses)}, support loss {losses}, {len(self.values)} tensors, of {self.learned!r})"
        )

    def generate(self, prompts: Sequence[Prompt], *, max_new_tokens: int = 32) -> list[str]:
        """Greedy answers, each up to what ends one, in the form of the examples that were adapted to.

        >>> answers = adapted.generate(["eve 3:", "eve +4:"], max_new_tokens=8)
        >>> len(answers)
        2

        prompts  texts: a user's turn after conversations, a question after questions, else a prompt as it stands;
                 records without their answers; or conversations, lists of messages
        Raises UserError for anything else, a single text included, and for a prompt without a token.
        """
        check_count(max_new_tokens, "max_new_tokens")
        starts = self.learned.encoder.starts(prompts, self.form, kept=self.kept)
        if not starts:
            return []
        tokens, openings, ends = zip(*starts, strict=True)
        options = {"ends": ends, "openings": openings, "max_new_tokens": max_new_tokens}
        with self.learned.space.installed(self.values) as model:
            return generate(model, self.learned.model.tokenizer, tokens, **options)

    def score(self, examples: Examples, *, columns: Mapping[str, str] | None = None) -> tuple[float, float]:
        """(mean nats per answer token, share of answers that greedy decoding gives exactly). Examples weigh alike.

        >>> nats, exact = adapted.score(examples)
        >>> nats > 0, 0 <= exact <= 1
        (True, True)

        columns  as of `Learned.adapt`
        In context each is asked behind the examples that were adapted to, its own prompt left out.
        """
        examined = self._asked(examples, columns)
        found = score_examples(self.learned.space, self.values, [examined])
        return float(found.nats.mean()), float(found.exact.float().mean())

    def loss(self, examples: Examples, *, columns: Mapping[str, str] | None = None) -> float:
        """What the inner steps lower: mean nats per scored token of all examples, what ends an answer included.

        >>> adapted.loss(examples) < learned.unadapted.loss(examples)
        True

        columns  as of `Learned.adapt`
        """
        examined = self._asked(examples, columns)
        return float(training_loss(self.learned.space, self.values, [examined]))

    def save_pretrained(self, folder: str | Path, *, dtype: str | None = None, merged: bool = False) -> None:
        """A PEFT adapter folder, or a Hugging Face model folder where all parameters were trained.

        Of a run trained in context, with in_context.json beside: the examples that stand before its prompts.

        >>> adapted.save_pretrained("adapters/acme")
        >>> [path.name for path in Path("adapters/acme").glob("*.safetensors")]
        ['adapter_model.safetensors']

        dtype, merged  as of `Learned.save_pretrained`
        """
        self._portable().save(Path(folder), dtype=dtype, merged=merged)

    def save_gguf(self, path: str | Path, *, dtype: str | None = None) -> None:
        """As `Learned.save_gguf`.

        >>> adapted.save_gguf("adapters/acme.gguf", dtype="float16")
        """
        self._portable().save_gguf(Path(path), dtype=dtype)

    def _portable(self) -> "Portable":
        values = {name: value[0] for name, value in self.values.items()}
        return self.learned.portable(values, holds="task", adapted=self.to, kept=self.kept)

    def peft_model(self) -> "PeftModel":
        """As a model of PEFT's, for transformers' pipelines, TRL and others. Raises UserError for a whole model.

        >>> adapted.peft_model().peft_config["default"].peft_type.value
        'LORA'
        """
        return peft_model(self.learned.config, self.learned.model, self.save_pretrained)

    def push_to_hub(self, repo_id: str, *, private: bool | None = None, token: str | None = None) -> str:
        """Uploads what `save_pretrained` writes, model card included, and says where it is.

        >>> adapted.push_to_hub("no name")
        Traceback (most recent call last):
        innerloop.errors.UserError: repo_id: not the name of a repository...

        private, token  as of `artifacts.hub.push_to_hub`, the only place that sends anything
        """
        return push_to_hub(repo_id, self.save_pretrained, private=private, token=token)

    def _asked(self, examples: Examples, columns: Mapping[str, str] | None) -> list[Encoded]:
        fitted = self.learned.fitted(examples, columns)
        return self.learned.encoder.behind(self.kept, fitted) if self.kept else list(fitted.pool)


def changed_inner(inner: object, steps: int | Literal["auto"] | None, lr: object) -> InnerLoop:
    """With other steps and another rate. Raises UserError for what isn't an inner loop, a count or a rate."""
    faults = Faults()
    if not isinstance(inner, InnerLoop):
        faults.add("not an inner loop", "inner", inner, "InnerLoop(...)")
    if steps not in (None, "auto"):
        with faults.collecting():
            check_count(steps, "steps")
    if lr is not None and not (isinstance(lr, int | float) and not isinstance(lr, bool) and 0 < lr < inf):
        faults.add("not a learning rate", "lr", lr, "a number above 0")
    faults.raise_if_any()
    assert isinstance(inner, InnerLoop)
    optimizer = inner.optimizer if lr is None else replace(inner.optimizer, lr=lr)
    return replace(inner, optimizer=optimizer, steps=steps if isinstance(steps, int) else inner.steps)


def check_count(value: object, where: str) -> None:
    """Raises UserError for anything but a whole number above 0."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise UserError(Fault("not a count", where, value, "a whole number above 0"))
