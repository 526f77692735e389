"""A folder is whole or absent; a cache that was damaged is built again."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from time import sleep

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import innerloop.files
from innerloop.files import MANIFEST, at_home, built_once, cache_folder, replaced_folder, write_text, write_whole

CONTENT = {"weights": bytes(range(200)), "config.json": b"{}\n", "sub/tokens": b"abc" * 40, "empty": b""}


def build(folder: Path) -> None:
    for name, data in CONTENT.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(data)


def content(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def never(folder: Path) -> None:
    raise AssertionError(f"{folder} was built again")


def run(script: str, *arguments: object) -> subprocess.Popen[bytes]:
    path = str(Path(innerloop.files.__file__).parents[1])
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)], env={**os.environ, "PYTHONPATH": path}
    )


def test_the_new_folder_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    target = tmp_path / "out"
    for text in ("first", "second"):
        with replaced_folder(target) as folder:
            (folder / text).write_text(text)
    assert [path.name for path in target.iterdir()] == ["second"]
    assert list(tmp_path.iterdir()) == [target]


def test_a_block_that_raises_leaves_what_was_there(tmp_path: Path) -> None:
    target = tmp_path / "out"
    with replaced_folder(target) as folder:
        (folder / "kept").touch()
    with pytest.raises(FileExistsError), replaced_folder(target) as folder:
        (folder / "half").mkdir() or (folder / "half").mkdir()
    assert [path.name for path in target.iterdir()] == ["kept"]
    assert list(tmp_path.iterdir()) == [target]


def test_an_intact_folder_is_not_built_again(tmp_path: Path) -> None:
    target = built_once(tmp_path / "cache" / "key", build)
    assert content(target) == CONTENT
    assert built_once(target, never) == target


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_damage_of_any_kind_is_found_and_built_again(data: st.DataObject) -> None:
    with TemporaryDirectory() as root:
        target = built_once(Path(root, "key"), build)
        damaged = target / data.draw(st.sampled_from([*CONTENT, MANIFEST]))
        harm = data.draw(st.sampled_from(["delete", "append", "cut", "flip"]))
        whole = damaged.read_bytes()
        if harm == "delete" or not whole:
            damaged.unlink()
        elif harm == "append":
            damaged.write_bytes(whole + b"x")
        elif harm == "cut":
            damaged.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
        else:
            at = data.draw(st.integers(0, len(whole) - 1))
            damaged.write_bytes(whole[:at] + bytes([whole[at] ^ data.draw(st.integers(1, 255))]) + whole[at + 1 :])
        with pytest.raises(AssertionError):
            built_once(target, never)
        assert content(built_once(target, build)) == CONTENT
        assert built_once(target, never) == target


def test_threads_that_race_build_once(tmp_path: Path) -> None:
    built = []

    def slow(folder: Path) -> None:
        built.append(folder)
        sleep(0.05)
        build(folder)

    with ThreadPoolExecutor(4) as pool:
        targets = list(pool.map(lambda _: built_once(tmp_path / "key", slow), range(4)))
    assert len(built) == 1
    assert all(content(target) == CONTENT for target in targets)


def test_processes_that_race_build_once(tmp_path: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path; from innerloop.files import built_once\n"
        "def build(folder):\n"
        "    open(sys.argv[2], 'a').write('built\\n'); time.sleep(0.3); (folder / 'file').write_text('x')\n"
        "assert (built_once(Path(sys.argv[1]), build) / 'file').read_text() == 'x'"
    )
    processes = [run(script, tmp_path / "key", tmp_path / "log") for _ in range(3)]
    assert [process.wait() for process in processes] == [0, 0, 0]
    assert (tmp_path / "log").read_text() == "built\n"


def test_what_a_killed_build_left_is_cleared_away(tmp_path: Path) -> None:
    script = (
        "import os, sys; from pathlib import Path; from innerloop.files import built_once\n"
        "def build(folder):\n"
        "    (folder / 'half').write_text('x'); os._exit(9)\n"
        "built_once(Path(sys.argv[1]), build)"
    )
    assert run(script, tmp_path / "key").wait() == 9
    assert [path for path in tmp_path.iterdir() if path.is_dir()]  # the half-written folder
    assert content(built_once(tmp_path / "key", build)) == CONTENT
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["key"]


def test_a_home_that_is_not_here_is_left_as_it_was_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert at_home("~/model") == tmp_path / "model"
    assert at_home("~nobody-of-this-name/model") == Path("~nobody-of-this-name/model")
    assert at_home("a~b") == Path("a~b")
    assert at_home("~\0/model") == Path("~\0/model")


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file"
    for data in (b"first", b"", bytes(range(256)) * 100):
        write_whole(path, data)
        assert path.read_bytes() == data
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="folder"):
        write_whole(tmp_path / "folder", b"x")
    assert sorted(each.name for each in (*tmp_path.iterdir(), *path.parent.iterdir())) == ["file", "folder", "new"]


def test_a_text_replaces_the_old_one_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")
    write_text(path, "new ü")
    assert content(tmp_path) == {"a.txt": "new ü".encode()}
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "half a pair: \ud800")
    assert content(tmp_path) == {"a.txt": "new ü".encode()}


def test_the_cache_is_where_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, value, expected in [
        ("HOME", tmp_path, tmp_path / ".cache/innerloop"),
        ("XDG_CACHE_HOME", tmp_path / "xdg", tmp_path / "xdg/innerloop"),
        ("INNERLOOP_CACHE", tmp_path / "own", tmp_path / "own"),
    ]:
        monkeypatch.delenv(variable, raising=False)
        monkeypatch.delenv("INNERLOOP_CACHE", raising=False)
        if variable == "HOME":
            monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
        monkeypatch.setenv(variable, str(value))
        assert cache_folder() == expected
