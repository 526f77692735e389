"""A matrix that can't be is refused with everything that is wrong with it, each fault once, and what would be right."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as limits
from hypothesis import strategies as st

from innerloop.comparison.matrix import Matrix
from innerloop.comparison.reading import sound_matrix
from innerloop.config.document import to_yaml
from innerloop.config.schema import ABSENT
from innerloop.errors import Faults, UserError
from innerloop.learning.methods import METHODS
from small_matrices import read_matrix, small
from small_runs import World


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Reading a matrix needs neither the model nor the tasks."""
    folder = tmp_path_factory.mktemp("bare")
    return World(folder / "no model", folder / "no tasks", None)  # pyright: ignore[reportArgumentType]


def written(tree: Any, folder: Path) -> Path:
    path = folder / "m.yaml"
    path.write_text(to_yaml(tree))
    return path


def faults_of(bare: World, changes: dict[str, Any], folder: Path) -> list[tuple[str, str]]:
    """(where, problem) of each, without the file's name."""
    path = written(small(bare, changes), folder)
    with pytest.raises(UserError) as caught:
        read_matrix(path)
    assert caught.value.exit_code == 2
    places = [fault.where.removeprefix(f"{path}: ").partition(" (line")[0] for fault in caught.value.faults]
    return [(place, fault.problem) for place, fault in zip(places, caught.value.faults, strict=True)]


def expected_of(bare: World, changes: dict[str, Any], folder: Path) -> str:
    with pytest.raises(UserError) as caught:
        read_matrix(written(small(bare, changes), folder))
    (fault,) = caught.value.faults
    return fault.expected


def test_a_sound_matrix_loads(bare: World, tmp_path: Path) -> None:
    tree = small(bare)
    assert read_matrix(written(tree, tmp_path)) == Matrix.model_validate(tree)
    faults = Faults()
    assert sound_matrix(written(tree, tmp_path), faults) == Matrix.model_validate(tree)
    assert not faults


@pytest.mark.parametrize(
    ("key", "suggestion"),
    [
        ("arm", "arms"),
        ("runs.al", "all"),
        ("budgets.token", "tokens"),
        ("cost_only.step", "steps"),
        ("evaluation.drawz", "draws"),
        ("evaluation.grid.lorra", "lora"),
        ("evaluation.grid.lora.lrs", "lr"),
        ("evaluation.targets.acuracy", "accuracy"),
    ],
)
def test_an_unknown_key_is_answered_with_the_nearest_of_its_section(
    bare: World, tmp_path: Path, key: str, suggestion: str
) -> None:
    assert faults_of(bare, {key: {}}, tmp_path) == [(key, "unknown key")]
    assert expected_of(bare, {key: {}}, tmp_path) == f'did you mean "{suggestion}"?'


@pytest.mark.parametrize(
    ("key", "value", "right"),
    [
        ("name", "", "text"),
        ("budgets.tokens", 0, "whole number above 0"),
        ("budgets.tokens", "54_000", "whole number above 0"),
        ("budgets.examples", 1.5, "whole number above 0"),
        ("budgets.seconds", -1, "number above 0"),
        ("seeds", [], "list of different whole numbers"),
        ("seeds", [1, 1], "list of different whole numbers"),
        ("seeds", [2**32], "list of different whole numbers"),
        ("evaluation.k", [0, 4, 4], "list of different whole numbers"),
        ("evaluation.k", [-1], "list of different whole numbers"),
        ("evaluation.draws", 0, "whole number above 0"),
        ("evaluation.grid.all.lr", [0.0], "list of numbers above 0"),
        ("evaluation.grid", 3, "a section with lora, all"),
        ("evaluation.forgetting_prompts", 201, "from 0 to 200"),
        ("evaluation.targets.accuracy", 1.1, "at most 1"),
        ("runs.lora", None, "part of a run.yaml"),
        ("arms", {}, "map of arms"),
        ("arms.lora", None, "map of arms"),
        ("cost_only.arms", ["joint"], "map of methods"),
        ("cost_only", "joint", "a section with steps, arms"),
    ],
)
def test_a_wrong_value_is_told_what_the_key_takes(
    bare: World, tmp_path: Path, key: str, value: Any, right: str
) -> None:
    found = faults_of(bare, {key: value}, tmp_path)
    assert {problem for _, problem in found} == {"not a value that this key takes"}
    assert {where == key or where.startswith(f"{key}.") for where, _ in found} == {True}
    assert right in expected_of(bare, {key: value}, tmp_path)


@pytest.mark.parametrize("key", ["name", "runs", "runs.every", "arms", "budgets", "seeds", "cost_only.arms"])
def test_what_has_to_be_given(bare: World, tmp_path: Path, key: str) -> None:
    assert faults_of(bare, {key: ABSENT}, tmp_path) == [(key, "missing")]


@pytest.mark.parametrize("key", ["cost_only", "evaluation", "runs.lora", "runs.all", "primary"])
def test_what_may_be_left_out(bare: World, tmp_path: Path, key: str) -> None:
    read_matrix(written(small(bare, {"runs.lora.memory": ABSENT, key: ABSENT}), tmp_path))


