import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers import close
from innerloop.config.loading import load_config
from innerloop.engine import pace
from innerloop.engine.pace import fastest, paced
from innerloop.engine.session import Session, prepare
from innerloop.runs.meta_train import meta_train
from record_files import write
from small_runs import NAMES, World, manifest_of, records, settings, tensors_of


class Machine:
    """rates: number of tasks -> tokens a second; what isn't in it doesn't fit."""

    def __init__(self, rates: dict[int, float]) -> None:
        self.rates, self.asked = rates, list[int]()

    def __call__(self, count: int) -> float | None:
        self.asked.append(count)
        return self.rates.get(count)


@pytest.mark.parametrize(
    ("rates", "expected", "asked"),
    [
        ({1: 100, 2: 100, 4: 90}, 2, [2, 2, 4, 1]),
        ({1: 100, 2: 100, 4: 120, 8: 140}, 8, [2, 2, 4, 8]),
        ({1: 100, 2: 100, 4: 120, 8: 120}, 4, [2, 2, 4, 8]),
        ({1: 110, 2: 100, 4: 100}, 1, [2, 2, 4, 1]),
        ({1: 102, 2: 100, 4: 104}, 2, [2, 2, 4, 1]),  # within what a machine is off by
        ({1: 100, 2: 100}, 2, [2, 2, 4, 1]),  # twice as many don't fit
        ({1: 100}, 1, [2, 2, 4, 1]),  # nor does the guess
    ],
)
def test_the_fastest_that_fits(rates: dict[int, float], expected: int, asked: list[int]) -> None:
    machine = Machine(rates)
    assert fastest(machine, guess=2, most=8) == expected
    assert machine.asked == asked


def test_no_more_than_there_are() -> None:
    assert fastest(Machine({2: 100, 3: 120}), guess=2, most=3) == 3
    assert fastest(Machine({1: 100}), guess=1, most=1) == 1


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("INNERLOOP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def long(world: World, tmp_path: Path) -> World:
    """Tasks of which two go through one forward, by the budget of tokens."""
    (tmp_path / "tasks").mkdir()
    for name in NAMES:
        rows = [{**record, "prompt": record["prompt"] + "x" * 70} for record in records(name)]
        write(tmp_path / "tasks" / f"{name}.jsonl", *rows)
    return world._replace(tasks=tmp_path / "tasks")


def session_of(world: World, method: str = "fomaml-lora", **changes: Any) -> Session:
    config = load_config(settings(world, method, Path("unused"), {"outer.tasks_per_step": 3, **changes}))
    return prepare(config, model=world.model)


def count(session: Session) -> Any:
    return session.config.memory.tasks_per_forward


@pytest.mark.parametrize("changes", [{}, {"method.lora.layers": "last-1", "memory.trunk_cache": True}])
@pytest.mark.parametrize("method", ["fomaml-lora", "reptile-lora", "joint-lora", "maml-lora"])
def test_a_run_that_leaves_it_open_gets_a_number(
    long: World, cache: Path, method: str, changes: dict[str, Any]
) -> None:
    session = session_of(long, method, **changes)
    weights = {name: value.clone() for name, value in session.model.model.named_parameters()}
    found = paced(session)
    assert count(session) == "auto"
    assert count(found) in (1, 2, 3)
    assert json.loads((cache / "tasks-per-forward.json").read_text()).popitem()[1] == count(found)
    assert all(torch.equal(weights[name], value) for name, value in found.model.model.named_parameters())


def test_what_is_asked_for_or_clear_is_not_measured(world: World, long: World, cache: Path) -> None:
    assert count(paced(session_of(long, **{"memory.tasks_per_forward": 2}))) == 2
    assert count(paced(session_of(world))) == 3  # all of them, in fewer tokens than the budget has
    assert count(paced(session_of(long, "fomaml"))) == 1
    assert not cache.exists()


def test_a_number_is_kept_for_the_same_run_alone(long: World, cache: Path) -> None:
    path, session = cache / "tasks-per-forward.json", session_of(long)
    first = count(paced(session))
    (digest,) = json.loads(path.read_text())
    other = 1 if first != 1 else 3
    path.write_text(json.dumps({digest: other}))
    assert count(paced(session)) == other
    for name, value in {"method.lora.r": 4, "tasks.support": 4, "memory.checkpointing": True}.items():
        before = len(json.loads(path.read_text()))
        paced(session_of(long, **{name: value}))
        assert len(json.loads(path.read_text())) == before + 1, name
    seeded = session_of(long, seed=8)
    assert count(paced(seeded)) == other
    elsewhere = replace(session, model=replace(session.model, fingerprint="of other weights"))
    before = len(json.loads(path.read_text()))
    paced(elsewhere)
    assert len(json.loads(path.read_text())) == before + 1


@pytest.mark.parametrize("text", ["", "[]", '{"x": 1}', "\x00", '{"%s": 0}', '{"%s": "2"}', '{"%s": true, "y": null}'])
def test_a_damaged_file_is_measured_again(long: World, cache: Path, text: str) -> None:
    session = session_of(long)
    cache.mkdir()
    (cache / "tasks-per-forward.json").write_text(text.replace("%s", pace._digest(session)))  # pyright: ignore[reportPrivateUsage]
    assert count(paced(session)) in (1, 2, 3)


def test_a_folder_that_cannot_be_written_is_no_fault(
    long: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("INNERLOOP_CACHE", str(tmp_path / "file"))
    assert count(paced(session_of(long))) in (1, 2, 3)


def test_the_number_is_written_down_and_changes_no_tensor(long: World, cache: Path, tmp_path: Path) -> None:
    tensors = []
    for number in ("auto", 1):
        changes = {"outer.tasks_per_step": 3, "memory.tasks_per_forward": number}
        folder = tmp_path / f"run-{number}"
        meta_train(settings(long, "fomaml-lora", folder, changes), model=long.model)
        written = manifest_of(folder)
        assert written["config"]["memory"]["tasks_per_forward"] == written["plan"]["tasks_per_forward"] in (1, 2, 3)
        tensors.append(tensors_of(folder))
    assert close(*tensors, 1e-4)
