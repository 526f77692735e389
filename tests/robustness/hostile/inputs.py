"""Inputs of a number, for the reader of tasks and the loader of configs: drawn again, they are the same.

reader_input   files of every format: sound ones with odd fields, and sound ones with broken bytes
config_input   YAML of odd pieces, keys of odd values, --set, and a sound file with broken bytes
is_text, is_task_name   what docs/data-format.md says of texts and of names, said once more
"""

import csv
import io
import json
import random
import string
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

from innerloop.config.document import to_yaml
from innerloop.config.schema import DEFAULTS, EVERYTHING, KEYS, nested
from innerloop.learning.methods import METHODS

NASTY = ["\0", "\ud83d", "\ufeff", "\u2028", "\u202e", "\x85", "\r", "\n", "\t", "\x1b[2J", "é", "🎲", *'"\\{],']
NAMES = ["../x", "..", ".", "/etc", "a/b", "a\\b", "-rf", ".x", "con", "x" * 100, "x" * 101, "naïve", "a b", "a_b"]
BYTES = [
    *(b"\0", b"\xff", b"\xfe\xff", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"\xc0\x80"),
    *(b"\r", b"\n", b'"', b"{", b"[", b"\\"),
]
TOKENS = [
    *(b"NaN", b"1e999", b"-", b"null", b"\\u0000", b"\\ud800", b'"prompt"', b'"task"', b"{}"),
    *(b"[" * 60, b"9" * 5000),
]
YAML = [
    *("a", "b: ", "- ", "? ", ": ", "\n", "\n  ", "\n\t", "[", "]", "{", "}", ",", "&x ", "*x", "!!str ", "! "),
    *("'", '"', "#", "%YAML 1.1\n", "---\n", "...\n", "<<: ", "~", "1e-4", ".inf", ".nan", "0o7", "yes", "@", "`"),
    *('"\\UFFFFFFFF"', '"\\ud800"', '"\\x00"', "\u2028", "\x85", "\ufeff", "\x07", "é", "9" * 30, "a: 1\na: 2\n"),
    *("|\n", ">-\n", "2024-01-01"),
]
WORDS = sorted({part for key in EVERYTHING for part in key.split(".")})
VALUES: list[Any] = [
    *(None, True, False, 0, 1, -1, 3, 8, 2**32, 10**400, 0.0, 0.5, -0.5, 1e-3, 1e308, float("inf"), float("nan")),
    *("", " ", "auto", "all", "last-2", "sgd", "adamw", "x", "\ud800", "\0", "drop", "1e-3", "cuda:1", "bfloat16"),
    *([], {}, [1], ["a"], ["a", "a"], {"name": "sgd", "lr": 0.1}, b"x", Path("x"), (1, 2), [[[]]], {"a": {"b": {}}}),
]
SOUND = [  # by themselves; a method may not read one, and two may not go together
    *[(key, value) for key, value in DEFAULTS.items() if value is not None],
    *[("tasks.difficulty", "hard"), ("tasks.query", 3), ("tasks.only", ["a", "1e5"]), ("tasks.max_length", 10**30)],
    *[("method.inner.steps", 2), ("method.inner.clip", None), ("method.lora.r", 3), ("method.lora.layers", [0, 2])],
    *[
        ("outer.clip", 1e-300),
        ("outer.steps", 2**70),
        ("seed", 0),
        ("output_dir", "é \x85\u2028\n🎲"),
        ("model.name", "~"),
    ],
]


class Input(NamedTuple):
    """`suffix` and bytes of a file, or a mapping and what is set on top.

    right   whether a result is what was written
    must    what has to come of it; "" = either
    rows    what `read_table` has to give, among others, whatever is said of the rest
    """

    kind: str
    suffix: str
    content: Any
    right: Callable[[Any], bool] = lambda _: True
    must: Literal["", "read", "refused"] = ""
    rows: Sequence[dict[str, Any]] = ()
    sets: tuple[str, ...] = ()


# inputs of the reader


def reader_input(seed: int, number: int) -> Input:
    rng = random.Random(seed * 1_000_003 + number)
    kinds = (_records, _records, _cells, _names, _lines, _lines, _mutated, _mutated, _mutated)
    return _parquet(rng) if rng.random() < 0.04 else rng.choice(kinds)(rng)


def is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip()) and "\0" not in value and "\ud83d" not in value


