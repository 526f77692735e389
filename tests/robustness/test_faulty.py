"""The parts of faulty/ by themselves: damage, the replayed disk, and calls that are seen and refused."""

import errno
import os
import random
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from robustness.faulty import crashes, damage, full, replay, shim

pytestmark = [
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="calls are seen below libc: Linux"),
    pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler"),
]
OPENED = os.O_WRONLY | os.O_CREAT | os.O_TRUNC


# damage


def checkpointed(folder: Path) -> Path:
    target = folder / "checkpoints" / "step-00000002"
    target.mkdir(parents=True)
    (target / "state.json").write_text('{"steps": 2}')
    (target / "state.safetensors").write_bytes(bytes(range(200)))
    (folder / "checkpoints" / "latest").write_text("step-00000002\n")
    return target


@pytest.mark.parametrize("named", [True, False])
def test_a_reader_that_checks_nothing_is_caught(tmp_path: Path, named: bool) -> None:
    target = checkpointed(tmp_path)
    trusting = damage.tried(str(tmp_path), 0, 10, lambda run: SimpleNamespace(path=target, skipped=[]))
    tries = sum(trusting["files"].values())
    assert len(trusting["accepted"]) == tries
    before = {path.name: path.read_bytes() for path in target.iterdir()}

    def checking(run: Path) -> Any:
        sound = all((target / name).exists() and (target / name).read_bytes() == data for name, data in before.items())
        return SimpleNamespace(path=target if sound else None, skipped=[(target, "damaged")] if named else [])

    careful = damage.tried(str(tmp_path), 0, 10, checking)
    assert careful["accepted"] == careful["raised"] == []
    assert len(careful["unnamed"]) == (0 if named else tries)


def test_every_byte_of_a_small_file_is_flipped_once() -> None:
    data = bytes(range(40))
    found = dict(damage.damages(data, random.Random(0), 4))
    flipped = [harmed for harmed in found.values() if len(harmed) == 40]
    changed = Counter(place for harmed in flipped for place in range(40) if harmed[place] != data[place])
    assert changed == dict.fromkeys(range(40), 1)
    assert {len(harmed) for harmed in found.values()} == {0, 4, 20, 36, 39, 40, 41}
    assert data not in found.values()


# the replayed disk


class Log:
    """A log of calls, made by hand."""

    def __init__(self, root: Path) -> None:
        self.root, self.calls = root, list[shim.Call]()

    def add(self, op: str, path: str, inode: int = 0, *, other: str = "", data: bytes = b"", offset: int = 0) -> "Log":
        places = [str(self.root / path) if path else str(self.root), other and str(self.root / other)]
        self.calls.append(shim.Call(op, False, len(data), inode, offset, *places, data))
        return self


def disk_after(log: Log) -> replay.Disk:
    disk = replay.Disk(log.root)
    for call in log.calls:
        disk.take(call)
    return disk


def trees(log: Log) -> dict[str, replay.Tree]:
    disk = disk_after(log)
    return {variant: disk.tree(variant) for variant in replay.VARIANTS}


def test_what_was_not_flushed_is_lost(tmp_path: Path) -> None:
    log = Log(tmp_path).add("open", "f", 5, offset=OPENED).add("write", "f", 5, data=b"abc")
    assert trees(log) == {"killed": {"f": b"abc"}, "dropped": {}, "empty": {"f": b""}, "zeros": {"f": b"\0\0\0"}}
    flushed = trees(log.add("sync", "f", 5))
    assert flushed == {"killed": {"f": b"abc"}, "dropped": {}, "empty": {"f": b"abc"}, "zeros": {"f": b"abc"}}
    root = tmp_path.stat().st_ino
    assert trees(log.add("sync", "", root))["dropped"] == {"f": b"abc"}
    later = trees(log.add("write", "f", 5, data=b"de", offset=3))
    assert later["dropped"] == {"f": b"abc"}
    assert later["zeros"] == {"f": b"abc\0\0"}


def test_a_rename_that_was_not_flushed(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"old")
    log = Log(tmp_path).add("open", ".f", 5, offset=OPENED).add("write", ".f", 5, data=b"new")
    careless = trees(log.add("rename", ".f", other="f"))
    assert careless["killed"] == {"f": b"new"}
    assert careless["dropped"] == {"f": b"old"}
    assert careless["empty"] == {"f": b""}  # as files were lost on file systems that write names first
    log = Log(tmp_path).add("open", ".f", 5, offset=OPENED).add("write", ".f", 5, data=b"new").add("sync", ".f", 5)
    careful = trees(log.add("rename", ".f", other="f").add("sync", "", tmp_path.stat().st_ino))
    assert all(tree == {"f": b"new"} for tree in careful.values())


