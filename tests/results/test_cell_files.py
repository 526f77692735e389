"""The fields of a comparison's files: what may stand in them, and what is there where nothing is said."""

from typing import Any

import pytest
from pydantic import ValidationError

from innerloop.results.cell_files import (
    CellFile,
    Environment,
    Forgotten,
    PieceFile,
    PlannedCell,
    PlannedProtocol,
    Record,
    TaskScores,
)

CELL: dict[str, Any] = {"cell": "meta-lora-tokens-1", "arm": "meta-lora", "budget": "tokens", "seed": 1}
SCORES: dict[str, Any] = {"ids": ["a", "b"], "nats": [1.0, 2.0], "correct": [0.0, 1.0]}
PIECE: dict[str, Any] = {
    **{"table": "unseen", "arm": "lora", "budget": "tokens", "seed": 1, "draw": 0, "k": 8, "how": "own"},
    "tasks": {"t": SCORES},
}


@pytest.mark.parametrize("name", ["a", "meta-lora-tokens-1", "base--3", "..x", "a.b"])
def test_a_cell_is_one_folder(name: str) -> None:
    assert PlannedCell.model_validate(CELL | {"cell": name}).cell == name


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../a", "/a", "a\\b", "a/"])
def test_a_cell_leads_nowhere_else(name: str) -> None:
    with pytest.raises(ValidationError, match="cell"):
        PlannedCell.model_validate(CELL | {"cell": name})


@pytest.mark.parametrize(
    ("kind", "sound", "changes"),
    [
        (PlannedProtocol, {"draws": 1, "k": [0, 8]}, [{"draws": 0}, {"k": [-1]}, {"test_examples": -1}]),
        (Forgotten, {"how": "own", "k": 8, "kl": {"t": 0.1}}, [{"kl": {}}, {"how": "else"}, {"k": -1}]),
        (TaskScores, SCORES, [{"ids": []}, {"correct": [0.0, 1.5]}, {"correct": [-0.5, 1.0]}, {"cut": -1}]),
        (PieceFile, PIECE, [{"tasks": {}}, {"table": "other"}, {"how": ""}, {"draw": -1}, {"k": 0.5}]),
        (CellFile, {**CELL, "status": "done"}, [{"status": "running"}, {"seed": "1"}, {"peak_bytes": {"rss": None}}]),
    ],
)
def test_each_field_has_its_limits(kind: type[Record], sound: dict[str, Any], changes: list[dict[str, Any]]) -> None:
    assert kind.model_validate(sound).model_dump(exclude_unset=True).keys() == sound.keys()
    for change in changes:
        (field,) = change
        with pytest.raises(ValidationError, match=field):
            kind.model_validate(sound | change)


def test_what_a_cell_does_not_say_is_nothing_and_nobody_elses() -> None:
    one, two = (CellFile.model_validate(CELL | {"status": "failed"}) for _ in range(2))
    assert (one.reason, one.tokens, one.peak_bytes, one.forgetting, one.training.loss) == ("", None, {}, [], [])
    one.peak_bytes["rss"] = 1
    assert two.peak_bytes == {}


def test_an_environment_keeps_what_it_does_not_know() -> None:
    assert (
        Environment.model_validate({"python": "3", "weather": "fair"}).model_dump(exclude_unset=True)["weather"]
        == "fair"
    )
