"""Hidden states in a file: as they were put there, within a bound, of the model, cut and tokens that are asked for."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from helpers import close, examples, relative_error
from innerloop.data.batches import collate
from innerloop.data.tasks import token_key
from innerloop.engine import hidden_states
from innerloop.engine.hidden_states import Below, HiddenStates
from innerloop.loading.architecture import base_model
from innerloop.spaces.loss import AnswerLoss
from innerloop.spaces.trunk import Trunk
from tiny import tiny_model

PAGE, MUCH = 4096, 10**9
WIDTH = 32
MODEL = nn.Linear(1, 1)


def some(rows: int, *, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(rows, WIDTH, generator=torch.Generator().manual_seed(seed)).to(dtype)


def below(states: HiddenStates, *, most: int = MUCH) -> Below:
    return states.below(MODEL, 1, most=most)


def size_on_disk(states: HiddenStates) -> int:
    return os.fstat(states._file.fileno()).st_size if states._file else 0


@pytest.fixture
def small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hidden_states, "SEGMENT", PAGE)


# what is read


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_states_are_read_as_they_were_put_there(dtype: torch.dtype) -> None:
    states = HiddenStates()
    kept = below(states)
    put = {bytes([n]): some(n, seed=n, dtype=dtype) for n in (1, 7, 3)}
    for key, value in put.items():
        kept[key] = value
    for key, value in put.items():
        found = kept.get(key)
        assert found is not None
        assert found.dtype == dtype
        assert torch.equal(found, value)
    assert kept.get(b"\x02") is None
    assert states.kept == sum(value.nbytes for value in put.values())


def test_what_is_read_is_the_file_itself() -> None:
    states = HiddenStates()
    kept, value = below(states), some(5)
    kept[b"a"] = value
    value.mul_(2)  # a copy was kept
    first, again = kept.get(b"a"), kept.get(b"a")
    assert first is not None
    assert again is not None
    assert first.data_ptr() == again.data_ptr()
    assert torch.equal(2 * first, value)
    assert states._file is not None
    written = os.pread(states._file.fileno(), value.nbytes, 0)
    assert written == first.numpy().tobytes()
    first[0] = 3
    assert os.pread(states._file.fileno(), 4, 0) == some(1).fill_(3).numpy().tobytes()[:4]


@pytest.mark.usefixtures("small_segments")
def test_earlier_states_stay_where_they_are_while_the_file_grows() -> None:
    states = HiddenStates()
    kept, sizes = below(states), []
    views: list[tuple[Tensor, Tensor]] = []
    for number in range(200):
        value = some(1 + number % 40, seed=number)
        kept[str(number).encode()] = value
        found = kept.get(str(number).encode())
        assert found is not None
        views.append((found, value))
        sizes.append(states.size)
    assert all(torch.equal(found, value) for found, value in views)
    assert sizes[0] == PAGE < sizes[-1] == size_on_disk(states)
    assert 3 < len(set(sizes)) < 60  # a quarter at a time: few mappings, each of which takes a file descriptor
    assert states.size < 2 * states.kept


@pytest.mark.usefixtures("small_segments")
def test_states_larger_than_the_usual_growth_have_room() -> None:
    states = HiddenStates()
    below(states)[b"a"] = some(1000)
    found = below(states).get(b"a")
    assert found is not None
    assert torch.equal(found, some(1000))


# the bound


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 90), max_size=60), st.integers(0, 60 * PAGE))
def test_the_file_is_never_larger_than_the_bound(lengths: list[int], most: int) -> None:
    usual, hidden_states.SEGMENT = hidden_states.SEGMENT, PAGE
    try:
        states = HiddenStates()
        kept = below(states, most=most)
        put = {bytes([number]): some(length, seed=number) for number, length in enumerate(lengths)}
        for key, value in put.items():
            kept[key] = value
        assert states.size == size_on_disk(states) <= most
        found = {key: value for key in put if (value := kept.get(key)) is not None}
        assert all(torch.equal(value, put[key]) for key, value in found.items())
        assert states.kept == sum(value.nbytes for value in found.values()) <= states.size
        if len(found) < len(put):
            assert states.size + 90 * WIDTH * 4 + PAGE > most
    finally:
        hidden_states.SEGMENT = usual


@pytest.mark.usefixtures("small_segments")
def test_each_run_has_its_own_bound_on_a_shared_file() -> None:
    states = HiddenStates()
    narrow, wide = below(states, most=PAGE), below(states, most=3 * PAGE)
    for number in range(8):
        narrow[bytes([number])] = some(16, seed=number)  # half a page
    assert [narrow.get(bytes([number])) is not None for number in range(8)] == [True] * 2 + [False] * 6
    wide[bytes([5])] = some(16, seed=5)
    assert narrow.get(bytes([5])) is not None
    assert states.size == 2 * PAGE


# a disk without room

FILLS = """
import resource, sys, torch, warnings
from torch import nn
from innerloop.engine import hidden_states

