"""An adapter from somebody else: what was written is read, anything else is a UserError with every fault."""

import json
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor

from helpers import same
from innerloop.artifacts.adapter_folder import adapter_settings, read_adapter
from innerloop.artifacts.export import reload_logits
from innerloop.errors import UserError
from innerloop.runs.learned import Learned
from innerloop.spaces.lora import LoraSettings
from small_runs import Runs, tokens_of

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
FIRST = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
SHARED = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def learned(runs: Runs) -> Learned:
    return runs("fomaml-lora")


@pytest.fixture
def adapter(learned: Learned, tmp_path: Path) -> Path:
    return Path(shutil.copytree(learned.exported, tmp_path / "adapter"))


def read(folder: Path, learned: Learned) -> dict[str, Tensor]:
    lora = learned.config.method.lora_settings()
    assert lora is not None
    return read_adapter(folder, learned.model.model, lora=lora, base_names=("", learned.model.source))


def refusal(folder: Path, learned: Learned, problem: str | None = None) -> UserError:
    with pytest.raises(UserError, match=problem) as caught:
        read(folder, learned)
    return caught.value


def test_what_was_written_is_read_in_the_order_of_its_space(adapter: Path, learned: Learned) -> None:
    values = read(adapter, learned)
    assert same(values, learned.space.shared)
    assert list(values) == list(learned.space.shared)


# files


def _linked(name: str) -> Callable[[Path], None]:
    def link(folder: Path) -> None:
        (folder / name).rename(folder.parent / name)
        (folder / name).symlink_to(folder.parent / name)

    return link


def _linked_folder(folder: Path) -> None:
    folder.rename(folder.parent / "elsewhere")
    folder.symlink_to(folder.parent / "elsewhere")


def _pickle_alone(folder: Path) -> None:
    torch.save(load_file(folder / WEIGHTS), folder / "adapter_model.bin")
    (folder / WEIGHTS).unlink()


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (_linked(WEIGHTS), f"{WEIGHTS}: a link"),
        (_linked(CONFIG), f"{CONFIG}: a link"),
        (_linked_folder, "adapter: a link, not the folder"),
        (lambda folder: (folder / "more").symlink_to("/etc"), "more: a link"),
        (lambda folder: os.mkfifo(folder / "more"), "more: neither a file nor a folder"),
        (lambda folder: (folder / WEIGHTS).unlink(), f"{WEIGHTS}: no such file"),
        (lambda folder: (folder / CONFIG).unlink(), f"{CONFIG}: no such file"),
        (shutil.rmtree, f"{WEIGHTS}: no such file"),
        (_pickle_alone, r"adapter_model\.bin: a file that can hold code"),
        (lambda folder: (folder / "Model.PY").write_text(""), r"Model\.PY: a file that can hold code"),
    ],
)
def test_folders_that_hold_anything_else_are_not_opened(
    adapter: Path, learned: Learned, change: Callable[[Path], object], problem: str
) -> None:
    change(adapter)
    refusal(adapter, learned, problem)
    if "no such file" not in problem:
        with pytest.raises(UserError, match=problem):
            reload_logits(adapter, tokens_of(learned))


# weights


def _tensors(change: Callable[[dict[str, Tensor]], object]) -> Callable[[Path], None]:
    def rewrite(folder: Path) -> None:
        tensors = load_file(folder / WEIGHTS)
        change(tensors)
        save_file(tensors, folder / WEIGHTS)

    return rewrite


def _first(change: Callable[[Tensor], Tensor]) -> Callable[[Path], None]:
    return _tensors(lambda tensors: tensors.update({FIRST: change(tensors[FIRST])}))


def _entry(value: float) -> Callable[[Path], None]:
    return _first(lambda tensor: tensor.index_fill(1, torch.tensor([1]), value))


