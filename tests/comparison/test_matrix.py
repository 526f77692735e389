"""What a matrix stands for: its cells in their order, the run of each, and what all of them are scored on."""

from pathlib import Path
from typing import Any

import pytest

from innerloop.comparison.matrix import Cell, Matrix, cells, common_config, day_of, merged, read_plan, run_config
from innerloop.engine.session import prepare, roles
from innerloop.results.names import COST
from innerloop.spaces.kinds import Grid
from small_matrices import HELD_OUT, TEST, TRAIN, VALIDATION, Compared, read_matrix, small
from small_runs import World

MATRICES = sorted((Path(__file__).parents[2] / "matrices").glob("*.yaml"))


def matrix_of(world: World, **changes: Any) -> Matrix:
    """Dots are written as two underscores."""
    return Matrix.model_validate(small(world, {key.replace("__", "."): value for key, value in changes.items()}))


def test_cells_come_seed_by_seed_arm_by_arm_and_costs_last(world: World) -> None:
    arms = {"lora": {}, "base": {}, "joint": {}}
    budgets = {"seconds": 2.5, "tokens": 100}
    found = cells(matrix_of(world, arms=arms, budgets=budgets, seeds=[3, 1]))
    assert [cell.name for cell in found] == [
        *("lora-tokens-3", "lora-seconds-3", "base-3", "joint-tokens-3", "joint-seconds-3"),
        *("lora-tokens-1", "lora-seconds-1", "base-1", "joint-tokens-1", "joint-seconds-1"),
        "fomaml-cost-3",
    ]
    assert [found[0], found[2], found[-1]] == [
        Cell("lora", "tokens", 3),
        Cell("base", "", 3),
        Cell("fomaml", COST, 3),
    ]


def test_a_begun_comparison_has_the_same_cells(whole: Compared) -> None:
    assert read_plan(whole.folder) == (whole.matrix, cells(whole.matrix))


def test_an_arms_own_part_wins_over_the_shared_ones_and_the_matrix_over_all(world: World) -> None:
    matrix = matrix_of(
        world,
        runs__every__outer={"tasks_per_step": 2, "clip": 5.0, "optimizer": {"name": "sgd", "lr": 1.0}},
        runs__lora__outer={"clip": 6.0, "optimizer": {"lr": 2.0}},
        runs__all__outer={"optimizer": {"lr": 3.0}},
        arms={"fomaml-lora": {"outer": {"optimizer": {"lr": 4.0}}}, "joint-lora": {}, "joint": {}},
    )

    def outer(arm: str) -> tuple[Any, ...]:
        section = run_config(matrix, Cell(arm, "tokens", 1), output_dir=Path("x")).outer
        return section.clip, section.optimizer.name, section.optimizer.lr

    assert {arm: outer(arm) for arm in matrix.arms} == {
        "fomaml-lora": (6.0, "sgd", 4.0),
        "joint-lora": (6.0, "sgd", 2.0),
        "joint": (5.0, "sgd", 3.0),
    }
    config = run_config(matrix, Cell("joint", "tokens", 8), output_dir=Path("there"), steps=17)
    assert (config.method.name, config.seed, config.output_dir, config.outer.steps) == ("joint", 8, Path("there"), 17)


