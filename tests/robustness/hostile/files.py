"""Hostile files of tasks: lines, whole files, and what may lie in a folder beside them.

data_cases     lines of a JSONL file, names of tasks, several faults at once
folder_cases   files of the wrong kind, and entries of a folder that are no files
"""

import gzip
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from innerloop.data.formats import LARGEST_FILE, LONGEST_LINE
from robustness.hostile.cases import (
    GOOD,
    READ,
    Case,
    folder_of,
    forbidden,
    made,
    of_parts,
    one_file,
    record,
    sparse,
    with_socket,
)

# one line that is not as it should be, behind a sound one

BAD_LINES: dict[str, tuple[bytes, Sequence[str]]] = {
    "wrong type": (record(prompt=3), ["prompt: is of type int", "value:    3", "expected: text"]),
    "boolean": (record(completion=True), ["completion: is of type bool"]),
    "list": (record(completion=["a", 1]), ["completion: is of type list"]),
    "object": (record(prompt={"a": 1}), ["prompt: is of type dict"]),
    "missing field": (b'{"prompt": "q"}', ["completion: is missing"]),
    "null": (record(completion=None), ["completion: is null"]),
    "empty answer": (record(completion=""), ["completion: is empty"]),
    "blank answer": (record(completion=" \n\u2003"), ["completion: is empty"]),
    "escaped NUL": (record(prompt="q\0"), ["prompt: holds a NUL character"]),
    "raw NUL": (b'{"prompt": "q\0", "completion": "a"}', ["broken JSON at column 14"]),
    "lone surrogate": (record(completion="\udc00"), ["completion: holds", "half a surrogate pair"]),
    "raw surrogate": (b'{"prompt": "\xed\xa0\x80", "completion": "a"}', ["not UTF-8 at byte 13"]),
    "Latin-1": ('{"prompt": "é", "completion": "a"}'.encode("latin-1"), ["not UTF-8 at byte 13"]),
    "overlong encoding": (b'{"prompt": "\xc0\x80", "completion": "a"}', ["not UTF-8"]),
    "a number of 5,000 digits": (b'{"prompt": 1' + b"0" * 5000 + b"}", ["broken JSON: Exceeds the limit"]),
    "deep in a field that is not read": (record(more=None)[:-1] + b', "x": ' + b"[" * 60 + b"]" * 60 + b"}", ["deep"]),
    "NaN": (b'{"prompt": "q", "completion": "a", "x": NaN}', ["NaN is not a JSON number"]),
    "key twice": (b'{"prompt": "q", "completion": "a", "prompt": "x"}', ["the key 'prompt' appears twice"]),
    "100,000 keys, one twice": (
        b"{" + b",".join(b'"%d": 0' % (n % 99_999) for n in range(100_000)) + b"}",
        ["the key '0'"],
    ),
    "cut off": (b'{"prompt": "q", "completion": "a', ["broken JSON at column 31", "Unterminated string"]),
    "single quotes": (b"{'prompt': 'q', 'completion': 'a'}", ["broken JSON at column 2"]),
    "two records": (GOOD.strip() + GOOD.strip(), ["broken JSON at column 35: Extra data"]),
    "a list": (b"[1, 2]", ["not a record"]),
    "a number": (b"7", ["not a record"]),
    "a second byte order mark": (b"\xef\xbb\xbf" + record(), ["broken JSON at column 1"]),
    "CSV": (b"q,a", ["broken JSON at column 1"]),
    "another form": (b'{"question": "q", "answer": "a"}', []),
}
TURNS = [{"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}]
BAD_MESSAGES: dict[str, tuple[Any, Sequence[str]]] = {
    "no list": ("hello", ["messages: not a conversation"]),
    "one message": (TURNS[1:], ["messages: not a conversation"]),
    "the user last": ([*TURNS, TURNS[0]], ["messages[2].role: the last message is not the assistant's"]),
    "unknown role": ([{"role": "../x", "content": "u"}, TURNS[1]], ["messages[0].role: no such role"]),
    "null content": ([{"role": "user", "content": None}, TURNS[1]], ["messages[0].content: is null"]),
    "empty answer": ([TURNS[0], {"role": "assistant", "content": ""}], ["messages[1].content: is empty"]),
    "a tool's call": ([TURNS[0], {**TURNS[1], "tool_calls": [1]}], ["only role and content", "tool_calls"]),
    "deep parts": ([{"role": "user", "content": [[[]]]}, TURNS[1]], ["messages[0].content: is of type list"]),
}
BAD_NAMES = [
    "../x",
    "..",
    ".",
    "/etc/passwd",
    "a/b",
    "a\\b",
    ".hidden",
    "-rf",
    "C:",
    "x" * 101,
    "naïve",
    "a\x1b[2Jb",
    "\u202e",
]
NO_NAMES: list[Any] = ["", " ", None, True, 1.5, ["a"], {"a": 1}, "a\0b", "\ud800"]
MEGABYTE = b"x" * 1_000_000
BIG: dict[str, tuple[bytes, bytes, bytes, Sequence[str]]] = {  # what stands before, 50 times, and behind
    "a text": (b'{"completion": "a", "prompt": "', MEGABYTE, b'"}', ["prompt: has 50,000,000 characters", "at most"]),
    "an answer": (
        b'{"prompt": "a", "completion": "',
        b"\xf0\x9f\x8e\xb2" * 250_000,
        b'"}',
        ["completion: has 12,500,000"],
    ),
    "brackets": (b"", b"[" * 1_000_000, b"", ["nested too deep"]),
    "no JSON": (b"", MEGABYTE, b"", ["broken JSON at column 1"]),
    "no UTF-8": (b"", b"\xff" * 1_000_000, b"", ["not UTF-8 at byte 1"]),
    "a number": (b'{"prompt": ', b"9" * 1_000_000, b"}", ["broken JSON: Exceeds the limit"]),
    "NULs": (b"", b"\0" * 1_000_000, b"", ["broken JSON at column 1"]),
}
SOUND: dict[str, bytes] = {
    "byte order mark": b"\xef\xbb\xbf" + GOOD,
    "Windows line ends": GOOD.replace(b"\n", b"\r\n"),
    "both": b"\xef\xbb\xbf\r\n" + GOOD.replace(b"\n", b"\r\n") + b"\r\n",
    "no line end": GOOD.strip(),
    "blank lines": b"\n \n\t\n" + GOOD + b"\n",
    "repeated": GOOD * 3,
    "repeated in another order": GOOD + b'{"completion": "c", "prompt": "p"}\n',
    "10,000 fields": json.dumps({"prompt": "p", "completion": "c"} | {str(n): n for n in range(10_000)}).encode(),
}


def data_cases() -> list[Case]:
    cases = [
        Case(
            f"line: {name}",
            one_file("a.jsonl", GOOD + line + b"\n" + GOOD),
            ["a.jsonl:2: " if words else "a.jsonl: ", *words],
        )
        for name, (line, words) in BAD_LINES.items()
    ]
    cases += [
        Case(f"50 MB: {name}", of_parts("a.jsonl", GOOD + start, unit, 50, end), ["a.jsonl:2: ", *words])
        for name, (start, unit, end, words) in BIG.items()
    ]
    cases += [
        Case(
            f"messages: {name}", one_file("a.jsonl", json.dumps({"messages": turns}).encode()), ["a.jsonl:1: ", *words]
        )
        for name, (turns, words) in BAD_MESSAGES.items()
    ]
    cases += [
        Case(f"task {name!r:.20}", one_file("a.jsonl", record(task=name)), ["a.jsonl:1: task: ", words])
        for words, names in (("not a safe task name", BAD_NAMES), ("", NO_NAMES))
        for name in names
    ]
    cases += [
        Case(f"sound: {name}", one_file("a.jsonl", content), right={"tasks": {"a": [READ]}})
        for name, content in SOUND.items()
    ]
    return [*cases, *_together()]


def _together() -> list[Case]:
    """Several faults, files or tasks."""
    text = "\u2028\x85\u202e\ufeff🎲 =cmd()"
    faulty = {"a.jsonl": record(prompt=None), "b.csv": b"question,answer\n1\n2,\n", "c.json": b"[]"}
    said = ["a.jsonl:1: prompt: is null", "b.csv:2: 1 cells", "b.csv:3: answer: is empty", "c.json: no records"]
    rows = {f"{name}.jsonl": b"".join(record(task="t", prompt=str(n)) + b"\n" for n in range(6)) for name in "ab"}
    once = {"tasks": {"t": [(str(n), "a") for n in range(6)]}, "test": {"t": 2}, "repeated": 6}
    twice = record(task="a b") + b"\n" + record(task="a_b")
    large = of_parts("a.jsonl", GOOD[:-2] + b', "x": "', MEGABYTE, 50, b'"}\n')
    one, good = {"columns": {"prompt": "completion"}}, one_file("a.jsonl", GOOD)
    return [
        Case("text is kept", one_file("a.jsonl", record(prompt=text)), right={"tasks": {"a": [(text, "a")]}}),
        Case("50 MB: in a field that is not read", large, right={"tasks": {"a": [READ]}}),
        Case("25 faults", one_file("a.jsonl", b"{\n" * 25), ["a.jsonl:1: ", "20 more (25 in all)"]),
        Case("several files", folder_of(faulty), said),
        Case("two tasks of one name", one_file("a.jsonl", twice), ["a.jsonl:2: task: two tasks would share a name"]),
        Case("the same rows in two files", folder_of(rows), right=once, options={"test": 2}),
        Case("two fields of one column", good, ["a.jsonl: two fields read one column"], options=one),
        Case("no such column", good, ["tasks.columns.prompt"], options={"columns": {"prompt": "x"}}),
    ]


# files and folders

WRONG_FILES: dict[str, tuple[str, bytes, Sequence[str]]] = {
    "empty": ("a.jsonl", b"", ["a.jsonl: no records"]),
    "blank": ("a.jsonl", b"\n \r\n", ["a.jsonl: no records"]),
    "gzip": ("a.jsonl", gzip.compress(GOOD), ["a.jsonl: begins as a gzip file does"]),
    "zip": ("a.json", b"PK\x03\x04" + bytes(range(256)), ["a.json: begins as a zip file does"]),
    "UTF-16": ("a.jsonl", GOOD.decode().encode("utf-16"), ["a.jsonl: begins as a UTF-16 file does"]),
    "UTF-16 as CSV": ("a.csv", "question,answer\n1,2\n".encode("utf-16"), ["a.csv: begins as a UTF-16 file does"]),
    "UTF-16 without a mark": ("a.jsonl", GOOD.decode().encode("utf-16-le"), ["a.jsonl:1: broken JSON"]),
    "binary": ("a.jsonl", bytes(range(256)) * 40, ["a.jsonl:1"]),
    "old line ends": ("a.jsonl", (GOOD * 2).replace(b"\n", b"\r"), ["a.jsonl:1: broken JSON"]),
    "JSON array": ("a.jsonl", json.dumps([{"prompt": "p"}], indent=1).encode(), ["a.jsonl:1", "one record per line"]),
    "JSONL": ("a.json", GOOD * 2, ["a.json:2: broken JSON", "belongs in a .jsonl file"]),
    "object": ("a.json", GOOD, ["a.json: not an array"]),
    "deep": ("a.json", b"[" * 1_000_000, ["a.json: broken JSON: nested too deep"]),
    "no record": ("a.json", b'[{"prompt": "p", "completion": "c"}, 7]', ["a.json: row 2: not a record"]),
    "cells": ("a.csv", b"question,answer\n1\n1,2,3\n", ["a.csv:2: 1 cells", "a.csv:3: 3 cells"]),
    "quote left open": ("a.csv", b'question,answer\n"1,2\n3,4\n', ["a.csv:2: broken CSV"]),
    "two broken lines": ("a.csv", b'question,answer\n"1"x,2\n3,4\n"5"x,6\n', ["a.csv:2: broken", "a.csv:4: broken"]),
    "column twice": ("a.csv", b"question,question\n1,2\n", ["a.csv:1: a column name appears twice"]),
    "NUL in a cell": ("a.csv", b"question,answer\n1,a\0\n", ["a.csv:2: answer: holds a NUL"]),
    "no Parquet": ("a.parquet", os.urandom(2000), ["a.parquet: broken Parquet"]),
    "empty Parquet": ("a.parquet", b"", ["a.parquet: "]),
    "another kind": ("a.txt", b"", ["a.txt: this kind of file can't be read"]),
}


def folder_cases() -> list[Case]:
    one = {"good.jsonl": GOOD}
    right = {"tasks": {"good": [READ]}, "ignored": ["x.jsonl"]}
    beside: dict[str, Callable[[Path], Any]] = {
        "pipe": lambda folder: os.mkfifo(folder / "x.jsonl"),
        "device": lambda folder: (folder / "x.jsonl").symlink_to("/dev/zero"),
        "socket": lambda folder: with_socket(folder / "x.jsonl"),
        "link to itself": lambda folder: (folder / "x.jsonl").symlink_to("x.jsonl"),
        "link to nothing": lambda folder: (folder / "x.jsonl").symlink_to("gone"),
        "link to its folder": lambda folder: (folder / "x.jsonl").symlink_to("."),
        "folder": lambda folder: (folder / "x.jsonl").mkdir(),
    }
    cases = [
        Case(f"file: {name}", one_file(file, content), words) for name, (file, content, words) in WRONG_FILES.items()
    ]
    cases += [Case(f"beside a file: {name}", folder_of(one, more), right=right) for name, more in beside.items()]
    cases += [
        Case(f"alone in its folder: {name}", folder_of({}, more), ["nothing in this folder can be read"])
        for name, more in beside.items()
    ]
    return [
        *cases,
        Case(
            "50 MB: a cell",
            of_parts("a.csv", b"question,answer\n1,", MEGABYTE, 50),
            ["a.csv:2: broken CSV: field larger"],
        ),
        Case("a line without end", sparse("a.jsonl", LONGEST_LINE + 2), ["a.jsonl:1: a line that is too long"]),
        Case("lines of a terabyte", sparse("a.jsonl", 10**12), ["a.jsonl:1: a line that is too long"]),
        Case(
            "a file of a terabyte", sparse("a.json", 10**12), ["a.json: 1,000,000,000,000 bytes", f"{LARGEST_FILE:,}"]
        ),
        Case("no such folder", lambda folder: folder / "gone", ["No such file"]),
        Case("a pipe itself", made("x.jsonl", os.mkfifo), ["can't be read"]),
        Case("a link to itself", made("x", lambda path: path.symlink_to("x")), ["Too many levels of symbolic links"]),
        Case("NUL in the path", lambda folder: folder / "a\0b", ["can't be read"]),
        Case("a path too long", lambda folder: folder / ("x" * 5000), ["File name too long"]),
        Case("a name that is no text", folder_of({os.fsdecode(b"\xff.jsonl"): GOOD}), ["half a surrogate pair"]),
        Case("a name with white space", folder_of({"a\tb.jsonl": GOOD}), right={"tasks": {"a_b": [READ]}}),
        Case("a file without permission", forbidden("a.jsonl"), ["a.jsonl: can't be read: Permission denied"]),
        Case("a folder without permission", forbidden("folder"), ["Permission denied"]),
        Case("only hidden files", folder_of({".a.jsonl": GOOD}), ["nothing in this folder can be read"]),
        Case("only pictures", one_file("a.jsonl", record(image="x.png")), ["no record is left: all need a picture"]),
    ]
