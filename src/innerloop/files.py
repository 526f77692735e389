"""Folders and files on disk that are whole or absent, whatever happens while they are written.

write_whole       a file of these bytes, in place of what was there
replaced_folder   a fresh folder that takes its place only when everything in it is written
built_once        a folder of derived files, built where missing or damaged; racing processes build it once
file_digest       sha256 of a file
at_home           a path as a person writes it
"""

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

MANIFEST = "manifest.json"


def at_home(text: str) -> Path:
    """`~` and `~name` at its start stand for a home folder; of a user who is not here they stay as they are."""
    return Path(os.path.expanduser(text))  # Path.expanduser raises for that user


def write_whole(path: Path, data: bytes) -> None:
    """Written beside `path`, flushed to disk, then renamed over it. Raises OSError where the disk refuses."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def replaced_folder(target: Path) -> Iterator[Path]:
    """Yields an empty folder beside `target`; when the block ends well it is flushed and becomes `target`.

    A block that raises leaves `target` as it was. What `target` held before is deleted, so the caller decides
    first whether it may be. Raises OSError where the disk refuses.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = target.parent / f".{target.name}.{os.getpid()}-{secrets.token_hex(4)}"
    fresh.mkdir()
    try:
        yield fresh
        for path in (*fresh.rglob("*"), fresh):
            _flush(path)
        _take_place(fresh, target)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def built_once(target: Path, build: Callable[[Path], None]) -> Path:
    """`target`, filled by `build(folder)` unless it holds, byte for byte, what an earlier build wrote.

    Every file's sha256 is read again on each call (about half a second a gigabyte). Raises OSError where the
    disk refuses, and whatever `build` raises.
    """
    from filelock import FileLock

    if _intact(target):
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{target}.lock"):
        if not _intact(target):  # another process may have built it while this one waited
            for leftover in target.parent.glob(f".{target.name}.*"):
                shutil.rmtree(leftover, ignore_errors=True)
            with replaced_folder(target) as folder:
                build(folder)
                (folder / MANIFEST).write_text(json.dumps({"files": _digests(folder)}, indent=1))
    return target


def file_digest(path: Path) -> str:
    """The file's sha256 in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): file_digest(path) for path in files}


def _intact(folder: Path) -> bool:
    try:
        written = json.loads((folder / MANIFEST).read_text())["files"]
        return all(file_digest(folder / name) == digest for name, digest in written.items())
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return False


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _take_place(fresh: Path, target: Path) -> None:
    old = fresh.with_name(fresh.name + ".old")
    if target.exists():
        target.rename(old)
    try:
        fresh.rename(target)
    except OSError:
        if old.exists():
            old.rename(target)
        raise
    _flush(target.parent)
    shutil.rmtree(old, ignore_errors=True)
