"""Learned rates on disk: written by a run, read by load_run, and refused where they are not as the run wrote them."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from helpers import close, same
from innerloop.artifacts.finished import DamagedError, finished
from innerloop.artifacts.rates_file import RATES, read_rates, write_rates
from innerloop.engine.parts import fresh_rates_of
from innerloop.errors import UserError
from innerloop.files import MANIFEST, file_digest
from innerloop.runs.learned import Learned
from innerloop.runs.meta_train import meta_train
from innerloop.runs.reloading import load_run
from small_runs import World, settings

CHANGES = {"method.inner.learned_rates": "tensor-step", "outer.rates_lr": 0.3, "outer.steps": 4}
ROWS = [{"prompt": f"{number}+1:", "completion": f" {number + 1}"} for number in range(4)]


@pytest.fixture(scope="module")
def learned(world: World, tmp_path_factory: pytest.TempPathFactory) -> Learned:
    folder = tmp_path_factory.mktemp("rates") / "run"
    return meta_train(settings(world, "fomaml-lora", folder, CHANGES), model=world.model)


@pytest.fixture
def folder(learned: Learned, tmp_path: Path) -> Path:
    return Path(shutil.copytree(learned.folder, tmp_path / "run"))


def test_what_a_run_learned_of_its_rates_is_what_adapts(world: World, learned: Learned) -> None:
    again = load_run(learned.folder, model=world.model)
    assert learned.rates is not None
    assert again.rates is not None
    assert same(again.rates.logs, learned.rates.logs)
    assert any(value.abs().max() > 0.3 for value in again.rates.logs.values()), "some moved"
    one, other = (each.adapt(ROWS).values for each in (learned, again))
    assert same(one, other)
    plain = Learned(learned.config, learned.model, learned.space, learned.folder)
    assert not close(plain.adapt(ROWS).values, one, 1e-4), "the control: without the rates"


@pytest.mark.parametrize("kind", ["tensor", "entry"])
def test_a_run_that_goes_on_ends_with_the_same_rates(world: World, tmp_path: Path, kind: str) -> None:
    changes = {**CHANGES, "method.inner.learned_rates": kind, "save.every": 1}
    whole = meta_train(settings(world, "meta-lora", tmp_path / "whole", changes), model=world.model)

    class Stop(Exception):  # noqa: N818
        pass

    def stop(_: str, metrics: object) -> None:
        if getattr(metrics, "step", 0) == 2:
            raise Stop

    config = settings(world, "meta-lora", tmp_path / "parts", changes)
    with pytest.raises(Stop):
        meta_train(config, model=world.model, on_step=stop)
    parts = meta_train(config, model=world.model, resume=True)
    assert whole.rates is not None
    assert parts.rates is not None
    assert same(parts.rates.logs, whole.rates.logs)
    assert same(parts.space.shared, whole.space.shared)


def _renamed(path: Path) -> None:
    values = load_file(path)
    first = next(iter(values))
    save_file({**{name: value for name, value in values.items() if name != first}, "more": values[first]}, path)


def _shaped(path: Path) -> None:
    save_file({name: value.repeat(2) for name, value in load_file(path).items()}, path)


def _infinite(path: Path) -> None:
    save_file({name: torch.full_like(value, float("inf")) for name, value in load_file(path).items()}, path)


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (_renamed, ["missing", "this run doesn't have"]),
        (_shaped, ["bytes|shape"]),
        (_infinite, ["infinity"]),
        (lambda path: path.write_bytes(b"{}"), ["not a safetensors file"]),
    ],
)
def test_a_file_of_somebody_else_is_checked(
    world: World, learned: Learned, folder: Path, harm: Callable[[Path], None], words: list[str]
) -> None:
    harm(folder / RATES)
    with pytest.raises(DamagedError, match="not as the run wrote it"):
        load_run(folder, model=world.model)
    said = json.loads((folder / MANIFEST).read_text())
    said["weights"][RATES] = file_digest(folder / RATES)
    (folder / MANIFEST).write_text(json.dumps(said))
    fresh = fresh_rates_of(learned.config, learned.space)
    assert fresh is not None
    for word in words:
        with pytest.raises(UserError, match=word):
            read_rates(finished(folder), fresh)


def test_a_file_that_is_gone_is_named(world: World, folder: Path) -> None:
    (folder / RATES).unlink()
    with pytest.raises(UserError, match="no file of the rates"):
        load_run(folder, model=world.model)


def test_what_is_written_is_read(learned: Learned, folder: Path) -> None:
    assert learned.rates is not None
    doubled = {name: 2 * value for name, value in learned.rates.logs.items()}
    path = write_rates(folder, doubled)
    assert same(load_file(path), doubled)
