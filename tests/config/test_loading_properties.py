"""load_config on drawn input: a valid config comes back the same, anything else is refused in order."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config_examples import OTHER, faults_of, leaves, minimal
from innerloop.config.document import to_yaml
from innerloop.config.loading import KEYS, load_config
from innerloop.config.rules import unread
from innerloop.config.schema import EVERYTHING, get, nested
from innerloop.errors import UserError
from innerloop.learning.methods import METHODS, Maml, Reptile


@st.composite
def valid(draw: st.DrawFn) -> dict[str, Any]:
    """A config that loads: a method, a source, and other values of some of the keys that such a run reads."""
    method = draw(st.sampled_from(list(METHODS)))
    source = draw(st.sampled_from(["tasks.suite", "tasks.folder"]))
    values = {"model.name": "m", "output_dir": "x", "method.name": method, source: OTHER[source]}
    optional = [key for key in KEYS if key not in (*values, "tasks.suite", "tasks.folder")]
    chosen = draw(st.sets(st.sampled_from(optional)))
    for key in chosen:
        values[key] = OTHER[key]
    for section in ("method.inner.optimizer", "outer.optimizer"):
        kind = "sgd" if METHODS[method].rule is Maml else draw(st.sampled_from(["sgd", "adamw"]))
        if any(key.startswith(section) for key in chosen):
            values |= {f"{section}.name": kind, f"{section}.lr": draw(st.floats(1e-8, 1e3))}
    if METHODS[method].space.trains_base:
        values.pop("memory.trunk_cache", None)
        values.pop("memory.tasks_per_forward", None)
    else:
        values.pop("memory.lean", None)
        values.pop("memory.offload", None)
    if METHODS[method].rule in (Maml, Reptile):
        values.pop("memory.lean", None)
    if "memory.lean" in values:
        values |= {"model.dtype": "bfloat16"}
        if "method.inner.optimizer.name" in values:
            values["method.inner.optimizer.name"] = "sgd"
    if "memory.trunk_cache" in values:
        values["method.lora.layers"] = "last-2"
    if METHODS[method].one_task:
        values.pop("outer.tasks_per_step", None)
    if METHODS[method].one_task or "memory.trunk_cache" in values:
        values.pop("tasks.prompt", None)
    gone = [objection.keys[0] for objection in unread(values)]
    return nested(
        {key: value for key, value in values.items() if not any(f"{key}.".startswith(f"{other}.") for other in gone)}
    )


@settings(max_examples=60, deadline=None)
@given(tree=valid())
def test_resolved_loads_as_an_equal_config(tree: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> None:
    config = load_config(tree)
    config.method.build()
    resolved = config.resolved()
    assert load_config(resolved) == config
    assert load_config(resolved).resolved() == resolved
    file = tmp_path_factory.mktemp("config") / "run.yaml"
    file.write_text(to_yaml(resolved))
    assert load_config(file) == config
    assert all(get(resolved, key) == value for key, value in leaves(tree).items())


WORDS = st.sampled_from(sorted({part for key in EVERYTHING for part in key.split(".")})) | st.text(max_size=5)
ANY = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.binary(max_size=3)
    | st.sampled_from([*METHODS, "sgd", "adamw", "auto", 10**400, "\ud800", Path("x")])
)
NESTED = st.recursive(
    ANY,
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(WORDS, inside, max_size=5),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None)
@given(
    source=st.dictionaries(WORDS | st.integers(), NESTED, max_size=6),
    sets=st.lists(st.text(max_size=8), max_size=2),
)
def test_any_mapping_is_loaded_or_refused(source: dict[Any, Any], sets: list[str]) -> None:
    faults_of(source, *sets)


@settings(max_examples=200, deadline=None)
@given(key=st.sampled_from(EVERYTHING), value=NESTED, method=st.sampled_from(list(METHODS)))
def test_any_value_of_any_key_is_loaded_or_refused(key: str, value: Any, method: str) -> None:
    tree = minimal(method)
    *sections, last = key.split(".")
    section: Any = tree
    for name in sections:
        section = section.setdefault(name, {})
    section[last] = value
    try:
        config = load_config(tree)
    except UserError as error:
        assert str(error)  # noqa: PT017
    else:
        assert load_config(config.resolved()) == config


@settings(max_examples=60, deadline=None)
@given(text=st.text(max_size=10), key=st.sampled_from(KEYS))
def test_any_setting_is_loaded_or_refused(text: str, key: str) -> None:
    try:
        config = load_config(minimal("meta-lora"), [f"{key}={text}"])
    except UserError as error:
        assert str(error)  # noqa: PT017
    else:
        assert load_config(config.resolved()) == config
