"""What an export says about itself: enough for anyone else, and nothing of this machine."""

import json
from pathlib import Path
from typing import Any

import pytest

from innerloop.loading.gguf_files import HUB_IDS, PACKAGED, QUANTIZED
from innerloop.loading.models import known_hub_id
from innerloop.runs.reloading import load_run
from small_runs import Runs, World, small_run

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


def test_where_a_name_leads_is_known_of_hub_ids_and_packaged_models_alone() -> None:
    assert known_hub_id("a/b", "a/b") == "a/b"
    assert known_hub_id("models/think", "/here/models/think") == ""
    assert known_hub_id("/here/x", "/here/x") == ""
    assert {known_hub_id(name, "/cache/x") for name in PACKAGED} == set(HUB_IDS.values())
    assert HUB_IDS.keys() == PACKAGED.keys() == QUANTIZED.keys()
