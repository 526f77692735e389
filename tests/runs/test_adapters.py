"""A run's adapters one after the other: which steps are taken, what is counted, and what a later start takes over."""

from pathlib import Path
from typing import Any

import pytest

from innerloop.config.loading import load_config
from innerloop.engine.metrics import Metrics
from innerloop.engine.session import Session, prepare
from innerloop.errors import RunError
from innerloop.runs.adapters import MetaRun, fill_trunk, fit
from innerloop.runs.checkpoint import Saved
from innerloop.runs.journal import Journal
from small_runs import World, settings


def session_of(world: World, method: str, folder: Path, **changes: Any) -> Session:
    return prepare(load_config(settings(world, method, folder, changes)), model=world.model)


def opened(session: Session, **told: Any) -> MetaRun:
    folder = session.config.output_dir
    folder.mkdir()
    about = {"config": session.config.resolved(), "model": {}}
    return MetaRun(session, Journal(folder, about), **{"start": None} | told)


def test_fit_takes_the_steps_that_are_left_and_reports_each(world: World) -> None:
    session = session_of(world, "fomaml-lora", Path("unused"))
    ((_, batches),) = session.streams()
    seen: list[tuple[str, Metrics]] = []
    trainer = session.trainer(session.space(), batches)
    fit(trainer, batches, 3, name="x", on_step=lambda *said: seen.append(said))
    assert [(name, metrics.step) for name, metrics in seen] == [("x", 1), ("x", 2), ("x", 3)]
    assert [metrics.tokens for _, metrics in seen] == [trainer.method.tokens(batches[step]) for step in range(3)]
    fit(trainer, batches, 4, name="y", on_step=lambda *said: seen.append(said))
    assert [(name, metrics.step) for name, metrics in seen[3:]] == [("y", 4)]
    whole = session.trainer(session.space(), batches)
    fit(whole, batches, 4, name="z", on_step=lambda *said: seen.append(said))
    assert [metrics for _, metrics in seen[4:]] == [metrics for _, metrics in seen[:4]]


def test_a_run_trains_every_adapter_and_counts_all_their_tokens(world: World, tmp_path: Path) -> None:
    session = session_of(world, "lora", tmp_path / "run")
    told: list[tuple[str, Metrics]] = []
    run = opened(session, on_step=lambda *said: told.append(said))
    assert run.run().folder == tmp_path / "run"
    assert [(name, metrics.step) for name, metrics in told] == [("cy", 1), ("cy", 2), ("dee", 1), ("dee", 2)]
    facts = run.facts()
    assert facts["tokens"] == sum(metrics.tokens for _, metrics in told) > 0
    assert sorted(facts["weights"]) == [f"adapters/{name}/adapter_model.safetensors" for name in ("cy", "dee")]
    assert run.journal.metrics.count("\n") == 4


def test_nothing_is_saved_before_the_first_step(world: World, tmp_path: Path) -> None:
    run = opened(session_of(world, "fomaml-lora", tmp_path / "run"))
    run.save()
    before = {path.name for path in (tmp_path / "run").iterdir()}
    run.run()
    run.save()
    assert {path.name for path in (tmp_path / "run").iterdir()} - before >= {"adapter", "checkpoints"}


def test_the_most_memory_is_that_of_all_starts(world: World, tmp_path: Path) -> None:
    session = session_of(world, "fomaml-lora", tmp_path / "run")
    counts = {"tokens": 5, "computed_tokens": 6, "skipped_tasks": 7}
    before = {"adapter": 0, "weights": {}, "host": {"peak_bytes": {"rss": 10**15}}, "timing": {"seconds": 100.0}}
    run = opened(session, start=Saved(0, {}, {**before, **counts}, ""))
    facts = run.facts()
    assert facts["host"]["peak_bytes"]["rss"] == 10**15
    assert 100 <= facts["timing"]["seconds"] < 200
    assert {name: facts[name] for name in counts} == counts
    fresh = MetaRun(session, run.journal, start=None).facts()
    assert fresh["host"]["peak_bytes"]["rss"] < 10**15
    assert fresh["tokens"] == 0


def test_an_export_that_was_changed_since_ends_the_run(world: World, tmp_path: Path) -> None:
    session = session_of(world, "lora", tmp_path / "run")
    first = opened(session)
    first.run()
    again = MetaRun(session, first.journal, start=None)
    again.weights = dict(first.weights)
    name = min(again.weights)
    with (tmp_path / "run" / name).open("ab") as file:
        file.write(b"x")
    with pytest.raises(RunError, match=name):
        again.run()


@pytest.mark.parametrize("cut", [False, True])
def test_only_below_a_cut_are_hidden_states_kept(world: World, cut: bool) -> None:
    changes = {"method.lora.layers": "last-1", "memory.trunk_cache": True} if cut else {}
    session = session_of(world, "fomaml-lora", Path("unused"), **changes)
    ((_, batches),) = session.streams()
    told: list[tuple[str, int, int]] = []
    fill_trunk(session.trainer(session.space(), batches), batches, 2, say=lambda *said: told.append(said))
    assert bool(told) == bool(session.cut) == cut
    assert {stage for stage, _, _ in told} == ({"hidden states"} if cut else set())