def is_task_name(name: str) -> bool:
    word = "_".join(name.split())
    return (
        1 <= len(word) <= 100 and word[0] not in ".-" and set(word) <= set(string.ascii_letters + string.digits + "._-")
    )


def _records(rng: random.Random) -> Input:
    """Fields of any type: read where all of them are text, and refused otherwise."""
    records = [{"prompt": _field(rng), "completion": _field(rng)} for _ in range(rng.randint(1, 4))]
    for record in records:
        if rng.random() < 0.05:
            del record[rng.choice(("prompt", "completion"))]
        if isinstance(record.get("completion"), list):
            record["completion"] += [0]  # a list of texts is what is accepted
        if rng.random() < 0.4:
            record[rng.choice(("more", "", "Prompt", "\u202e"))] = _tree(rng, 3)
    end = rng.choice(("\n", "\r\n", "\n\n"))
    text = rng.choice(("", "\ufeff")) + end.join(json.dumps(record) for record in records)
    sound = all(is_text(record.get(field)) for record in records for field in ("prompt", "completion"))
    if rng.random() < 0.3:
        return Input("array", ".json", json.dumps(records).encode(), *_expected(records, sound))
    return Input("records", ".jsonl", text.encode(), *_expected(records, sound))


def _cells(rng: random.Random) -> Input:
    records = [{"prompt": _text(rng), "completion": _text(rng)} for _ in range(rng.randint(1, 4))]
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator=rng.choice(("\n", "\r\n")), quoting=csv.QUOTE_ALL)
    writer.writerows([("prompt", "completion"), *(tuple(record.values()) for record in records)])
    sound = all(is_text(value) for record in records for value in record.values())
    content = stream.getvalue().encode("utf-8", "surrogatepass")
    return Input("cells", ".csv", rng.choice((b"", b"\xef\xbb\xbf")) + content, *_expected(records, sound))


def _names(rng: random.Random) -> Input:
    """Read where every name is safe and no two become one."""
    names = [rng.choice(NAMES) if rng.random() < 0.3 else _text(rng, "ab_- .Z9") for _ in range(rng.randint(1, 3))]
    lines = [json.dumps({"task": name, "prompt": str(row), "completion": "c"}) for row, name in enumerate(names)]
    safe = {"_".join(name.split()) for name in names}
    sound = all(map(is_task_name, names)) and len(safe) == len(set(names))

    def right(result: Any) -> bool:
        return {task.name for task in result.tasks} == safe

    return Input("names", ".jsonl", "\n".join(lines).encode(), right, "read" if sound else "refused")


def _lines(rng: random.Random) -> Input:
    """Mutations of some lines: the other lines come back as they were, whatever is said of these."""
    rows = [{"question": f"q{row} {_text(rng, 'abc é')}", "answer": row} for row in range(rng.randint(2, 6))]
    lines = [json.dumps(row, ensure_ascii=rng.random() < 0.5).encode() for row in rows]
    for row in (touched := rng.sample(range(1, len(rows)), rng.randint(1, min(2, len(rows) - 1)))):
        lines[row] = _broken(rng, lines[row]).replace(b"\n", b" ")
    kept = [row for number, row in enumerate(rows) if number not in touched]

    def right(result: Any) -> bool:
        return {(f"Question: {row['question']}\nAnswer:", f" {row['answer']}") for row in kept} <= _pairs(result)

    return Input("lines", ".jsonl", b"\n".join(lines), right, rows=kept)


def _mutated(rng: random.Random) -> Input:
    suffix = rng.choice((".jsonl", ".json", ".csv"))
    return Input("mutated", suffix, _broken(rng, _file(suffix), rng.randint(1, 4)))


def _parquet(rng: random.Random) -> Input:
    return Input("parquet", ".parquet", _broken(rng, _file(".parquet"), rng.randint(1, 3)))


def _expected(records: list[dict[str, Any]], sound: bool) -> tuple[Any, Any]:
    def right(result: Any) -> bool:
        (count,) = result.files
        pairs = {(record["prompt"], record["completion"]) for record in records}
        found = _pairs(result)
        whole = found <= pairs and len(found) + result.left_out == count.kept == len(pairs)
        return whole and count.kept + count.duplicates == len(records)

    return right, "read" if sound else "refused"


def _pairs(result: Any) -> set[Any]:
    examples = [example for task in result.tasks for example in (*task.pool, *task.test)]
    assert len({example.id for example in examples}) == len(examples), "an example on two sides, or twice"
    return {(example.prompt, example.answer) for example in examples}