def _bytes(change: Callable[[bytes], bytes]) -> Callable[[Path], object]:
    return lambda folder: (folder / WEIGHTS).write_bytes(change((folder / WEIGHTS).read_bytes()))


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (_tensors(lambda t: t.pop(FIRST)), rf"a tensor is missing\n    expected: {FIRST}"),
        (_tensors(lambda t: t.update(zork=torch.ones(2))), "a tensor that this adapter doesn't have"),
        (_first(lambda tensor: tensor[:4].clone()), r"another type or shape\n.*'F32', \[4, 32\]"),
        (_first(lambda tensor: tensor.T.contiguous()), r"another type or shape\n.*\[32, 8\]"),
        (_first(lambda tensor: tensor.half()), "another type or shape\n.*'F16'"),
        (_first(lambda tensor: tensor.view(torch.int32)), "another type or shape\n.*'I32'"),
        (_entry(float("nan")), "NaN or infinity"),
        (_entry(float("-inf")), "NaN or infinity"),
        (_bytes(lambda data: data + b"\0" * 20_000), "more bytes than this adapter can have"),
        (_bytes(lambda data: data[:-1]), "not a safetensors file"),
        (_bytes(lambda data: b"\xff" * 8 + data[8:]), "not a safetensors file"),
        (_bytes(lambda data: data[:8] + b"[" * (len(data) - 8)), "not a safetensors file"),
        (_bytes(lambda data: b""), "not a safetensors file"),
        (_bytes(lambda data: b"\x80\x04." + data), "not a safetensors file"),
    ],
)
def test_weights_of_any_other_form_are_refused(
    adapter: Path, learned: Learned, change: Callable[[Path], object], problem: str
) -> None:
    change(adapter)
    refusal(adapter, learned, problem)


@SHARED
@given(at=st.integers(0, 10**6), byte=st.integers(1, 255), keep=st.integers(0, 10**6) | st.none())
def test_any_damage_to_the_bytes_is_an_error_or_finite_numbers_of_the_right_shapes(
    adapter: Path, learned: Learned, at: int, byte: int, keep: int | None
) -> None:
    data = bytearray((learned.exported / WEIGHTS).read_bytes())
    header = 8 + int.from_bytes(data[:8], "little")
    data[at % (2 * header)] ^= byte  # in the header as often as in the tensors
    (adapter / WEIGHTS).write_bytes(data[: None if keep is None else keep % len(data)])
    try:
        values = read(adapter, learned)
    except UserError:
        return
    right = learned.space.shared
    assert [(name, value.shape, value.dtype) for name, value in values.items()] == [
        (name, value.shape, value.dtype) for name, value in right.items()
    ]
    assert all(value.isfinite().all() for value in values.values())


# config


def _config(**changes: Any) -> Callable[[Path], None]:
    def rewrite(folder: Path) -> None:
        (folder / CONFIG).write_text(json.dumps(json.loads((folder / CONFIG).read_text()) | changes))

    return rewrite


@pytest.mark.parametrize(
    "changes",
    [
        {"r": 4},
        {"r": "8"},
        {"lora_alpha": 64},
        {"use_rslora": True},
        {"use_rslora": 0},
        {"lora_dropout": 0.5},
        {"target_modules": ["q_proj"]},
        {"target_modules": "all-linear"},
        {"target_modules": [["q_proj"]]},
        {"base_model_name_or_path": "some/base"},
        {"base_model_name_or_path": ""},
        {"peft_type": "IA3"},
        {"task_type": "SEQ_CLS"},
        {"bias": "all"},
        {"init_lora_weights": "pissa"},
        {"modules_to_save": ["lm_head"]},
        {"auto_mapping": {"base_model_class": "Planted", "parent_library": "planted"}},
        {"megatron_config": {"a": 1}},
        {"megatron_core": "planted"},
        {"rank_pattern": {"q_proj": 2}},
        {"use_dora": True},
        {"layer_replication": [[0, 2]]},
        {"inference_mode": "planted"},
        {"zork": 1},
    ],
)
def test_a_config_that_says_something_else_is_refused(adapter: Path, learned: Learned, changes: dict[str, Any]) -> None:
    _config(**changes)(adapter)
    (key,) = changes
    assert [fault.where for fault in refusal(adapter, learned).faults] == [f"{adapter / CONFIG}: {key}"]


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 100_000, '"x"', " " * 4_000_001, "\ud800"])
def test_a_config_that_is_no_object_is_refused(adapter: Path, learned: Learned, text: str) -> None:
    (adapter / CONFIG).write_text(text, "utf-8", "surrogatepass")
    refusal(adapter, learned, f"{CONFIG}: (not|too large for) an adapter's config")


