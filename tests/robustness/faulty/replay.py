"""A disk as a crash leaves it, from a log of calls: what was flushed is there, and of the rest as little as may be.

Disk      takes calls one after the other; tree(variant) is what a crash now would leave
VARIANTS  killed    everything that was written: the process died, not the machine
          dropped   only what was flushed: bytes by fsync of their file, names by fsync of their folder
          empty     names are on disk as soon as they are made, bytes not before fsync: files are empty
          zeros     the same, and files have their length already, but zeros in it
write     a tree as files

An fsync of a file does not make its name durable here (some file systems do more), and one of a folder makes all
changes of names in it durable, in their order.
"""

import errno
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from robustness.faulty.shim import Call

VARIANTS = ("killed", "dropped", "empty", "zeros")
Tree = dict[str, bytes | None]  # path -> bytes; None for a folder


@dataclass
class _Node:
    """now and kept: what a program sees, and what is durable. names: of a folder, else None."""

    names: dict[str, "_Node"] | None = None
    kept_names: dict[str, "_Node"] = field(default_factory=dict)
    now: bytearray = field(default_factory=bytearray)
    kept: bytes = b""


class _Change(NamedTuple):
    """Of names that are not durable yet: (folder, name) goes, (folder, name) comes."""

    gone: tuple[_Node, str] | None
    come: tuple[_Node, str, _Node] | None

    def touches(self, folder: _Node) -> bool:
        return any(place is not None and place[0] is folder for place in (self.gone, self.come))


class Disk:
    """root: the folder that the log is about, before the calls; what it holds is durable."""

    def __init__(self, root: Path) -> None:
        self.root = str(root)
        self.inodes: dict[int, _Node] = {}
        self.pending: list[_Change] = []
        self.top = self._read(root)

    def take(self, call: Call) -> None:
        """Calls that failed change nothing."""
        if call.result >= 0:
            self._notice_rename(call)
            getattr(self, f"_{call.op}")(call)

    def tree(self, variant: str) -> Tree:
        found: Tree = {}
        self._walk(self.top, "", variant, found)
        return found

    def _read(self, path: Path) -> _Node:
        if path.is_dir():
            names = {child.name: self._read(child) for child in path.iterdir()}
            node = _Node(names, dict(names))
        else:
            data = path.read_bytes()
            node = _Node(now=bytearray(data), kept=data)
        self.inodes[path.stat().st_ino] = node
        return node

    def _walk(self, node: _Node, path: str, variant: str, found: Tree) -> None:
        names = node.kept_names if variant == "dropped" else node.names
        for name, child in (names or {}).items():
            place = f"{path}/{name}" if path else name
            if child.names is None:
                found[place] = _bytes(child, variant)
            else:
                found[place] = None
                self._walk(child, place, variant, found)

    def _node(self, call: Call) -> _Node:
        return self.top if call.path == self.root else self.inodes[call.inode]

    def _folder(self, path: str) -> tuple[_Node, str]:
        """The folder that a path is in, and its name there."""
        node = self.top
        *folders, name = os.path.relpath(path, self.root).split("/")
        for part in folders:
            assert node.names is not None
            node = node.names[part]
        return node, name

    def _enter(self, path: str, node: _Node) -> None:
        folder, name = self._folder(path)
        assert folder.names is not None
        folder.names[name] = node
        self.pending.append(_Change(None, (folder, name, node)))

    def _leave(self, path: str) -> _Node:
        folder, name = self._folder(path)
        assert folder.names is not None
        self.pending.append(_Change((folder, name), None))
        return folder.names.pop(name)

    def _notice_rename(self, call: Call) -> None:
        """safetensors renames its temporary file by a system call of its own, which no library sees: from here on the
        file is met under another name in the same folder."""
        node = self.inodes.get(call.inode)
        if call.op not in ("write", "truncate", "sync") or node is None or call.path == self.root:
            return
        folder, name = self._folder(call.path)
        before = [other for other, child in (folder.names or {}).items() if child is node]
        if before and name not in before:
            self._move(folder, before[0], folder, name)

    def _open(self, call: Call) -> None:
        folder, name = self._folder(call.path)
        node = (folder.names or {}).get(name)
        if node is None:
            node = _Node()
            self._enter(call.path, node)
        elif call.offset & os.O_TRUNC:
            node.now.clear()
        self.inodes[call.inode] = node

    def _mkdir(self, call: Call) -> None:
        node = _Node(names={})
        self.inodes[call.inode] = node
        self._enter(call.path, node)

    def _write(self, call: Call) -> None:
        now, end = self._node(call).now, call.offset + call.result
        if len(call.data) != call.result:
            raise ValueError("the log has no bytes: it was made without with_data")
        now.extend(bytes(max(0, end - len(now))))
        now[call.offset : end] = call.data

    def _truncate(self, call: Call) -> None:
        now = self._node(call).now
        now.extend(bytes(max(0, call.offset - len(now))))
        del now[call.offset :]

    def _allocate(self, call: Call) -> None:
        now = self._node(call).now
        now.extend(bytes(max(0, call.offset - len(now))))

    def _sync(self, call: Call) -> None:
        node = self._node(call)
        if node.names is None:
            node.kept = bytes(node.now)
            return
        for change in [change for change in self.pending if change.touches(node)]:
            self.pending.remove(change)
            if change.gone is not None:
                change.gone[0].kept_names.pop(change.gone[1], None)
            if change.come is not None:
                change.come[0].kept_names[change.come[1]] = change.come[2]

    def _rename(self, call: Call) -> None:
        self._move(*self._folder(call.path), *self._folder(call.other))

    def _move(self, folder: _Node, name: str, target: _Node, other: str) -> None:
        """One change: no crash shows both names, or none."""
        assert folder.names is not None
        assert target.names is not None
        node = folder.names.pop(name)
        target.names[other] = node
        self.pending.append(_Change((folder, name), (target, other, node)))

    def _unlink(self, call: Call) -> None:
        self._leave(call.path)

    _rmdir = _unlink

    def _link(self, call: Call) -> None:
        folder, name = self._folder(call.path)
        assert folder.names is not None
        self._enter(call.other, folder.names[name])

    def _symlink(self, call: Call) -> None:
        raise OSError(errno.ENOTSUP, "a run that makes links is not replayed", call.path)


def _bytes(node: _Node, variant: str) -> bytes:
    if variant == "killed":
        return bytes(node.now)
    if variant == "zeros":
        return node.kept[: len(node.now)].ljust(len(node.now), b"\0")
    return node.kept


def of_folder(folder: Path) -> Tree:
    """What is really there."""
    return {
        path.relative_to(folder).as_posix(): None if path.is_dir() else path.read_bytes() for path in folder.rglob("*")
    }


def write(tree: Tree, folder: Path) -> None:
    """Into an empty folder."""
    for name in _parents_first(tree):
        data = tree[name]
        if data is None:
            (folder / name).mkdir()
        else:
            (folder / name).write_bytes(data)


def _parents_first(tree: Tree) -> Iterable[str]:
    return sorted(tree, key=lambda name: name.count("/"))
