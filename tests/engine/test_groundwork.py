"""What is wrong with a run is said before its weights are read, at once, and by every verb in the same words."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from innerloop.engine.groundwork import checked, groundwork
from innerloop.errors import UserError
from record_files import write
from small_runs import NAMES, Cli, World, config_file, files_of, records, settings

VERBS = "check", "plan", "train"


@pytest.fixture(scope="module")
def damaged(world: World, tmp_path_factory: pytest.TempPathFactory) -> World:
    """The same world, with weights that no reader takes."""
    base = tmp_path_factory.mktemp("damaged") / "base"
    shutil.copytree(world.base, base)
    (base / "model.safetensors").write_bytes(b"not weights")
    return world._replace(base=base)


def faults_of(cli: Cli, verb: str, config: Path, *argv: str) -> str:
    said = cli(verb, config, *argv)
    assert (said.code, said.out) == (2, "")
    return said.err[said.err.index("error: ") :]


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "pools": ({"tasks.support": 11}, "a batch larger than the pool"),
    "tasks a step": ({"outer.tasks_per_step": 9}, "more tasks than there are"),
    "a name": ({"tasks.held_out": ["zork"]}, "no task or family has this name"),
    "lengths": ({"tasks.max_length": 12}, "tokens, 3 of them the answer's"),
    "LoRA": ({"method.lora.target_modules": ["zork_proj"]}, "no linear module of the chosen layers has this name"),
    "layers": ({"method.lora.layers": "last-9"}, "method.lora.layers"),
    "verifier": ({"tasks.verifier": "number"}, "the answer holds no number"),
    "no tasks": ({"tasks.folder": "/no/such/folder"}, "/no/such/folder"),
}


@pytest.mark.parametrize(("changes", "problem"), WRONG.values(), ids=WRONG)
def test_check_plan_and_train_refuse_the_same_in_the_same_words_before_weights_are_read(
    cli: Cli, damaged: World, tmp_path: Path, changes: dict[str, Any], problem: str
) -> None:
    config = config_file(damaged, tmp_path, changes=changes)
    before = files_of(tmp_path)
    said = {faults_of(cli, verb, config) for verb in VERBS}
    assert len(said) == 1
    assert problem in said.pop()
    assert files_of(tmp_path) == before


def test_a_sound_config_comes_to_the_damaged_weights(cli: Cli, damaged: World, tmp_path: Path) -> None:
    """The other tests' control: those weights are noticed where they are read."""
    config = config_file(damaged, tmp_path)
    for verb in ("check", "train"):
        assert "model.name" in faults_of(cli, verb, config)
    assert cli("plan", config).code == 0, "which reads no weights"


def test_an_occupied_folder_is_refused_by_every_verb(cli: Cli, damaged: World, tmp_path: Path) -> None:
    config = config_file(damaged, tmp_path)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes").write_text("mine")
    said = {faults_of(cli, verb, config) for verb in VERBS}
    assert len(said) == 1
    assert "output_dir: this folder is not empty" in said.pop()


def test_a_folder_without_weights_is_refused_where_the_run_is_to_be(cli: Cli, world: World, tmp_path: Path) -> None:
    base = tmp_path / "base"
    shutil.copytree(world.base, base)
    (base / "model.safetensors").unlink()
    config = config_file(world._replace(base=base), tmp_path, changes={"tasks.held_out": ["zork"]})
    for verb in ("check", "train"):
        said = faults_of(cli, verb, config)
        assert "the folder has no safetensors weights" in said
        assert "no task or family has this name" in said


def test_faults_of_config_data_folder_and_model_come_at_once(world: World, tmp_path: Path) -> None:
    shutil.copytree(world.tasks, tmp_path / "tasks")
    (tmp_path / "tasks" / "bob.jsonl").write_text("{")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes").write_text("mine")
    changes = {"tasks.folder": str(tmp_path / "tasks"), "outer.steps": -1, "model.name": str(tmp_path / "nowhere")}
    with pytest.raises(UserError) as caught:
        checked(settings(world, "fomaml-lora", tmp_path / "run", changes), ["memory.zork=1"], fresh=True)
    for place in ("outer.steps", "memory.zork", "output_dir", "model.name", "bob.jsonl:1"):
        assert place in str(caught.value)


@pytest.mark.parametrize("key", ["method.name", "tasks.held_out", "tasks.support", "output_dir", "model.name"])
def test_a_key_that_is_wrong_hides_no_fault_that_does_not_follow_from_it(
    world: World, tmp_path: Path, key: str
) -> None:
    (tmp_path / "tasks").mkdir()
    write(tmp_path / "tasks" / "ada.jsonl", {"prompt": "p", "completion": None})
    tree = settings(world, "fomaml-lora", tmp_path / "run", {"tasks.folder": str(tmp_path / "tasks"), key: 7.5})
    with pytest.raises(UserError) as caught:
        checked(tree, fresh=True)
    assert key in str(caught.value)
    assert "ada.jsonl:1: completion: is null" in str(caught.value)


def test_sizes_are_those_of_the_examples_that_fit(world: World, tmp_path: Path) -> None:
    """12 examples a pool; of those at most 11 tokens long there are fewer."""
    sizes = {"tasks.support": 8, "tasks.query": 4, "tasks.max_length": 11, "tasks.on_too_long": "drop"}
    tree = settings(world, "fomaml-lora", tmp_path / "run", sizes)
    with pytest.raises(UserError, match="a batch larger than the pool"):
        checked(tree)
    assert checked(tree, ["tasks.max_length=99"]).train


# one process


@pytest.mark.parametrize("verb", VERBS)
def test_one_rank_of_several_is_refused(
    cli: Cli, world: World, tmp_path: Path, verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_file(world, tmp_path)
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "WORLD_SIZE: a run is one process on one device" in faults_of(cli, verb, config)
    assert not (tmp_path / "run").exists()
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert cli("check", config).code == 0


def test_a_plan_for_several_devices_is_refused(cli: Cli, world: World, tmp_path: Path) -> None:
    config = config_file(world, tmp_path)
    assert "--gpus: a run takes one device" in faults_of(cli, "plan", config, "--gpus", "2")
    assert cli("plan", config, "--gpus", "1").code == 0


def test_where_the_tokenizer_is_elsewhere_every_example_is_as_long_as_can_be(world: World, tmp_path: Path) -> None:
    base = tmp_path / "base"
    base.mkdir()
    shutil.copy(world.base / "config.json", base)
    from innerloop.config.loading import load_config

    config = load_config(settings(world._replace(base=base), "fomaml-lora", tmp_path / "run"))
    found = groundwork(config, away=True)
    assert found.tokenizer is None
    assert [task.task.name for task in (*found.train, *found.held_out)] == list(NAMES)
    assert {len(example.tokens) for task in found.train for example in task.pool} == {config.tasks.max_length}
    assert len(found.train[0].pool) == len(records("ada")) - config.tasks.test
    with pytest.raises(UserError, match="no safetensors weights"):
        groundwork(config)
