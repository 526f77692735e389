"""The data as a model and its tokenizer read it: faults, warnings, and one example to look at.

check_tokens   faults: token ids that the model has no row for, examples longer than its positions
check_prompts  faults: in-context prompts that are longer, or that the chat template writes otherwise than their parts
warn_of_more   says so where a prompt is to hold more examples than training had
warnings_of    sentences: answers that the tokenizer can't write, prompts and answers whose seam is in the wrong place
Shown          one example as the model reads it, in its parts
shown          the first example of some tasks -> Shown
shown_all      the first examples of the first tasks
"""

import unicodedata
import warnings
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple, cast

from torch import nn

from innerloop.config.loading import RunConfig
from innerloop.data.encoding import EncodedTask
from innerloop.data.tasks import Example
from innerloop.data.token_ids import Encoded
from innerloop.errors import Fault, Faults
from innerloop.loading.architecture import longest_alone, positions_of
from innerloop.loading.models import LoadedModel

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SEAMS = 200  # examples whose seams are looked at
SHOWN = 600  # characters of a prompt

Pair = tuple[Example, Encoded]


class Shown(NamedTuple):
    """where: the task and the record; scored: opening (the chat template's), answer and end."""

    where: str
    prompt: str
    opening: str
    answer: str
    end: str

    @property
    def shortened(self) -> str:
        """The prompt without the middle of a long one."""
        long = len(self.prompt) > SHOWN
        return f"{self.prompt[: SHOWN // 2]} ... {self.prompt[-SHOWN // 2 :]}" if long else self.prompt

    def painted(self) -> tuple[str, str, str]:
        """Where it is from, what is read, and what is scored of it: a terminal tells the two apart by colour."""
        return f"example {self.where}", self.shortened, self.opening + self.answer + self.end

    def lines(self) -> list[str]:
        """For people."""
        opening = [f"template {self.opening!r}, scored"] if self.opening else []
        said = [f"example  {self.where}, as the model reads it:", f"prompt   {self.shortened!r}", *opening]
        return [*said, f"answer   {self.answer!r}, scored", f"end      {self.end!r}, scored"]


def check_tokens(tasks: Sequence[EncodedTask], model: LoadedModel) -> None:
    """Raises UserError with a fault for the highest id beyond the embedding, and one for the longest example."""
    pairs = list(_pairs(tasks))
    if not pairs:
        return
    faults, rows, positions = Faults(), _vocabulary(model), positions_of(model.model)
    example, encoded = max(pairs, key=lambda pair: max(pair[1].tokens))
    if (highest := max(encoded.tokens)) >= rows:
        token = model.tokenizer.convert_ids_to_tokens(highest)
        problem = f"the tokenizer writes {token!r} as id {highest}, and the model has {rows:,} token embeddings"
        right = "the model's own tokenizer, or a model resized for it (resize_token_embeddings)"
        faults.append(Fault(problem, example.named, expected=right))
    long = [pair for pair in pairs if positions is not None and len(pair[1].tokens) > positions]
    if long:
        example, encoded = max(long, key=lambda pair: len(pair[1].tokens))
        problem = f"{len(long)} of {len(pairs)} examples are longer than the model's {positions} positions"
        right = f"tasks.max_length: {positions} (max_position_embeddings), and tasks.on_too_long: drop or truncate"
        faults.append(Fault(problem, example.named, len(encoded.tokens), right))
    faults.raise_if_any()


def check_prompts(tasks: Iterable[EncodedTask], size: int, model: nn.Module) -> Faults:
    """A fault for each task whose prompts of `size` examples can't be; none where examples stand alone.

    Every answer of its pool is looked at as an earlier one, and the longest examples together.
    """
    faults = Faults()
    limits = [each for each in (positions_of(model), longest_alone(model)) if each is not None]
    for task in tasks:
        with faults.collecting():
            if task.in_context and not task.in_context.of_texts:
                for first in range(0, len(task.pool) - 1, max(1, size - 1)):
                    task.in_context.every(task.pool[first : first + size])
            faults += _too_long_together(task, size, min(limits)) if limits else []
    return faults


def _too_long_together(task: EncodedTask, size: int, most: int) -> list[Fault]:
    if task.in_context is None or not task.pool:
        return []
    longest = sorted(task.pool, key=lambda each: -len(each.tokens))[:size]
    lengths = [len(task.in_context.every(longest[:count]).tokens) for count in range(1, len(longest) + 1)]
    if lengths[-1] <= most:
        return []
    fit = sum(length <= most for length in lengths)
    right = f"at most {most} tokens, which {fit} of its longest examples fit; or a smaller tasks.max_length"
    problem = f"a prompt of {size} examples is too long for the model"
    return [Fault(problem, f"task {task.task.name}", lengths[-1], right)]


def warn_of_more(config: RunConfig, k: int) -> None:
    """Where a run was trained in context, and never with so many examples in a prompt."""
    if config.tasks.prompt == "in-context" and k > (most := config.tasks.support):
        said = f"{k} examples in a prompt: this run was trained with {most} at most (tasks.support)"
        warnings.warn(said, RuntimeWarning, stacklevel=3)


