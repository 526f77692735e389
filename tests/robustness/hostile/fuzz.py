"""Drawn inputs through the reader of tasks and the loader of configs: each is read rightly or refused in words.

fuzz_reader, fuzz_config   count, seed, folder -> how many were read, refused, and what failed
limited                    a call that is ended after some seconds

An input fails where anything but a UserError is raised, a refusal has no words or names no file, it takes more than
`seconds`, memory grows by more than MEMORY, or what is read is not what was written: a record that no mutation
touched, the answers of sound records, a config and the YAML that `resolved` makes of it.
"""

import itertools
import json
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from innerloop.config.document import Document, to_yaml
from innerloop.config.loading import load_config
from innerloop.data.examples import read_tasks
from innerloop.data.formats import read_table
from innerloop.errors import Faults, UserError
from innerloop.machine import peak_memory, reset_peak_memory
from robustness.hostile.inputs import Input, config_input, reader_input

SECONDS = 5.0  # an input may take
MEMORY = 256_000_000  # bytes by which a round of inputs may let the process grow
BLOCK = 256  # inputs between two looks at the memory
AS_TEXT = 8  # of so many configs that load, one is loaded again from YAML text: that takes ten times as long
FIRST = 10  # failures that are described


class Hang(BaseException):
    """Not an Exception: no reader may take it for a fault of its file."""


def fuzz_reader(
    count: int, seed: int, folder: Path, *, read: Callable[..., Any] = read_tasks, seconds: float = SECONDS
) -> dict[str, Any]:
    """Files of every format through `read`."""
    folder.mkdir(parents=True, exist_ok=True)

    def tried(given: Input) -> str:
        path = folder / f"input{given.suffix}"
        path.write_bytes(given.content)
        if given.rows:
            found = [row.fields for row in read_table(path, Faults()).rows]
            assert all(row in found for row in given.rows), "a record that nothing touched was not read"
        return _outcome(given, lambda: read(path, test=2), named=str(path))

    return _round(count, seed, reader_input, tried, seconds)


def fuzz_config(
    count: int, seed: int, folder: Path, *, load: Callable[..., Any] = load_config, seconds: float = SECONDS
) -> dict[str, Any]:
    """YAML text, mappings and --set through `load`."""
    folder.mkdir(parents=True, exist_ok=True)
    path, loads = folder / "input.yaml", itertools.count()

    def same(config: Any) -> bool:
        resolved = config.resolved()
        if next(loads) % AS_TEXT:
            return load(resolved) == config
        path.write_text(to_yaml(resolved), encoding="utf-8")
        return load(path) == config

    def tried(given: Input) -> str:
        source = given.content
        if isinstance(source, bytes):
            path.write_bytes(source)
            source = path
        if given.kind == "yaml":
            _reads_back(path)
        return _outcome(given._replace(right=same), lambda: load(source, given.sets), named="")

    return _round(count, seed, config_input, tried, seconds)


def limited(seconds: float, call: Callable[[], Any]) -> Any:
    """What it returns. Raises Hang after that time; code that never comes back to Python can't be ended."""
    with _alarm(seconds):
        return call()


@contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    def ring(*_: Any) -> None:
        raise Hang(f"more than {seconds:g} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _outcome(given: Input, call: Callable[[], Any], *, named: str) -> str:
    try:
        result = call()
    except UserError as error:
        refusal = error
    else:
        assert given.must != "refused", "what has to be refused was read"
        assert given.right(result), "another result than was written"
        return "read"
    said = [fault.where for fault in refusal.faults if not fault.problem.startswith("... and ")]
    assert said, "a refusal without a fault"
    assert str(refusal).strip(), "a refusal without words"
    assert all(where.startswith(named) for where in said), f"a fault names no file: {refusal}"
    assert given.must != "read", f"what is sound was refused: {refusal}"
    return "refused"


def _round(
    count: int, seed: int, draw: Callable[[int, int], Input], tried: Callable[[Input], str], seconds: float
) -> dict[str, Any]:
    counts, kinds, failed = {"read": 0, "refused": 0}, dict[str, int](), list[dict[str, Any]]()
    reset_peak_memory()
    started, before = time.perf_counter(), 0
    for number in range(count):
        given = draw(seed, number)
        kinds[given.kind] = kinds.get(given.kind, 0) + 1
        try:
            counts[limited(seconds, lambda given=given: tried(given))] += 1
        except (Exception, Hang) as error:  # whatever it is, it is a find
            failed.append(_failure(seed, number, given, f"{type(error).__name__}: {error}"))
        if number % BLOCK == BLOCK - 1 or number == count - 1:
            before = before or peak_memory()["rss"]  # the first block loads the libraries
            if (grown := peak_memory()["rss"] - before) > MEMORY:
                problem = f"memory grew by {grown:,} bytes within {BLOCK} inputs"
                failed.append(_failure(seed, number, given, problem))
                before += grown
    took = time.perf_counter() - started
    facts = {"seconds": took, "peak_bytes": peak_memory()["rss"], "kinds": kinds, "seed": seed, "count": count}
    return {**counts, "failures": len(failed), "failed": failed[:FIRST], **facts}


def _failure(seed: int, number: int, given: Input, problem: str) -> dict[str, Any]:
    shown = repr(given.content)[:300] + (f" {given.sets!r}" if given.sets else "")
    return {"seed": seed, "number": number, "kind": given.kind, "problem": problem[:500], "input": shown}


def _reads_back(path: Path) -> None:
    """A document without faults is written as text that reads as the same."""
    faults, tree = Faults(), None
    with suppress(UserError):
        tree = Document.read(path, faults).tree
    if tree is not None and not faults:
        path.with_suffix(".again").write_text(to_yaml(tree), encoding="utf-8")
        again: Mapping[str, Any] = Document.read(path.with_suffix(".again"), faults).tree
        assert not faults, f"what was written is refused: {faults}"
        assert json.dumps(again) == json.dumps(tree), "what was written reads as something else"
