"""What the verbs share: their options, what they print, and how they end.

columns_of     --column arguments as a mapping
say            the document for programs, or the lines for people
resumable      a signal ends a verb with what goes on with it
uncollected    no garbage is looked for while a verb imports and loads
"""

import gc
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from innerloop.errors import Fault, ResumableError, UserError
from innerloop.progress import wrapped

CHECK_FAILED = 3

Config = Annotated[Path, typer.Argument(help="The run's YAML file.")]
Run = Annotated[Path, typer.Argument(help="The output_dir of a finished run.")]
Sets = Annotated[list[str], typer.Option("--set", help="Override a key: --set method.inner.steps=5. Repeatable.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


@contextmanager
def uncollected() -> Iterator[None]:
    """What is imported and loaded stays: looking through it for garbage takes a tenth of the time to a first answer."""
    gc.disable()
    try:
        yield
    finally:
        collected_from_here()


def collected_from_here() -> None:
    gc.freeze()  # nor is it looked through later, when the process ends
    gc.enable()


@contextmanager
def resumable(go_on: str, at: Callable[[], str] = str) -> Iterator[None]:
    """A signal that stops the command becomes an error that says where it was (`at`) and how to continue (`go_on`)."""
    try:
        yield
    except KeyboardInterrupt as stop:
        raise ResumableError(f"stopped by {stop}{at()}: {go_on}") from None


def columns_of(given: list[str]) -> dict[str, str] | None:
    """--column arguments, name by name; None where there are none."""
    pairs = [text.partition("=") for text in given]
    for text, (name, _, column) in zip(given, pairs, strict=True):
        if not name or not column:
            raise UserError(Fault("not a column", "--column", text, "field=column, such as question=Question"))
    return {name: column for name, _, column in pairs} or None


def say(data: Any, text: str, *, as_json: bool) -> None:
    """On standard output: a JSON document, or lines for people."""
    print(json.dumps(data) if as_json else wrapped(text, sys.stdout))
