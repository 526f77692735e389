"""What the tasks' own verifiers make of generated answers.

verified   how right each answer is, in [0, 1], by the task's verifier
"""

from collections.abc import Callable, Sequence

from innerloop.data.tasks import Task


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