def test_merging_leaves_its_arguments_alone() -> None:
    one, other = {"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"c": 4}, "d": {"e": 5}}
    assert merged(one, other) == {"a": {"b": 1, "c": 4}, "d": {"e": 5}}
    assert (one, other) == ({"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"c": 4}, "d": {"e": 5}})


def test_an_arm_for_its_cost_takes_the_steps_that_the_matrix_gives_all_of_those(world: World) -> None:
    matrix = matrix_of(world, cost_only={"steps": 3, "arms": {"joint": {"outer": {"clip": 9.0}}}})
    costly, scored = (run_config(matrix, Cell("joint", budget, 1), output_dir=Path("x")) for budget in (COST, "tokens"))
    assert (costly.outer.steps, costly.outer.clip) == (3, 9.0)
    assert scored.outer.clip == 1.0


def test_std_lora_trains_on_the_tasks_of_the_others(world: World) -> None:
    """One adapter for each, one task a step whatever the others take; nothing of the unseen tasks is read."""
    matrix = matrix_of(world, arms={"lora": {}, "joint-lora": {}})
    common = prepare(common_config(matrix, 1), model=world.model)
    joint = prepare(run_config(matrix, Cell("joint-lora", "tokens", 1), output_dir=Path("x")), model=world.model)
    seen = [task.task.name for task in common.train]
    config = run_config(matrix, Cell("lora", "tokens", 1), output_dir=Path("x"), seen=seen)
    std = prepare(config, model=world.model)
    assert roles(common) == roles(joint) == {"train": TRAIN, "validation": VALIDATION, "held_out": HELD_OUT}
    assert [name for name, _ in std.streams()] == TRAIN
    assert (config.outer.tasks_per_step, joint.config.outer.tasks_per_step) == (1, 2)
    for one, other in zip(common.train, std.train, strict=True):
        assert len(one.test) == TEST
        assert (one.pool, one.test) == (other.pool, other.test)
    read = {example.id for task in (*joint.train, *std.train) for example in task.pool}
    assert not read & {example.id for task in (*common.train, *common.held_out) for example in task.test}
    assert not read & {example.id for task in common.held_out for example in task.pool}


def test_what_an_arm_draws_from_a_task_changes_no_test_example(world: World) -> None:
    matrix = matrix_of(world, arms={"fomaml-lora": {"tasks": {"examples_per_task": 6, "support": 2}}})
    common = prepare(common_config(matrix, 1), model=world.model)
    arm = prepare(run_config(matrix, Cell("fomaml-lora", "tokens", 1), output_dir=Path("x")), model=world.model)
    for one, other in zip(arm.train, common.train, strict=True):
        assert one.test == other.test
        assert set(one.pool) < set(other.pool)


def test_the_common_part_needs_no_batch_and_no_inner_loop_of_the_arms(world: World) -> None:
    matrix = matrix_of(
        world,
        runs__every__tasks__support=500,
        runs__every__outer__tasks_per_step=99,
        runs__lora__method__inner={"steps": 2},
        arms={"fomaml-lora": {}},
    )
    config = common_config(matrix, 5)
    assert roles(prepare(config, model=world.model))["train"] == TRAIN
    assert config.seed == 5
    assert config.method.lora == run_config(matrix, Cell("fomaml-lora", "", 1), output_dir=Path("x")).method.lora
    assert config.memory.trunk_cache
    assert not common_config(matrix, 5, trunk_cache=False).memory.trunk_cache


def test_tuning_has_a_grid_for_what_an_arm_trains(world: World) -> None:
    matrix = matrix_of(world, evaluation__k=[9, 0, 2], evaluation__draws=3)
    lora, full = Grid((0.01, 0.1), (1, 3)), Grid((0.01,), (2,))
    for arm, grid in {"base": lora, "in-context": lora, "lora": lora, "meta-lora": lora, "joint": full}.items():
        protocol = matrix.protocol(arm, 4)
        assert (protocol.grid, protocol.k, protocol.draws, protocol.seed) == (grid, (0, 2, 9), 3, 4)


@pytest.mark.parametrize("path", MATRICES, ids=lambda path: path.stem)
def test_shipped_matrices_load(path: Path) -> None:
    matrix = read_matrix(path)
    assert matrix.name == path.stem
    assert "joint-lora" in matrix.arms, "what everything is compared with"
    assert matrix.primary, "one question that is asked beforehand"
    if path.stem != "quick":
        assert len(matrix.seeds) >= 3
        assert matrix.evaluation.draws >= 5


@pytest.mark.parametrize(
    ("text", "day"),
    [
        ('{"matrix": {"runs": {"every": {"tasks": {"date": "2026-12-01"}}}}}', "2026-12-01"),
        ('{"matrix": {"runs": {"every": {"tasks": {"date": 3}}}}}', None),
        *((text, None) for text in ('{"matrix": {"runs": {}}}', "{}", "[]", "{")),
    ],
)
def test_the_day_of_a_comparison_is_read_where_it_has_one(tmp_path: Path, text: str, day: str | None) -> None:
    assert day_of(tmp_path) is None
    (tmp_path / "matrix.json").write_text(text)
    assert day_of(tmp_path) == day
