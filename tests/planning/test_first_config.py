"""A first config from a look at the data: sound, of sizes that every task allows, and never written over a file."""

from pathlib import Path

import pytest

from innerloop.config.document import Document
from innerloop.config.loading import load_config
from innerloop.engine.groundwork import groundwork
from innerloop.errors import Faults, UserError
from innerloop.planning.first_config import FEWEST, LEAST, MOST, FirstConfig, first_config
from record_files import write
from small_runs import Cli, World, records


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


def config_of(found: FirstConfig, folder: Path) -> Path:
    path = folder / "run.yaml"
    path.write_text(found.text)
    return path


@pytest.mark.parametrize("method", ["meta-lora", "fomaml", "reptile-lora", "lora"])
def test_what_is_written_passes_every_check_as_it_stands(world: World, tmp_path: Path, method: str) -> None:
    config = load_config(config_of(first_config(world.tasks, model=str(world.base), method=method), tmp_path))
    ground = groundwork(config, fresh=True)
    assert ground.train
    assert ground.held_out
    assert config.method.name == method
    assert FEWEST <= config.outer.steps <= MOST
    assert config.memory.trunk_cache == method.endswith("lora")


def test_sizes_are_those_that_the_smallest_task_allows(world: World, data: Path, tmp_path: Path) -> None:
    for name, rows in (("big", 14), ("less", LEAST), ("small", LEAST), ("tiny", LEAST - 1)):
        write(data / f"{name}.jsonl", *records(name)[:rows])
    found = first_config(data, model=str(world.base))
    config = load_config(config_of(found, tmp_path))
    assert config.tasks.only == ("big", "less", "small")
    assert (config.tasks.support, config.tasks.query, config.tasks.test) == (2, 2, 2)
    assert "1 left out" in found.lines[0]
    groundwork(config)
    larger = load_config(config_of(found, tmp_path), ["tasks.support=3"])
    with pytest.raises(UserError, match="larger than the pool"):  # one example more is more than there are
        groundwork(larger)


def test_the_longest_example_gives_the_length(world: World, data: Path, tmp_path: Path) -> None:
    long = {"prompt": "x" * 150, "completion": " y"}
    for name in ("one", "two"):
        write(data / f"{name}.jsonl", *records(name), long)
    config = load_config(config_of(first_config(data, model=str(world.base)), tmp_path))
    assert 150 < config.tasks.max_length <= 192
    assert config.tasks.on_too_long == "error"
    too_long = {"prompt": "x" * 2000, "completion": " y"}
    write(data / "two.jsonl", *records("two"), too_long)
    config = load_config(config_of(first_config(data, model=str(world.base)), tmp_path))
    assert config.tasks.on_too_long == "drop"
    groundwork(config)


def test_data_without_enough_examples_is_refused(world: World, data: Path) -> None:
    write(data / "few.jsonl", *records("few")[: LEAST - 1])
    with pytest.raises(UserError, match=f"no task has {LEAST} different prompts"):
        first_config(data, model=str(world.base))


def test_init_writes_a_config_that_train_reads_and_overwrites_nothing(cli: Cli, world: World, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    said = cli("init", world.tasks, "--output", path, "--model", world.base)
    assert said.code == 0
    assert said.out.endswith(f"wrote    {path}\nnext     innerloop train {path}\n")
    assert Document.read(path, Faults()).tree["model"]["name"] == str(world.base)
    before = path.read_bytes()
    assert cli("init", world.tasks, "--output", path).code == 2
    assert cli("init", tmp_path / "gone", "--output", tmp_path / "other.yaml").code == 2
    assert cli("init", world.tasks, "--output", tmp_path / "other.yaml", "--method", "zork").code == 2
    assert path.read_bytes() == before
    assert not (tmp_path / "other.yaml").exists()
