"""Progress bars of the command line, on standard error; rich is imported when one is shown.

step_bars    a bar an adapter, with its loss
stage_bars   a bar for each thing that is worked on, with the time left of its present stage
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.progress import Progress

    from innerloop.runs.trainer import Metrics


@contextmanager
def step_bars(steps: int) -> "Iterator[Callable[[str, Metrics], None]]":
    """Yields what is called after each of `steps` steps of an adapter."""
    with _bars("{task.description}  loss {task.fields[loss]}") as progress:
        bars: dict[str, Any] = {}

        def on_step(name: str, metrics: "Metrics") -> None:
            if name not in bars:
                bars[name] = progress.add_task(name or "training", total=steps, loss="")
            progress.update(bars[name], completed=metrics.step, loss=f"{metrics.loss:.3f}")

        yield on_step


@contextmanager
def stage_bars() -> Iterator[Callable[[str, str, int, int], None]]:
    """Yields what is told the thing, its stage, and how much of how much is done."""
    with _bars("{task.description}") as progress:
        bars: dict[str, Any] = {}

        def say(name: str, stage: str, done: int, total: int) -> None:
            text = f"{name}  {stage}".rstrip()
            if name not in bars and bars:
                last = next(reversed(bars.values()))[0]
                progress.update(last, completed=progress.tasks[last].total)
            bar, before = bars.get(name) or (progress.add_task(text, total=total), stage)
            if stage != before:
                progress.reset(bar, total=total)
            bars[name] = (bar, stage)
            progress.update(bar, completed=done, total=total, description=text)

        yield say


@contextmanager
def _bars(text: str) -> "Iterator[Progress]":
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (TextColumn(text), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), redirect_stdout=False) as progress:
        yield progress
