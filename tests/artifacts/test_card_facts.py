"""What a run's folder knows of itself is what its manifest and its results say, and a damaged one is refused."""

import hashlib
import json
from pathlib import Path

import pytest

from innerloop.artifacts.card_facts import CardFacts, card_facts
from innerloop.errors import UserError
from results_example import example, read
from small_runs import Runs, manifest_of


def test_facts_are_the_manifest_s(runs: Runs) -> None:
    folder = runs("fomaml-lora").folder
    facts, manifest = card_facts(folder), manifest_of(folder)
    assert facts.tasks == {role: len(names) for role, names in manifest["roles"].items()}
    assert (facts.seconds, facts.tokens) == (manifest["timing"]["seconds"], manifest["tokens"])
    assert facts.peak_bytes == manifest["host"]["peak_bytes"]
    assert facts.packages == manifest["host"]["environment"]["packages"]
    assert facts.results is None


def test_equal_data_has_an_equal_digest_and_other_data_another(tmp_path: Path) -> None:
    said = {"status": "done", "config": {}, "model": {}, "roles": {"train": ["a", "b"]}}
    digests = []
    for data in ({"a": "1", "b": "2"}, {"b": "2", "a": "1"}, {"a": "1", "b": "3"}):
        (tmp_path / "manifest.json").write_text(json.dumps({**said, "inputs": {"data": data}}))
        digests.append(card_facts(tmp_path).data_digest)
    assert digests[0] == digests[1] != digests[2]
    assert digests[0] == hashlib.sha256(b'{"a": "1", "b": "2"}').hexdigest()[:16]
    assert card_facts(tmp_path).examples == {}  # an older run didn't count them


def test_only_whole_evaluations_count_and_damaged_ones_are_refused(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text('{"status": "done", "config": {}, "model": {}}')
    assert card_facts(tmp_path) == CardFacts(tasks=dict.fromkeys(("train", "validation", "held_out"), 0))
    place = tmp_path / "eval/x/results.json"
    place.parent.mkdir(parents=True)
    read({**example(), "status": "partial"}).write(place)
    assert card_facts(tmp_path).results is None
    read({**example(), "status": "done"}).write(place)
    assert card_facts(tmp_path).results is not None
    place.write_text("{")
    with pytest.raises(UserError, match=r"results\.json"):
        card_facts(tmp_path)
