"""A file that is damaged, or doesn't fit the others, is refused by name; all of them at once."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from comparison_folders import K, Planted, edit, write_comparison
from innerloop.errors import UserError
from innerloop.results.pieces import read_comparison

PIECE = f"cells/meta-lora-tokens-1/scores/unseen-k{K}-draw0-own.json"
RESULT = "cells/meta-lora-tokens-1/result.json"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_comparison(
        tmp_path, {"base": Planted(), "joint-lora": Planted(), "meta-lora": Planted()}, examples=3, tasks=2
    )
    return tmp_path


def refusal(folder: Path) -> str:
    with pytest.raises(UserError) as caught:
        read_comparison(folder)
    return str(caught.value)


def task(piece: Any) -> Any:
    return piece["tasks"]["task 0"]


def test_pairs_are_made_by_id(folder: Path) -> None:
    """Every file of the folder has an order of its own."""
    expected = {name: tuple(f"{name} {index}" for index in range(3)) for name in ("task 0", "task 1")}
    written = json.loads((folder / PIECE).read_text())["tasks"]
    assert any(written[name]["ids"] != list(ids) for name, ids in expected.items())
    for scores in read_comparison(folder).scores.values():
        for piece in scores.pieces.values():
            assert piece.ids == expected
            if piece.path == folder / PIECE:
                nats = dict(zip(written["task 0"]["ids"], written["task 0"]["nats"], strict=True))
                assert piece.values["nats"]["task 0"].tolist() == [nats[name] for name in expected["task 0"]]


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        (PIECE, lambda piece: task(piece).update(ids=["task 0 0", "task 0 1", "task 0 9"]), "other test examples"),
        (PIECE, lambda piece: piece["tasks"].pop("task 1"), "other test examples"),
        (PIECE, lambda piece: task(piece)["nats"].pop(), "don't fit their ids"),
        (PIECE, lambda piece: task(piece).update(ids=["task 0 0", "task 0 0", "task 0 1"]), "no id twice"),
        (PIECE, lambda piece: task(piece).update(nats=[1, 2, float("nan")]), "finite"),
        (PIECE, lambda piece: task(piece).update(correct=[0, 1, 1.5]), "less than or equal to 1"),
        (PIECE, lambda piece: task(piece).update(nats="123"), "nats"),
        (PIECE, lambda piece: piece.update(seed=2), "another seed than its cell's"),
        (PIECE, lambda piece: piece.update(arm="fomaml-lora"), "another arm than its cell's"),
        (PIECE.replace("draw0", "draw1"), lambda piece: piece.update(draw=0), "the same table, k, draw and how"),
        (PIECE, lambda piece: piece.update(draw=7), "a draw from 0 to 1"),
        (PIECE, lambda piece: piece.update(k=0), "nothing to adapt on"),
        (PIECE, lambda piece: piece.update(table="seen"), "scored without examples"),
        (PIECE, lambda piece: piece.pop("table"), "table"),
        (RESULT, lambda result: result.update(arm="joint-lora"), "another arm than its cell's"),
        (RESULT, lambda result: result.update(status="well"), "status"),
        (RESULT, lambda result: result.update(seconds="long"), "seconds"),
        ("matrix.json", lambda matrix: matrix["cells"].append(matrix["cells"][0]), "there twice"),
        ("matrix.json", lambda matrix: matrix["cells"][2].update(arm="meta-lorra"), 'did you mean "meta-lora"?'),
        ("matrix.json", lambda matrix: matrix["cells"][0].update(budget="tokens"), "not the arm's budget"),
        ("matrix.json", lambda matrix: matrix["cells"][0].update(cell="../elsewhere"), "cells.0.cell"),
        ("matrix.json", lambda matrix: matrix["cells"][0].update(cell="é" * 128), "cells.0.cell"),
        ("matrix.json", lambda matrix: matrix["protocol"].update(draws=0), "protocol.draws"),
    ],
)
def test_what_does_not_fit_is_named(folder: Path, name: str, change: Callable[[Any], Any], said: str) -> None:
    read_comparison(folder)
    edit(folder / name, change)
    message = refusal(folder)
    assert said in message
    assert str(folder / name) in message


def test_seeds_of_a_task_have_equally_many_test_examples(folder: Path) -> None:
    def shorten(piece: Any) -> None:
        for field in ("ids", "nats", "correct"):
            task(piece)[field].pop()

    for path in folder.glob("cells/*-tokens-2/scores/*.json"):
        edit(path, lambda piece: task(piece).update(ids=sorted(task(piece)["ids"])))
        edit(path, shorten)
    message = refusal(folder)
    assert "another number of test examples" in message
    assert "meta-lora-tokens-2" in message


def test_every_damaged_file_is_named_at_once(folder: Path) -> None:
    (folder / PIECE).write_bytes(b'{"table": "unse')
    (folder / "cells/joint-lora-tokens-2/result.json").write_bytes(b"\xff\xfe")
    message = refusal(folder)
    assert PIECE in message
    assert "joint-lora-tokens-2/result.json" in message


def test_a_folder_without_a_matrix_is_refused(tmp_path: Path) -> None:
    assert "matrix.json: can't be read: No such file" in refusal(tmp_path)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from([PIECE, RESULT, "matrix.json"]), data=st.data())
def test_damage_of_any_kind_is_a_user_error_or_harmless(folder: Path, name: str, data: st.DataObject) -> None:
    path = folder / name
    sound, said = path.read_bytes(), name
    start = data.draw(st.integers(0, len(sound) - 1))
    length = data.draw(st.integers(0, 12))
    insert = data.draw(st.binary(max_size=6) | st.sampled_from([b"9" * 400, b"1e999", b"NaN", b"null", b"[" * 300]))
    path.write_bytes(sound[:start] + insert + sound[start + length :])
    try:
        read_comparison(folder)
    except UserError as error:
        said = str(error)
    finally:
        path.write_bytes(sound)
    assert name in said
