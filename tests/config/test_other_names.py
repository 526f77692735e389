"""A config of another project is answered with the keys to use."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.config_examples import faults_of, minimal

from innerloop.config.other_names import OTHERS, TRANSFORMERS, hint, key_for
from innerloop.config.schema import EVERYTHING, KEYS


def test_every_other_name_leads_to_a_key_and_hides_none() -> None:
    assert {*OTHERS.values(), *TRANSFORMERS.values()} <= set(KEYS)
    assert not OTHERS.keys() & TRANSFORMERS.keys()
    # a word that is the end of a key of ours is answered with that key
    assert not OTHERS.keys() & {key.rsplit(".", 1)[-1] for key in EVERYTHING}


@pytest.mark.parametrize(
    ("section", "name", "value", "key"),
    [
        ("", "learning_rate", 1e-3, "outer.optimizer.lr"),
        ("", "num_train_epochs", 3, "outer.steps"),
        ("model", "model_name_or_path", "m", "model.name"),
        ("method", "inner_lr", 0.1, "method.inner.optimizer.lr"),
        ("method.lora", "rank", 8, "method.lora.r"),
        ("outer", "meta_lr", 1e-3, "outer.optimizer.lr"),
        ("tasks", "max_seq_length", 128, "tasks.max_length"),
        ("", "second_order", False, "method.name"),
        ("", "per-device-train-batch-size", 4, "outer.tasks_per_step"),
    ],
)
def test_a_neighbours_name_is_answered_with_ours(section: str, name: str, value: Any, key: str) -> None:
    tree = minimal("meta-lora")
    inside = tree
    for part in section.split(".") if section else []:
        inside = inside.setdefault(part, {})
    inside[name] = value
    (fault,) = faults_of(tree)
    assert "unknown key" in fault
    assert fault.endswith(f"expected: {key}")


def test_a_section_of_a_flat_config_names_the_keys_for_all_that_is_in_it() -> None:
    training = {"meta_lr": 1e-3, "inner": {"inner_lr": 0.1}, "epochs": 3, "mystery": 1}
    (fault,) = faults_of({**minimal("fomaml"), "training": training})
    keys = "meta_lr is outer.optimizer.lr, inner_lr is method.inner.optimizer.lr, epochs is outer.steps"
    assert fault.endswith(f"expected: {keys}")


@given(st.text(max_size=30), st.recursive(st.integers(), lambda inner: st.dictionaries(st.text(), inner)))
def test_any_name_and_value_can_be_asked_for(name: str, value: Any) -> None:
    assert hint(name, value) is None or any(key in hint(name, value) for key in KEYS)  # pyright: ignore
    assert key_for(name) is None or key_for(name) in KEYS
