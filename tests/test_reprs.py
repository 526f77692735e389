"""What a person meets in a Python session says in a short line what it is, whatever it holds."""

from typing import Any

import pytest

from innerloop.config.loading import load_config
from innerloop.engine.groundwork import groundwork
from innerloop.engine.session import prepare
from innerloop.loading.models import LoadedModel
from results_example import example, read
from small_runs import SUPPORT, Runs, World, settings


@pytest.fixture(scope="module")
def objects(world: World, runs: Runs, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    config = load_config(settings(world, "fomaml-lora", tmp_path_factory.mktemp("new") / "run"))
    learned = runs("fomaml-lora")
    return {
        "LoadedModel": world.model,
        "Groundwork": groundwork(config),
        "Session": prepare(config, model=world.model),
        "Learned": learned,
        "Adapted": learned.adapt(SUPPORT),
        "Results": read(example()),
    }


def test_each_is_a_short_line_that_begins_with_its_kind(objects: dict[str, Any], world: World) -> None:
    base = str(world.base)
    for kind, thing in objects.items():
        line = str(thing)
        assert line == repr(thing)
        assert line.startswith(f"{kind}(")
        assert "\n" not in line
        assert len(line.replace(base, "")) < 200, line


def test_each_says_what_it_is_of(objects: dict[str, Any], world: World) -> None:
    said = {kind: repr(thing) for kind, thing in objects.items()}
    parameters = world.model.model.num_parameters()
    assert said["LoadedModel"] == f"LoadedModel({world.base}, LlamaForCausalLM of {parameters:,} parameters)"
    counts = "3 training tasks, 0 for validation, 1 held out"
    for kind in ("Groundwork", "Session"):
        assert said[kind] == f"{kind}(fomaml-lora on {world.base}, {counts})"
    assert said["Learned"] == f"Learned(fomaml-lora on {world.base}, {objects['Learned'].folder})"
    assert said["Adapted"].endswith(f"of {said['Learned']})")
    scores = example()["scores"]
    assert said["Results"] == f"Results('quick', 8 arms, {len(scores)} scores)"


def test_results_count_arms_once_scored_or_not() -> None:
    given = example()
    arms = {row["arm"] for row in given["rows"]}
    assert {"joint", "fomaml"} <= arms - {score["arm"] for score in given["scores"]}
    assert f"{len(arms)} arms" in repr(read(given))
    assert "6 arms, 99 scores" in repr(read(given | {"rows": []}))
    assert "0 arms, 0 scores" in repr(read(given | {"rows": [], "scores": []}))


def test_a_model_without_weights_is_named_too(world: World) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        bare = AutoModelForCausalLM.from_config(world.model.model.config)
    count = world.model.model.num_parameters()
    assert f"of {count:,} parameters" in repr(LoadedModel(bare, world.model.tokenizer, "bare", "", ""))