@cache
def _file(suffix: str) -> bytes:
    """A sound file of that format, with a column of names and one that is not read."""
    rows = [{"question": f"{n} + {n} =", "answer": f"{2 * n}", "task": "ab"[n % 2], "more": f"m{n}é"} for n in range(6)]
    if suffix == ".parquet":
        import pyarrow
        import pyarrow.parquet

        sink = pyarrow.BufferOutputStream()
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), sink)
        return sink.getvalue().to_pybytes()
    if suffix == ".csv":
        return "\n".join(",".join(row) for row in [list(rows[0]), *(list(row.values()) for row in rows)]).encode()
    return (json.dumps(rows, indent=1) if suffix == ".json" else "\n".join(map(json.dumps, rows))).encode()


def _broken(rng: random.Random, content: bytes, times: int = 1) -> bytes:
    """Bytes flipped, cut out, put in, repeated or taken from another file."""
    for _ in range(times):
        first = rng.randrange(len(content) + 1)
        last = min(len(content), first + rng.randint(0, 8))
        new = rng.choice(
            (
                bytes((rng.randrange(256),)),
                rng.choice(BYTES),
                rng.choice(TOKENS),
                content[first:last] * rng.randint(2, 9),
                _file(rng.choice((".jsonl", ".csv", ".json")))[first : first + 30],
                b"",
            )
        )
        content = content[:first] if rng.random() < 0.08 else content[:first] + new + content[last:]
    return content


def _text(rng: random.Random, letters: str = "") -> str:
    if letters:
        return "".join(rng.choices(letters, k=rng.randint(1, 6)))
    return "".join(rng.choice(NASTY) if rng.random() < 0.06 else rng.choice("abc 0") for _ in range(rng.randint(1, 8)))


def _field(rng: random.Random) -> Any:
    return _text(rng) if rng.random() < 0.95 else _tree(rng, 2)


def _tree(rng: random.Random, depth: int) -> Any:
    kind = rng.randrange(6) if depth else rng.randrange(4)
    if kind == 4:
        return [_tree(rng, depth - 1) for _ in range(rng.randrange(3))]
    if kind == 5:
        return {_text(rng, "xyz"): _tree(rng, depth - 1) for _ in range(rng.randrange(3))}
    return rng.choice((None, True, 0, -7, 1.5, 1e300, 10**30, "", " ", "\0")) if kind else _text(rng)


# inputs of the loader


def config_input(seed: int, number: int) -> Input:
    rng = random.Random(seed * 1_000_003 + number)
    chance = rng.random()
    if chance < 0.5:
        text = "".join(rng.choices(YAML, k=rng.randint(1, 7)))
        return Input("yaml", "", text.encode("utf-8", "surrogatepass"))
    required = {"model.name": "m", "tasks.suite": "math-science", "output_dir": "x"}
    tree = nested({**required, "method.name": rng.choice(sorted(METHODS))})
    if chance < 0.6:
        for _ in range(rng.randint(1, 4)):
            _put(tree, *rng.choice(SOUND))
        return Input("sound", "", tree)
    if chance < 0.75:
        for _ in range(rng.randint(1, 3)):
            _put(tree, rng.choice(EVERYTHING) if rng.random() < 0.9 else rng.choice(WORDS), _value(rng))
        return Input("keys", "", tree)
    if chance < 0.95:
        return Input("sets", "", tree, sets=tuple(_setting(rng) for _ in range(rng.randint(1, 2))))
    return Input("file", "", _broken(rng, to_yaml(tree).encode(), rng.randint(1, 2)))


def _put(tree: dict[str, Any], key: str, value: Any) -> None:
    *sections, last = key.split(".")
    section: Any = tree
    for name in sections:
        section = section.setdefault(name, {}) if isinstance(section, dict) else None
    if isinstance(section, dict):
        section[last] = value


def _value(rng: random.Random) -> Any:
    if rng.random() < 0.8:
        return rng.choice(VALUES)
    return {rng.choice(WORDS): rng.choice(VALUES) for _ in range(rng.randint(1, 3))}


def _setting(rng: random.Random) -> str:
    if rng.random() < 0.2:
        return "".join(rng.choices((*YAML, "=", ".", "a", *WORDS[:8]), k=rng.randint(1, 6)))
    value = str(rng.choice(VALUES)) if rng.random() < 0.7 else "".join(rng.choices(YAML, k=3))
    return f"{rng.choice(KEYS)}={value}"
