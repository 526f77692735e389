"""Hostile tables, records given by Python, tasks that are too small or too long, and configs.

table_cases      Parquet files and saved datasets
record_cases     what `read_examples` is given
prepared_cases   sound files that don't fit the run
config_cases     YAML and --set
"""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet

from innerloop.config.document import MAX_BYTES, MAX_VALUES
from innerloop.data.tasks import Example, Message
from robustness.hostile.cases import Case, folder_of, made, one_file, record, sparse

CONFIG = "model: {name: m}\ntasks: {suite: math-science}\nmethod: {name: fomaml-lora}\noutput_dir: x\n"
NESTED: list[Any] = []
for _ in range(100_000):
    NESTED = [NESTED]
CIRCLE: list[Any] = []
CIRCLE.extend([CIRCLE, CIRCLE])
HUGE = 10**5000


def table_cases() -> list[Case]:
    values: dict[str, tuple[Any, Sequence[str]]] = {
        "bytes": (pyarrow.array([b"p"]), ["a.parquet: row 1: prompt: is of type bytes"]),
        "null": (pyarrow.array([None], pyarrow.string()), ["a.parquet: row 1: prompt: is null"]),
        "empty": (pyarrow.array([""]), ["a.parquet: row 1: prompt: is empty"]),
        "a date in the year 5,881,580": (pyarrow.array([2**31 - 1], pyarrow.date32()), ["a.parquet: "]),
        "a duration without end": (pyarrow.array([2**62], pyarrow.duration("s")), ["a.parquet: "]),
        "no such time zone": (pyarrow.array([0], pyarrow.timestamp("us", tz="No/Where")), ["a.parquet: "]),
    }
    cases = [
        Case(f"Parquet: {name}", _parquet(["prompt", "completion"], [value, ["c"]]), words)
        for name, (value, words) in values.items()
    ]
    shards: dict[str, tuple[str, Callable[[Path], Any], str]] = {
        "another folder's": ("../x.arrow", lambda _: None, "no such file is in its folder"),
        "a pipe": ("x.arrow", lambda folder: os.mkfifo(folder / "x.arrow"), "no such file is in its folder"),
        "no Arrow": ("x.arrow", lambda folder: (folder / "x.arrow").write_bytes(b"\0" * 64), ""),
    }
    cases += [
        Case(f"saved dataset: {name}", folder_of(_saved(state=[file]), more), ["broken dataset: ", words])
        for name, (file, more, words) in shards.items()
    ]
    return [
        *cases,
        Case("Parquet: column twice", _parquet(["prompt", "prompt"], [["a"], ["b"]]), ["a column name appears twice"]),
        Case("Parquet: cut off", _parquet(["prompt", "completion"], [["a"], ["b"]], keep=-30), ["a.parquet: "]),
        Case("saved dataset: no objects", folder_of(_saved(info=[], state=None)), ["broken dataset"]),
        Case(
            "saved dataset: lists",
            folder_of({**_saved(info=[], state=["x.arrow"]), "x.arrow": b""}),
            ["broken dataset"],
        ),
    ]


def _parquet(names: list[str], columns: list[Any], *, keep: int | None = None) -> Callable[[Path], Path]:
    def build(folder: Path) -> Path:
        path = folder / "a.parquet"
        pyarrow.parquet.write_table(pyarrow.table(columns, names=names), path)
        path.write_bytes(path.read_bytes()[:keep])
        return path

    return build


def _saved(*, state: list[str] | None, info: Any = None) -> dict[str, bytes]:
    files = None if state is None else {"_data_files": [{"filename": name} for name in state]}
    return {"state.json": json.dumps(files).encode(), "dataset_info.json": json.dumps(info or {}).encode()}


def record_cases() -> list[Case]:
    bad: dict[str, tuple[Any, Sequence[str]]] = {
        "nested without end": ({"question": "q", "answer": NESTED}, ["nested too deep"]),
        "a circle": ({"question": "q", "answer": CIRCLE}, ["nested too deep"]),
        "a number of 5,000 digits": ({"question": "q", "answer": HUGE}, ["too many digits"]),
        "no record": (HUGE, ["too many digits"]),
        "None": (None, ["not a record"]),
        "text": ("q", ["not a record"]),
        "an example with half a surrogate": (Example("p", "\ud800"), [".answer: holds", "half a surrogate"]),
        "an example of numbers": (Example(3, "c"), [".prompt: is of type int"]),  # pyright: ignore[reportArgumentType]
        "a turn that is none": (Example(("u",), "c"), [".prompt[0]: not a message"]),  # pyright: ignore[reportArgumentType]
        "a message without text": (Example((Message("user", ""),), "c"), [".prompt[0].content: is empty"]),
    }
    cases = [
        Case(f"records: {name}", lambda _, given=given: [given], ["examples[0]", *words], reader="records")
        for name, (given, words) in bad.items()
    ]
    beside = {"prompt": "p", "completion": "c", "vector": np.zeros(3), 7: "seven", "more": None}
    picture = {"prompt": "p", "completion": "c", "image": np.zeros((2, 2))}
    return [
        *cases,
        Case("records: none", lambda _: [], ["no example is given"], reader="records"),
        Case("records: arrays beside", lambda _: [beside], right={"examples": [("p", "c")]}, reader="records"),
        Case("records: a picture as an array", lambda _: [picture], right={"examples": [("p", "c")]}, reader="records"),
    ]


