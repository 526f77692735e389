"""examples/demo.py: its table can't leave an arm, an adaptation or a metric out."""

import importlib.util
import io
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from rich.console import Console

from innerloop.config.loading import load_config
from innerloop.engine.session import prepare
from innerloop.evaluation.in_context import in_context_task
from innerloop.evaluation.kshot import adapt_and_score, mean_nats
from small_runs import World, settings

ROOT = Path(__file__).parents[1]
ADAPTED = {"validation": ["cy"], "held_out": ["dee"]}


@pytest.fixture(scope="module")
def demo() -> ModuleType:
    return _imported(ROOT / "examples" / "demo.py")


@pytest.fixture(scope="module")
def ran(demo: ModuleType, world: World, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """(session, cells, folder) of the whole demo with a tiny model; the demo's own config has what isn't set here."""
    folder = tmp_path_factory.mktemp("demo") / "run"
    changes = {f"tasks.{role}": names for role, names in ADAPTED.items()}
    session = prepare(load_config(settings(world, "meta-lora", folder, changes)), model=world.model)
    cells = demo.run(session, demo.joint_config(session.config, session), Console(file=io.StringIO()))
    return session, cells, folder


def test_every_arm_meets_every_adaptation_on_every_unseen_task(demo: ModuleType, ran: Any) -> None:
    _, cells, _ = ran
    arms, adaptations = (demo.STD, demo.JOINT, demo.META), (demo.NO_STEP, demo.OWN, demo.TUNED, demo.IN_CONTEXT)
    assert set(cells) == {(arm, adaptation) for arm in arms for adaptation in adaptations}
    assert all([score.task for score in cell.scores] == ["dee"] for cell in cells.values())
    for row in demo.as_json(cells)["cells"]:
        assert row["nats"] > 0
        assert 0 <= row["exact"] <= 1


def test_what_is_printed_has_both_metrics_of_every_cell(demo: ModuleType, ran: Any) -> None:
    _, cells, _ = ran
    written = io.StringIO()
    demo.show(Console(file=written, width=100), cells)
    for adaptation in (demo.NO_STEP, demo.OWN, demo.TUNED, demo.IN_CONTEXT):
        lines = [line.strip() for line in written.getvalue().splitlines()]
        (line,) = [line for line in lines if line.startswith(adaptation + " ") and line.endswith("%")]
        shown = line.split()[-6:]  # nats and exact of three arms
        assert [shown[i] for i in (0, 2, 4)] == [
            f"{mean_nats(cells[arm, adaptation].scores):.2f}" for arm in (demo.STD, demo.JOINT, demo.META)
        ]
        assert all(shown[i].endswith("%") for i in (1, 3, 5))
    assert "no verdict about a method" in " ".join(written.getvalue().split())


def test_std_lora_without_a_step_is_the_base_model(demo: ModuleType, ran: Any) -> None:
    session, cells, _ = ran
    fresh = session.space()  # its B is 0
    asked = [in_context_task(task, (), session.encoder) for task in session.held_out]
    (base,) = adapt_and_score(fresh, session.config.method.inner.build(), [()], asked, after=(0,))[0]
    assert cells[demo.STD, demo.NO_STEP].scores[0].nats == pytest.approx(base.nats, abs=1e-5)
    # and a trained start is another model
    assert cells[demo.META, demo.NO_STEP].scores[0].nats != pytest.approx(base.nats, abs=1e-5)


def test_the_examples_in_the_prompt_are_read(demo: ModuleType, ran: Any) -> None:
    _, cells, _ = ran
    bare, prompted = (cells[demo.STD, how].scores[0].nats for how in (demo.NO_STEP, demo.IN_CONTEXT))
    assert bare != pytest.approx(prompted, abs=1e-5)


def test_both_trainings_read_equally_many_tokens(ran: Any) -> None:
    _, _, folder = ran
    meta, joint = (
        sum(json.loads(line)["tokens"] for line in (place / "metrics.jsonl").read_text().splitlines())
        for place in (folder, folder / "joint-lora")
    )
    assert joint == pytest.approx(meta, rel=0.25)  # whole steps, of examples of unequal length


def test_a_folder_that_is_taken_is_not_written_to(demo: ModuleType, tmp_path: Path) -> None:
    assert demo.free_folder(tmp_path / "new") == tmp_path / "new"
    assert demo.free_folder(tmp_path) == tmp_path.with_name(f"{tmp_path.name}-2")


def test_validation_tasks_are_of_the_kinds_that_are_held_out(demo: ModuleType) -> None:
    """New rules of families that are trained on, and whole families: choosing for one kind would harm the other."""
    tasks = load_config(demo.CONFIG).tasks

    def kinds(names: list[str]) -> set[bool]:
        return {"/" in name for name in names}

    assert kinds(list(tasks.validation)) == kinds(list(tasks.held_out)) == {True, False}
    assert not set(tasks.validation) & set(tasks.held_out)


def _imported(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
