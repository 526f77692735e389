"""Named hostile inputs through the real readers, each with what has to come of it.

every_case   named inputs of every kind
try_case     one of them, through the real reader of this process
everything   all of them, and drawn inputs -> what is printed

An input may take SECONDS, and let the process grow by GROWTH.
"""

import shutil
import time
from collections import Counter
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from innerloop.config.loading import load_config
from innerloop.config.schema import KEYS, get
from innerloop.data.examples import read_examples, read_tasks
from innerloop.engine.session import prepare
from innerloop.errors import UserError
from innerloop.loading.models import LoadedModel
from innerloop.machine import peak_memory, reset_peak_memory
from robustness.hostile.cases import Case, SkippedError
from robustness.hostile.files import data_cases, folder_cases
from robustness.hostile.fuzz import Hang, fuzz_config, fuzz_reader, limited
from robustness.hostile.settings import config_cases, prepared_cases, record_cases, table_cases
from tiny import tiny_model, tiny_tokenizer

SECONDS = 10.0
GROWTH = 500_000_000  # bytes: a line of 50 MB is held as bytes, as text and as a record
Read = Callable[..., Mapping[str, Any]]


def every_case() -> list[Case]:
    groups = (data_cases, folder_cases, table_cases, record_cases, prepared_cases, config_cases)
    return [case for group in groups for case in group()]


def try_case(
    case: Case, folder: Path, *, readers: Mapping[str, Read] | None = None, seconds: float = SECONDS
) -> dict[str, Any]:
    """Builds it in `folder`, reads it, and removes the folder. outcome: refused, read, skipped or failed; said: why."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        built = case.build(folder)
    except SkippedError as reason:
        return {"case": case.name, "outcome": "skipped", "said": str(reason)}
    read = (readers or READERS)[case.reader]
    if case.reader == "prepare":
        _tiny()  # what is imported for it is no time of the case
    reset_peak_memory()
    before, started = peak_memory()["rss"], time.perf_counter()
    try:
        outcome, said = limited(seconds, lambda: _told(case, lambda: read(built, **case.options)))
    except (Exception, Hang) as error:  # whatever it is, it is a find
        outcome, said = "failed", f"{type(error).__name__}: {error}"[:1000]
    grown = peak_memory()["rss"] - before
    if grown > GROWTH:
        outcome, said = "failed", f"the process grew by {grown:,} bytes"
    took = time.perf_counter() - started
    shutil.rmtree(folder, ignore_errors=True)  # some are large
    return {"case": case.name, "outcome": outcome, "said": said, "seconds": took, "grown_bytes": grown}


def _told(case: Case, read: Callable[[], Mapping[str, Any]]) -> tuple[str, str]:
    try:
        result = read()
    except UserError as error:
        message = str(error)
        missing = [words for words in case.refused if words not in message]
        if missing or not case.refused:
            return "failed", f"refused without {missing}: {message[:500]}"
        return "refused", message[:500]
    different = {key: result.get(key) for key, right in (case.right or {}).items() if result.get(key) != right}
    if different or case.right is None:
        return "failed", f"read: {(different or result)!r:.500}"
    return "read", ""


# what is read, in a case's words


def _tasks(path: Path, *, test: int = 0, columns: Mapping[str, str] | None = None) -> dict[str, Any]:
    result = read_tasks(path, columns=columns, test=test)
    tasks = {task.name: [*task.pool, *task.test] for task in result.tasks}
    return {
        "tasks": {name: sorted((each.prompt, each.answer) for each in examples) for name, examples in tasks.items()},
        "test": {task.name: len(task.test) for task in result.tasks},
        "repeated": sum(file.duplicates for file in result.files),
        "ignored": result.ignored,
    }


def _records(records: Any) -> dict[str, Any]:
    return {"examples": [(example.prompt, example.answer) for example in read_examples(records)]}


def _prepared(config: Any) -> dict[str, Any]:
    session = prepare(load_config(config), model=_tiny())
    return {
        "dropped": session.dropped,
        "examples": {task.task.name: len(task.pool) + len(task.test) for task in session.train},
    }


def _config(source: Any, *, sets: tuple[str, ...] = ()) -> dict[str, Any]:
    resolved = load_config(source, sets).resolved()
    return {key: get(resolved, key) for key in KEYS}


@cache
def _tiny() -> LoadedModel:
    return LoadedModel(tiny_model("llama", layers=1), tiny_tokenizer(), "tiny", "", "")


READERS: Mapping[str, Read] = {"tasks": _tasks, "records": _records, "prepare": _prepared, "config": _config}


def everything(count: int, seed: int, folder: Path) -> dict[str, Any]:
    """Every case, and `count` drawn inputs of each kind."""
    cases = [try_case(case, folder / "case") for case in every_case()]
    outcomes = Counter(case["outcome"] for case in cases)
    slowest = max(cases, key=lambda case: case.get("seconds", 0))
    largest = max(cases, key=lambda case: case.get("grown_bytes", 0))
    named = {
        "count": len(cases),
        **outcomes,
        "slowest": {key: slowest[key] for key in ("case", "seconds")},
        "largest": {key: largest[key] for key in ("case", "grown_bytes")},
        "skipped_because": {case["case"]: case["said"] for case in cases if case["outcome"] == "skipped"},
        "failures": [case for case in cases if case["outcome"] == "failed"],
    }
    reader, config = (fuzz(count, seed, folder / "drawn") for fuzz in (fuzz_reader, fuzz_config))
    return {"cases": named, "reader": reader, "config": config}
