"""What is wrong with a row from elsewhere, and what would be right."""

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

import pytest

from innerloop.learning.installed import install, wrong
from innerloop.learning.methods import METHODS, Fomaml, Method, Row, option
from innerloop.spaces.kinds import ALL_PARAMETERS, KINDS, LORA


class Undecorated(Fomaml):
    share: float = option(0.5)


@dataclass(frozen=True, kw_only=True)
class Abstract(Method):
    @abstractmethod
    def more(self) -> None: ...


def rule_with(kind: Any, **default: Any) -> type[Method]:
    """FOMAML with one option more."""
    ((name, value),) = default.items()
    inside = {"__annotations__": {name: kind}} | ({} if value is ... else {name: value})
    return dataclass(frozen=True, kw_only=True)(type("Changed", (Fomaml,), inside))


WRONG = {
    "number": (3, "not a row"),
    "rule": (Row(Fomaml, LORA, ""), ""),
    "instance": (Row(cast(Any, 3), LORA, ""), "its rule is no rule"),
    "class": (Row(cast(Any, dict), LORA, ""), "its rule is no rule"),
    "undecorated": (Row(Undecorated, LORA, ""), "can't be made"),
    "abstract": (Row(Abstract, LORA, ""), "can't be made"),
    "space": (Row(Fomaml, cast(Any, "lora"), ""), "no kind of space"),
    "space's name": (Row(Fomaml, replace(LORA), ""), "its kind of space can't be called lora"),
    "space's key": (Row(Fomaml, replace(LORA, name="every"), ""), "its kind of space can't be called every"),
    "own space": (Row(Fomaml, replace(LORA, name="own_space"), ""), ""),
    "key": (Row(rule_with(int, lora=1), LORA, ""), "its option lora has the name of another key"),
    "type": (Row(rule_with(tuple[int, ...], sizes=()), LORA, ""), "a type that a config can't say"),
    "default": (Row(rule_with(int, size=...), LORA, ""), "its option size has no default"),
    "other type": (Row(rule_with(int, keep_task_adapters=1), LORA, ""), "another method's"),
    "no such type": (Row(rule_with("Nothing", size=1), LORA, ""), "its options can't be read"),
}


@pytest.mark.parametrize(("row", "problem"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_said_with_what_would_be_right(row: Any, problem: str) -> None:
    found = wrong("a-name", row)
    assert (found is None) == (not problem)
    if found:
        assert problem in found[0]
        assert found[1]


@pytest.mark.parametrize("name", ["", "Caps", "with space", "-a", "a-", "a--b", "a.b", "a/b"])
def test_a_name_has_to_fit_files_and_command_lines(name: str) -> None:
    assert wrong(name, METHODS["fomaml"]) is not None


def test_innerloops_own_rows_are_right_and_so_are_all_types_of_options() -> None:
    assert all(wrong(name, row) is None for name, row in METHODS.items())
    kinds: dict[Any, Any] = {bool: True, int: 1, float: 0.5, str: "a", Literal["a", "b"]: "a"}
    for kind, default in kinds.items():
        assert wrong("a-name", Row(rule_with(kind, own=default), ALL_PARAMETERS, "")) is None
    assert wrong("a-name", Row(rule_with(bool, keep_task_adapters=False), LORA, "")) is None  # as META-LORA's


def test_nothing_is_installed_here() -> None:
    assert not install()
    assert {row.space for row in METHODS.values()} == set(KINDS.values())
