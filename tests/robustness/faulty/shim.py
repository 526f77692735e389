"""disk.c from Python: built, armed in the process that loaded it, and its log read.

Fault      which of a run's calls fails, with which error, and whether all later ones do
build      disk.c -> a library for LD_PRELOAD
arm        begins to count, to log and to fail, in this process
Call       one logged call; read_log: all of them
plain      a path with the names that files have while they are written turned into those that they get
by_file    how many calls each file met
"""

import ctypes
import errno
import os
import re
import struct
import subprocess
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

SOURCE = Path(__file__).parent / "disk.c"
NAMES = (
    "", "open", "write", "truncate", "allocate", "sync", "rename", "mkdir", "unlink", "rmdir", "link", "symlink"
)  # fmt: skip
_HEAD = struct.Struct("<IIqQqIIQ")
_TEMPORARY = re.compile(r"^\.(.+)\.\d+-[0-9a-f]+(\.old)?$")
_RUST_TEMPORARY = re.compile(r"/\.tmp\w{6}$")


class Fault(NamedTuple):
    """at: the call's number, from 1; 0 = none fails. sticky: every later one fails too."""

    at: int = 0
    error: int = 0
    sticky: bool = False

    def __str__(self) -> str:
        return f"{errno.errorcode.get(self.error, 'nothing')} at call {self.at}" + " and later" * self.sticky


NO_FAULT = Fault()


class Call(NamedTuple):
    """result: what it returned, or -errno; offset: of a write, a truncation's length, an open's flags."""

    op: str
    injected: bool
    result: int
    inode: int
    offset: int
    path: str
    other: str
    data: bytes


def build(folder: Path) -> Path:
    """Raises CalledProcessError where there is no C compiler that can."""
    library = folder / "disk.so"
    command = ["cc", "-shared", "-fPIC", "-O1", "-o", str(library), str(SOURCE), "-lpthread"]
    subprocess.run(command, check=True, capture_output=True)
    return library


def arm(under: str, log: str, fault: Fault = NO_FAULT, *, with_data: bool = False) -> None:
    """Raises AttributeError in a process that was started without the library."""
    library = ctypes.CDLL(None)
    numbers = fault.at, fault.error, int(fault.sticky)
    library.faults_arm(under.encode(), ctypes.c_long(numbers[0]), *numbers[1:], log.encode(), int(with_data))


def read_log(path: Path) -> list[Call]:
    """A record that a kill cut off is left out."""
    whole, calls, place = path.read_bytes(), list[Call](), 0
    while place + _HEAD.size <= len(whole):
        op, injected, result, inode, offset, first, second, size = _HEAD.unpack_from(whole, place)
        begins = place + _HEAD.size
        place = begins + first + second + size
        if place > len(whole):
            break
        name, other = whole[begins : begins + first], whole[begins + first : begins + first + second]
        data = whole[begins + first + second : place]
        calls.append(
            Call(NAMES[op], bool(injected), result, inode, offset, os.fsdecode(name), os.fsdecode(other), data)
        )
    return calls


def plain(path: str) -> str:
    """`a/.state.json.12-ab` is `a/state.json`."""
    return "/".join(_TEMPORARY.sub(r"\1", part) for part in path.removesuffix(" (deleted)").split("/"))


def by_file(calls: Sequence[Call], folder: Path) -> dict[str, int]:
    """Paths are relative to `folder`; numbers in a name (of a step) count as one. safetensors' temporary files have the
    name under which their inode is met next."""
    named, later = Counter[str](), dict[int, str]()
    for call in reversed(calls):
        path = call.path
        if _RUST_TEMPORARY.search(path):
            path = later.get(call.inode, path)
        elif call.inode:
            later[call.inode] = path
        named[re.sub(r"\d{3,}", "N", plain(os.path.relpath(path, folder)))] += 1
    return dict(sorted(named.items()))
