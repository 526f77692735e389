"""Progress of a command or a call: one activity at a time, shown from its first second on.

busy      a block whose progress is shown
wrapped   lines broken between words, for a terminal

On a terminal it is a line on standard error that moves: a spinner, a bar where it is known how much there is, and the
time. What is done stays behind as a line of text. Elsewhere such lines come at the start, every ten seconds, and at the
end of each thing. In a notebook it is one output of the cell, which is replaced. rich is imported only for a terminal.
"""

import html
import re
import shutil
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol, TextIO, cast

if TYPE_CHECKING:
    from innerloop.engine.metrics import Metrics, ValidationScore

NARROW, WIDE = 60, 100  # columns that lines are broken for, whatever a terminal has
EVERY = 10.0  # seconds between two lines where there is no terminal
REDRAWN = 0.2  # seconds between two states of a notebook's output


class _Display(Protocol):
    """begin, end: of one thing; moved: how far it is; still: nothing moves while a block prints."""

    def begin(self, now: "_Now") -> None: ...
    def moved(self, now: "_Now") -> None: ...
    def end(self, now: "_Now") -> None: ...
    def pause(self) -> None: ...
    def go_on(self) -> None: ...


class _Now:
    """name: what is being done; done of total: how far, where total isn't 0; note: what else is known."""

    def __init__(self, name: str, done: int, total: int, note: str) -> None:
        self.name, self.done, self.total, self.note = name, done, total, note
        self._first, self._started = done, time.monotonic()

    def line(self) -> str:
        seconds = time.monotonic() - self._started
        moved = self.done - self._first
        parts = [self.name, f"{self.done}/{self.total}" if self.total else "", self.note]
        parts.append(_clock(seconds) if seconds >= 1 else "")
        if moved > 0 and self.done < self.total:
            parts.append(f"about {_clock(seconds / moved * (self.total - self.done))} left")
        return "  ".join(part for part in parts if part)


class Busy:
    """Shows the activity it is told of, and how far that is."""

    def __init__(self, display: _Display) -> None:
        self._display, self._now, self._evaluated = display, _Now("", 0, 0, ""), ""

    def say(self, name: str, done: int = 0, total: int = 0, note: str = "") -> None:
        """Shows `name` at done of total, where total 0 means unknown. Another name ends the activity before it."""
        now = self._now
        if name != now.name:
            self.end()
            self._now = now = _Now(name, done, total, note)
            self._display.begin(now)
        now.done, now.total, now.note = done, total, note
        self._display.moved(now)

    def step(self, name: str, metrics: "Metrics", steps: int) -> None:
        """Shows an outer step of `steps`. name: the adapter's, where there are several."""
        self.say(f"training {name}".rstrip(), metrics.step, steps, f"loss {metrics.loss:.3f}{self._evaluated}")

    def evaluated(self, found: "ValidationScore", best: "ValidationScore | None") -> None:
        """Has the steps from here on show the last evaluation, and after which step the best one was."""
        self._evaluated = f"  eval {found.said}" + (f", best at step {best.step}" if best else "")

    def print(self, *lines: str) -> None:
        """Prints on standard output, with the progress line paused."""
        self._display.pause()
        print(wrapped("\n".join(lines), sys.stdout), flush=True)
        self._display.go_on()

    def where(self) -> str:
        """The current activity in words, for the message of a command that is stopped in it."""
        now = self._now
        return f" at {now.name}" + (f" {now.done}/{now.total}" if now.total else "") if now.name else ""

    def end(self) -> None:
        if self._now.name:
            self._display.end(self._now)
        self._now = _Now("", 0, 0, "")


@contextmanager
def busy(name: str, *, shown: bool = True) -> Iterator[Busy]:
    """Yields a Busy, whose first activity is `name`."""
    display = _display() if shown else _Nothing()
    now = Busy(display)
    now.say(name)
    try:
        yield now
        now.end()
    finally:
        display.pause()


def _display() -> _Display:
    if _in_notebook():
        return _Notebook()
    return _Moving() if _is_terminal() else _Lines()


def _in_notebook() -> bool:
    """Asks IPython, where this process is one of its kernels."""
    if "IPython" not in sys.modules:
        return False
    from IPython.core.getipython import get_ipython

    shell: Any = get_ipython()
    return shell is not None and "IPKernelApp" in shell.config


def _is_terminal() -> bool:
    if sys.stderr.isatty():
        return True
    import os

    return os.environ.get("TTY_COMPATIBLE") == "1"  # as rich has it