# arms


def test_an_unknown_arm_is_answered_with_the_nearest(bare: World, tmp_path: Path) -> None:
    nearest = {"arms.fomal-lora": "fomaml-lora", "arms.in_context": "in-context", "cost_only.arms.jont": "joint"}
    for key, near in nearest.items():
        assert faults_of(bare, {key: {}}, tmp_path) == [(key, "no such arm")]
        assert expected_of(bare, {key: {}}, tmp_path) == f'did you mean "{near}"?'
    assert faults_of(bare, {"cost_only.arms.base": {}}, tmp_path) == [("cost_only.arms.base", "no such arm")]
    assert all(name in expected_of(bare, {"arms.zork": {}}, tmp_path) for name in ("base", "in-context", *METHODS))


def test_an_arm_that_trains_nothing_takes_no_options(bare: World, tmp_path: Path) -> None:
    for arm in ("base", "in-context"):
        options = {f"arms.{arm}": {"outer": {"steps": 3}}}
        assert faults_of(bare, options, tmp_path) == [(f"arms.{arm}", "this arm trains nothing")]


def test_no_budget(bare: World, tmp_path: Path) -> None:
    assert faults_of(bare, {"budgets": {}}, tmp_path) == [("budgets", "no budget")]


def test_lora_options_for_an_arm_that_trains_all_parameters(bare: World, tmp_path: Path) -> None:
    lora = {"method": {"lora": {"r": 4}}}
    for key in ("arms.joint", "cost_only.arms.fomaml", "runs.all"):
        found = faults_of(bare, {key: lora}, tmp_path)
        assert {where for where, _ in found} <= {"arm joint: method.lora", "arm fomaml: method.lora"}
        assert all("trains all parameters and reads no LoRA option" in problem for _, problem in found)
        assert len(found) == (2 if key == "runs.all" else 1)


def test_a_fault_that_all_arms_share_is_told_once(bare: World, tmp_path: Path) -> None:
    changes = {"runs.every.model.dtyp": "float32", "runs.every.tasks.test": 0, "runs.lora.method.lora.rank": 3}
    assert sorted(faults_of(bare, changes, tmp_path)) == [
        ("runs: method.lora.rank", "unknown key"),
        ("runs: model.dtyp", "unknown key"),
        ("runs: tasks.test", "not a value that this key takes"),
    ]


PRIMARY = {"arm": "meta-lora", "against": "joint-lora", "metric": "nats", "k": 4, "adaptation": "tuned"}


def test_a_primary_contrast_is_one_that_the_matrix_scores(bare: World, tmp_path: Path) -> None:
    given = {"evaluation.k": [0, 4, 8], "budgets.seconds": 5.0}
    for sound in ({}, {"k": 0}, {"budget": "seconds"}, {"arm": "in-context"}, {"arm": "base", "k": 0}):
        matrix = read_matrix(written(small(bare, {**given, "primary": PRIMARY | sound}), tmp_path))
        assert matrix.primary is not None
    for changes, where in (
        ({"arm": "meta-lor"}, {"arm"}),
        ({"against": "maml-lora"}, {"against"}),
        ({"against": "meta-lora"}, {"against"}),
        ({"k": 5}, {"k"}),
        ({"arm": "base"}, {"arm"}),
        ({"against": "in-context", "k": 0}, {"against"}),
        ({"budget": "examples"}, {"budget"}),
        ({"metric": "stop_nats"}, {"metric"}),
        ({"adaptation": "none"}, {"adaptation"}),
        ({"arm": "x", "against": "y", "k": 3, "budget": "examples"}, {"arm", "against", "k", "budget"}),
    ):
        found = faults_of(bare, {**given, "primary": PRIMARY | changes}, tmp_path)
        assert {place for place, _ in found} == {f"primary.{name}" for name in where}
        assert len(found) == len(where)
    for key in PRIMARY:
        incomplete = {name: value for name, value in PRIMARY.items() if name != key}
        assert faults_of(bare, {"primary": incomplete}, tmp_path) == [(f"primary.{key}", "missing")]


def test_a_primary_contrast_is_told_with_its_budget_and_without_what_k_0_has_none_of(
    bare: World, tmp_path: Path
) -> None:
    matrix = read_matrix(written(small(bare, {"primary": PRIMARY}), tmp_path))
    assert matrix.primary_contrast == PRIMARY | {"budget": "tokens"}
    matrix = read_matrix(written(small(bare, {"primary": PRIMARY | {"k": 0}}), tmp_path))
    assert matrix.primary_contrast == PRIMARY | {"budget": "tokens", "k": 0, "adaptation": "none"}
    assert read_matrix(written(small(bare), tmp_path)).primary_contrast is None


def test_what_the_matrix_says_itself_is_said_nowhere_else(bare: World, tmp_path: Path) -> None:
    for key, value in {"method.name": "lora", "seed": 3, "output_dir": "x", "outer.steps": 7}.items():
        for place in ("runs.every", "runs.all", "arms.lora", "cost_only.arms.fomaml"):
            changes = {f"{place}.{key}": value}
            assert faults_of(bare, changes, tmp_path) == [(f"{place}.{key}", "the matrix says this itself")]


