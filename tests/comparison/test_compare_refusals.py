"""What can't be compared is refused before anything trains: the file, the data and the budgets, all faults at once."""

import shutil
from pathlib import Path

import pytest

from innerloop.comparison.compare import begin
from innerloop.comparison.matrix import common_config
from innerloop.data.encoding import EncodedTask
from innerloop.engine.session import prepare
from innerloop.errors import UserError
from innerloop.evaluation.kshot import draw_support
from record_files import write
from small_matrices import TEST, matrix_file, read_matrix
from small_runs import ROWS, Changes, Cli, World, records

POOL = ROWS - TEST


def faults_of(world: World, folder: Path, changes: Changes) -> list[tuple[str, str]]:
    """(where, problem) of each, without the file's name; nothing is begun."""
    path = matrix_file(world, folder, changes)
    with pytest.raises(UserError) as caught:
        begin(path, folder / "comparison")
    assert not (folder / "comparison").exists()
    return [(fault.where.removeprefix(f"{path}: "), fault.problem) for fault in caught.value.faults]


def test_too_few_examples_for_k_in_each_task_that_needs_them(world: World, tmp_path: Path) -> None:
    assert faults_of(world, tmp_path, {"evaluation.k": [0, POOL + 1]}) == [
        ("held_out task cy", "too few examples"),
        ("validation task dee", "too few examples"),
    ]
    begin(matrix_file(world, tmp_path, {"evaluation.k": [0, POOL]}), tmp_path / "enough")


def test_tasks_have_to_be_held_out_and_to_choose_with(world: World, tmp_path: Path) -> None:
    none = {"runs.every.tasks.held_out": [], "runs.every.tasks.validation": []}
    assert faults_of(world, tmp_path, none) == [
        ("runs.every: tasks.held_out", "no held-out task"),
        ("runs.every: tasks.validation", "no validation task"),
    ]


def with_a_long_example(world: World, folder: Path) -> tuple[EncodedTask, str]:
    """The held-out task, in `folder`, with an example in its pool that leaves no room behind it; its id."""
    config = common_config(read_matrix(matrix_file(world, folder, {"runs.every.tasks.folder": str(folder)})), 1)
    first, *rows = records("cy")
    for width in range(500, 509):  # which side an example is on depends on what it says
        write(folder / "cy.jsonl", {**first, "prompt": first["prompt"].rjust(width, "=")}, *rows)
        (task,) = prepare(config, model=world.model).held_out
        for example in task.pool:
            if len(example.tokens) > 500:
                return task, example.id
    raise AssertionError("always among the tests")


def test_a_prompt_that_is_too_long_in_any_draw(world: World, tmp_path: Path) -> None:
    """The long example is not the first that is drawn, but is drawn some time."""
    folder = Path(shutil.copytree(world.tasks, tmp_path / "tasks"))
    task, long = with_a_long_example(world, folder)
    first = next(draw for draw in range(40) if draw_support(task, 1, seed=1, draw=draw)[0].id == long)
    common = {"runs.every.tasks.folder": str(folder), "evaluation.k": [1], "cost_only.arms": {}}

    def faults(draws: int, *arms: str) -> list[tuple[str, str]]:
        changes = {**common, "evaluation.draws": draws, "arms": {arm: {} for arm in arms}}
        try:
            begin(matrix_file(world, tmp_path, changes), tmp_path / f"{draws} {len(arms)}")
        except UserError as error:
            return [(fault.where, fault.problem) for fault in error.faults]
        return []

    fault = ("task cy: k = 1", "the examples and an answer are too long for the model")
    assert faults(first, "base", "in-context") == []
    assert faults(first + 1, "base", "in-context") == faults(40, "base", "in-context") == [fault]
    assert faults(40, "base") == []


def test_a_budget_below_one_step_of_each_arm_that_has_none(world: World, tmp_path: Path) -> None:
    arms = {"base": {}, "lora": {}, "joint-lora": {}, "fomaml-lora": {"tasks": {"support": 6}}}
    least = {"lora": 10, "joint-lora": 10, "fomaml-lora": 16}  # examples of a step: of 2 tasks, or of 2 adapters
    for examples in (9, 10, 15):
        changes = {"arms": arms, "budgets": {"examples": examples, "tokens": 20}}
        found = faults_of(world, tmp_path, changes)
        assert sorted(found) == sorted(
            [("budgets.tokens", f"not one step of {arm} fits") for arm in least]
            + [("budgets.examples", f"not one step of {arm} fits") for arm in least if least[arm] > examples]
        )
    begun = begin(matrix_file(world, tmp_path, {"arms": arms, "budgets": {"examples": 16}}), tmp_path / "enough")
    assert [cell.name for cell in begun.missing][:2] == ["base-1", "lora-examples-1"]


def test_batches_that_an_arms_tasks_can_not_fill(world: World, tmp_path: Path) -> None:
    changes = {"arms.meta-lora.tasks.support": POOL, "arms.joint.outer.tasks_per_step": 3}
    assert faults_of(world, tmp_path, changes) == [
        ("arm meta-lora: task ada", "a batch larger than the pool"),
        ("arm meta-lora: task bob", "a batch larger than the pool"),
        ("arm joint: outer.tasks_per_step", "more tasks than there are"),
    ]
    found = faults_of(world, tmp_path, {"runs.every.tasks.support": POOL})
    assert found == [(f"arm lora: task {name}", "a batch larger than the pool") for name in ("ada", "bob")]


def test_faults_of_file_data_and_budgets_come_at_once(cli: Cli, world: World, tmp_path: Path) -> None:
    changes = {
        "evaluation.drawz": 2,
        "arms.fomal-lora": {},
        "arms.joint.method.lora.r": 4,
        "evaluation.k": [0, POOL + 1],
        "arms": {"base": {"seed": 1}, "jont-lora": {}, "meta-lora": {"method": {"inner": {"step": 2}}}, "lora": {}},
        "budgets.tokens": 3,
    }
    path = matrix_file(world, tmp_path, changes)
    said = cli("compare", path, "--output", tmp_path / "comparison")
    assert (said.code, said.out) == (2, "")
    told = (
        "evaluation.drawz (line",
        "arms.jont-lora (line",
        "arms.base (line",
        "arm meta-lora: method.inner.step: unknown key",
        "held_out task cy: too few examples",
        "validation task dee: too few examples",
        "budgets.tokens: not one step of lora fits",
    )
    for place in told:
        assert said.err.count(place) == 1, said.err
    assert said.err.count("expected:") == len(told)
    assert 'did you mean "joint-lora"?' in said.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["matrix.yaml"], "nothing was begun"


def test_data_that_can_not_be_read(world: World, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(world.tasks, tmp_path / "tasks"))
    (folder / "ada.jsonl").write_text("{")
    changes = {"runs.every.tasks.folder": str(folder), "arms.zork": {}}
    (_, first), (_, second) = faults_of(world, tmp_path, changes)
    assert first == "no such arm"
    assert second.startswith("broken JSON")
