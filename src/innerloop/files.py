"""Folders and files on disk that are whole or absent, whatever happens while they are written.

write_whole       a file of these bytes, in place of what was there
replaced_folder   a fresh folder that takes its place only when everything in it is written
seal, damage      a folder's manifest, with the size and digest of every file; what no longer agrees with it
built_once        a folder of derived files, built where missing or damaged; racing processes build it once
locked            one process at a time in a folder
make_folder       a folder that is still there after the machine lost power
is_leftover, remove_leftovers    what killed processes left while they wrote
file_digest       sha256 of a file
at_home           a path as a person writes it
cache_folder      where downloads and derived files are kept
write_text, write_json, read_json    whole, or not at all
file_name         a task's name as the name of a folder
"""

import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from innerloop.errors import Fault, UserError

MANIFEST, LOCK = "manifest.json", ".lock"
_LEFTOVER = re.compile(r"\..+\.[0-9]+-[0-9a-f]{8}(\.old)?")


def at_home(text: str) -> Path:
    """`~` and `~name` at its start stand for a home folder; of a user who is not here they stay as they are."""
    try:
        return Path(os.path.expanduser(text))  # Path.expanduser raises for that user
    except ValueError:  # a null byte in the name
        return Path(text)


def write_whole(path: Path, data: bytes) -> None:
    """Written beside `path`, flushed to disk, then renamed over it. Raises OSError where the disk refuses."""
    make_folder(path.parent)
    temporary = _beside(path)
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        _flush(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def replaced_folder(target: Path) -> Iterator[Path]:
    """Yields an empty folder beside `target`; when the block ends well it is flushed and becomes `target`.

    A block that raises leaves `target` as it was. What `target` held before is deleted, so the caller decides
    first whether it may be. Raises OSError where the disk refuses.
    """
    make_folder(target.parent)
    fresh = _beside(target)
    fresh.mkdir()
    try:
        yield fresh
        for path in fresh.rglob("*"):
            _open_up(path)
            _flush(path)
        _flush(fresh)
        _take_place(fresh, target)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def seal(folder: Path) -> None:
    """Writes the manifest, which is the last file of a folder."""
    (folder / MANIFEST).write_text(_manifest(folder))


def damage(folder: Path) -> str:
    """What is wrong with a sealed folder, in words; nothing where every byte is as it was sealed.

    Every file's sha256 is read again (about half a second per gigabyte).
    """
    try:
        sealed, found = (folder / MANIFEST).read_text(), _manifest(folder)
        if sealed == found:  # the manifest's own bytes, too, and no file more
            return ""
        before, now = (json.loads(text)["files"] for text in (sealed, found))
        changed = sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
    except FileNotFoundError as error:
        return f"no {Path(error.filename or MANIFEST).name}"
    except OSError as error:
        return f"can't be read: {error.strerror or error}"
    except (ValueError, LookupError, TypeError, AttributeError):
        changed = []
    return f"{changed[0]} is not as it was written" if changed else f"{MANIFEST} is damaged"


def built_once(target: Path, build: Callable[[Path], None]) -> Path:
    """`target`, filled by `build(folder)` unless it holds, byte for byte, what an earlier build wrote.

    Every file's sha256 is read again on each call (about half a second per gigabyte). Raises OSError where the
    disk refuses, and whatever `build` raises.
    """
    from filelock import FileLock

    if not damage(target):
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{target}.lock"):
        if damage(target):  # another process may have built it while this one waited
            for leftover in target.parent.glob(f".{target.name}.*"):
                shutil.rmtree(leftover, ignore_errors=True)
            with replaced_folder(target) as folder:
                build(folder)
                seal(folder)
    return target


@contextmanager
def locked(folder: Path, where: str) -> Iterator[None]:
    """One process at a time; the lock is gone with the process that holds it, however that ends.

    where: what named the folder. Raises UserError where another process holds it, or it can't be written to.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        right = "wait for it, or another folder"
        raise UserError(Fault("another process is at work in this folder", where, str(folder), right)) from None
    except OSError as error:
        raise UserError(Fault(f"can't be written to: {error.strerror or error}", where, str(folder))) from None
    try:
        yield
    finally:
        lock.release()


def make_folder(folder: Path) -> None:
    """With its parents, each entered on disk in the one above."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for path in missing:
        _flush(path.parent)


def is_leftover(path: Path) -> bool:
    """Whether this is what a process that is writing, or was killed at it, calls its files."""
    return _LEFTOVER.fullmatch(path.name) is not None


def remove_leftovers(folder: Path) -> None:
    """For a caller with the folder's lock only: another process may be writing them."""
    for path in [path for path in folder.rglob(".*") if is_leftover(path)]:
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def file_digest(path: Path) -> str:
    """The file's sha256 in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}")


def _manifest(folder: Path) -> str:
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / MANIFEST)
    facts = {
        path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": file_digest(path)}
        for path in files
    }
    return json.dumps({"files": facts}, indent=1)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _open_up(path: Path) -> None:
    """As the umask has it for a file: safetensors writes files that only their owner can read."""
    if path.is_file() and not path.is_symlink():
        path.chmod(0o666 & ~_umask() | path.stat().st_mode & 0o111)


def _umask() -> int:
    """Only by setting it can it be read elsewhere."""
    with suppress(OSError, StopIteration):
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("Umask:")).split()[1], 8)
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


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


def cache_folder() -> Path:
    """INNERLOOP_CACHE, else innerloop/ in XDG_CACHE_HOME, else ~/.cache/innerloop."""
    if own := os.environ.get("INNERLOOP_CACHE"):
        return at_home(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "innerloop"


def write_text(path: Path, text: str) -> None:
    """The file appears whole or not at all."""
    write_whole(path, text.encode("utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Whole, or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(value, indent=1) + "\n")


def read_json(path: Path, what: str, limit: int) -> dict[str, Any]:
    """Raises UserError for a file of more than `limit` bytes, and for one that is no JSON object."""
    try:
        with path.open("rb") as file:
            content = file.read(limit + 1)
    except OSError as error:
        raise UserError(Fault(f"can't be read: {error.strerror}", str(path))) from None
    if len(content) > limit:
        raise UserError(Fault(f"too large for {what}", str(path), expected=f"at most {limit:,} bytes"))
    try:
        found = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise UserError(Fault(f"not {what}: {error}", str(path))) from None
    if not isinstance(found, dict):
        raise UserError(Fault(f"not {what}", str(path), found, "a JSON object"))
    return found


def file_name(task: str) -> str:
    """A task's name as the name of a folder."""
    return task.replace("/", "__")
