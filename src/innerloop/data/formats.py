"""Files become rows of named values: JSONL, JSON arrays, CSV, Parquet and saved Hugging Face datasets.

RawTable      one file's path and rows
RawRow        one record, and where in its file it stands
find_sources  the files of a folder that can be read, and the names of the others
read_table    one file -> RawTable; what is wrong with it is added to the faults
"""

import csv
import io
import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from innerloop.data.arrow_values import as_meant, dataset_rows, features_of
from innerloop.data.layouts import SPLITS_FILE, split_folders
from innerloop.data.strict_json import SHOWN, parse
from innerloop.data.task_objects import records_of
from innerloop.errors import Fault, Faults, UserError

BOM = b"\xef\xbb\xbf"
LONGEST_LINE = 100_000_000  # bytes of a record in a .jsonl file: a file without line ends must not fill the memory
LARGEST_FILE = 1_000_000_000  # bytes of a .json or .csv file, which is read whole
_NO_TEXT = {  # how files begin that often have the wrong suffix
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
    b"\x1f\x8b": "gzip",
    b"PK\x03\x04": "zip",
    b"\x28\xb5\x2f\xfd": "zstd",
}


class RawRow(NamedTuple):
    """`where` is "file:line" where the format has lines, "file: row N" (from 1) elsewhere."""

    where: str
    fields: dict[str, Any]


class RawTable(NamedTuple):
    path: Path
    rows: list[RawRow]

    @property
    def columns(self) -> list[str]:
        """Every field that any row has, in order of appearance."""
        return list(dict.fromkeys(name for row in self.rows for name in row.fields))


def find_sources(path: Path) -> tuple[list[Path], list[str]]:
    """What `read_table` can read of a folder or a file, and the names of the rest (hidden files are neither).

    A folder within the folder is read where it holds the splits of one data set.

    Raises UserError where there is nothing to read.
    """
    try:
        if _readable(path):
            return [path], []
        if path.is_file():
            raise UserError(Fault("this kind of file can't be read", str(path), path.suffix, _KINDS))
        entries = sorted(entry for entry in path.iterdir() if not entry.name.startswith("."))
        found = [
            [entry] if _readable(entry) else split_folders(entry, _readable) if entry.is_dir() else []
            for entry in entries
        ]
    except OSError as error:
        raise UserError(Fault(f"can't be read: {error.strerror or error}", str(path))) from None
    except ValueError as error:  # no path at all: it holds a NUL character, say
        raise UserError(Fault("can't be read", value=str(path), expected=f"a path ({error})")) from None
    if not any(found):
        raise UserError(Fault("nothing in this folder can be read", where=str(path), expected=_KINDS))
    others = [entry.name for entry, read in zip(entries, found, strict=True) if not read and entry.name != SPLITS_FILE]
    return [source for read in found for source in read], others


def read_table(path: Path, faults: Faults) -> RawTable:
    """The rows of one file, without those that could not be read: each of these adds a fault."""
    known = len(faults)
    read = _saved_dataset if path.is_dir() else _READERS[path.suffix.lower()]
    rows: list[RawRow] = []
    try:
        rows.extend(read(path, faults))
    except OSError as error:
        faults.add(f"can't be read: {error.strerror or error}", str(path))
    if not rows and len(faults) == known:
        faults.add("no records", str(path), expected="at least one record")
    return RawTable(path, rows)


def _readable(path: Path) -> bool:
    if path.is_dir():
        return (path / "dataset_info.json").is_file() and (path / "state.json").is_file()
    return path.is_file() and path.suffix.lower() in _READERS and path.name != SPLITS_FILE


def _jsonl(path: Path, faults: Faults) -> Iterator[RawRow]:
    with path.open("rb") as file:
        for number, raw in enumerate(iter(partial(file.readline, LONGEST_LINE + 1), b""), 1):
            where = f"{path}:{number}"
            if len(raw) > LONGEST_LINE:
                problem = "a line that is too long, and what follows it was not read"
                faults.add(problem, where, raw[:SHOWN], f"at most {LONGEST_LINE:,} bytes")
                return
            if number == 1 and not _is_text(raw, path, faults):
                return
            line = (raw.removeprefix(BOM) if number == 1 else raw).rstrip(b"\r\n")
            if not line.strip():
                continue
            try:
                record = parse(line.decode("utf-8"))
            except UnicodeDecodeError as error:
                faults.add(f"not UTF-8 at byte {error.start + 1} of the line", where, line[:SHOWN])
            except json.JSONDecodeError as error:
                problem = f"broken JSON at column {error.colno}: {error.msg}"
                faults.add(problem, where, line.decode()[:SHOWN], "one record per line, as JSON")
            except ValueError as error:
                faults.add(f"broken JSON: {error}", where)
            else:
                yield from _record(record, where, faults)


