"""The reader: what is a number, what is refused, and where a key was set."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from innerloop.config.document import MAX_BYTES, MAX_DEPTH, MAX_VALUES, Document, to_yaml
from innerloop.errors import Faults, UserError

KEYS = st.text(max_size=6)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=12)
TREES = st.dictionaries(
    KEYS,
    st.recursive(
        SCALARS,
        lambda inside: st.lists(inside, max_size=3) | st.dictionaries(KEYS, inside, max_size=3),
        max_leaves=10,
    ),
    max_size=4,
)


def read(text: str | bytes, folder: Path, *sets: str) -> tuple[Document, Faults]:
    file = folder / "run.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"))
    faults = Faults()
    document = Document.read(file, faults)
    for setting in sets:
        document.set(setting, faults)
    return document, faults


def refusal(text: str | bytes, folder: Path) -> str:
    with pytest.raises(UserError) as caught:
        read(text, folder)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("1E5", 1e5),
        ("1.0e-4", 1e-4),
        ("-.5", -0.5),
        ("3.", 3.0),
        ("+12", 12),
        ("0", 0),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("-.INF", -float("inf")),
        ("yes", "yes"),
        ("no", "no"),
        ("on", "on"),
        ("010", "010"),
        ("0x10", "0x10"),
        ("1_000", "1_000"),
        ("12:30", "12:30"),
        ("2024-01-01", "2024-01-01"),
        ("1e", "1e"),
        ("'8'", "8"),
        ('"true"', "true"),
        ("<<", "<<"),
        ("9" * 5000, "9" * 5000),
    ],
)
def test_a_plain_scalar_is_what_it_looks_like(text: str, value: Any, tmp_path: Path) -> None:
    document, faults = read(f"key: {text}\n", tmp_path)
    assert document.tree == {"key": value}
    assert type(document.tree["key"]) is type(value)
    assert not faults


def test_repeated_keys_are_all_reported_with_both_lines(tmp_path: Path) -> None:
    document, faults = read("a: 1\nb: {c: 1, c: 2}\na: 3\n", tmp_path)
    assert [fault.where.removeprefix(f"{document.name}: ") for fault in faults] == [
        "b.c (line 2)",
        "a (line 3)",
    ]
    assert "first in line 1" in faults[1].problem
    assert not read("a: 1\nb: {c: 1, d: 2}\n", tmp_path)[1]


@pytest.mark.parametrize("text", ["!!python/object/apply:os.system [ls]", "!!str 3", "!own 3", "! 3"])
def test_tags_are_refused(text: str, tmp_path: Path) -> None:
    message = refusal(f"a: 1\nb: {text}\n", tmp_path)
    assert "tag" in message
    assert "line 2" in message


def test_an_alias_is_read_and_a_bomb_is_not(tmp_path: Path) -> None:
    document, _ = read("a: &shared {x: 1}\nb: *shared\n", tmp_path, "b.x=2")
    assert document.tree == {"a": {"x": 1}, "b": {"x": 2}}
    bomb = "a: &a [1,1,1,1,1,1,1,1,1]\n" + "".join(
        f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n"
        for before, name in zip("abcdefgh", "bcdefghi", strict=True)
    )
    assert "aliases" in refusal(bomb, tmp_path)
    assert "deep" in refusal("a: &x [*x, *x]\n", tmp_path)


def test_depth_number_of_values_and_size_are_limited(tmp_path: Path) -> None:
    deepest = MAX_DEPTH - 1  # the mapping at the top is a level too
    read("a: " + "[" * deepest + "]" * deepest, tmp_path)
    assert "deep" in refusal("a: " + "[" * (deepest + 2) + "]" * (deepest + 2), tmp_path)
    assert "deep" in refusal("[" * (MAX_BYTES - 1), tmp_path)
    assert f"more than {MAX_VALUES} keys and values" in refusal("a: [" + "1," * MAX_VALUES + "]", tmp_path)
    assert "too large" in refusal("#" * (MAX_BYTES + 1), tmp_path)
    read("#" * MAX_BYTES, tmp_path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [1\n", "not valid YAML"),
        ("a: 1\n---\nb: 2\n", "another document"),
        ("a:\n\t- b\n", "line 2"),
        ("a: \0\n", "not valid YAML"),
        ("- a\n", "not a mapping"),
        ("just text\n", "not a mapping"),
        ("a: *nothing\n", "nothing"),
        (b"a: 1\nb: \xff\n", "not UTF-8"),
    ],
)
def test_what_is_no_mapping_is_refused(text: str | bytes, words: str, tmp_path: Path) -> None:
    message = refusal(text, tmp_path)
    assert words in message
    assert "run.yaml" in message


def test_files_that_cant_be_read(tmp_path: Path) -> None:
    for path in (tmp_path / "none.yaml", tmp_path, Path("a\0b")):
        with pytest.raises(UserError) as caught:
            Document.read(path, Faults())
        assert str(path) in str(caught.value)


def test_keys_have_to_be_text(tmp_path: Path) -> None:
    assert [fault.problem for fault in read("[a]: 3\n{b: c}: 4\n", tmp_path)[1]] == ["a key has to be text"] * 2
    faults = Faults()
    assert Document.read({"a": {1: 2, "b": 3}}, faults).tree == {"a": {"b": 3}}
    assert faults[0].where == "a"


def test_a_byte_order_mark_and_an_empty_file_are_fine(tmp_path: Path) -> None:
    assert read(b"\xef\xbb\xbfa: 1\n", tmp_path)[0].tree == {"a": 1}
    assert read("# nothing\n", tmp_path)[0].tree == {}


def test_where_a_key_was_set(tmp_path: Path) -> None:
    document, _ = read("a:\n  b: 1\n  c: {d: 2}\n", tmp_path, "a.c={d: 3}", "f.g=4")
    name = document.name
    assert document.where(("a", "b")) == f"{name}: a.b (line 2)"
    assert document.where(("a", "missing")) == f"{name}: a.missing (line 1)"
    assert document.where(("nowhere",)) == f"{name}: nowhere"
    assert document.where(("a", "c")) == "--set a.c={d: 3}"
    assert document.where(("a", "c", "d")) == "--set a.c={d: 3}: a.c.d"
    assert document.where(("f",)) == "--set f.g=4"
    assert Document.read({"a": 1}, Faults()).where(("a",)) == "a"


def test_set_replaces_adds_and_reads_its_value_as_yaml(tmp_path: Path) -> None:
    document, faults = read(
        "a: {b: 1}\nempty:\n", tmp_path, "a.b=1e-3", "a.c=[x, no]", "empty.d==", "new.e.f=", "a.b=2"
    )
    assert not faults
    assert document.tree == {
        "a": {"b": 2, "c": ["x", "no"]},
        "empty": {"d": "="},
        "new": {"e": {"f": None}},
    }


@pytest.mark.parametrize("setting", ["a.b", "=1", "a..b=1", ".a=1", "a.b.c=1", "a=[1", "a=!!str 3", "a={b: 1, b: 2}"])
def test_a_bad_set_is_a_fault_and_names_itself(setting: str, tmp_path: Path) -> None:
    _, faults = read("a: {b: 1}\n", tmp_path, setting, "good=1")
    assert len(faults) == 1
    assert f"--set {setting}" in str(faults[0])


def test_a_mapping_is_copied_and_its_depth_limited() -> None:
    source = {"a": {"b": (1, 2)}}
    document = Document.read(source, Faults())
    document.set("a.b=3", Faults())
    assert source == {"a": {"b": (1, 2)}}
    circle: dict[str, Any] = {}
    circle["a"] = circle
    with pytest.raises(UserError, match="deep"):
        Document.read(circle, Faults())


@settings(max_examples=60, deadline=None)
@given(tree=TREES)
def test_text_written_reads_back_the_same(tree: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("yaml")
    document, faults = read(to_yaml(tree), folder)
    assert not faults
    assert json.dumps(document.tree) == json.dumps(tree)


@settings(max_examples=80, deadline=None)
@given(text=st.text(alphabet="ab:-[]{},\n &*!#'\"|>%@`?.=1e~\t\\", max_size=40) | st.binary(max_size=30))
def test_any_text_is_read_or_refused(text: str | bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("yaml")
    try:
        document, _ = read(text, folder)
    except UserError as error:
        assert "run.yaml" in str(error)  # noqa: PT017
    else:
        assert isinstance(document.tree, dict)


@settings(max_examples=60, deadline=None)
@given(setting=st.text(alphabet="ab.=[]{}:, &*!1\n", max_size=15))
def test_any_set_is_applied_or_a_fault(setting: str) -> None:
    faults = Faults()
    document = Document.read({"a": {"b": 1}}, faults)
    document.set(setting, faults)
    assert faults or document.origins