class _Nothing:
    """Nothing is shown."""

    def begin(self, now: _Now) -> None: ...
    def moved(self, now: _Now) -> None: ...
    def end(self, now: _Now) -> None: ...
    def pause(self) -> None: ...
    def go_on(self) -> None: ...


class _Notebook:
    """What is done, and what is being done: one output, which needs no widgets and is saved as it is at last."""

    def __init__(self) -> None:
        from IPython.display import display

        self._done, self._now, self._drawn = list[str](), cast(_Now | None, None), 0.0
        self._output: Any = display(self, display_id=True)

    def __repr__(self) -> str:
        return "\n".join([*self._done, *([self._now.line()] if self._now else [])])

    def _repr_html_(self) -> str:
        lines = [f"<div>{html.escape(line)}</div>" for line in self._done]
        if self._now:
            total = f' value="{self._now.done}" max="{self._now.total}"' if self._now.total else ""
            lines.append(f"<div><progress{total}></progress> {html.escape(self._now.line())}</div>")
        return f'<div style="font-family: monospace; white-space: pre">{"".join(lines)}</div>'

    def begin(self, now: _Now) -> None:
        self._now = now
        self._draw()

    def moved(self, now: _Now) -> None:
        if time.monotonic() - self._drawn >= REDRAWN:
            self._draw()

    def end(self, now: _Now) -> None:
        self._now = None
        if now.total:  # what is only waited for leaves nothing behind
            self._done.append(now.line())

    def pause(self) -> None:
        self._draw()

    def go_on(self) -> None:
        """Nothing was hidden."""

    def _draw(self) -> None:
        self._drawn = time.monotonic()
        self._output.update(self)


class _Lines:
    """Plain lines; a thread writes those of things that take long."""

    def __init__(self) -> None:
        self._now: _Now | None = None
        self._said, self._first = time.monotonic(), True
        self._ended = threading.Event()
        threading.Thread(target=self._watch, daemon=True).start()

    def begin(self, now: _Now) -> None:
        self._now = now
        if not now.total or self._first:
            self._write(now)
        self._first = False

    def moved(self, now: _Now) -> None:
        """The thread looks itself."""

    def end(self, now: _Now) -> None:
        self._now = None
        if now.total:
            self._write(now)

    def pause(self) -> None:
        self._ended.set()

    def go_on(self) -> None:
        """Nothing moves."""

    def _watch(self) -> None:
        while not self._ended.wait(EVERY / 10):
            now = self._now
            if now is not None and time.monotonic() - self._said >= EVERY:
                self._write(now)

    def _write(self, now: _Now) -> None:
        self._said = time.monotonic()
        print(now.line(), file=sys.stderr, flush=True)


class _Moving:
    """rich's line at the bottom of a terminal."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
        from rich.table import Column

        text = Column(no_wrap=True, overflow="ellipsis", ratio=1)
        count = TextColumn("{task.fields[count]}", markup=False)
        columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False, table_column=text))
        columns += (BarColumn(bar_width=16), count, TimeElapsedColumn(), TimeRemainingColumn(compact=True))
        self._console = Console(stderr=True)
        self._bars = Progress(*columns, console=self._console, transient=True, redirect_stdout=False, expand=True)
        self._bar: Any = None
        self._bars.start()

    def begin(self, now: _Now) -> None:
        self._bar = self._bars.add_task(now.name, total=now.total or None, completed=now.done, count="")

    def moved(self, now: _Now) -> None:
        text, count = f"{now.name}  {now.note}".rstrip(), f"{now.done}/{now.total}" if now.total else ""
        self._bars.update(self._bar, description=text, total=now.total or None, completed=now.done, count=count)

    def end(self, now: _Now) -> None:
        self._bars.remove_task(self._bar)
        if now.total:  # what is only waited for leaves nothing behind
            self._console.print(now.line(), markup=False, highlight=False, soft_wrap=True)

    def pause(self) -> None:
        self._bars.stop()

    def go_on(self) -> None:
        self._bars.start()


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def wrapped(text: str, stream: TextIO) -> str:
    """A terminal breaks long lines anywhere: here they break between words, below where their text began."""
    if not stream.isatty():
        return text
    width = min(max(shutil.get_terminal_size().columns, NARROW), WIDE)
    return "\n".join(_broken(line, width) for line in text.split("\n"))


def _broken(line: str, width: int) -> str:
    label = re.match(r" *(\S+: +|\S+ {2,})?", line)
    indent = " " * min(label.end() if label else 0, width // 2)
    if len(line) <= width:
        return line
    return textwrap.fill(line, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
