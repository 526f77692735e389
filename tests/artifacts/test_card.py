"""What an export says about itself: enough for anyone else, and nothing of this machine."""

import json
from pathlib import Path
from typing import Any

import pytest

from innerloop.artifacts.card import AdaptedTo, Card, card
from innerloop.artifacts.card_facts import CardFacts, card_facts
from innerloop.loading.gguf_files import HUB_IDS, PACKAGED, QUANTIZED
from innerloop.loading.models import known_hub_id
from innerloop.runs.reloading import load_run
from results_example import example, read
from small_runs import SUPPORT, Runs, World, small_run

METHODS = ("fomaml-lora", "joint", "meta-lora", "lora")


def texts(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text("utf-8", "replace") for path in folder.rglob("*") if path.is_file()}


def head(folder: Path) -> dict[str, Any]:
    from huggingface_hub import ModelCard

    return ModelCard((folder / "README.md").read_text("utf-8")).data.to_dict()


@pytest.mark.parametrize("method", METHODS)
def test_an_export_names_no_path_of_this_machine(world: World, runs: Runs, tmp_path: Path, method: str) -> None:
    learned = runs(method)
    learned.save_pretrained(tmp_path / "export")
    for name, text in texts(tmp_path / "export").items():
        for place in (world.base, world.tasks, learned.folder, tmp_path):
            assert str(place) not in text, name
    assert str(world.base) in (learned.folder / "manifest.json").read_text()  # the control


def test_a_hub_id_that_is_known_is_named_and_one_that_is_not_is_not(world: World, runs: Runs, tmp_path: Path) -> None:
    adapter = runs("fomaml-lora").exported
    assert json.loads((adapter / "adapter_config.json").read_text())["base_model_name_or_path"] is None
    assert "base_model" not in head(adapter)
    named = small_run(world, "fomaml-lora", tmp_path / "named", {"model.hub_id": "somebody/a-model"})
    assert (
        json.loads((named.exported / "adapter_config.json").read_text())["base_model_name_or_path"]
        == "somebody/a-model"
    )
    assert head(named.exported)["base_model"] == "somebody/a-model"
    assert load_run(named.folder).config.model.hub_id == "somebody/a-model"


def test_a_card_is_filled_in(runs: Runs) -> None:
    for method, library in (("fomaml-lora", "peft"), ("joint", "transformers")):
        exported = runs(method).exported
        text = (exported / "README.md").read_text("utf-8")
        assert (head(exported)["library_name"], head(exported)["pipeline_tag"]) == (library, "text-generation")
        assert method in head(exported)["tags"]
        assert "More Information Needed" not in text  # what PEFT's form has
        assert runs(method).model.fingerprint[:16] in text
        assert "few-shot adaptation" in text


def test_a_task_of_its_own_is_no_initialization(runs: Runs, tmp_path: Path) -> None:
    runs("fomaml-lora").adapt([{"prompt": "a", "completion": "b"}]).save_pretrained(tmp_path / "one")
    for folder in (tmp_path / "one", runs("lora").folder / "adapters" / "cy"):
        text = (folder / "README.md").read_text("utf-8")
        assert "of one task" in text
        assert "initialization" not in text


