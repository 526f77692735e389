"""What a model has to have, and families that lack it."""

from typing import Any

import pytest
import torch

from innerloop import architecture
from innerloop.errors import UserError
from tiny import FAMILIES, tiny_model


@pytest.mark.parametrize("family", FAMILIES)
def test_each_family_passes_the_check_and_leaves_no_trace(family: str) -> None:
    model, state = tiny_model(family), torch.get_rng_state()
    before = {name: value.clone() for name, value in model.named_parameters()}
    architecture.check_architecture(model)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in model.named_parameters())
    assert len(architecture.decoder_layers(model)) == 3
    weight, bias = architecture.head(model)
    assert weight.shape == (64, 32)
    assert (bias is not None) == (family == "phi")
    assert (architecture.logit_softcap(model) is not None) == (family == "gemma2")


def test_a_family_without_linear_layers_in_layers_is_refused_by_name() -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    model = GPT2LMHeadModel(GPT2Config(vocab_size=64, n_embd=32, n_head=4, n_layer=2, n_positions=32))
    with pytest.raises(UserError, match=r"'gpt2'[\s\S]*layers[\s\S]*'gpt2'[\s\S]*Conv1D") as caught:
        architecture.check_architecture(model)
    assert len(caught.value.faults) == 2


def test_logits_with_another_scaling_are_refused() -> None:
    from transformers import GraniteConfig, GraniteForCausalLM

    sizes: dict[str, Any] = {
        "vocab_size": 64,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    }
    architecture.check_architecture(GraniteForCausalLM(GraniteConfig(**sizes, logits_scaling=1.0)))
    with pytest.raises(UserError, match=r"'granite'.*not head"):
        architecture.check_architecture(GraniteForCausalLM(GraniteConfig(**sizes, logits_scaling=1.01)))


def test_weights_that_give_no_number_are_refused() -> None:
    model = tiny_model("llama")
    model.get_parameter("model.norm.weight")[0] = float("nan")
    with pytest.raises(UserError, match=r"not head[\s\S]*nan"):
        architecture.check_architecture(model)


def test_parts_are_looked_for_without_weights() -> None:
    from transformers import AutoModelForCausalLM, GPT2Config

    with torch.device("meta"):
        llama = AutoModelForCausalLM.from_config(tiny_model("llama").config)
        gpt2 = AutoModelForCausalLM.from_config(GPT2Config(vocab_size=64, n_embd=32, n_head=4, n_layer=2))
    architecture.check_parts(llama)
    with pytest.raises(UserError, match="no ModuleList"):
        architecture.check_parts(gpt2)
