"""The entries of results.json: what each holds, in which order, and what it says of itself."""

import json
from typing import Any

import pytest
from pydantic import ValidationError

from innerloop.results.entries import (
    Adaptation,
    ArmRow,
    Contrast,
    Curves,
    Difference,
    Forgetting,
    MeanScore,
    PrimaryContrast,
    Target,
)
from innerloop.results.names import COST, Record
from results_example import example

KINDS: dict[str, type[Record]] = {
    **{"rows": ArmRow, "scores": MeanScore, "differences": Difference, "contrasts": Contrast},
    **{"adaptation": Adaptation, "targets": Target, "forgetting": Forgetting, "training": Curves},
}
ENTRIES = [(kind, entry) for name, kind in KINDS.items() for entry in example()[name][-2:]]
ENTRIES.append((PrimaryContrast, example()["primary"]))


@pytest.mark.parametrize(("kind", "entry"), ENTRIES)
def test_an_entry_holds_what_the_file_says_and_nothing_else(kind: type[Record], entry: dict[str, Any]) -> None:
    assert kind.model_validate_json(json.dumps(entry)).model_dump(mode="json", exclude_unset=True) == entry
    required = [name for name, field in kind.model_fields.items() if field.is_required()]
    assert required
    for name in required:
        less = {key: value for key, value in entry.items() if key != name}
        with pytest.raises(ValidationError, match=name):
            kind.model_validate_json(json.dumps(less))


def test_what_an_entry_is_of_comes_before_its_numbers() -> None:
    score, difference = ([*kind.model_fields] for kind in (MeanScore, Difference))
    assert score[:6] == difference[:6] == ["table", "budget", "arm", "how", "k", "metric"]
    assert difference[6:9] == ["reference", "reference_how", "mean"]
    assert [*ArmRow.model_fields][:2] == ["arm", "budget"]
    assert [*PrimaryContrast.model_fields][:2] == ["arm", "against"]


def test_a_row_of_a_few_steps_is_shown_under_costs() -> None:
    rows = [ArmRow.model_validate(row) for row in example()["rows"]]
    assert {row.group for row in rows if row.cost_only} == {COST}
    assert {row.group for row in rows if not row.cost_only} == {"", "tokens", "seconds"}


def test_a_kind_of_memory_is_predicted_with_all_of_it_or_alone() -> None:
    row = ArmRow.model_validate(example()["rows"][0])
    every, one = (row.model_copy(update={"predicted": [name]}) for name in ("peak_bytes", "rss"))
    assert [every.is_predicted(f"peak_bytes.{kind}") for kind in ("rss", "allocated")] == [True, True]
    assert [one.is_predicted(f"peak_bytes.{kind}") for kind in ("rss", "allocated")] == [True, False]
    assert not row.is_predicted("peak_bytes.rss")
    assert not every.is_predicted("tokens")


def test_the_pair_of_a_contrast_is_read_off_its_words() -> None:
    contrast = Contrast.model_validate(example()["contrasts"][0])
    for words, pair in (("a - b", ("a", "b")), ("meta-lora - joint-lora", ("meta-lora", "joint-lora"))):
        assert contrast.model_copy(update={"of": words}).pair == pair
