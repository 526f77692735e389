"""What a cell says of its training is what its run wrote down, and passes are the gradients that were taken."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from innerloop.comparison.facts import run_facts, untrained_facts
from innerloop.comparison.matrix import BASE, IN_CONTEXT
from innerloop.config.loading import load_config
from innerloop.engine.session import prepare
from innerloop.learning.methods import METHODS
from innerloop.results.cell_files import CellFile
from small_runs import NOTHING, Changes, Runs, World, manifest_of, settings, small_run

STEPS = 2  # of each adapter of `runs`


def passes(world: World, method: str, changes: Changes = NOTHING) -> int:
    """Gradients and Hessian-vector products of one task's loss that a run takes: counted on the way."""
    session = prepare(load_config(settings(world, method, Path("unused"), changes)), model=world.model)
    taken = 0
    for _, batches in session.streams():
        space = session.space()

        def counted(original: Any) -> Any:
            def call(values: Any, batch: Any, *args: Any, **options: Any) -> Any:
                nonlocal taken
                taken += batch.tasks
                return original(values, batch, *args, **options)

            return call

        space.loss_and_gradient = counted(space.loss_and_gradient)
        space.hessian_vector_product = counted(space.hessian_vector_product)
        trainer = session.trainer(space, batches)
        for step in range(STEPS):
            trainer.step(batches[step])
    return taken


@pytest.mark.parametrize(
    "method", ["lora", "joint-lora", "joint", "fomaml-lora", "maml-lora", "meta-lora", "reptile-lora"]
)
def test_passes_are_the_gradients_and_hessian_products_of_a_tasks_loss(world: World, runs: Runs, method: str) -> None:
    runs(method)
    assert run_facts(runs(method).folder)["passes"] == passes(world, method) > 0


def test_steps_of_joint_training_are_one_pass_of_a_task(world: World, tmp_path: Path) -> None:
    changes = {"outer.joint_steps": 1}
    small_run(world, "meta-lora", tmp_path / "run", changes)
    found = run_facts(tmp_path / "run")["passes"]
    assert found == passes(world, "meta-lora", changes) < passes(world, "meta-lora")


@pytest.mark.parametrize("method", ["lora", "fomaml-lora", "joint"])
def test_facts_are_those_that_the_run_wrote(runs: Runs, method: str) -> None:
    folder = runs(method).folder
    found, said = run_facts(folder), manifest_of(folder)
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    adapters = 2 if method == "lora" else 1
    assert (found["steps"], len(lines)) == (STEPS, STEPS * adapters)
    assert found["algorithm"] == METHODS[method].title
    assert found["trains"] == METHODS[method].space.title
    weights = list(folder.rglob("*.safetensors"))
    values = [value for path in weights for value in load_file(path).values()]
    assert found["parameters"] == sum(value.numel() for value in values) / adapters
    assert 0 < found["percent"] <= 100
    assert found["percent"] == pytest.approx(100 if method == "joint" else said["plan"]["trained"]["percent"])
    assert found["file_bytes"] == sum(path.stat().st_size for path in weights) > 0
    assert found["tokens"] == sum(line["tokens"] for line in lines) == found["training"]["tokens"][-1]
    assert found["training"]["tokens"] == [sum(line["tokens"] for line in lines[: n + 1]) for n in range(len(lines))]
    assert found["training"]["loss"] == [line["loss"] for line in lines]
    assert found["training"]["support_first"][0] == (lines[0]["support_loss_first"])
    assert (found["training"]["support_last"][0] is None) == (method != "fomaml-lora")
    assert found["tokens_per_second"] == pytest.approx(found["tokens"] / found["seconds"])
    assert found["peak_bytes"] == said["host"]["peak_bytes"]
    assert load_config(Path(folder / "run.yaml")).resolved() == said["config"]
    assert found["config_yaml"] == (folder / "run.yaml").read_text()


def test_examples_and_tasks_are_those_of_training(runs: Runs) -> None:
    """14 rows a task, of which 2 are for tests; joint-lora trains on three tasks, lora on two held-out ones."""
    counts = {method: run_facts(runs(method).folder) for method in ("joint-lora", "lora")}
    assert {method: (each["tasks"], each["examples_per_task"]) for method, each in counts.items()} == {
        "joint-lora": (3, 12),
        "lora": (2, 12),
    }


def test_an_untrained_arm_has_nothing_to_say(runs: Runs) -> None:
    cell = {"cell": "x", "arm": "base", "budget": "", "seed": 1, "status": "done"}
    trained = run_facts(runs("joint-lora").folder)
    for arm in (BASE, IN_CONTEXT):
        found = untrained_facts(arm)
        assert found.keys() == trained.keys(), "rows of one table"
        assert Counter(value for value in found.values() if isinstance(value, int))[0] == 9
        assert CellFile.model_validate(cell | found).trains == "nothing"
    assert untrained_facts(BASE)["algorithm"] != untrained_facts(IN_CONTEXT)["algorithm"]
    assert CellFile.model_validate(cell | trained).parameters