def _json_array(path: Path, faults: Faults) -> Iterator[RawRow]:
    text = _text(path, faults)
    if text is None or not text.strip():
        return
    try:
        records = parse(text)
    except json.JSONDecodeError as error:
        hint = "one JSON array; one record per line belongs in a .jsonl file"
        faults.add(f"broken JSON: {error.msg}", f"{path}:{error.lineno}", expected=hint)
    except ValueError as error:
        faults.add(f"broken JSON: {error}", str(path))
    else:
        if isinstance(records, dict) and (placed := records_of(records, str(path), faults)) is not None:
            for place, record in placed:
                yield RawRow(f"{path}: {place}", record)
            return
        if not isinstance(records, list):
            right = "an array of records: [{...}, {...}], or an object of BIG-bench or Super-NaturalInstructions"
            faults.add("not an array", str(path), records, right)
            return
        for number, record in enumerate(records, 1):
            yield from _record(record, f"{path}: row {number}", faults)


def _csv(path: Path, faults: Faults) -> Iterator[RawRow]:
    text = _text(path, faults)
    if text is None:
        return
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    header: list[str] = []
    while True:
        where = f"{path}:{reader.line_num + 1}"
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:  # the reader goes on behind the line
            faults.add(f"broken CSV: {error}", where)
            if not header:
                return
            continue
        if not cells:
            continue
        if not header:
            header = cells
            if _repeats(header, where, faults):
                return
        elif len(cells) != len(header):
            faults.add(f"{len(cells)} cells", where, cells, f"{len(header)} cells, as in the header")
        else:
            yield RawRow(where, dict(zip(header, cells, strict=True)))


def _parquet(path: Path, faults: Faults) -> Iterator[RawRow]:
    import pyarrow.parquet

    records: list[dict[str, Any]] = []
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            schema = file.schema_arrow
            if _repeats(schema.names, str(path), faults):
                return
            for batch in file.iter_batches():
                records += batch.to_pylist()
        records = as_meant(records, schema, features_of(schema))
    except OSError:
        raise
    except Exception as error:  # no list says what a damaged file, or a date in the year 300000, raises
        faults.add(f"broken Parquet: {_said(error)}", str(path))
    for number, record in enumerate(records, 1):
        yield RawRow(f"{path}: row {number}", record)


def _saved_dataset(path: Path, faults: Faults) -> Iterator[RawRow]:
    import datasets

    records: list[dict[str, Any]] = []
    try:
        state = json.loads((path / "state.json").read_bytes())
        for name in [each["filename"] for each in state["_data_files"]]:
            if Path(name).name != name or not (path / name).is_file():  # a pipe would be waited for
                faults.add("broken dataset: no such file is in its folder", str(path), name)
                return
        records = dataset_rows(datasets.Dataset.load_from_disk(str(path.resolve())))
    except OSError:
        raise
    except Exception as error:  # as above: `datasets` takes its files for its own
        faults.add(f"broken dataset: {type(error).__name__}: {_said(error)}", str(path))
    for number, record in enumerate(records, 1):
        yield RawRow(f"{path}: row {number}", record)


def _text(path: Path, faults: Faults) -> str | None:
    size = path.stat().st_size
    if size > LARGEST_FILE:
        right = f"at most {LARGEST_FILE:,} bytes; JSONL and Parquet may be larger"
        faults.add(f"{size:,} bytes", str(path), expected=right)
        return None
    data = path.read_bytes()
    if not _is_text(data, path, faults):
        return None
    try:
        return data.removeprefix(BOM).decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        faults.add("not UTF-8", f"{path}:{line}", data[error.start : error.end])
        return None


def _is_text(start: bytes, path: Path, faults: Faults) -> bool:
    """Of a file that begins as one of another kind, one fault is enough."""
    kind = next((kind for mark, kind in _NO_TEXT.items() if start.startswith(mark)), None)
    if kind:
        faults.add(f"begins as a {kind} file does", str(path), start[:20], "UTF-8 text")
    return kind is None


def _repeats(columns: list[str], where: str, faults: Faults) -> bool:
    if len(set(columns)) < len(columns):
        faults.add("a column name appears twice", where, columns)
        return True
    return False


def _said(error: Exception) -> str:
    return " ".join(str(error).split())[:500]


def _record(value: Any, where: str, faults: Faults) -> Iterator[RawRow]:
    if isinstance(value, dict):
        yield RawRow(where, value)
    else:
        faults.add("not a record", where, value, 'an object: {"question": ..., "answer": ...}')


_READERS: dict[str, Callable[[Path, Faults], Iterator[RawRow]]] = {
    ".jsonl": _jsonl,
    ".json": _json_array,
    ".csv": _csv,
    ".parquet": _parquet,
}
_KINDS = f"{', '.join(_READERS)}, or a folder written by datasets' save_to_disk"
