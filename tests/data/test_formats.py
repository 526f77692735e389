"""Every file format gives the same rows, and every broken file a fault that says where."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from innerloop.data.formats import RawTable, find_sources, read_table
from innerloop.data.layouts import place_of
from innerloop.data.strict_json import NESTING
from innerloop.errors import Faults, UserError

RECORDS = [{"question": "1 + 1 =", "answer": "2"}, {"question": "é\n?", "answer": "3"}]


def read(path: Path) -> tuple[RawTable, list[str]]:
    """The table, and "where: problem" of each fault below its folder."""
    faults = Faults()
    table = read_table(path, faults)
    return table, [f"{fault.where}: {fault.problem}".removeprefix(f"{path.parent}/") for fault in faults]


def write(path: Path, content: bytes | str) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))
    return path


def jsonl(*records: Any) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


def save_dataset(folder: Path, records: list[dict[str, Any]]) -> Path:
    import datasets

    datasets.Dataset.from_list(records).save_to_disk(str(folder))
    return folder


def test_all_formats_give_the_same_rows(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist(RECORDS), tmp_path / "a.parquet")
    files = [
        write(tmp_path / "a.jsonl", jsonl(*RECORDS)),
        write(tmp_path / "a.JSON", json.dumps(RECORDS, indent=2)),
        write(tmp_path / "a.csv", 'question,answer\r\n1 + 1 =,2\r\n"é\n?",3\r\n'),
        tmp_path / "a.parquet",
        save_dataset(tmp_path / "a", RECORDS),
    ]
    for path in files:
        table, faults = read(path)
        assert faults == []
        assert [row.fields for row in table.rows] == RECORDS
        assert place_of(path, tmp_path).task == "a"
        assert table.columns == ["question", "answer"]


def test_where_counts_physical_lines_or_rows(tmp_path: Path) -> None:
    lines = write(tmp_path / "a.jsonl", "\r\n" + jsonl(RECORDS[0]) + "  \n\n" + jsonl(RECORDS[1]))
    assert [row.where for row in read(lines)[0].rows] == [f"{lines}:2", f"{lines}:5"]
    cells = write(tmp_path / "a.csv", 'a\n"x\ny"\n\nz\n')
    assert [row.where for row in read(cells)[0].rows] == [f"{cells}:2", f"{cells}:5"]
    array = write(tmp_path / "a.json", json.dumps(RECORDS))
    assert [row.where for row in read(array)[0].rows] == [f"{array}: row 1", f"{array}: row 2"]


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_byte_order_mark_and_line_ends_are_not_data(tmp_path: Path, line_end: str) -> None:
    text = jsonl(*RECORDS).replace("\n", line_end)
    table, faults = read(write(tmp_path / "a.jsonl", "\ufeff" + text))
    assert faults == []
    assert [row.fields for row in table.rows] == RECORDS
    table, _ = read(write(tmp_path / "a.csv", f"\ufeffq,a{line_end}1,2{line_end}"))
    assert table.columns == ["q", "a"]


def test_only_a_newline_ends_a_line(tmp_path: Path) -> None:
    record = {"question": "a\u2028b\x0bc\x85d", "answer": "x"}
    table, faults = read(write(tmp_path / "a.jsonl", json.dumps(record, ensure_ascii=False).replace("\x0b", "\\u000b")))
    assert faults == []
    assert [row.fields for row in table.rows] == [record]


def test_a_huge_line_is_read(tmp_path: Path) -> None:
    record = {"question": "q" * 10_000_000, "answer": "a"}
    table, faults = read(write(tmp_path / "a.jsonl", jsonl(record)))
    assert faults == []
    assert table.rows[0].fields == record


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('{"a": 1', "broken JSON at column 8: Expecting ',' delimiter"),
        ('{"a": "\0"}', "broken JSON at column 8: Invalid control character at"),
        ('{"a": 1, "b": 2, "a": 3}', "broken JSON: the key 'a' appears twice"),
        ('{"a": {"b": 1, "b": 1}}', "broken JSON: the key 'b' appears twice"),
        ('{"a": NaN}', "broken JSON: NaN is not a JSON number"),
        ('{"a": ' + "9" * 5000 + "}", "broken JSON: Exceeds the limit"),
        ('{"a": ' + "[" * NESTING + "]" * NESTING + "}", "broken JSON: nested too deep"),
        ('{"a": ' + "[" * 100_000, "broken JSON: nested too deep"),
        (b'{"a": "\xff"}', "not UTF-8 at byte 8 of the line"),
        ("[1, 2]", "not a record"),
        ("null", "not a record"),
        ("{} {}", "broken JSON at column 4: Extra data"),
    ],
    ids=range(12),
)
def test_a_broken_line_is_reported_and_the_others_are_read(tmp_path: Path, line: bytes | str, problem: str) -> None:
    broken = line if isinstance(line, bytes) else line.encode()
    path = write(tmp_path / "a.jsonl", jsonl({"a": 1}).encode() + broken + b"\n" + jsonl({"a": 2}).encode())
    table, faults = read(path)
    assert [row.fields for row in table.rows] == [{"a": 1}, {"a": 2}]
    assert len(faults) == 1
    assert faults[0].startswith(f"a.jsonl:2: {problem}")


def test_nesting_below_the_limit_is_read(tmp_path: Path) -> None:
    deep = "[" * (NESTING - 1) + "]" * (NESTING - 1)
    assert read(write(tmp_path / "a.jsonl", f'{{"a": {deep}}}'))[1] == []


@pytest.mark.parametrize(
    ("name", "content", "faults"),
    [
        ("a.jsonl", b"", ["a.jsonl: no records"]),
        ("a.jsonl", b"\n \r\n", ["a.jsonl: no records"]),
        ("a.json", b"", ["a.json: no records"]),
        ("a.json", b"[]", ["a.json: no records"]),
        ("a.json", b'{"a": 1}', ["a.json: not an array"]),
        ("a.json", b'[{"a": 1},\n{"a": 2},\n7]', ["a.json: row 3: not a record"]),
        ("a.json", b'{"a": 1}\n{"a": 2}\n', ["a.json:2: broken JSON: Extra data"]),
        ("a.json", b'[{"a": 1},\n{"a": \xff}]', ["a.json:2: not UTF-8"]),
        ("a.json", b"[" * 100_000, ["a.json: broken JSON: nested too deep"]),
        ("a.csv", b"", ["a.csv: no records"]),
        ("a.csv", b"q,a\n", ["a.csv: no records"]),
        ("a.csv", b"q,q\n1,2\n", ["a.csv:1: a column name appears twice"]),
        ("a.csv", b'q,a\n"1\n\n",2\n1\n', ["a.csv:5: 1 cells"]),
        ("a.csv", b'q,a\n1,2\n"1,2\n3,4\n', ["a.csv:3: broken CSV: unexpected end of data"]),
        ("a.csv", b"q,a\n1,\xff\n", ["a.csv:2: not UTF-8"]),
        (
            "a.csv",
            b"q,a\n1," + b"x" * 200_000,
            ["a.csv:2: broken CSV: field larger than field limit (131072)"],
        ),
    ],
)
def test_a_file_without_rows_or_with_broken_ones(tmp_path: Path, name: str, content: bytes, faults: list[str]) -> None:
    assert read(write(tmp_path / name, content))[1] == faults


def test_broken_binary_files_are_faults(tmp_path: Path) -> None:
    assert "a.parquet: broken Parquet" in read(write(tmp_path / "a.parquet", b"PAR1 not really"))[1][0]
    saved = save_dataset(tmp_path / "saved", RECORDS)
    for arrow in saved.glob("*.arrow"):
        arrow.write_bytes(b"\0" * 64)
    assert len(read(saved)[1]) == 1
    write(saved / "state.json", b"{}")
    assert "saved: broken dataset" in read(saved)[1][0]


def test_find_sources_of_a_folder(tmp_path: Path) -> None:
    for name in ("b.jsonl", "a.csv", ".hidden.jsonl", "notes.md", "dataset_dict.json", "weights.pkl"):
        write(tmp_path / name, b"")
    (tmp_path / "subfolder").mkdir()
    save_dataset(tmp_path / "saved", RECORDS)
    sources, ignored = find_sources(tmp_path)
    assert [source.name for source in sources] == ["a.csv", "b.jsonl", "saved"]
    assert ignored == ["notes.md", "subfolder", "weights.pkl"]
    assert find_sources(tmp_path / "saved") == ([tmp_path / "saved"], [])
    assert find_sources(tmp_path / "a.csv") == ([tmp_path / "a.csv"], [])


def test_nothing_to_read_is_an_error(tmp_path: Path) -> None:
    write(tmp_path / "notes.md", b"")
    for path, problem in (
        (tmp_path, "nothing in this folder"),
        (tmp_path / "notes.md", "this kind of file"),
        (tmp_path / "gone", "No such file"),
        (tmp_path / ("long" * 100), "File name too long"),
    ):
        with pytest.raises(UserError, match=problem):
            find_sources(path)


def test_an_unreadable_file_is_a_fault(tmp_path: Path) -> None:
    assert read(tmp_path / "gone.jsonl")[1] == ["gone.jsonl: can't be read: No such file or directory"]
