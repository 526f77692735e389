"""What the tasks' own verifiers make of generated answers.

verified   how right each answer is, in [0, 1], by the task's verifier
samples      what stands beside the scores for people: the first questions of a task, and what was answered
"""

from collections.abc import Callable, Sequence
from typing import Any

from innerloop.data.tasks import Task

SHOWN = 2  # answers of a task that are kept as they were written
LONGEST = 600  # characters of a kept text


def verified(
    task: Task, generated: Sequence[str], *, on_failure: Callable[[str], None] = lambda problem: None
) -> list[float]:
    """The verifier's score of each test example's answer, in [0, 1].

    on_failure  told of each answer that the verifier raised at, or gave no number for: such an answer scores 0
    """
    scores: list[float] = []
    for example, text in zip(task.test, generated, strict=True):
        try:
            score = float(task.verifier(example, text))
            if score != score:
                raise ValueError("the score is not a number")
        except Exception as error:  # a verifier may be anyone's code, and the text may be anything
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            on_failure(f"task {task.name}: example {example.id}: {reason}")
            score = 0.0
        scores.append(min(max(score, 0.0), 1.0))
    return scores


def samples(task: Task, generated: Sequence[str], scores: Sequence[float]) -> list[dict[str, Any]]:
    """Of the first test examples, however they went: the prompt's end, a right answer, the one given, its score."""
    asked = zip(task.test[:SHOWN], generated, scores, strict=False)
    return [
        {
            "id": example.id,
            "prompt": example.asks if len(example.asks) <= LONGEST else f"…{example.asks[1 - LONGEST :]}",
            "right": _cut(example.answer.strip()),
            "written": _cut(text.strip()),
            "correct": score,
        }
        for example, text, score in asked
    ]


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
