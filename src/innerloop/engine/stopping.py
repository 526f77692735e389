"""Signals that ask a run to stop: the piece at hand is dropped, and what was reached is saved.

SIGNALS            interrupt, terminate, user 1
Stopped            what the first of them raises, in the main thread, wherever that is
stoppable          a block in which they do so
held               a block that a signal lets end first
raise_if_stopped   raises what somebody swallowed on the way

Raised rather than polled for: loading, tokenizing, an inner loop and a generation then stop at the next line of Python,
and no loop can forget to ask. What must not be torn apart is `held`.
"""

import atexit
import os
import signal
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from innerloop.errors import ResumableError

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name))


class Stopped(KeyboardInterrupt):
    """A KeyboardInterrupt, which nothing catches that catches errors; its text is the signal's name."""


@dataclass
class _Signals:
    """asked: the signal that came; waiting: it was not raised yet; ends: a second one ends the process."""

    installed: bool = False
    ends: bool = False
    asked: str = ""
    waiting: bool = False
    holds: int = 0


_signals = _Signals()  # handlers are the process's own, so this is too


@contextmanager
def stoppable(*, second_ends: bool = False) -> Generator[None]:
    """In the main thread, `SIGNALS` raise Stopped; inside another such block, that one's rules hold.

    second_ends: for a process that ends with the block. A second signal ends it at once, with the exit code of what can
    be gone on with; while Python takes it down none is heard.
    """
    if _signals.installed or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}
    report = sys.unraisablehook
    _signals.__dict__.update(_Signals(installed=True, ends=second_ends).__dict__)
    for number in SIGNALS:
        signal.signal(number, _asked)
    sys.unraisablehook = lambda lost: None if issubclass(lost.exc_type, Stopped) else report(lost)
    if second_ends:
        atexit.register(_ignored)
    try:
        yield
    finally:
        if not (_signals.asked and _signals.ends):  # else the process is ending, which a second signal still hastens
            for number, handler in before.items():
                signal.signal(number, handler)
            sys.unraisablehook = report
            _signals.__dict__.update(_Signals().__dict__)


@contextmanager
def held() -> Generator[None]:
    """A signal that comes inside is raised at the end of the block."""
    _signals.holds += 1
    try:
        yield
    finally:
        _signals.holds -= 1
    if _signals.waiting and not _signals.holds:
        _signals.waiting = False
        raise Stopped(_signals.asked)


def raise_if_stopped() -> None:
    """An exception raised where Python ignores exceptions (a destructor) is lost; its cause is still known."""
    if _signals.asked:
        raise Stopped(_signals.asked)


def _ignored() -> None:
    """A process that is taking itself down has said how it ended."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _asked(number: int, frame: FrameType | None) -> None:
    if _signals.asked and _signals.ends:
        os._exit(ResumableError.exit_code)
    _signals.asked = signal.Signals(number).name
    _signals.waiting = _signals.holds > 0
    if not _signals.waiting:
        raise Stopped(_signals.asked)
