"""benchmarks/padding.py: shares of useful tokens, against a count by hand."""

from typing import Any

import padding
import pytest

from record_files import write
from small_runs import World


@pytest.fixture(scope="module")
def sessions(world: World, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("gsm8k")
    rows = [{"question": f"what is {n}?" + "!" * (n % 9), "answer": f"{n}" + "." * (n % 5)} for n in range(64)]
    write(folder / "train.jsonl", *rows)
    return padding.sessions(world.model, folder, examples=4)


@pytest.mark.parametrize("name", padding.AT_LEAST)
def test_shares_are_of_every_pass(sessions: Any, name: str) -> None:
    session = sessions[name]
    found = padding.useful(session, steps=2)
    _, stream = session.streams()[0]
    lengths = [task for step in (0, 1) for batch in stream[step].batches for task in [batch.lengths]]
    tokens = sum(length for batch in lengths for task in batch for length in task)
    padded = sum(len(batch) * len(batch[0]) * max(map(max, batch)) for batch in lengths)
    filled = sum(len(batch) * max(map(sum, batch)) for batch in lengths)
    assert found["tokens_a_step"] == tokens / 2
    assert found["padded"] == pytest.approx(tokens / padded)
    assert found["padded"] < found["one_forward"] <= found["as_it_runs"] <= 1
    assert found["one_forward"] == pytest.approx(tokens / filled, abs=0.05)
    assert f"| `{name}` |" in "\n".join(padding.padding_table({"rows": {name: found}}))
