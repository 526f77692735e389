"""What a verifier makes of an answer is a number from 0 to 1, and a run's config chooses the verifier."""

from pathlib import Path
from typing import Any

import pytest

from innerloop.config.loading import load_config
from innerloop.data.tasks import Example, Message, Task
from innerloop.engine.session import prepare
from innerloop.errors import UserError
from innerloop.evaluation.scoring import LONGEST, SHOWN, samples, verified
from record_files import write
from small_runs import World, settings


def test_a_score_is_between_0_and_1_whatever_the_verifier_does() -> None:
    def verifier(example: Example, generated: str) -> Any:
        found = {"half": 0.5, "more": 3, "less": -1.0, "none": None, "nan": float("nan"), "yes": True}
        return found[generated]

    texts = ["half", "more", "less", "none", "nan", "yes", "raise\nthis"]
    task = Task("t", (), tuple(Example(text, "x") for text in texts), verifier=verifier)
    problems: list[str] = []
    assert verified(task, texts, on_failure=problems.append) == [0.5, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0]
    ids = [example.id for example in task.test]
    assert [problem.split(": ")[:3] for problem in problems] == [
        ["task t", f"example {ids[3]}", "TypeError"],
        ["task t", f"example {ids[4]}", "ValueError"],
        ["task t", f"example {ids[6]}", "KeyError"],
    ]
    assert verified(task, texts) == [0.5, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0]
    with pytest.raises(ValueError, match="shorter"):
        verified(task, texts[1:])


def test_the_verifier_gets_the_example_that_was_answered() -> None:
    task = Task("t", (), (Example("a", " 1"), Example("b", " 2")))
    assert verified(task, ["1", "2"]) == [1.0, 1.0]
    assert verified(task, ["2", "1"]) == [0.0, 0.0]


def test_a_run_chooses_how_answers_are_checked(world: World, tmp_path: Path) -> None:
    for name in ("ada", "bob", "dee"):
        write(tmp_path / f"{name}.jsonl", *({"prompt": f"{name} {n}", "completion": f" {n}.5"} for n in range(14)))
    folder = {"tasks.folder": str(tmp_path)}
    found: dict[str, list[float]] = {}
    for verifier in ("exact", "number", "math"):
        config = load_config(settings(world, "fomaml-lora", Path("unused"), {**folder, "tasks.verifier": verifier}))
        (task,) = prepare(config, model=world.model).held_out
        first, second = (float(example.answer) for example in task.task.test)
        found[verifier] = verified(task.task, [f" {first}", f"${{{2 * second:.0f}}}/2$"])
    assert found == {"exact": [1.0, 0.0], "number": [1.0, 0.0], "math": [1.0, 1.0]}
    write(tmp_path / "cy.jsonl", *({"prompt": f"p{n}", "completion": " none"} for n in range(14)))
    asked = {**folder, "tasks.verifier": "number"}
    with pytest.raises(UserError, match=r"task cy: example .*holds no number"):
        prepare(load_config(settings(world, "fomaml-lora", Path("unused"), asked)), model=world.model)
    without = {**asked, "tasks.only": ["ada", "bob", "dee"]}
    assert prepare(load_config(settings(world, "fomaml-lora", Path("unused"), without)), model=world.model).train


def test_samples_are_the_first_examples_however_they_went_and_is_bounded() -> None:
    turns = (Message("system", "be brief"), Message("user", "q" * 2 * LONGEST + "end"))
    task = Task("t", (), (Example("a", " 1"), Example(turns, " " + "2" * 2 * LONGEST), Example("c", " 3")))
    first, second = samples(task, ["0\n", "3" * 2 * LONGEST, "3"], [0.0, 1.0, 1.0])
    assert SHOWN == 2
    assert first == {"id": task.test[0].id, "prompt": "a", "right": "1", "written": "0", "correct": 0.0}
    assert {len(second[name]) for name in ("prompt", "right", "written")} == {LONGEST}
    assert second["prompt"].endswith("qend"), "what is asked stands at a prompt's end"
    assert second["right"].startswith("22")
    assert second["correct"] == 1.0
