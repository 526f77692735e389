"""A run's config and --arms: a matrix that loads, whose own arm is the run, for the tokens that the run reads."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as limits
from hypothesis import strategies as st

from config_examples import OTHER, minimal
from innerloop.comparison.arms import APART, asked_for, fitted, matrix_tree
from innerloop.comparison.cells import run_cell
from innerloop.comparison.compare import begin
from innerloop.comparison.matrix import Cell, Matrix, cells, run_config
from innerloop.comparison.reading import sound_matrix
from innerloop.config.defaults import within
from innerloop.config.document import Document
from innerloop.config.loading import RunConfig, load_config
from innerloop.config.schema import nested
from innerloop.errors import Faults, UserError
from innerloop.learning.methods import METHODS
from innerloop.runs.reloading import load_run
from small_matrices import matrix_file
from small_runs import Cli, World, config_file, manifest_of

ROLES = {"tasks.held_out": ["cy"], "tasks.validation": ["dee"]}
ELSEWHERE = ("tasks.folder", "tasks.suite", "tasks.columns", "tasks.verifier", "method.name", "output_dir")
META = {
    "method.inner.optimizer.lr": 0.02,
    "method.keep_task_adapters": True,
    "memory.trunk_cache": True,
    "method.lora.layers": "last-1",
}


def tree_of(method: str, changes: dict[str, Any]) -> dict[str, Any]:
    base = minimal(method)
    return nested(
        {
            "model.name": "m",
            "tasks.suite": "math-science",
            "tasks.held_out": ["a"],
            "tasks.validation": ["b"],
            "method.name": method,
            "output_dir": base["output_dir"],
            **changes,
        }
    )


def derived(tree: dict[str, Any], *arms: str) -> tuple[RunConfig, Matrix, dict[str, list[str]]]:
    """The run, its matrix, which is sound, and the keys that each arm goes without."""
    config, faults = load_config(tree), Faults()
    written, left = matrix_tree(config, tree, arms, seeds=[config.seed], tokens=10**6)
    matrix = sound_matrix(Document("derived", written), faults)
    assert not faults
    assert matrix is not None
    assert matrix == Matrix.model_validate(written)
    return config, matrix, {arm: [each.key for each in gone] for arm, gone in left.items()}


def read_by(matrix: Matrix, arm: str, run: RunConfig) -> dict[str, Any]:
    """Every key of the arm's run, were it to take as many steps."""
    cell = Cell(arm, "tokens", run.seed)
    return run_config(matrix, cell, output_dir=run.output_dir, steps=run.outer.steps).flat()


def loads(tree: dict[str, Any]) -> bool:
    try:
        load_config(tree)
    except UserError:
        return False
    return True


@limits(max_examples=60, deadline=None)
@given(st.data())
def test_the_matrix_of_any_run_loads_and_its_own_arm_is_the_run(data: st.DataObject) -> None:
    own = data.draw(st.sampled_from(sorted(METHODS)))
    others = data.draw(st.lists(st.sampled_from(sorted(METHODS)), unique=True, max_size=4))
    changes = dict[str, Any]()
    for key in data.draw(st.lists(st.sampled_from([key for key in OTHER if key not in ELSEWHERE]), max_size=12)):
        more = {**changes, key: OTHER[key]}
        changes = more if loads(tree_of(own, more)) else changes
    run, matrix, _ = derived(tree_of(own, changes), *dict.fromkeys([own, *others]))
    assert list(matrix.arms) == list(dict.fromkeys(["base", "in-context", own, *others]))
    theirs = {key: value for key, value in run.flat().items() if not any(within(key, apart) for apart in APART)}
    assert read_by(matrix, own, run) == theirs | {"report_to": []}
    read = {arm: read_by(matrix, arm, run) for arm in others}
    for key, value in changes.items():
        if key.startswith(("model.", "method.lora.")) or key in ("tasks.support", "outer.clip"):
            assert all(values[key] == theirs[key] for values in read.values() if key in values), value


def test_an_arm_goes_without_what_its_method_does_not_read_or_cannot_have() -> None:
    changes = META | {"evaluate.every": 5, "outer.optimizer.lr": 0.03, "outer.joint_steps": 2, "tasks.support": 5}
    run, matrix, left = derived(
        tree_of("meta-lora", changes), "lora", "maml-lora", "reptile-lora", "joint", "meta-lora"
    )
    assert left == {
        "every arm": ["evaluate"],
        "lora": ["method.inner", "method.keep_task_adapters", "outer.joint_steps"],
        "maml-lora": ["method.keep_task_adapters", "method.inner.optimizer"],
        "reptile-lora": ["method.keep_task_adapters"],
        "joint": [
            *("method.inner", "outer.optimizer", "method.keep_task_adapters", "outer.joint_steps"),
            *("method.lora", "memory.trunk_cache"),
        ],
    }
    read = {arm: read_by(matrix, arm, run) for arm in ("lora", "maml-lora", "reptile-lora", "joint")}
    own = run.flat()
    inner = {key: value for key, value in own.items() if key.startswith("method.inner.optimizer.")}
    assert inner.items() <= read["reptile-lora"].items(), "one that reads it has the run's own inner optimizer"
    assert read["maml-lora"]["method.inner.optimizer.name"] == "sgd"
    rates = {arm: values["outer.optimizer.lr"] for arm, values in read.items()}
    default = load_config(minimal("joint")).outer.optimizer.lr
    assert rates == {"lora": 0.03, "maml-lora": 0.03, "reptile-lora": 0.03, "joint": default}
    assert {values["tasks.support"] for values in read.values()} == {5}
    assert matrix.runs.lora["method"] == {"lora": {"layers": "last-1"}}, "what untrained arms start from"
    assert matrix.primary is None


