"""What is on disk is read whole or refused by name; folders of equal tensors have one fingerprint."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from innerloop.errors import UserError
from innerloop.loading.weights import fingerprint, stored_tensors, weight_files
from tiny import save_tiny

INDEX, SHARD = "model.safetensors.index.json", "model-00001-of-00002.safetensors"


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def folder(stored: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(stored, tmp_path / "copy"))


def sharded(folder: Path, *names: str) -> list[str]:
    for name in names:
        save_file({name: torch.ones(2)}, folder / name)
    index = {"weight_map": {f"tensor {place}": name for place, name in enumerate(names)}}
    (folder / INDEX).write_text(json.dumps(index))
    return [path.name for path in weight_files(folder)]


def test_the_fingerprint_is_the_content_and_nothing_else(tmp_path: Path) -> None:
    tensors = {
        "a": torch.arange(6).reshape(2, 3),
        "b": torch.ones(4, dtype=torch.bfloat16),
        "c": torch.tensor(2.0),
    }

    def written(name: str, metadata: dict[str, str] | None = None, **changes: torch.Tensor) -> str:
        (tmp_path / name).mkdir()
        save_file({**tensors, **changes}, tmp_path / name / "model.safetensors", metadata)
        return fingerprint(tmp_path / name)

    plain = written("plain")
    assert plain == "95f12381679ab859404f3143fb6b921e0358e4c86c1e93a5ff0bec507084ed03"
    assert written("metadata", {"by": "hand"}) == plain
    changed = [
        written("value", a=torch.tensor([[0, 1, 2], [3, 4, 6]])),
        written("shape", a=torch.arange(6).reshape(3, 2)),
        written("dtype", b=torch.ones(4, dtype=torch.float16)),
        written("more", d=torch.zeros(0)),
    ]
    assert len({plain, *changed}) == 5


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(0, 10**6), byte=st.integers(0, 255), keep=st.integers(0, 10**6) | st.none())
def test_no_byte_of_the_weights_changes_unnoticed(
    folder: Path, stored: Path, at: int, byte: int, keep: int | None
) -> None:
    """Damage is a UserError or another fingerprint, except where it leaves every tensor as it was."""
    original = stored / "model.safetensors"
    data = bytearray(original.read_bytes())
    data[at % len(data)] ^= byte
    (folder / "model.safetensors").write_bytes(data[: None if keep is None else keep % len(data)])
    try:
        changed = fingerprint(folder)
    except UserError:
        return
    left, right = load_file(original), load_file(folder / "model.safetensors")
    same = left.keys() == right.keys() and all(
        left[name].dtype == right[name].dtype and left[name].numpy().tobytes() == right[name].numpy().tobytes()
        for name in left
    )
    assert (changed == fingerprint(stored)) == same


def test_the_tensors_are_those_that_are_stored(stored: Path) -> None:
    found, whole = dict(stored_tensors(stored)), load_file(stored / "model.safetensors")
    assert found.keys() == whole.keys()
    assert all(torch.equal(found[name], whole[name]) for name in whole)


def test_the_files_are_one_or_all_that_the_index_names(tmp_path: Path) -> None:
    assert weight_files(tmp_path) == []
    assert sharded(tmp_path, SHARD, "model-00002-of-00002.safetensors") == [SHARD, "model-00002-of-00002.safetensors"]
    (tmp_path / SHARD).rename(tmp_path / "away")
    assert weight_files(tmp_path) == []
    (tmp_path / "away").rename(tmp_path / "model.safetensors")
    assert weight_files(tmp_path) == [tmp_path / "model.safetensors"], "as transformers does: the one before the shards"


@pytest.mark.parametrize(
    "name", ["../a.safetensors", "/tmp/a.safetensors", "a.bin", "b/a.safetensors", ".a.safetensors"]
)
def test_an_index_leads_nowhere_else(tmp_path: Path, name: str) -> None:
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(UserError, match="not a weights index") as caught:
        weight_files(tmp_path)
    assert name in str(caught.value)


def test_what_is_no_index_is_refused(tmp_path: Path) -> None:
    for content in ("", "[]", "{}", '{"weight_map": 3}', '{"weight_map": {"a": 1}}', "[" * 100_000):
        (tmp_path / INDEX).write_text(content)
        with pytest.raises(UserError, match="not a weights index"):
            weight_files(tmp_path)
