"""What a model has to have, and families that lack it."""

from typing import Any

import pytest
import torch

from innerloop.data.batches import collate
from innerloop.data.token_ids import Encoded
from innerloop.errors import UserError
from innerloop.loading import architecture
from innerloop.spaces.loss import AnswerLoss
from tiny import FAMILIES, tiny_config, tiny_model


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


def turning(rope: dict[str, Any], *, longest: int = 16) -> Any:
    """A llama whose positions turn this way, with random weights."""
    from transformers import LlamaForCausalLM

    config = tiny_config("llama", layers=2)
    config.max_position_embeddings = longest
    config.rope_parameters = {"rope_theta": 10000.0, **rope}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return LlamaForCausalLM(config).eval().requires_grad_(False)


DYNAMIC = {"rope_type": "dynamic", "factor": 4.0}
LONGROPE = {
    "rope_type": "longrope",
    "short_factor": [1.0] * 4,
    "long_factor": [4.0] * 4,
    "factor": 4.0,
    "original_max_position_embeddings": 16,
}


def test_positions_that_remember_are_refused_with_the_reason() -> None:
    """And transformers does remember: the control."""
    model = turning(DYNAMIC)
    short, long = torch.arange(3, 23)[None], torch.arange(3, 63)[None]
    before = model(input_ids=short).logits
    model(input_ids=long)
    assert not torch.allclose(model(input_ids=short).logits, before, atol=1e-4)
    for refuses in (architecture.check_parts, architecture.check_architecture, AnswerLoss):
        with pytest.raises(UserError, match=r"'llama'[\s\S]*dynamic[\s\S]*went through the model before"):
            refuses(model)
    for rope in ({"rope_type": "default"}, {"rope_type": "linear", "factor": 4.0}, LONGROPE):
        architecture.check_parts(turning(rope))


def test_examples_that_would_turn_their_neighbours_are_refused() -> None:
    model = turning(LONGROPE, longest=64)
    assert architecture.longest_alone(model) == 16
    assert architecture.longest_alone(turning({"rope_type": "default"})) is None
    short = collate([[Encoded("a", tuple(range(3, 15)), 8)]])
    long = collate([[Encoded("b", tuple(range(3, 23)), 16)]])
    loss = AnswerLoss(model)
    assert loss(short).isfinite().all()
    with pytest.raises(UserError, match=r"original_max_position_embeddings[\s\S]*20[\s\S]*at most 16 tokens"):
        loss(long)
    loss.longest = None  # the control: in company the short one is read otherwise
    rows = torch.full((2, 20), 3)
    rows[0, :12], rows[1] = short.tokens[0, 0], long.tokens[0, 0]
    alone, mixed = (model(input_ids=ids).logits[0, :12] for ids in (rows[:1, :12], rows))
    assert not torch.allclose(alone, mixed, atol=1e-4)