def prepared_cases() -> list[Case]:
    rows = [record(prompt=str(n)) for n in range(10)]
    long, answer = record(prompt="a" * 100 + "b"), record(completion="a" * 100)
    sizes = {"enough.jsonl": rows, "few.jsonl": rows[:3]}
    cases: dict[str, tuple[Mapping[str, list[bytes]], str, Sequence[str], Mapping[str, Any] | None]] = {
        "a task of too few examples": (sizes, "error", ["a batch larger than the pool", "task few"], None),
        "too long": ({"t.jsonl": [*rows, long]}, "error", ["t.jsonl:11", "tasks.max_length", "103 tokens"], None),
        "all too long": ({"t.jsonl": [long]}, "drop", ["task t"], None),
        "an answer too long": ({"t.jsonl": [*rows, answer]}, "truncate", ["t.jsonl:11", "never cut"], None),
        "dropped": ({"t.jsonl": [*rows, long]}, "drop", [], {"dropped": {"too long": 1}, "examples": {"t": 10}}),
        "cut": ({"t.jsonl": [*rows, long]}, "truncate", [], {"dropped": {"truncated": 1}, "examples": {"t": 11}}),
    }
    return [
        Case(
            f"prepared: {name}",
            _run({file: b"\n".join(lines) for file, lines in files.items()}, policy),
            words,
            right,
            "prepare",
        )
        for name, (files, policy, words, right) in cases.items()
    ]


def _run(files: Mapping[str, bytes], policy: str) -> Callable[[Path], Any]:
    def build(folder: Path) -> dict[str, Any]:
        sizes = {"test": 2, "support": 2, "query": 2, "max_length": 40, "on_too_long": policy}
        return {
            "model": {"name": "tiny"},
            "tasks": {"folder": folder_of(files)(folder), **sizes},
            "method": {"name": "fomaml-lora"},
            "outer": {"tasks_per_step": 1},
            "output_dir": "x",
        }

    return build