hidden_states.SEGMENT = 4096
limit = int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
states, model = hidden_states.HiddenStates(), nn.Linear(1, 1)
kept = states.below(model, 1, most=10**9)
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    for number in range(64):
        kept[bytes([number])] = torch.full((16, 32), float(number))  # half a page
found = [number for number in range(64) if kept.get(bytes([number])) is not None]
assert all((kept.get(bytes([number])) == number).all() for number in found)
print(len(found), states.size, len(said), said[0].message if said else "", sep="|")
"""


def child(program: str, *argv: object, cache: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "INNERLOOP_CACHE": str(cache)}
    command = [sys.executable, "-c", program, *map(str, argv)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def test_a_disk_that_refuses_is_a_bound_too(tmp_path: Path) -> None:
    """It is said once, and what was kept can be read."""
    ended = child(FILLS, 8 * PAGE, cache=tmp_path)
    assert ended.returncode == 0, ended.stderr
    found, size, warned, message = ended.stdout.strip().split("|")
    assert 4 * PAGE < int(size) <= 8 * PAGE
    assert (int(found), warned) == (2 * int(size) // PAGE, "1")
    assert "File too large" in message
    found, size, warned, _ = child(FILLS, 1000 * PAGE, cache=tmp_path).stdout.split("|")
    assert (found, warned) == ("64", "0")


def test_no_file_at_all_is_a_bound_too(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    ended = child(FILLS, 8 * PAGE, cache=tmp_path / "file")
    assert ended.stdout.startswith("0|0|1|"), ended.stderr
    assert "File exists" in ended.stdout or "Not a directory" in ended.stdout


def test_some_of_the_disk_is_left_to_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hidden_states, "LEFT_FREE", 2**60)
    states = HiddenStates()
    with pytest.warns(RuntimeWarning, match="No space left on device"):
        below(states)[b"a"] = some(3)
    below(states)[b"b"] = some(3)
    assert below(states).get(b"a") is below(states).get(b"b") is None
    assert size_on_disk(states) == 0


def test_blocks_are_written_where_they_cant_be_reserved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "posix_fallocate")
    with (tmp_path / "file").open("w+b") as file:
        file.write(b"before")
        file.flush()
        length = 2**20 + 3 * PAGE
        hidden_states._allocate(file.fileno(), PAGE, length)
        assert os.fstat(file.fileno()).st_size == PAGE + length
        assert os.fstat(file.fileno()).st_blocks * 512 >= length
    assert (tmp_path / "file").read_bytes().startswith(b"before\0")


KILLED = """
import os, signal, torch
from torch import nn
from innerloop.engine.hidden_states import HiddenStates

