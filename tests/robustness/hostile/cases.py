"""What a hostile input is, and how one is built.

Case           what is built, and the words of its refusal or what is read
SkippedError   raised by a `build` for which this user or machine is no place
one_file, of_parts, sparse, folder_of, forbidden, with_socket   build functions, and parts of them
"""

import json
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

Reader = Literal["tasks", "records", "prepare", "config"]
GOOD = b'{"prompt": "p", "completion": "c"}\n'
READ = ("p", "c")


class SkippedError(Exception):
    """Why the case can't be tried here."""


@dataclass(frozen=True)
class Case:
    """One hostile input.

    build     puts it into an empty folder, and returns what is to be read: a path, records or a config
    refused   words that the message has to hold, or
    right     what is read of it, in the words of `corpus.READERS`
    """

    name: str
    build: Callable[[Path], Any]
    refused: Sequence[str] = ()
    right: Mapping[str, Any] | None = None
    reader: Reader = "tasks"
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])


def record(**fields: Any) -> bytes:
    """A JSON line without its end."""
    return json.dumps({"prompt": "q", "completion": "a", **fields}).encode()


def one_file(name: str, content: bytes) -> Callable[[Path], Path]:
    def build(folder: Path) -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    return build


def of_parts(name: str, start: bytes, unit: bytes, times: int, end: bytes = b"") -> Callable[[Path], Path]:
    """`unit` a million times over is never in memory."""

    def build(folder: Path) -> Path:
        with (folder / name).open("wb") as file:
            file.write(start)
            for _ in range(times):
                file.write(unit)
            file.write(end)
        return folder / name

    return build


def sparse(name: str, size: int) -> Callable[[Path], Path]:
    """Zeros that take no room."""

    def build(folder: Path) -> Path:
        with (folder / name).open("wb") as file:
            file.truncate(size)
        return folder / name

    return build


def folder_of(files: Mapping[str, bytes], more: Callable[[Path], Any] = lambda _: None) -> Callable[[Path], Path]:
    def build(folder: Path) -> Path:
        for name, content in files.items():
            (folder / name).write_bytes(content)
        more(folder)
        return folder

    return build


def made(name: str, make: Callable[[Path], Any]) -> Callable[[Path], Path]:
    def build(folder: Path) -> Path:
        make(folder / name)
        return folder / name

    return build


def with_socket(path: Path) -> None:
    here = os.getcwd()
    os.chdir(path.parent)  # the path of a socket may have 107 bytes
    try:
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(path.name)
    finally:
        os.chdir(here)


def forbidden(name: str) -> Callable[[Path], Path]:
    def build(folder: Path) -> Path:
        path = folder / name
        if path.suffix:
            path.write_bytes(GOOD)
        else:
            path.mkdir()
        path.chmod(0)
        if os.access(path, os.R_OK):
            raise SkippedError("this user can read every file")
        return path

    return build