def test_the_reason_is_that_of_the_config_rules() -> None:
    _, left = fitted({"method.inner.steps": 2}, "meta-lora", "joint-lora")
    assert left == [("method.inner", '"joint-lora" has no inner loop')]
    assert fitted({"method.inner.steps": 2}, "meta-lora", "fomaml-lora") == ({"method.inner.steps": 2}, [])


def test_a_whole_comparison_of_a_run_and_going_on_with_it(world: World, tmp_path: Path, cli: Cli) -> None:
    path = config_file(world, tmp_path, "meta-lora", ROLES | META | {"tasks.query": 2})
    folder, command = tmp_path / "comparison", (path, "--arms", "joint-lora,meta-lora")
    asked = asked_for(path, "joint-lora,meta-lora", None)
    begun = begin(path, folder, derived=asked)
    assert begun.plan["command"] == f"innerloop compare {path} --arms joint-lora,meta-lora --output {folder}"
    assert [cell.name for cell in begun.missing] == [
        "base-7",
        "in-context-7",
        "joint-lora-tokens-7",
        "meta-lora-tokens-7",
    ]
    for cell in begun.missing:
        run_cell(folder, cell.name, lambda *_: None)
    own = folder / "cells/meta-lora-tokens-7/run"
    assert load_run(own).config.outer.steps == load_config(path).outer.steps, "the budget is what the run itself reads"
    said = cli("compare", *command, "--output", folder)
    assert said.code == 0, said.err
    assert "4 cells, 0 to run" in said.out
    assert 'without  method.inner in joint-lora: "joint-lora" has no inner loop' in said.out
    assert (folder / "report.html").is_file()
    assert manifest_of(own)["status"] == "done"
    written = folder / "matrix.yaml"
    assert begin(written, folder).missing == []
    assert written.read_text() == begun.plan["matrix_yaml"]
    with pytest.raises(UserError, match="another matrix") as caught:
        begin(path, folder, derived=asked_for(path, "joint-lora,meta-lora", "2"))
    assert caught.value.faults[0].where.endswith("matrix.json: seeds")


@pytest.mark.parametrize(("given", "seeds"), [(None, [7]), ("3", [7, 8, 9]), ("4, 1", [4, 1])])
def test_seeds_are_counted_from_the_runs_own_or_listed(
    world: World, tmp_path: Path, given: str | None, seeds: list[int]
) -> None:
    path = config_file(world, tmp_path, "meta-lora", ROLES)
    asked = asked_for(path, "base,meta-lora,joint-lora", given)
    assert asked
    matrix = Matrix.model_validate(asked.document.tree)
    assert matrix.seeds == seeds
    assert len(cells(matrix)) == 4 * len(seeds)
    assert matrix.primary_contrast == {
        "arm": "meta-lora", "against": "joint-lora", "metric": "nats", "k": 3, "adaptation": "tuned", "budget": "tokens"
    }  # fmt: skip


def test_all_faults_come_at_once(world: World, tmp_path: Path, cli: Cli) -> None:
    path = config_file(world, tmp_path, "meta-lora", {"tasks.held_out": [], "outer.stepz": 3})
    said = cli("compare", path, "--arms", "lora,joynt,joint,joint", "--seeds", "x", "--output", tmp_path / "out")
    assert (said.code, said.out) == (2, "")
    for problem in (
        "outer.stepz",
        "no held-out task",
        "no validation task",
        'did you mean "joint',
        "named twice",
        "not seeds",
    ):
        assert problem in said.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("seeds", ["0", "-1", "1,1", "1,", "", "1001", str(2**32) + ",1", "1.5", "\u0661"])
def test_what_is_no_number_of_seeds_and_no_list(world: World, tmp_path: Path, seeds: str) -> None:
    path = config_file(world, tmp_path, "meta-lora", ROLES)
    with pytest.raises(UserError, match="--seeds: not seeds"):
        asked_for(path, "joint-lora", seeds)


def test_a_matrix_has_its_own_arms_and_a_run_has_none(world: World, tmp_path: Path) -> None:
    matrix, run = matrix_file(world, tmp_path), config_file(world, tmp_path, "meta-lora", ROLES)
    assert asked_for(matrix, None, None) is None
    for path, arms, seeds, problems in (
        (matrix, "lora,zork", None, ["no such arm", "names its arms itself"]),
        (matrix, None, "3", ["--seeds: read only with --arms"]),
        (run, None, None, ["the config of a run, and no matrix"]),
        (run, "base", None, ["no method to train"]),
    ):
        with pytest.raises(UserError) as caught:
            asked_for(path, arms, seeds)
        assert len(caught.value.faults) == len(problems)
        assert all(problem in str(caught.value) for problem in problems)
