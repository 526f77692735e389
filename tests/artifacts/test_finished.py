"""A run's folder from somebody else: what its manifest names stays in it, and every fault is said at once."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from helpers import same
from innerloop.artifacts.finished import DamagedError
from innerloop.config.schema import get
from innerloop.errors import UserError
from innerloop.files import file_digest, file_name
from innerloop.runs.reloading import load_run, task_adapter
from small_runs import Runs, World, manifest_of, new_world, small_run

DIGEST = "0" * 64
SHARED = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
OWN = "adapter/adapter_model.safetensors"


@pytest.fixture
def run(runs: Runs, tmp_path: Path) -> Path:
    return Path(shutil.copytree(runs("fomaml-lora").folder, tmp_path / "run"))


def rewrite(run: Path, change: Callable[[dict[str, Any]], object]) -> None:
    said = manifest_of(run)
    change(said)
    (run / "manifest.json").write_text(json.dumps(said))


def signed(run: Path) -> None:
    """The digests of what is in the folder now: whoever changes the weights can write those as well."""
    rewrite(run, lambda said: said["weights"].update({name: file_digest(run / name) for name in said["weights"]}))


@pytest.mark.parametrize(
    ("key", "value", "problem"),
    [
        ("weights", {"../elsewhere.safetensors": DIGEST}, "leads out of the run's folder"),
        ("weights", {"/etc/passwd": DIGEST}, "leads out of the run's folder"),
        ("weights", {"adapter/../../x": DIGEST}, "leads out of the run's folder"),
        ("weights", {"adapter\\..\\x": DIGEST}, "leads out of the run's folder"),
        ("weights", {"adapter//x": DIGEST}, "leads out of the run's folder"),
        ("weights", {"": DIGEST}, "leads out of the run's folder"),
        ("weights", {OWN: "abc"}, "not a sha256"),
        ("weights", {OWN: None}, "weights: not a map of names to texts"),
        ("weights", [OWN], "weights: not a map of names to texts"),
        ("weights", {}, "weights that the manifest doesn't name"),
        ("model", {"name": "x"}, r"model\.fingerprint: missing"),
        ("model", {"name": 1, "source": "x", "fingerprint": DIGEST}, "model: not a map of names to texts"),
        ("model", [], "model: not a map of names to texts"),
        ("config", [], "config: not a config"),
        ("config", "run.yaml", "config: not a config"),
        ("config", {"_target_": "os.system"}, r"config\._target_: unknown key"),
        ("status", "running", "did not finish"),
        ("status", {"done": 1}, "did not finish"),
    ],
)
def test_a_manifest_that_says_anything_else_is_refused(run: Path, key: str, value: Any, problem: str) -> None:
    rewrite(run, lambda said: said.update({key: value}))
    with pytest.raises(UserError, match=problem) as caught:
        load_run(run)
    assert "manifest" in str(caught.value)


def test_every_fault_of_a_manifest_comes_at_once(run: Path) -> None:
    rewrite(run, lambda said: said.update(weights={"../x": "y"}, model={"name": "x"}))
    rewrite(run, lambda said: said["config"]["outer"].update(steps=0, zork=1))
    with pytest.raises(UserError) as caught:
        load_run(run)
    wheres = [fault.where.removeprefix(f"{run / 'manifest.json'}: ") for fault in caught.value.faults]
    assert sorted(wheres) == [
        "config.outer.steps",
        "config.outer.zork",
        "model.fingerprint",
        "model.source",
        "weights",
        "weights: ../x",
    ]


@SHARED
@given(
    key=st.sampled_from(["weights", "model", "config", "status", "config.model", "config.method", "model.fingerprint"]),
    value=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inside: st.lists(inside, max_size=3) | st.dictionaries(st.text(max_size=5), inside, max_size=3),
    ),
)
def test_any_value_in_a_manifest_is_an_error_and_no_traceback(run: Path, runs: Runs, key: str, value: Any) -> None:
    shutil.copy(runs("fomaml-lora").folder / "manifest.json", run / "manifest.json")
    *path, last = key.split(".")
    rewrite(run, lambda said: (get(said, ".".join(path)) if path else said).update({last: value}))
    with pytest.raises(UserError):
        load_run(run)


def _outside(name: str) -> Callable[[Path], None]:
    def link(run: Path) -> None:
        (run / name).rename(run.parent / "elsewhere")
        (run / name).symlink_to(run.parent / "elsewhere")

    return link


def _more_weights(run: Path) -> None:
    shutil.copy(run / OWN, run / "adapter" / "more.safetensors")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (_outside("adapter"), "adapter: leads out of the run's folder"),
        (_outside(OWN), "adapter_model.safetensors: a link"),
        (_outside("manifest.json"), "no manifest.json here"),
        (_more_weights, "more.safetensors: weights that the manifest doesn't name"),
        (lambda run: (run / "adapter" / "adapter_model.bin").write_bytes(b""), "a file that can hold code"),
        (lambda run: shutil.rmtree(run / "adapter"), "not as the run wrote it"),
    ],
)
def test_a_folder_with_anything_else_in_it_is_refused(run: Path, change: Callable[[Path], None], problem: str) -> None:
    change(run)
    with pytest.raises(UserError, match=problem):
        load_run(run)


def test_a_run_may_lie_behind_the_users_own_link(run: Path, runs: Runs) -> None:
    (run.parent / "latest").symlink_to(run)
    assert same(load_run(run.parent / "latest").space.shared, runs("fomaml-lora").space.shared)


def test_a_signed_adapter_is_checked_all_the_same(run: Path) -> None:
    tensors = load_file(run / OWN)
    tensors[min(tensors)][0, 0] = float("inf")
    save_file(tensors, run / OWN)
    with pytest.raises(DamagedError, match="not as the run wrote it"):
        load_run(run)
    signed(run)
    with pytest.raises(UserError, match="NaN or infinity") as caught:
        load_run(run)
    assert not isinstance(caught.value, DamagedError)


# all parameters


@pytest.fixture
def whole(runs: Runs, tmp_path: Path) -> Path:
    return Path(shutil.copytree(runs("fomaml").folder, tmp_path / "run"))


def test_a_signed_model_is_checked_all_the_same(whole: Path) -> None:
    weights = whole / "model" / "model.safetensors"
    tensors = load_file(weights)
    tensors["model.embed_tokens.weight"][3, 0] = float("nan")  # a token that no other check looks at
    tensors["model.norm.weight"] = tensors["model.norm.weight"].double()
    save_file(tensors, weights, {"format": "pt"})
    signed(whole)
    with pytest.raises(UserError, match=r"model\.embed_tokens\.weight: NaN or infinity") as caught:
        load_run(whole)
    assert "model.norm.weight: another type" in str(caught.value)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (_outside("model"), "leads out of the run's folder"),
        (_outside("model/config.json"), "config.json: a link"),
        (lambda run: (run / "model" / "modeling.py").write_text(""), "a file that can hold code"),
        (lambda run: (run / "model" / "pytorch_model.bin").write_bytes(b""), "a file that can hold code"),
        (lambda run: shutil.rmtree(run / "model"), "not as the run wrote it"),
    ],
)
def test_a_models_folder_with_anything_else_in_it_is_refused(
    whole: Path, change: Callable[[Path], None], problem: str
) -> None:
    change(whole)
    with pytest.raises(UserError, match=problem):
        load_run(whole)


def test_a_missing_model_is_not_looked_for_in_the_hub(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`run/model` could be a hub id."""
    shutil.rmtree(whole / "model")
    rewrite(whole, lambda said: said.update(weights={}))
    monkeypatch.chdir(whole.parent)
    with pytest.raises(UserError, match="names no weights"):
        load_run("run")


# one adapter for each task


def test_a_tasks_own_adapter_is_checked_as_well(tmp_path: Path) -> None:
    world = new_world(tmp_path)
    learned = small_run(world, "lora", tmp_path / "run")
    run, place = learned.folder, learned.folder / "adapters" / file_name("dee")
    assert same(task_adapter(run, "dee", world.model), learned.space.shared)
    with pytest.raises(UserError, match="names no weights"):
        task_adapter(run, "zork", world.model)
    other: World = new_world(tmp_path / "other", seed=1)
    with pytest.raises(UserError, match="not the weights this adapter was trained on"):
        task_adapter(run, "dee", other.model)
    (run / "adapters").rename(tmp_path / "adapters")
    (run / "adapters").symlink_to(tmp_path / "adapters")
    with pytest.raises(UserError, match="leads out of the run's folder"):
        task_adapter(run, "dee", world.model)
    (run / "adapters").unlink()
    (tmp_path / "adapters").rename(run / "adapters")
    (place / "adapter_config.json").write_text("{}")
    with pytest.raises(UserError, match="not what the run's settings say"):
        task_adapter(run, "dee", world.model)
