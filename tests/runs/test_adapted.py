"""What is adapted to one task answers, scores, and leaves in forms that other libraries read."""

import pytest

from innerloop.errors import UserError
from innerloop.learning.inner_loop import InnerLoop
from innerloop.numerics.optimizers import AdamW
from small_runs import Runs

BY_HEART = InnerLoop(steps=30, optimizer=AdamW(lr=0.01))
PROMPT, ANSWER = "say it:", " yes"


@pytest.mark.parametrize("method", ["meta-lora", "fomaml"])
def test_an_answer_learned_by_heart_is_generated_and_scored(runs: Runs, method: str) -> None:
    learned, example = runs(method), [{"prompt": PROMPT, "completion": ANSWER}]
    before = learned.adapt(example, inner=InnerLoop(steps=0, optimizer=AdamW(lr=1.0)))
    after = learned.adapt(example, inner=BY_HEART)
    assert after.generate([PROMPT]) == [ANSWER]
    assert before.generate([PROMPT], max_new_tokens=8) != [ANSWER]
    assert (before.score(example)[1], after.score(example)[1]) == (0.0, 1.0)
    assert after.score(example)[0] < before.score(example)[0] / 2
    prompts = ["a", PROMPT, "a much longer one, of other words:"]
    together = after.generate(prompts, max_new_tokens=6)
    assert together == [after.generate([prompt], max_new_tokens=6)[0] for prompt in prompts]
    assert after.generate([]) == []
    with pytest.raises(UserError, match="no token to start from"):
        after.generate([PROMPT, ""])
