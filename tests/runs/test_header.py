"""What a run says before its first step is what it then does."""

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from innerloop.config.loading import load_config
from innerloop.engine.session import Session, prepare
from innerloop.errors import RunError
from innerloop.learning.methods import METHODS
from innerloop.runs.header import header_of
from innerloop.spaces.space import Trained
from small_runs import World, settings


def session_of(world: World, method: str, **changes: Any) -> Session:
    return prepare(load_config(settings(world, method, Path("unused"), changes)), model=world.model)


@pytest.mark.parametrize("method", METHODS)
def test_the_plan_names_what_is_trained(world: World, method: str) -> None:
    session = session_of(world, method)
    what, space = header_of(session), session.space()
    trained = sum(value.numel() for value in space.shared.values())
    whole = sum(parameter.numel() for parameter in world.model.model.parameters())
    assert (what.trained.parameters, what.trained.model_parameters) == (trained, whole)
    assert (trained == whole) == (METHODS[method].space.trains_base)
    assert (what.tasks, what.adapters) == ((2, 2) if method == "lora" else (3, 1))
    assert what.tokens_per_step == session.config.method.build().tokens(session.streams()[0][1][0])
    text = "\n".join(what.lines())
    assert f"method   {method} ({METHODS[method].title})" in text
    assert f"{trained:,} parameters" in text
    assert f"{100 * trained / whole:.2f} %" in text
    assert ("adapters 2" in text) == (method == "lora")


def test_the_plan_says_both_loops_in_words(world: World) -> None:
    """And the facts, which are the manifest's."""
    what = header_of(session_of(world, "meta-lora", **{"method.inner.optimizer": {"name": "adamw", "lr": 1e-3}}))
    inner = "2 steps on all 3 support examples, adamw at lr 0.001, betas 0.9 and 0.99, eps 1e-08, unclipped"
    outer = (
        "adamw at lr 0.002, betas 0.9 and 0.999, eps 1e-08, gradients clipped to 1, the mean gradient of a step's tasks"
    )
    assert {f"inner    {inner}", f"outer    {outer}"} <= set(what.lines())
    assert (what.facts()["inner"], what.facts()["outer"]) == (inner, outer)
    changes = {
        "method.inner.steps": 1,
        "method.inner.batch_size": 2,
        "method.inner.optimizer": {"loraplus_lr_ratio": 4},
        "outer.optimizer.weight_decay": 0.1,
    }
    what = header_of(session_of(world, "fomaml-lora", **changes))
    assert what.inner == (
        "1 step on 2 support examples, sgd at lr 0.3, LoRA's B 4 times faster, gradients clipped to 1"
    )
    assert "weight decay 0.1 of matrices" in what.outer
    without = header_of(session_of(world, "joint-lora"))
    assert without.inner is None
    assert not any(line.startswith("inner") for line in without.lines())


def test_the_plan_says_what_will_be_evaluated_and_how_often(world: World) -> None:
    changes = {"tasks.validation": ["ada"], "outer.steps": 9, "evaluate.every": 4, "evaluate.patience": 2}
    what = header_of(session_of(world, "fomaml-lora", **changes))
    said = "1 validation task after 3 examples each, at the start and every 4 steps: 4 times"
    ends = "ends after 2 evaluations without a better one; the best values by nats are exported"
    assert f"evaluate {said}; {ends}" in what.lines()
    without = header_of(session_of(world, "fomaml-lora"))
    assert without.validation is None
    assert not any(line.startswith("evaluate") for line in without.lines())


def test_the_facts_are_json_with_names(world: World) -> None:
    what = header_of(session_of(world, "fomaml-lora"))
    facts = json.loads(json.dumps(what.facts()))
    assert facts["trained"]["parameters"] == what.trained.parameters
    assert facts["trained"]["percent"] == pytest.approx(what.trained.percent)
    assert facts["steps"] == 2
    assert facts.keys() == vars(what).keys()


def test_the_plan_counts_what_was_dropped_and_cached(world: World, tmp_path: Path) -> None:
    for file in world.tasks.iterdir():
        first = file.read_text().splitlines()[0] + "\n"
        (tmp_path / file.name).write_text(first + file.read_text())
    changes = {
        "tasks.folder": str(tmp_path),
        "method.lora.layers": "last-1",
        "memory.trunk_cache": True,
        "tasks.max_length": 12,
        "tasks.on_too_long": "drop",
    }
    what = header_of(session_of(world, "fomaml-lora", **changes))
    assert what.dropped["repeated"] == 4
    assert what.dropped["too long"] > 0
    kept = "outputs of the frozen layers 0-0 are computed once per example and kept (up to 16 GB)"
    assert f"cache    {kept}" in what.lines()
    assert f"dropped  {what.dropped['too long']} too long" in what.lines()
    plain = header_of(session_of(world, "fomaml-lora"))
    assert (plain.dropped, plain.cached_layers) == ({}, 0)
    assert not any(line.startswith(("cache", "dropped")) for line in plain.lines())


class Nothing(Session):
    """A session whose space trains no tensor."""

    def space(self) -> Any:
        return self

    def trained(self) -> Trained:
        return Trained(0, 0, 100, "float32", ())


def test_a_run_that_would_train_nothing_refuses_to_start(world: World) -> None:
    session = session_of(world, "fomaml-lora")
    assert header_of(replace(session)).trained.parameters > 0
    with pytest.raises(RunError, match="fomaml-lora would train nothing"):
        header_of(Nothing(**{field.name: getattr(session, field.name) for field in fields(session) if field.init}))


@pytest.mark.parametrize(
    ("method", "changes", "kept"),
    [
        ("fomaml", {}, False),
        ("fomaml", {"method.inner.clip": 1.0}, True),
        ("fomaml", {"method.inner.optimizer": {"name": "adamw", "lr": 1e-3}}, True),
        ("joint", {}, False),
        ("fomaml-lora", {"method.inner.clip": 1.0}, False),
    ],
)
def test_the_plan_says_where_whole_gradients_are_kept(
    world: World, method: str, changes: dict[str, Any], kept: bool
) -> None:
    what = header_of(session_of(world, method, **changes))
    assert what.keeps_full_gradient == kept
    assert any("full gradient is kept" in line for line in what.lines()) == kept