states, model = HiddenStates(), nn.Linear(1, 1)
states.below(model, 1, most=10**9)[b"a"] = torch.ones(4, 4)
print(states.size, os.listdir(os.environ["INNERLOOP_CACHE"]), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_nothing_is_left_behind_when_a_process_is_killed(tmp_path: Path) -> None:
    ended = child(KILLED, cache=tmp_path / "cache")
    assert ended.returncode < 0
    assert ended.stdout == f"{hidden_states.SEGMENT} []\n"
    assert list((tmp_path / "cache").iterdir()) == []


# whose states


def test_a_key_is_a_digest_of_all_the_tokens_and_of_no_padding() -> None:
    (one,), (two,) = (examples(tasks=1, per_task=3, seed=seed) for seed in (0, 1))
    alone, mixed = collate([one]), collate([[*one, one[0]._replace(id="x", tokens=one[0].tokens * 9), *two]])
    assert mixed.keys[0][:3] == alone.keys[0]
    assert len(set(mixed.keys[0])) == 7
    assert alone.keys[0][0] == token_key(list(one[0].tokens)) != token_key([*one[0].tokens, 0])
    assert collate([[one[0]._replace(id="another name")]]).keys == ((alone.keys[0][0],),)
    assert mixed.select(0, 1).keys == mixed.keys


def test_a_shared_file_never_gives_the_states_of_another_model_or_cut() -> None:
    states, batch = HiddenStates(), collate(examples(tasks=2, per_task=2))
    models = [tiny_model("llama", layers=4, seed=seed) for seed in (0, 1)]
    for _ in range(2):
        for model in models:
            for cut in (1, 2, 3):
                found = AnswerLoss(model, cut=cut, store=states.below(model, cut, most=MUCH))(batch)
                assert close(found, AnswerLoss(model)(batch))
    one_for_all = states.below(models[0], 2, most=MUCH)
    for model, cut in ((models[0], 1), (models[1], 2)):
        wrong = AnswerLoss(model, cut=cut, store=one_for_all)(batch)
        assert relative_error(wrong, AnswerLoss(model)(batch)) > 1e-3, "the control: the same states for both"


def test_a_model_that_comes_after_another_gets_none_of_its_states() -> None:
    states, model = HiddenStates(), nn.Linear(1, 1)
    states.below(model, 1, most=MUCH)[b"a"] = some(2)
    del model
    others = [nn.Linear(1, 1) for _ in range(100)]  # one of them where it was, perhaps
    assert all(states.below(other, 1, most=MUCH).get(b"a") is None for other in others)


# in a trunk


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device is here")
@pytest.mark.usefixtures("small_segments")
@pytest.mark.parametrize("most", [0, 2 * PAGE, MUCH])
def test_beside_a_gpu_states_are_kept_on_the_host(most: int) -> None:
    model, batch = tiny_model("llama", layers=3).cuda(), collate(examples(tasks=2, per_task=4)).to("cuda")
    store = HiddenStates().below(model, 2, most=most)
    whole, trunk = Trunk(base_model(model), 2, {}), Trunk(base_model(model), 2, store)
    for _ in range(3):
        found = trunk.hidden(batch)
        assert found.device == batch.tokens.device
        assert close(found.cpu(), whole.hidden(batch).cpu())
    kept = [states for task in batch.keys for key in task if (states := store.get(key)) is not None]
    assert all(states.device.type == "cpu" for states in kept)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.usefixtures("small_segments")
def test_a_full_file_changes_no_number(dtype: torch.dtype) -> None:
    """Some of a batch looked up and some computed, all of it and none."""
    model = tiny_model("llama", layers=3).to(dtype)
    batches = [collate(examples(tasks=2, per_task=4, seed=seed, longest_prompt=30)) for seed in range(3)]
    whole = Trunk(base_model(model), 2, {})
    for most, share in ((0, "none"), (2 * PAGE, "some"), (MUCH, "all")):
        states = HiddenStates()
        trunk = Trunk(base_model(model), 2, states.below(model, 2, most=most))
        for _ in range(2):
            for batch in batches:
                found, expected = trunk.hidden(batch), whole.hidden(batch)
                assert found.dtype == dtype
                assert close(found.float(), expected.float(), 1e-5 if dtype == torch.float32 else 1e-2)
        asked = [trunk.store.get(key) is not None for batch in batches for task in batch.keys for key in task]
        assert share == ("all" if all(asked) else "some" if any(asked) else "none")