def test_folders_truncation_and_removal(tmp_path: Path) -> None:
    log = Log(tmp_path).add("mkdir", "d", 5).add("open", "d/f", 6, offset=OPENED).add("write", "d/f", 6, data=b"abcd")
    log.add("truncate", "d/f", 6, offset=2).add("rename", "d", other="e").add("sync", "e/f", 6)
    assert trees(log)["killed"] == {"e": None, "e/f": b"ab"}
    root = tmp_path.stat().st_ino
    assert trees(log.add("sync", "", root))["dropped"] == {"e": None}  # its names were not flushed
    assert trees(log.add("sync", "e", 5))["dropped"] == {"e": None, "e/f": b"ab"}
    gone = trees(log.add("unlink", "e/f").add("rmdir", "e"))
    assert gone["killed"] == {}
    assert gone["dropped"] == {"e": None, "e/f": b"ab"}


def test_every_state_once(tmp_path: Path) -> None:
    log = Log(tmp_path).add("open", "f", 5, offset=OPENED).add("write", "f", 5, data=b"a").add("sync", "f", 5)
    found = [tree for _, _, tree in crashes.states(log.calls, replay.Disk(tmp_path))]
    assert found == [{}, {"f": b""}, {"f": b"a"}, {"f": b"\0"}]


# the shim

WRITER = """
import os, shutil, sys
from pathlib import Path
from robustness.faulty import shim
root, fault = Path(sys.argv[1]), shim.Fault(*map(int, sys.argv[2:5]))
shim.arm(str(root / "out"), str(root / "log"), fault, with_data=True)
(root / "elsewhere").write_text("not watched")
(root / "out" / "d").mkdir()
with open(root / "out" / "d" / ".f.1-0123abcd", "wb") as file:
    file.write(b"abc"); file.flush(); os.fsync(file.fileno()); file.seek(1); file.write(b"Z"); file.truncate(2)
os.replace(root / "out" / "d" / ".f.1-0123abcd", root / "out" / "d" / "f")
shutil.copy(root / "out" / "d" / "f", root / "out" / "copy")
os.posix_fallocate(os.open(root / "out" / "room", os.O_RDWR | os.O_CREAT), 0, 10)
os.link(root / "out" / "copy", root / "out" / "link")
shutil.rmtree(root / "out" / "d")
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shim.build(tmp_path_factory.mktemp("shim"))


def written(library: Path, root: Path, fault: shim.Fault = shim.NO_FAULT) -> tuple[str, list[shim.Call]]:
    (root / "out").mkdir(parents=True)
    command = [sys.executable, "-c", WRITER, str(root), *map(str, map(int, fault))]
    environment = {**os.environ, "LD_PRELOAD": str(library), "PYTHONPATH": str(Path(shim.__file__).parents[2])}
    process = subprocess.run(command, env=environment, capture_output=True, text=True)
    return process.stderr, shim.read_log(root / "log")


def test_the_shim_sees_every_call(library: Path, tmp_path: Path) -> None:
    said, calls = written(library, tmp_path)
    assert said == ""
    assert [call.op for call in calls] == [
        *("mkdir", "open", "write", "sync", "write", "truncate", "rename"),
        *("open", "write", "open", "allocate", "link", "unlink", "rmdir"),
    ]
    assert shim.by_file(calls, tmp_path / "out") == {"copy": 3, "d": 2, "d/f": 7, "room": 2}
    left = replay.of_folder(tmp_path / "out")
    shutil.rmtree(tmp_path / "out")
    (tmp_path / "out").mkdir()
    assert (
        crashes.replayed(calls, replay.Disk(tmp_path / "out"))
        == left
        == {"copy": b"aZ", "link": b"aZ", "room": bytes(10)}
    )


@pytest.mark.parametrize("error", full.ERRORS)
def test_the_shim_fails_the_call_it_was_told_to(library: Path, tmp_path: Path, error: int) -> None:
    for at in range(1, 15):
        said, calls = written(library, tmp_path / str(at), shim.Fault(at, error))
        struck = [place for place, call in enumerate(calls, 1) if call.injected]
        assert struck == [at]
        assert calls[at - 1].result == -error
        assert os.strerror(error) in said
    said, calls = written(library, tmp_path / "beyond", shim.Fault(15, error))
    assert said == ""
    assert not any(call.injected for call in calls)


def test_a_full_disk_stays_full_but_can_be_cleared(library: Path, tmp_path: Path) -> None:
    _, calls = written(library, tmp_path / "full", shim.Fault(3, errno.ENOSPC, sticky=True))
    assert [call.op for call in calls if call.injected] == ["write", "write"]  # the second when the file is closed
    _, calls = written(library, tmp_path / "one", shim.Fault(3, errno.ENOSPC))
    assert [call.op for call in calls if call.injected] == ["write"]
