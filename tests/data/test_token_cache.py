"""The cache gives the tokens that the tokenizer gives, whatever lies on the disk; what changes them is in its key."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import innerloop
from innerloop.data import token_cache
from innerloop.data.encoder import Encoder
from innerloop.data.encoding import EncodedTask, OnTooLong, encode_all
from innerloop.data.tasks import Example, Message, Task
from innerloop.data.token_cache import SUFFIX, WORTH_CHARACTERS, content_key, encode_cached, limit_bytes
from innerloop.errors import UserError

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
PROMPTS = TEXTS | st.lists(st.builds(Message, st.sampled_from(["user", "assistant"]), TEXTS), min_size=1).map(tuple)
EXAMPLES = st.lists(st.builds(Example, PROMPTS, TEXTS), max_size=8, unique_by=lambda example: example.id)
TASK = Task("t", (Example("2 + 2 =", " 4"), Example((Message("user", "3 + 3"),), "6")), (Example("1 + 1 =", " 2"),))
KINDS = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where entries go; pools of any size have one."""
    monkeypatch.setenv("INNERLOOP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("INNERLOOP_TOKEN_CACHE", "1")
    monkeypatch.setattr(token_cache, "WORTH_CHARACTERS", 0)
    return tmp_path / "cache" / "tokens"


def cached(tokenizer: Any, *tasks: Task, max_length: int = 99, on_too_long: OnTooLong = "error") -> list[EncodedTask]:
    return encode_cached(tasks, Encoder(tokenizer, max_length, on_too_long))


def read(monkeypatch: pytest.MonkeyPatch, tokenizer: Any, *tasks: Task) -> list[EncodedTask]:
    """From the entry alone."""
    with monkeypatch.context() as patched:
        patched.setattr(Encoder, "tasks", None)
        return cached(tokenizer, *tasks)


def entry(folder: Path) -> Path:
    (found,) = folder.iterdir()
    assert found.suffix == SUFFIX
    return found


# the same tokens


@settings(KINDS, max_examples=60)
@given(
    pools=st.lists(EXAMPLES, max_size=3),
    tests=EXAMPLES,
    max_length=st.integers(3, 40),
    on_too_long=st.sampled_from(["drop", "truncate", "error"]),
)
def test_with_and_without_the_cache_are_equal(
    folder: Path, tokenizer: Any, pools: Any, tests: Any, max_length: int, on_too_long: OnTooLong
) -> None:
    known = {example.id for example in tests}
    tasks = [Task(str(n), tuple(e for e in pool if e.id not in known), tuple(tests)) for n, pool in enumerate(pools)]
    try:
        expected = encode_all(tasks, tokenizer, max_length=max_length, on_too_long=on_too_long)
    except UserError as error:
        for _ in range(2):  # the faults are those of an encoding without a cache, every time
            with pytest.raises(UserError, match=f"^{re.escape(str(error))}$"):
                cached(tokenizer, *tasks, max_length=max_length, on_too_long=on_too_long)
        return
    for _ in range(2):
        assert cached(tokenizer, *tasks, max_length=max_length, on_too_long=on_too_long) == expected


def test_the_second_time_no_tokenizer_runs(folder: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    first = cached(tokenizer, TASK)
    assert read(monkeypatch, tokenizer, TASK) == first
    with pytest.raises(TypeError):  # the control: what isn't in the cache would be encoded
        read(monkeypatch, tokenizer, Task("t", TASK.pool))


def test_names_of_tasks_do_not_count(folder: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    cached(tokenizer, TASK)
    (renamed,) = read(monkeypatch, tokenizer, Task("other", TASK.pool, TASK.test))
    assert renamed.task.name == "other"


def test_small_pools_are_left_alone(folder: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_cache, "WORTH_CHARACTERS", WORTH_CHARACTERS)
    cached(tokenizer, TASK)
    assert not folder.exists()
    cached(tokenizer, Task("t", (Example("a" * WORTH_CHARACTERS, "b"),)), max_length=2 * WORTH_CHARACTERS)
    assert entry(folder)


# the key


def key(tokenizer: Any, *tasks: Task, max_length: int = 99, on_too_long: OnTooLong = "error") -> str | None:
    return content_key(tasks or [TASK], Encoder(tokenizer, max_length, on_too_long))


def test_equal_content_has_one_key(tokenizer: Any, make_tokenizer: Callable[..., Any]) -> None:
    used = make_tokenizer(name_or_path="another name", pad_token="</s>")
    expected = key(used)
    used(["a", "abc"], padding=True, truncation=True, max_length=2)
    assert key(used) == expected
    renamed = Task("u", TASK.pool, TASK.test)
    assert key(make_tokenizer(name_or_path="another name"), renamed) == key(tokenizer)


def test_every_part_counts(tokenizer: Any, make_tokenizer: Callable[..., Any]) -> None:
    from tokenizers import normalizers

    first, second = TASK.pool
    lower = make_tokenizer()
    lower.backend_tokenizer.normalizer = normalizers.Lowercase()
    more = make_tokenizer()
    more.add_tokens(["2 +"])
    split = make_tokenizer()
    split.split_special_tokens = True
    keys = [
        key(tokenizer),
        key(lower),
        key(more),
        key(split),
        key(make_tokenizer(chat_template="{{ messages[0].content }}")),
        key(make_tokenizer(eos_token="<|im_end|>")),
        key(make_tokenizer(bos_token=None)),
        key(tokenizer, max_length=98),
        key(tokenizer, on_too_long="drop"),
        key(tokenizer, on_too_long="truncate"),
        key(tokenizer, Task("t", (Example(first.prompt, " 5"), second), TASK.test)),
        key(tokenizer, Task("t", (Example("2 + 3 =", first.answer), second), TASK.test)),
        key(tokenizer, Task("t", (first, Example((Message("system", "3 + 3"),), "6")), TASK.test)),
        key(tokenizer, Task("t", (second, first), TASK.test)),
        key(tokenizer, Task("t", (*TASK.pool, *TASK.test))),
        key(tokenizer, TASK, Task("u", ())),
    ]
    assert None not in keys
    assert len(set(keys)) == len(keys)


def test_what_cannot_be_told_has_no_key(folder: Path, tokenizer: Any, make_tokenizer: Callable[..., Any]) -> None:
    dated = make_tokenizer(chat_template="{{ strftime_now('%d') }}{{ messages[0].content }}")
    assert key(dated) is None
    days = {content_key([TASK], Encoder(dated, 99, "error", date=day)) for day in ("2026-12-01", "2026-12-02")}
    assert len(days - {None}) == 2

    class Own(type(tokenizer)):
        pass

    own = Own(tokenizer_object=tokenizer.backend_tokenizer, eos_token="</s>", chat_template=tokenizer.chat_template)
    assert key(own) is None
    assert cached(own, TASK) == encode_all([TASK], own, max_length=99, on_too_long="error")
    assert not folder.exists()


# what lies on the disk


@settings(KINDS, max_examples=60)
@given(data=st.data())
def test_a_damaged_entry_is_written_again(
    folder: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch, data: st.DataObject
) -> None:
    expected = cached(tokenizer, TASK)
    path = entry(folder)
    whole = path.read_bytes()
    at, bit = data.draw(st.integers(0, len(whole) - 1)), data.draw(st.integers(0, 7))
    flipped = bytes([*whole[:at], whole[at] ^ 1 << bit, *whole[at + 1 :]])
    path.write_bytes(data.draw(st.sampled_from([flipped, whole[:at], whole + b"x", b"", b'{"tokens": [1, 2]}'])))
    assert cached(tokenizer, TASK) == expected
    assert path.read_bytes() == whole
    assert read(monkeypatch, tokenizer, TASK) == expected


def test_an_entry_under_another_key_is_not_read(folder: Path, tokenizer: Any) -> None:
    other = Task("t", (Example("2 + 2 =", " 5"), *TASK.pool[1:]), TASK.test)
    cached(tokenizer, other)
    wrong = entry(folder)
    wrong.rename(folder / f"{key(tokenizer)}{SUFFIX}")
    assert cached(tokenizer, TASK) == encode_all([TASK], tokenizer, max_length=99, on_too_long="error")


def test_a_folder_that_cannot_be_written_is_no_error(
    folder: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = cached(tokenizer, TASK)
    path = entry(folder)
    path.unlink()
    path.mkdir()
    assert cached(tokenizer, TASK) == expected
    monkeypatch.setenv("INNERLOOP_CACHE", __file__)
    assert cached(tokenizer, TASK) == expected


CHILD = """
import sys
sys.path[:0] = sys.argv[1:2]
from conftest import byte_tokenizer
from innerloop.data import token_cache
from innerloop.data.encoder import Encoder
from innerloop.data.encoding import encode_all
from innerloop.data.tasks import Example, Task
token_cache.WORTH_CHARACTERS = 0
task, tokenizer = Task("t", tuple(Example(f"{n} =", str(n)) for n in range(300))), byte_tokenizer()
expected = encode_all([task], tokenizer, max_length=99, on_too_long="error")
for _ in range(20):
    assert token_cache.encode_cached([task], Encoder(tokenizer, 99, "error")) == expected
    for path in (token_cache.cache_folder() / "tokens").glob("*.tokens"):
        path.unlink(missing_ok=True)
token_cache.encode_cached([task], Encoder(tokenizer, 99, "error"))
"""


def test_two_processes_at_once(folder: Path) -> None:
    env = {**os.environ, "PYTHONPATH": str(Path(innerloop.__file__).parents[1])}
    command = [sys.executable, "-c", CHILD, str(Path(__file__).parent)]
    children = [subprocess.Popen(command, env=env) for _ in range(2)]
    assert [child.wait() for child in children] == [0, 0]
    assert entry(folder)  # and nothing half written beside it


# how much is kept


def test_what_was_read_longest_ago_goes(folder: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    tasks = [Task("t", (Example("a", str(n)),)) for n in range(4)]
    paths = [folder / f"{key(tokenizer, task)}{SUFFIX}" for task in tasks]
    for place, task in enumerate(tasks[:3]):
        cached(tokenizer, task)
        os.utime(paths[place], (place, place))
    size = paths[0].stat().st_size
    read(monkeypatch, tokenizer, tasks[0])
    monkeypatch.setenv("INNERLOOP_TOKEN_CACHE", str(3.5 * size / 1e6))
    cached(tokenizer, tasks[3])
    assert [path.exists() for path in paths] == [True, False, True, True]
    monkeypatch.setenv("INNERLOOP_TOKEN_CACHE", str(0.5 * size / 1e6))
    cached(tokenizer, tasks[1])
    assert not list(folder.iterdir())


def test_the_limit(monkeypatch: pytest.MonkeyPatch, folder: Path, tokenizer: Any) -> None:
    for said, limit in (("", 256_000_000), ("2", 2_000_000), ("-1", 0), ("nan", 256_000_000), ("x", 256_000_000)):
        monkeypatch.setenv("INNERLOOP_TOKEN_CACHE", said)
        assert limit_bytes() == limit
    monkeypatch.setenv("INNERLOOP_TOKEN_CACHE", "0")
    cached(tokenizer, TASK)
    assert not folder.exists()