def warnings_of(tasks: Sequence[EncodedTask], tokenizer: "PreTrainedTokenizerBase") -> list[str]:
    """What looks wrong, and is no fault: a sentence each."""
    pairs = list(_pairs(tasks))
    return [*_unwritten(pairs, tokenizer), *_seams(pairs, tokenizer)]


def shown(tasks: Sequence[EncodedTask], tokenizer: "PreTrainedTokenizerBase") -> Shown:
    """The first task's first example."""
    return next(shown_all(tasks, tokenizer, tasks=len(tasks), examples=1))


def shown_all(
    given: Sequence[EncodedTask], tokenizer: "PreTrainedTokenizerBase", *, tasks: int, examples: int
) -> Iterator[Shown]:
    """At most so many tasks, and so many examples of each."""
    for task in given[:tasks]:
        for example, encoded in islice(_pairs([task]), examples):
            yield _shown(task.task.name, example, encoded, tokenizer)


def _shown(task: str, example: Example, encoded: Encoded, tokenizer: "PreTrainedTokenizerBase") -> Shown:
    start = encoded.prompt
    first, last = start + encoded.prefix, len(encoded.tokens) - encoded.end
    bounds = ((0, start), (start, first), (first, last), (last, len(encoded.tokens)))
    parts = [_text(encoded.tokens[one:other], tokenizer) for one, other in bounds]
    where = f" ({example.where})" if example.where else ""
    return Shown(f"of task {task}{where}", *parts)


def _pairs(tasks: Iterable[EncodedTask]) -> Iterator[Pair]:
    for task in tasks:
        yield from zip((*task.task.pool, *task.task.test), (*task.pool, *task.test), strict=True)


def _vocabulary(model: LoadedModel) -> int:
    return len(cast(nn.Embedding, model.model.get_input_embeddings()).weight)


def _unwritten(pairs: Sequence[Pair], tokenizer: "PreTrainedTokenizerBase") -> Iterator[str]:
    """Answers that no generation can equal, since their tokens are read back as another text."""
    rows = [list(encoded.scored) for _, encoded in pairs]
    texts = tokenizer.batch_decode(rows, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    lost = [pair for pair, text in zip(pairs, texts, strict=True) if pair[0].answer.strip() not in text]
    if lost:
        example, encoded = lost[0]
        first, last = encoded.prompt + encoded.prefix, len(encoded.tokens) - encoded.end
        read = _text(encoded.tokens[first:last], tokenizer)
        yield (
            f"{len(lost)} of {len(pairs)} answers can't be written by the tokenizer, so no generated one can equal "
            f"them: {_short(example.answer)} becomes {_short(read)} ({example.named})"
        )


def _seams(pairs: Sequence[Pair], tokenizer: "PreTrainedTokenizerBase") -> Iterator[str]:
    """Where a text's prompt and answer meet, most tokenizers want a space to be the answer's."""
    texts = [pair for pair in pairs if isinstance(pair[0].prompt, str)]
    looked = texts[:: max(1, len(texts) // SEAMS)]
    together = (
        tokenizer([f"{e.prompt}{e.answer}" for e, _ in looked], add_special_tokens=False)["input_ids"] if looked else []
    )
    other = [e for (e, encoded), ids in zip(looked, together, strict=True) if not _ends_alike(encoded, ids)]
    glued = [e for e, _ in looked if _is_glued(str(e.prompt)[-1:], e.answer[:1])]
    for found, problem in (
        (glued, "no white space stands between prompt and answer"),
        (other, "prompt and answer are other tokens together than apart"),
    ):
        if 2 * len(found) > len(looked):
            example = found[0]
            yield (
                f"{problem} in {len(found)} of {len(looked)} examples, {_short(str(example.prompt)[-20:])} and "
                f"{_short(example.answer)} first: a space belongs at the beginning of the answer"
            )
            return


def _ends_alike(encoded: Encoded, ids: Sequence[int]) -> bool:
    """Whether the answer's tokens are how the whole ends; a begin token stands before it, an end token behind it."""
    answer = encoded.tokens[encoded.prompt : len(encoded.tokens) - encoded.end]
    return tuple(ids[-len(answer) :]) == answer


def _is_glued(last: str, first: str) -> bool:
    """Scripts that are written without spaces have wide letters; behind an opening bracket or quote none is missing."""
    if not last or not first or last.isspace() or first.isspace():
        return False
    wide = any(unicodedata.east_asian_width(letter) in "WF" for letter in (last, first))
    return not wide and unicodedata.category(last) not in ("Ps", "Pi") and last not in "\"'`>#$"


def _text(tokens: Sequence[int], tokenizer: "PreTrainedTokenizerBase") -> str:
    return str(tokenizer.decode(list(tokens), skip_special_tokens=False, clean_up_tokenization_spaces=False))


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:59]}…")