def test_an_arm_can_not_change_what_all_are_scored_on(bare: World, tmp_path: Path) -> None:
    """With fewer test examples, what others are tested on would be in its pool."""
    shared = {"tasks.test": 1, "tasks.held_out": ["ada"], "model.name": "x", "model.dtype": "bfloat16"}
    for key, value in shared.items():
        for place in ("runs.lora", "runs.all", "arms.meta-lora", "cost_only.arms.fomaml"):
            changes = {f"{place}.{key}": value}
            assert faults_of(bare, changes, tmp_path) == [(f"{place}.{key}", "this is the same for every arm")]
    read_matrix(written(small(bare, {"arms.meta-lora.tasks": {"examples_per_task": 7, "support": 4}}), tmp_path))


@pytest.mark.parametrize("place", ["runs.every", "runs.lora", "arms.lora"])
@pytest.mark.parametrize("name", ["method", "outer", "tasks"])
def test_a_section_is_not_silently_replaced(bare: World, tmp_path: Path, place: str, name: str) -> None:
    found = faults_of(bare, {f"{place}.{name}": 5}, tmp_path)
    assert (f"{place}.{name}", "not a value that this key takes") in found


def test_all_faults_come_at_once_and_each_once(bare: World, tmp_path: Path) -> None:
    changes = {
        "nam": "x",
        "evaluation.drawz": 2,
        "budgets": {},
        "arms.fomal-lora": {},
        "arms.base.seed": 3,
        "arms.joint.method.lora.r": 4,
        "arms.meta-lora.method.inner.step": 4,
        "arms.lora.outer.steps": 4,
        "cost_only.arms.zork": {},
    }
    found = faults_of(bare, changes, tmp_path)
    assert len(found) == len(set(found)) == len(changes)
    assert {where for where, _ in found} == {
        "nam",
        "evaluation.drawz",
        "budgets",
        "arms.fomal-lora",
        "arms.base",
        "arm joint: method.lora",
        "arm meta-lora: method.inner.step",
        "arms.lora.outer.steps",
        "cost_only.arms.zork",
    }


def test_the_sound_part_lacks_only_what_is_wrong(bare: World, tmp_path: Path) -> None:
    changes = {"nam": "x", "arms.fomal-lora": {}, "arms.joint.method.lora.r": 4, "cost_only.arms.zork": {}}
    faults = Faults()
    part = sound_matrix(written(small(bare, changes), tmp_path), faults)
    assert part == Matrix.model_validate(small(bare, {"arms.joint": ABSENT}))
    assert len(faults) == len(changes)
    for hopeless in ({"seeds": "x"}, {"runs.every.model.dtyp": 1}):
        assert sound_matrix(written(small(bare, hopeless), tmp_path), Faults()) is None


def test_a_fault_names_its_line(bare: World, tmp_path: Path) -> None:
    path = written(small(bare, {"evaluation.drawz": 2}), tmp_path)
    line = next(number for number, text in enumerate(path.read_text().splitlines(), 1) if "drawz" in text)
    with pytest.raises(UserError, match=rf"m\.yaml: evaluation\.drawz \(line {line}\): unknown key"):
        read_matrix(path)


def test_files_that_are_no_matrix(tmp_path: Path) -> None:
    for text, problem in (("[1, 2]", "not a mapping"), ("a: [", "not valid YAML"), ("", "missing")):
        (tmp_path / "m.yaml").write_text(text)
        with pytest.raises(UserError, match=problem):
            read_matrix(tmp_path / "m.yaml")
    with pytest.raises(UserError, match="there is no such file"):
        read_matrix(tmp_path / "none.yaml")


# whatever is written


def _places(tree: Any, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Every key on the way to every value."""
    inside = tree.items() if isinstance(tree, dict) else ()
    return [*([path] if path else []), *(place for key, value in inside for place in _places(value, (*path, key)))]


SCALARS = st.none() | st.booleans() | st.integers(-2, 9) | st.floats() | st.text("abk-. {", max_size=4)
KEYS = st.sampled_from(["lora", "steps", "x"])
ANYTHING = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3), max_leaves=5
)


@limits(max_examples=60, deadline=None)
@given(st.data())
def test_any_value_anywhere_loads_or_is_refused(
    bare: World, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    tree = json.loads(json.dumps(small(bare)))
    for place in data.draw(st.lists(st.sampled_from(_places(tree)), min_size=1, max_size=2)):
        section = tree
        for name in place[:-1]:
            section = section.get(name) if isinstance(section, dict) else None
        if isinstance(section, dict):
            section[place[-1]] = data.draw(ANYTHING)
    faults = Faults()
    part = sound_matrix(written(tree, tmp_path_factory.getbasetemp()), faults)
    assert part is not None or faults
    assert len({str(fault) for fault in faults}) == len(faults), "each once"
