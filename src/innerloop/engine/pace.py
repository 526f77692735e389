"""How many tasks go through one forward, where the config leaves it to the run (`auto`): measured, then kept.

paced     a session whose config names the number
fastest   tries numbers of tasks, beginning with a guess

The guess is a token budget's (preparation.tasks_that_fit). Twice as many tasks are tried, and, while that is faster,
twice as many again; where it isn't, half as many. Where the guess is all tasks of a step nothing is tried: they cost
less than the budget, and apart they would cost more.

A number that was found is kept in innerloop's cache folder under all that it depends on. Chunks change no number beyond
rounding, but a repeated run has the same ones, and with them the same bits.
"""

import hashlib
import json
import math
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from innerloop.data.tasks import TaskBatch
from innerloop.engine.session import Session
from innerloop.files import cache_folder, write_text
from innerloop.machine import environment, peak_memory, reset_peak_memory
from innerloop.numerics.tensors import per_task, zeros_like
from innerloop.spaces.loss import AnswerLoss

WORTH = 1.05  # times as many tokens a second, before another number than the one at hand is taken
KEPT = 200  # numbers, the latest

Rate = Callable[[int], float | None]


def paced(session: Session) -> Session:
    """The session with `memory.tasks_per_forward` a number, whatever it was. Its memory peaks are counted anew."""
    config = session.config
    if config.memory.tasks_per_forward != "auto":
        return session
    _, batches = session.streams()[0]
    first, count = batches[0], session.tasks_per_forward(batches)
    if session.row.space.limit is None and count < len(first.names):
        guess, most = count, len(first.names)
        count = _kept(_digest(session), lambda: fastest(_Trial(session, first, guess), guess=guess, most=most))
    memory = config.memory.model_copy(update={"tasks_per_forward": count})
    return replace(session, config=config.model_copy(update={"memory": memory}))


def fastest(rate: Rate, *, guess: int, most: int) -> int:
    """rate: number of tasks -> tokens a second; None where they don't fit."""
    rate(guess)  # what is allocated and compiled once isn't counted
    best, fast = guess, rate(guess) or 0.0
    for larger in (True, False):
        while best > 1 or larger:
            count = min(2 * best, most) if larger else best // 2
            found = rate(count) if count != best else None
            if found is None or found < WORTH * fast:
                break
            best, fast = count, found
        if best != guess:
            break
    return best


class _Trial:
    """A round of the method on so many of the first step's tasks, with one inner step."""

    def __init__(self, session: Session, first: TaskBatch, guess: int) -> None:
        section = session.config.method
        if section.inner is not None:
            section = section.model_copy(update={"inner": section.inner.model_copy(update={"steps": 1})})
        self.space, self.method = session.space(), section.build()
        self.tasks = first._replace(support=first.support[:1])
        self.into = zeros_like(self.space.shared)
        self.bytes_a_task = 0.0
        if session.cut:  # hidden states below the cut are there from an example's second time on
            assert isinstance(self.space.loss, AnswerLoss)
            assert self.space.loss.trunk is not None
            for chunk in self.tasks.split(guess):
                for batch in chunk.to(self.space.device).batches:
                    self.space.loss.trunk.hidden(batch)

    def __call__(self, count: int) -> float | None:
        if count * self.bytes_a_task > _free_bytes():
            return None
        device = self.space.device
        most = len(self.tasks.names)
        chunk = self.tasks.select(most - count, most).to(device)  # the longest, where they are in order
        resident = _peak_from_here()
        started = time.perf_counter()
        try:
            self.method.outer_gradient(self.space, per_task(self.space.shared, count), chunk, self.into)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
        except torch.OutOfMemoryError:
            return None
        finally:
            seconds = time.perf_counter() - started
        self.bytes_a_task = max(self.bytes_a_task, (peak_memory()["rss"] - resident) / count)
        return self.method.tokens(chunk) / seconds


def _peak_from_here() -> int:
    """Resident bytes, from which the next peak is counted."""
    reset_peak_memory()
    return peak_memory()["rss"]


def _free_bytes() -> float:
    """What this machine can still give; a GPU says so itself, by failing."""
    info = Path("/proc/meminfo")
    lines = info.read_text().splitlines() if info.exists() else []
    kilobytes = (line.split()[1] for line in lines if line.startswith("MemAvailable:"))
    return next((1024.0 * int(number) for number in kilobytes), float("inf"))


def _digest(session: Session) -> str:
    """Of everything that the fastest number depends on."""
    config = session.config
    reads: dict[str, Any] = {
        "weights": session.model.fingerprint,
        "device": [str(session.device), str(session.dtype), environment()],
        "memory": config.memory.model_dump(mode="json"),
        "lora": config.method.lora and config.method.lora.model_dump(mode="json"),
        "method": config.method.name,
        "batch": config.method.inner and config.method.inner.batch_size,
        "tasks": config.tasks.model_dump(mode="json"),
        "tasks_per_step": config.outer.tasks_per_step,
        "length": _about(session),
        "even": session.even,
    }
    return hashlib.sha256(json.dumps(reads, sort_keys=True).encode()).hexdigest()


def _about(session: Session) -> int:
    """How long examples are, in steps of a fifth: another seed's are hardly ever longer."""
    lengths = [len(example.tokens) for task in session.train for example in task.pool]
    return round(4 * math.log2(sum(lengths) / len(lengths)))


def _kept(digest: str, measure: Callable[[], int]) -> int:
    path = cache_folder() / "tasks-per-forward.json"
    kept: dict[str, int] = {}
    with suppress(OSError, ValueError, AttributeError):  # none yet, or damaged: measured again
        read = json.loads(path.read_text(encoding="utf-8"))
        kept = {key: count for key, count in read.items() if type(count) is int and count > 0}
    if digest not in kept:
        kept[digest] = measure()
        with suppress(OSError):  # a folder that can't be written costs a measurement a run
            path.parent.mkdir(parents=True, exist_ok=True)
            write_text(path, json.dumps(dict(list(kept.items())[-KEPT:])))
    return kept[digest]
