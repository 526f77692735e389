"""What a run learned: adapt it to a new task, save.

Learned   adapt, evaluate, history, plot; save_pretrained, peft_model, push_to_hub
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from innerloop.artifacts.card import AdaptedTo, Card, Holds, base_id, card
from innerloop.artifacts.card_facts import card_facts
from innerloop.artifacts.export import write_card
from innerloop.artifacts.hub import push_to_hub
from innerloop.artifacts.peft_model import peft_model
from innerloop.artifacts.portable import Portable
from innerloop.config.loading import RunConfig
from innerloop.data.encoder import Encoder, Examples, form_of
from innerloop.data.encoding import EncodedTask
from innerloop.data.given import TASK, given_tasks, task_examples
from innerloop.data.tasks import Task
from innerloop.data.token_ids import Encoded
from innerloop.engine.groundwork import Say, groundwork
from innerloop.engine.inspection import check_prompts, check_tokens, warn_of_more
from innerloop.engine.last_round import LastRound
from innerloop.engine.parts import own_adaptation
from innerloop.engine.sources import encoder_of
from innerloop.errors import Fault, UserError
from innerloop.evaluation.cross_validation import choose_steps, fold_fault
from innerloop.evaluation.in_context import prompt_faults
from innerloop.evaluation.kshot import Chunk, adapted, fitting
from innerloop.evaluation.protocol import Protocol
from innerloop.learning.inner_loop import InnerLoop
from innerloop.learning.inner_rates import InnerRates
from innerloop.loading.architecture import positions_of
from innerloop.loading.models import LoadedModel
from innerloop.numerics.rounding import seeded
from innerloop.numerics.tensors import per_task
from innerloop.report.plot import Plot, plot
from innerloop.runs.adapted import Adapted, changed_inner, check_count
from innerloop.runs.evaluating import Evaluation, check_enough, evaluation, known_note
from innerloop.runs.journal import read_metrics
from innerloop.spaces.space import ParameterSpace

if TYPE_CHECKING:
    pass

if TYPE_CHECKING:
    from peft import PeftModel


@dataclass(frozen=True)
class Learned:
    """A trained initialization.

    >>> learned = load_run("runs/done")
    >>> learned.adapt(examples).save_pretrained("adapters/acme")
    """

    config: RunConfig
    model: LoadedModel
    space: ParameterSpace
    folder: Path
    last_round: LastRound = field(default_factory=LastRound)
    rates: InnerRates | None = None

    def __repr__(self) -> str:
        return f"Learned({self.config.method.name} on {self.model.name}, {self.folder})"

    @property
    def inner(self) -> InnerLoop:
        """The run's own adaptation, or the default of its kind of space.

        >>> learned.inner.optimizer.said
        'adamw at lr 0.003, betas 0.9 and 0.99, eps 1e-08, unclipped'
        """
        return replace(own_adaptation(self.config), rates=self.rates)

    @property
    def in_context(self) -> bool:
        """Whether examples of a task stand in its prompts, in training and in use.

        >>> learned.in_context
        False
        """
        return self.config.tasks.prompt == "in-context"

    @property
    def exported(self) -> Path:
        """The adapter or model folder that the run wrote.

        >>> str(learned.exported)
        'runs/done/adapter'
        """
        return self.folder / self.config.method.row.space.exported

    @property
    def encoder(self) -> Encoder:
        """How the run reads examples and prompts.

        >>> [example.answer for example in learned.encoder.examples([{"prompt": "2 ->", "completion": " 4"}])]
        [' 4']
        """
        return encoder_of(self.config, self.model.tokenizer)

    @property
    def unadapted(self) -> Adapted:
        """The shared values as they are: what k = 0 examples give. No form is known: prompts say their own.

        >>> nats, exact = learned.unadapted.score(examples)
        """
        none = EncodedTask(Task("no examples", ()), (), (), dropped=0, truncated=0)
        kept = self.encoder.in_context(none) if self.in_context else None
        return Adapted(self, per_task(self.space.shared, 1), losses=(), form=None, kept=kept)

    def adapt(
        self,
        examples: Examples,
        *,
        steps: int | Literal["auto"] | None = None,
        lr: float | None = None,
        inner: InnerLoop | None = None,
        columns: Mapping[str, str] | None = None,
    ) -> Adapted:
        """A few inner steps on the examples, from the shared values, which stay as they are.

        Of a run trained in context, on prompts that each ask one example behind the others; the adapted task keeps all
        of the examples, which then stand before whatever is asked of it. One example leaves nothing to step on.

        >>> len(learned.adapt(examples, steps=3).losses)
        3
        >>> len(learned.adapt(examples, inner=InnerLoop(steps=2, optimizer=Sgd(lr=0.1))).losses)
        2
        >>> 0 <= len(learned.adapt(examples, steps="auto", lr=0.01).losses) <= 15
        True

        examples  `{prompt, completion}` records (or the other forms of docs/data-format.md), or a file of them
        steps     in place of the inner loop's own number; "auto": of 0 to 10, or to 3 times its own number, as many as
                  give the lowest nats on each example when the others are learned from (10 folds at most)
        lr        in place of the inner loop's own learning rate
        inner     in place of the run's own inner loop
        columns   our field names -> the records', in place of the run's own tasks.columns; {} for none
        Raises UserError for records that can't be read, and for arguments of another kind.
        """
        inner = changed_inner(self.inner if inner is None else inner, steps, lr)
        task = self.fitted(examples, columns)
        self._check_prompt(task)
        inner = fitting(inner, task.in_context, len(task.pool))
        if steps == "auto":
            if fault := fold_fault(task.task, in_context=task.in_context is not None):
                raise UserError(replace(fault, where='steps="auto"'))
            inner = replace(inner, steps=choose_steps(self.space, inner, [task])[0].steps)
        with seeded(self.config.seed, "adapt", device=self.space.device):
            reached = adapted(self.space, inner, Chunk([task], [task.pool]))
        losses = tuple(reached.losses.mean(1).tolist())
        to = AdaptedTo(len(task.pool), inner.optimizer.said, losses)
        kept = task if task.in_context else None
        return Adapted(self, reached.values, losses, form_of(task.task.pool), to, kept)

    def evaluate(
        self,
        tasks: Any = None,
        *,
        k: Sequence[int] = (0, 8),
        draws: int = 5,
        test: int | None = None,
        task_column: str = TASK,
        say: Say = lambda *_: None,
    ) -> Evaluation:
        """How well it adapts to k examples of each task, by the task's test examples.

        >>> found = learned.evaluate({"gus": examples, "hal": examples}, k=[0, 2], draws=1)
        >>> found["eval_exact"] == found.k[2].exact.mean, sorted(found.k[2].tasks)
        (True, ['gus', 'hal'])

        tasks        a mapping of names to records, or a Dataset or DatasetDict with a column of tasks; by default the
                     tasks that the run held out, with the test examples that they have there
        draws        of the k examples, of which scores are means
        test         test examples of each of `tasks`; by default half of the smallest's, or what the largest k leaves
        task_column  of a Dataset
        say          told of the progress
        Raises UserError for tasks that can't be read or have too few examples, with all of them.
        """
        check_count(draws, "draws")
        if tasks is None:
            encoded = groundwork(self.config, model=self.model, say=say).held_out
            if not encoded:
                raise UserError(Fault("this run held no task out", "tasks", expected="tasks to score"))
        else:
            given = given_tasks(tasks, task_column=task_column)
            encoded = self.encoder.tasks(task_examples(given, self.encoder, most=max(k, default=0), test=test))
            check_tokens(encoded, self.model)
        check_enough(encoded, k)
        drawn = Protocol(k=tuple(k), draws=draws, seed=self.config.seed)
        if faults := prompt_faults(encoded, drawn, positions=positions_of(self.model.model)):
            raise UserError(*faults)
        options = {"seed": self.config.seed, "notes": known_note(self.folder, encoded), "say": say}
        return evaluation(self.space, self.inner, encoded, k=k, draws=draws, **options)

    def encoded(self, examples: Examples, *, columns: Mapping[str, str] | None = None) -> list[Encoded]:
        """Fitted to tasks.max_length as in training. Raises UserError where none fits.

        >>> (encoded,) = learned.encoded([{"prompt": "2 ->", "completion": " 4"}])
        >>> learned.model.tokenizer.decode(encoded.tokens)
        '2 -> 4<eos>'
        """
        return list(self.fitted(examples, columns).pool)

    def fitted(self, examples: Examples, columns: Mapping[str, str] | None = None) -> EncodedTask:
        """The examples as the pool of a task, those that fit. Raises UserError where none does.

        >>> len(learned.fitted(examples).pool) == len(learned.encoded(examples))
        True
        """
        encoder = self.encoder
        task = Task("examples", pool=tuple(encoder.examples(examples, columns=columns)))
        (fitted,) = encoder.tasks([task])
        if not fitted.pool:
            right = "longer, or truncate"
            raise UserError(Fault("every example is too long", "tasks.max_length", encoder.max_length, right))
        check_tokens([fitted], self.model)
        return fitted

    def _check_prompt(self, task: EncodedTask) -> None:
        """Raises UserError where the examples are too many for a prompt; warns of more than training had."""
        if task.in_context is None:
            return
        check_prompts([task], len(task.pool), self.model.model).raise_if_any()
        warn_of_more(self.config, len(task.pool))

    def save_pretrained(self, folder: str | Path, *, dtype: str | None = None, merged: bool = False) -> None:
        """The shared values as a PEFT adapter folder, or as a Hugging Face model folder.

        >>> learned.save_pretrained("adapters/initial")
        >>> learned.save_pretrained("models/merged", merged=True)  # the adapter in its base: a plain transformers model

        dtype  float32, bfloat16 or float16 of what is stored; by default float32 of an adapter, the run's of a model
        """
        self.portable().save(Path(folder), dtype=dtype, merged=merged)

    def save_gguf(self, path: str | Path, *, dtype: str | None = None) -> None:
        """The shared adapter as llama.cpp reads one.

        >>> learned.save_gguf("adapters/initial.gguf")

        Raises UserError for a run without an adapter, and for a family of models whose names there aren't known.
        """
        self.portable().save_gguf(Path(path), dtype=dtype)

    def peft_model(self) -> "PeftModel":
        """The initialization as a model of PEFT's. Raises UserError where all parameters were trained.

        >>> learned.peft_model().active_adapter
        'default'
        """
        return peft_model(self.config, self.model, self.save_pretrained)

    def push_to_hub(self, repo_id: str, *, private: bool | None = None, token: str | None = None) -> str:
        """Uploads what `save_pretrained` writes, as `Adapted.push_to_hub` does.

        >>> learned.push_to_hub("no name")
        Traceback (most recent call last):
        innerloop.errors.UserError: repo_id: not the name of a repository...
        """
        return push_to_hub(repo_id, self.save_pretrained, private=private, token=token)

    @property
    def history(self) -> list[dict[str, Any]]:
        """What was measured of each step, for pandas.DataFrame. Raises UserError where it can't be read any more.

        >>> [line["step"] for line in learned.history]
        [1, 2]
        """
        return read_metrics(self.folder)

    def plot(self, path: str | Path | None = None) -> Plot:
        """Training, support and validation losses: a figure that a notebook shows, kept as PNG or SVG at `path`.

        >>> learned.plot("losses.png")
        Plot(Training loss from ... to ... over 2 steps)

        Raises UserError as `report.plot.plot` does.
        """
        drawn = plot(self.folder)
        if path is not None:
            drawn.save(path)
        return drawn

    def portable(
        self,
        values: Mapping[str, Tensor] | None = None,
        *,
        holds: Holds = "initialization",
        adapted: AdaptedTo | None = None,
        kept: EncodedTask | None = None,
    ) -> Portable:
        """Any values of this run's space, to be written; by default the shared ones. kept: examples for their prompts.

        >>> halves = {name: value / 2 for name, value in learned.space.shared.items()}
        >>> learned.portable(halves).save(Path("adapters/half"))
        """
        values = self.space.shared if values is None else values
        about = {"holds": holds, "adapted": adapted, "scored": values is self.space.shared}
        shown = kept.in_context.shown(kept.pool) if kept and kept.in_context else None
        return Portable(
            model=self.model,
            values=values,
            lora=self.config.method.lora_settings(),
            base_name=base_id(self.config, self.model),
            dtype=self.space.dtype,
            card=lambda merged: self._card(merged=merged, **about),
            shown=shown,
        )

    def write_card(self) -> None:
        """The card of the run's own export anew, with what was measured since it was written.

        >>> learned.write_card()
        >>> "## Scores" in (learned.exported / "README.md").read_text()
        True
        """
        write_card(self.exported, self.portable().card(False))

    def _card(self, *, scored: bool, **about: Any) -> str:
        """scored: the values are those that an evaluation of the run measured."""
        facts = card_facts(self.folder)
        facts = facts if scored else replace(facts, results=None)
        return card(Card(config=self.config, model=self.model, facts=facts, **about))

    def check(self, folder: Path, examples: Examples) -> float:
        """Largest difference between the logits of the shared values and of `folder`, reloaded by PEFT alone.

        >>> learned.check(learned.exported, examples) < 1e-4
        True
        """
        return self.portable().agreement(folder, torch.tensor([self.encoded(examples)[0].tokens])).difference
