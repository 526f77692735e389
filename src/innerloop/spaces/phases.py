"""What is being computed, in words: a profile shows them, and a listener is told.

phase       a block of a step: inner, query, outer; within them forward and backward
listening   as long as it is open, `listener` is told where phases of this thread begin and end
Listener    (name, whether it begins) -> None
"""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar

from torch.autograd import _profiler_enabled  # pyright: ignore[reportPrivateUsage, reportUnknownVariableType, reportPrivateImportUsage]
from torch.profiler import record_function

Listener = Callable[[str, bool], None]

_listeners: ContextVar[tuple[Listener, ...]] = ContextVar("listeners", default=())


class phase:  # noqa: N801 (a context manager, and a class since it is entered many times per step)
    """`with phase("inner"):` is a labelled block of torch.profiler, and listeners hear its beginning and end."""

    __slots__ = ("_label", "_name")

    def __init__(self, name: str) -> None:
        self._name = name
        self._label: record_function | None = None

    def __enter__(self) -> None:
        # A label costs 12 microseconds whether anyone profiles or not; to ask costs a hundredth of that.
        if _profiler_enabled():
            self._label = record_function(self._name)
            self._label.__enter__()
        for listener in _listeners.get():
            listener(self._name, True)

    def __exit__(self, *raised: object) -> None:
        for listener in _listeners.get():
            listener(self._name, False)
        if self._label is not None:
            self._label.__exit__(*raised)  # pyright: ignore[reportArgumentType]
            self._label = None


@contextmanager
def listening(listener: Listener) -> Generator[None]:
    """Beside those that listen already."""
    token = _listeners.set((*_listeners.get(), listener))
    try:
        yield
    finally:
        _listeners.reset(token)