BOMB = "a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
BAD_YAML: dict[str, tuple[str | bytes, Sequence[str]]] = {
    "aliases": (BOMB, ["run.yaml", "aliases make more than"]),
    "an alias of itself": ("a: &x [*x, *x]\n", ["deep"]),
    "aliases of a long text": (f'a: &x "{"x" * 900_000}"\nmodel: [{"*x, " * 13_000}]\n', ["aliases make more than"]),
    "3,000 faults below a long key": (f"? {'k' * 500_000}\n: {{{'a: 1, ' * 3_000}}}\n", ["a key has to be text"]),
    "an alias of nothing": ("a: *x\n", ["undefined alias"]),
    "brackets": ("a: " + "[" * 500_000, ["deep"]),
    "blocks": ("".join(f"{' ' * n}a:\n" for n in range(900)), ["deep"]),
    "values": ("a: [" + "1," * (MAX_VALUES + 1) + "]", ["more than", "keys and values"]),
    "size": ("#" * (MAX_BYTES + 1), ["too large"]),
    "key twice": (CONFIG + "seed: 1\nseed: 2\n", ["seed (line 6)", "given twice, first in line 5"]),
    "key twice in braces": ("model: {name: a, name: b}\n", ["model.name (line 1)", "given twice"]),
    "a Python object": ("a: !!python/object/apply:os.system [ls]\n", ["tags such as"]),
    "a tag": ("a: !!str 3\n", ["tags such as"]),
    "two documents": (CONFIG + "---\n" + CONFIG, ["another document"]),
    "a merged key": (CONFIG + "a: &a {}\nb: {<<: *a}\n", ["unknown key"]),
    "a tab": ("model:\n\tname: m\n", ["line 2"]),
    "NUL": (CONFIG + "seed: \0\n", ["not valid YAML"]),
    "no letter": (CONFIG + 'seed: "\\UFFFFFFFF"\n', ["not valid YAML"]),
    "a version of 5,000 digits": ("%YAML 1." + "1" * 5000 + "\n---\na: 1\n", ["run.yaml"]),
    "half a surrogate": (CONFIG + '"\\ud800": 1\n', ["a key has to be text", "line 5"]),
    "half a surrogate as a name": (CONFIG.replace("name: m", 'name: "\\ud800"'), ["model.name"]),
    "not UTF-8": (CONFIG.encode() + b"# \xff\n", ["not UTF-8", "line 5"]),
    "UTF-16": (CONFIG.encode("utf-16"), ["not UTF-8"]),
    "binary": (bytes(range(256)), ["run.yaml"]),
    "a list": ("- a\n", ["not a mapping"]),
    "nothing": ("", ["model.name", "missing"]),
    "infinity": (CONFIG + "outer: {optimizer: {name: sgd, lr: 1e999}}\n", ["outer.optimizer.lr (line 5)"]),
    "no number": (CONFIG + "outer: {optimizer: {name: sgd, lr: .nan}}\n", ["outer.optimizer.lr (line 5)"]),
    "a seed of 3,000 digits": (CONFIG + "seed: " + "9" * 3000, ["seed (line 5)"]),
    "a seed of 5,000 digits": (CONFIG + "seed: " + "9" * 5000, ["seed (line 5)"]),
    "a million digits": (CONFIG + "seed: " + "9" * 990_000 + ".5", ["seed (line 5)"]),
    "a word of a megabyte": (CONFIG + "seed: " + "a" * 990_000, ["seed (line 5)"]),
    "a key of a megabyte": (CONFIG + "? " + "a" * 990_000 + "\n: 1\n", ["at most 200 letters"]),
    "yes": (CONFIG + "memory: {checkpointing: yes}\n", ["memory.checkpointing (line 5)", "true or false"]),
    "wrong types": (
        "model: 3\ntasks: []\nmethod: a\nouter: 1.5\nmemory: x\nseed: {}\noutput_dir: 5\n",
        ["line 1", "line 7"],
    ),
    "3,000 unknown keys": (CONFIG + "".join(f"key{n}: 1\n" for n in range(3_000)), ["unknown key"]),
}
BAD_SETS: dict[str, tuple[str, Sequence[str]]] = {
    "no value": ("seed", ["not a setting"]),
    "no key": ("=3", ["not a setting"]),
    "5,000 sections": ("a." * 5000 + "b=1", ["deep"]),
    "a section of a value": ("seed.a=1", ["not a value that this key takes"]),
    "3,000 faults in one": ("seed={" + "a: 1, " * 3_000 + "}", ["given twice", "…"]),
    "a tag": ("seed=!!python/name:os.system", ["tags such as"]),
    "a bomb": ("seed=[" + "[" * 60, ["deep"]),
    "NUL": ("seed=\0", ["not valid YAML"]),
    "half a surrogate": ("output_dir=\udc80", ["not valid YAML"]),
    "half a surrogate as a key": ("\udc80=1", ["not a setting"]),
}


def config_cases() -> list[Case]:
    def text(content: str | bytes) -> bytes:
        return content if isinstance(content, bytes) else content.encode()

    right = {"method.name": "fomaml-lora", "output_dir": "x"}
    sound = {
        "byte order mark": "\ufeff" + CONFIG,
        "Windows line ends": CONFIG.replace("\n", "\r\n"),
        "no end": CONFIG.strip(),
    }
    places: dict[str, tuple[Callable[[Path], Any], str]] = {
        "a pipe": (made("run.yaml", os.mkfifo), "not a file"),
        "a folder": (made("run.yaml", Path.mkdir), "not a file"),
        "a device": (lambda _: Path("/dev/zero"), "not a file"),
        "nowhere": (lambda folder: folder / "run.yaml", "there is no such file"),
        "a link to itself": (made("run.yaml", lambda path: path.symlink_to("run.yaml")), "Too many levels"),
        "NUL in the path": (lambda folder: folder / "a\0b", "can't be read"),
        "a terabyte": (sparse("run.yaml", 10**12), "too large"),
    }
    sets = [
        Case(
            f"set: {name}",
            one_file("run.yaml", CONFIG.encode()),
            [f"--set {given:.20}", *words],
            None,
            "config",
            {"sets": [given]},
        )
        for name, (given, words) in BAD_SETS.items()
    ]
    return [
        *[
            Case(f"YAML: {name}", one_file("run.yaml", text(given)), words, reader="config")
            for name, (given, words) in BAD_YAML.items()
        ],
        *[
            Case(f"YAML: {name}", one_file("run.yaml", text(given)), right=right, reader="config")
            for name, given in sound.items()
        ],
        *[Case(f"YAML: {name}", build, [words], reader="config") for name, (build, words) in places.items()],
        *sets,
    ]
