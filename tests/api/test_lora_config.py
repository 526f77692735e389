"""PEFT's LoraConfig is read key by key, and what of it means nothing here is refused by name."""

import peft
import pytest

import innerloop
from innerloop.api.lora_config import lora_keys
from innerloop.config.schema import KEYS
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
