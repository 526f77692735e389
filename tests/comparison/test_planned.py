"""What a comparison says of itself before it runs: its tasks, its cells, and the effect that it could detect."""

from dataclasses import replace
from pathlib import Path

import pytest

from innerloop.comparison.matrix import cells, common_config
from innerloop.comparison.planned import ASSUMED, planned, protocol_facts
from innerloop.engine.session import Session, prepare
from innerloop.results.statistics import detectable_effect
from small_matrices import HELD_OUT, TEST, TRAIN, VALIDATION, matrix_file, read_matrix
from small_runs import World


@pytest.fixture(scope="module")
def file(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return matrix_file(world, tmp_path_factory.mktemp("planned"), {})


@pytest.fixture(scope="module")
def session(world: World, file: Path) -> Session:
    return prepare(common_config(read_matrix(file), 1), model=world.model)


def test_the_plan_has_the_file_its_cells_and_a_command_that_runs_it(file: Path, session: Session) -> None:
    matrix = read_matrix(file)
    said = planned(matrix, session, path=file, folder=Path("out/my comparison"))
    assert said["matrix_yaml"] == file.read_text()
    assert said["command"] == f"innerloop compare {file} --output 'out/my comparison'"
    assert len(said["cells"]) == len(list(cells(matrix))) > 4
    assert type(matrix).model_validate(said["matrix"]) == matrix


def test_roles_and_sizes_are_those_of_the_session(session: Session) -> None:
    said = protocol_facts(session, k=(4, 0), draws=3, seeds=(2, 1))
    assert said["protocol"] == {
        "k": [0, 4], "draws": 3, "seeds": [2, 1], "test_examples": TEST,
        "train": TRAIN, "validation": VALIDATION, "held_out": HELD_OUT,
    }  # fmt: skip
    assert said["notes"][0] == "1 held-out tasks: valid for these tasks only"


def test_the_effect_is_the_statistics_own_for_as_many_tasks_and_seeds(session: Session) -> None:
    one = protocol_facts(session, k=(4,), draws=1, seeds=(1, 2, 3))["detectable"]
    assert one.keys() == {"assumptions"}, "one task says nothing of a method"
    many = replace(session, held_out=session.held_out * 12)
    said = protocol_facts(many, k=(4,), draws=1, seeds=(1, 2, 3))["detectable"]
    assert said["nats"] == detectable_effect(ASSUMED["nats"], tasks=12, seeds=3)
    assert protocol_facts(many, k=(4,), draws=1, seeds=(1,))["detectable"].keys() == {"assumptions"}
