"""Whether a task's verifier tells right from wrong, tried on the data before anything is trained.

doubts       warnings: verifiers that take another example's answer for right, references of several numbers
wrong_pairs  examples beside texts that should be wrong: other examples' references
"""

import time
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import NamedTuple

from innerloop.data.math_worker import is_prose
from innerloop.data.tasks import Example, Task, exact_match
from innerloop.data.verifiers import finals, numbers_in, same_mathematics, same_number

MOST_PASSING = 0.05  # of the wrong answers
PAIRS = 40  # wrong answers per task, at most
FEWEST_PAIRS = 20  # of a task, below which it is only counted with the others
PAIRS_IN_ALL = 2000
SLOW_PAIRS_IN_ALL = 100  # where each takes milliseconds of computer algebra
SECONDS = 20  # that all of them may take
LOOKED_AT = 8  # examples behind one, for a reference that differs
SHOWN = 60  # characters of an answer


class _Tried(NamedTuple):
    task: str
    pairs: int
    passed: float
    example: str  # the first that passed, in words


def doubts(tasks: Iterable[Task]) -> list[str]:
    """What to say of the verifiers of these tasks, a sentence each; empty where they tell right from wrong.

    Every verifier is asked whether the references of other examples, where they differ as text, are right. Of many
    tasks and of a slow verifier a sample is tried, always the same one, and no longer than `SECONDS`.
    """
    checked = [task for task in tasks if task.verifier is not exact_match]
    return [*_wrong_taken_for_right(checked), *_several_numbers(checked)]


def wrong_pairs(task: Task) -> Iterable[tuple[Example, str]]:
    """An example and the reference of one behind it, which differs as text from all that is right."""
    examples = (*task.test, *task.pool)
    for place, example in enumerate(examples):
        right = {_final(answer) for answer in example.answers}
        behind = (examples[(place + step) % len(examples)] for step in range(1, LOOKED_AT + 1))
        other = next((other.answer for other in behind if _final(other.answer) not in right), None)
        if other is not None:
            yield example, other


def _wrong_taken_for_right(tasks: Sequence[Task]) -> Iterable[str]:
    end = time.monotonic() + SECONDS
    tried = [_tried(task, _pairs_of(task, tasks), end) for task in tasks]
    pairs, passed = sum(each.pairs for each in tried), sum(each.passed for each in tried)
    bad = [each for each in tried if each.pairs >= FEWEST_PAIRS and each.passed > MOST_PASSING * each.pairs]
    if not bad and passed > MOST_PASSING * pairs:
        bad = [each for each in tried if each.passed]
    if bad:
        one, *others = sorted(bad, key=lambda each: -each.passed / each.pairs)
        more = f" and in {len(others)} more tasks" if others else ""
        yield (
            f"wrong answers are taken for right: {one.passed:g} of {one.pairs} answers to other examples of task "
            f"{one.task}{more}; {one.example}"
        )


def _pairs_of(task: Task, tasks: Sequence[Task]) -> int:
    whole = SLOW_PAIRS_IN_ALL if task.verifier is same_mathematics else PAIRS_IN_ALL
    return min(PAIRS, max(1, whole // len(tasks)))


def _tried(task: Task, most: int, end: float) -> _Tried:
    count, passed, shown = 0, 0.0, ""
    for example, wrong in islice(wrong_pairs(task), most):
        if time.monotonic() > end:
            break
        count += 1
        try:
            score = float(task.verifier(example, wrong))
        except Exception:  # as in an evaluation, where such an answer is wrong, and counted
            score = 0.0
        passed += score
        if score > 0 and not shown:
            shown = f"{_short(wrong)} for {_short(example.answer)} ({example.named})"
    return _Tried(task.name, count, passed, shown)


def _several_numbers(tasks: Sequence[Task]) -> Iterable[str]:
    numeric = [task for task in tasks if task.verifier in (same_number, same_mathematics)]
    examples = [(task, example) for task in numeric for example in (*task.test, *task.pool)]
    several = [(task, each) for task, each in examples if any(_counts(task, _final(a)) for a in each.answers)]
    if several:
        task, example = several[0]
        yield (
            f"{len(several)} of {len(examples)} references hold several numbers, all of which a right answer has to "
            f"repeat at its end: {_short(example.answer)} (task {task.name}: {example.named}); the answer to a "
            'rationale goes behind "####"'
        )


def _counts(task: Task, reference: str) -> bool:
    return len(numbers_in(reference)) > 1 and (task.verifier is same_number or is_prose(reference))


def _final(answer: str) -> str:
    return finals(answer, "")[0]


def _short(text: str) -> str:
    shown = " ".join(_final(text).split())
    return repr(shown if len(shown) <= SHOWN else shown[: SHOWN - 1] + "…")
