"""What many tests of this folder look at and none changes.

whole              one comparison of every kind of arm
made               a run with two held-out tasks and a validation task; learned, session: the same, loaded
plain              its scores by the book
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from innerloop.data.encoding import EncodedTask
    from innerloop.runs.learned import Learned
    from reference.naive import Inner


@pytest.fixture(scope="session")
def whole(world: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The `small_matrices.Compared` of the small matrix."""
    from small_matrices import matrix_file, run_here

    folder = tmp_path_factory.mktemp("whole")
    return run_here(matrix_file(world, folder), folder / "comparison")


@pytest.fixture(scope="session")
def made(world: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from small_runs import small_run

    changes = {"tasks.held_out": ["cy", "dee"], "tasks.validation": ["bob"], "outer.tasks_per_step": 1}
    return small_run(world, "fomaml-lora", tmp_path_factory.mktemp("made") / "run", changes).folder


@pytest.fixture(scope="session")
def learned(made: Path) -> Any:
    from innerloop.runs.reloading import load_run

    return load_run(made)


@pytest.fixture(scope="session")
def session(learned: Any) -> Any:
    from innerloop.engine.session import prepare

    return prepare(learned.config, model=learned.model)


def plain(learned: "Learned", task: "EncodedTask", inner: "Inner", draw: int, k: int) -> tuple[list[float], float]:
    """(nats of each test example, support nats) after adapting a copy of the model."""
    from helpers import reference_model
    from innerloop.evaluation.kshot import draw_support
    from reference import naive

    model, support = reference_model(learned.space, learned.space.shared), list[Any]()
    if k:
        support = draw_support(task, k, seed=learned.config.seed, draw=draw)
        model = naive.adapt(model, [support] * inner.steps, inner)
    reached = [naive.answer_nats(model, example) for example in support]
    return [naive.answer_nats(model, example) for example in task.test], sum(reached) / max(len(reached), 1)
