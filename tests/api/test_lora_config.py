"""PEFT's LoraConfig is read key by key, and what of it means nothing here is refused by name."""

import peft
import pytest

import innerloop
from innerloop.api.lora_config import lora_keys
from innerloop.config.loading import load_config
from innerloop.config.schema import KEYS, nested
from innerloop.errors import UserError


def test_it_is_pefts_own() -> None:
    assert innerloop.LoraConfig is peft.LoraConfig


def test_settings_become_keys_that_there_are() -> None:
    given = peft.LoraConfig(r=4, lora_alpha=8, target_modules=["v_proj", "q_proj"], layers_to_transform=[1, 2])
    found = lora_keys(given)
    assert found.keys() <= set(KEYS)
    assert found["method.lora.r"] == 4
    assert found["method.lora.target_modules"] == ["q_proj", "v_proj"]
    assert found["method.lora.layers"] == [1, 2]
    assert lora_keys(peft.LoraConfig(layers_to_transform=3))["method.lora.layers"] == [3]
    assert lora_keys(None) == {}


def test_what_is_not_read_is_refused_together() -> None:
    with pytest.raises(UserError) as caught:
        lora_keys(peft.LoraConfig(use_dora=True, bias="all"))
    assert {fault.where for fault in caught.value.faults} == {"peft_config.use_dora", "peft_config.bias"}


def test_what_would_be_whole_for_each_task_is_refused_with_the_reason() -> None:
    with pytest.raises(UserError, match="each task would have whole embeddings"):
        lora_keys(peft.LoraConfig(modules_to_save=["lm_head"]))


def test_a_start_is_one_that_leaves_the_base_as_it_is() -> None:
    assert lora_keys(peft.LoraConfig())["method.lora.init_lora_weights"] is True
    gaussian = lora_keys(peft.LoraConfig(init_lora_weights="gaussian"))
    tree = {"model.name": "m", "tasks.suite": "math-science", "method.name": "meta-lora", "output_dir": "o"}
    assert load_config(nested(tree | gaussian)).method.lora_settings().init_lora_weights == "gaussian"
    with pytest.raises(UserError, match=r"init_lora_weights[\s\S]*pissa[\s\S]*change the base"):
        load_config(nested(tree | lora_keys(peft.LoraConfig(init_lora_weights="pissa"))))