def test_a_missing_key_is_named(adapter: Path, learned: Learned) -> None:
    (adapter / CONFIG).write_text("{}")
    wheres = {fault.where.rpartition(": ")[2] for fault in refusal(adapter, learned).faults}
    assert {"r", "lora_alpha", "target_modules", "use_rslora", "base_model_name_or_path"} <= wheres


def test_options_that_are_off_may_come_from_another_version_of_peft(adapter: Path, learned: Learned) -> None:
    _config(new_option=None, other={}, third=[], fourth=False, peft_version="99")(adapter)
    assert same(read(adapter, learned), learned.space.shared)


@SHARED
@given(
    key=st.sampled_from(["r", "target_modules", "auto_mapping", "peft_version", "zork"]),
    value=st.recursive(
        st.none() | st.booleans() | st.integers(max_value=7) | st.just(float("nan")) | st.text(), st.lists
    ),
)
def test_any_value_of_a_config_is_read_or_refused(adapter: Path, learned: Learned, key: str, value: Any) -> None:
    written = json.loads((learned.exported / CONFIG).read_text())
    (adapter / CONFIG).write_text(json.dumps(written | {key: value}), "utf-8", "surrogatepass")
    harmless = value is None or value is False or value == [] or (key == "peft_version" and isinstance(value, str))
    if key in ("auto_mapping", "peft_version", "zork") and harmless:
        assert same(read(adapter, learned), learned.space.shared)
    else:
        refusal(adapter, learned, rf"{CONFIG}: {key}")


def test_all_faults_come_at_once(adapter: Path, learned: Learned) -> None:
    for change in (_config(r=4, zork=1), _entry(float("nan")), _tensors(lambda t: t.update(zork=torch.ones(2)))):
        change(adapter)
    text = str(refusal(adapter, learned))
    for part in (f"{CONFIG}: r:", f"{CONFIG}: zork:", "'zork'", f"{FIRST}: NaN"):
        assert part in text


# without its run


def test_an_adapter_says_its_own_settings(adapter: Path, learned: Learned) -> None:
    lora, base = adapter_settings(adapter)
    asked = learned.config.method.lora_settings()
    assert asked is not None
    assert base == ""
    assert (lora.r, lora.lora_alpha, lora.scale) == (asked.r, asked.lora_alpha, asked.scale)
    values = read_adapter(adapter, learned.model.model, lora=lora, base_names=[base])
    assert same(values, learned.space.shared)


KINDS = st.none() | st.booleans() | st.integers(-3, 3) | st.text(max_size=3) | st.lists(st.integers() | st.text())
KEYS = st.sampled_from(["r", "lora_alpha", "lora_dropout", "use_rslora", "target_modules", "base_model_name_or_path"])


def _settings_that_say(learned: Learned, said: dict[str, Any]) -> LoraSettings | None:
    """None where they are refused."""
    with TemporaryDirectory() as place, suppress(UserError):
        folder = Path(shutil.copytree(learned.exported, Path(place) / "adapter"))
        path = folder / CONFIG
        path.write_text(json.dumps(json.loads(path.read_text()) | said))
        return adapter_settings(folder)[0]
    return None


@given(st.dictionaries(KEYS, KINDS, min_size=1))
@SHARED
def test_whatever_a_config_says_is_settings_or_a_fault(learned: Learned, said: dict[str, Any]) -> None:
    lora = _settings_that_say(learned, said)
    if lora is not None:
        assert type(lora.r) is int
        assert lora.r > 0
        assert type(lora.use_rslora) is bool
        assert all(isinstance(name, str) for name in lora.target_modules)


@pytest.mark.parametrize(
    "said", [{"r": True}, {"r": 0}, {"lora_alpha": "8"}, {"target_modules": "all-linear"}, {"use_rslora": 1}]
)
def test_settings_of_another_kind_are_refused(learned: Learned, said: dict[str, Any]) -> None:
    assert _settings_that_say(learned, {}) is not None
    assert _settings_that_say(learned, said) is None