def test_scores_stand_in_the_head_and_in_the_text_as_they_were_measured(runs: Runs) -> None:
    from huggingface_hub import ModelCard

    learned, made_up = runs("meta-lora"), example()
    results = read({**made_up, "scores": [score for score in made_up["scores"] if score["arm"] == "meta-lora"]})
    facts = CardFacts(results=results, seconds=12.4, tokens=3456, peak_bytes={"rss": 450_000_000})
    about = Card(config=learned.config, model=learned.model, facts=facts)
    text, data = card(about), ModelCard(card(about)).data
    unseen = [score for score in results.scores if score.table == "unseen" and score.metric != "stop_nats"]
    said = [(each.metric_type, each.metric_args["k"], each.metric_value) for each in data.eval_results]
    assert said == [(score.metric, score.k, score.mean) for score in unseen]
    intervals = [each.metric_args.get("interval_95") for each in data.eval_results]
    assert intervals == [None if score.low is None else [score.low, score.high] for score in unseen]
    assert data.model_name == "meta-lora"
    one = next(score for score in unseen if score.metric == "nats" and score.low is not None)
    assert f"{one.mean:.3f} [{one.low:.3f}, {one.high:.3f}]" in text
    assert "12 seconds for 3,456 tokens" in text
    assert "450 MB" in text
    assert "Not evaluated" not in text
    task = card(Card(config=learned.config, model=learned.model, facts=facts, holds="task"))  # whose values are others
    assert "not evaluated" in task
    assert ModelCard(task).data.eval_results is None


def test_what_was_not_measured_is_not_said(runs: Runs) -> None:
    text = card(Card(config=runs("meta-lora").config, model=runs("meta-lora").model, facts=CardFacts()))
    assert "Not evaluated." in text
    for absent in ("model-index", "license:", "## Cost", "tasks to train on", "checksum", "None", "nan"):
        assert absent not in text


def test_a_run_s_folder_tells_data_and_cost_and_once_it_is_there_the_last_evaluation(world: World, runs: Runs) -> None:
    learned = runs("meta-lora")
    facts, text = card_facts(learned.folder), (learned.exported / "README.md").read_text()
    assert facts.tasks == {"train": 3, "validation": 0, "held_out": 1}
    assert facts.examples == {"train": 42, "validation": 0, "held_out": 14}
    assert "tasks to train on: 3, 42 examples" in text
    assert facts.data_digest in text
    assert facts.seconds is not None
    assert "## Cost" not in text  # two equal runs have equal files
    learned.save_pretrained(learned.folder.parent / "copy")
    assert "## Cost" in (learned.folder.parent / "copy/README.md").read_text()
    assert card_facts(world.base) == CardFacts()


def test_values_that_nobody_scored_have_no_scores(world: World, tmp_path: Path) -> None:
    learned = small_run(world, "meta-lora", tmp_path / "run")
    for name, started in (("one", "2026-01-02"), ("two", "2026-01-01")):
        (tmp_path / f"run/eval/{name}").mkdir(parents=True)
        read({**example(), "status": "done", "started": started}).write(tmp_path / f"run/eval/{name}/results.json")
    found = card_facts(learned.folder).results
    assert found is not None
    assert found.started == "2026-01-02"
    learned.write_card()
    halves = {name: value / 2 for name, value in learned.space.shared.items()}
    learned.portable(halves).save(tmp_path / "half")
    assert "model-index" in (learned.exported / "README.md").read_text()
    assert "model-index" not in (tmp_path / "half/README.md").read_text()


def test_a_task_s_card_says_what_it_was_adapted_to(runs: Runs, tmp_path: Path) -> None:
    adapted = runs("meta-lora").adapt(SUPPORT, steps=3)
    adapted.save_pretrained(tmp_path / "one")
    text, (first, _, last) = (tmp_path / "one/README.md").read_text(), adapted.losses
    assert adapted.to == AdaptedTo(3, "adamw at lr 0.003, betas 0.9 and 0.99, eps 1e-08, unclipped", adapted.losses)
    assert "3 examples in 3 steps, adamw at lr 0.003" in text
    assert f"{first:.3f}, before the last {last:.3f}" in text


def test_where_a_name_leads_is_known_of_hub_ids_and_packaged_models_alone() -> None:
    assert known_hub_id("a/b", "a/b") == "a/b"
    assert known_hub_id("models/think", "/here/models/think") == ""
    assert known_hub_id("/here/x", "/here/x") == ""
    assert {known_hub_id(name, "/cache/x") for name in PACKAGED} == set(HUB_IDS.values())
    assert HUB_IDS.keys() == PACKAGED.keys() == QUANTIZED.keys()
