"""A model in memory is used around its own weights, and neither its modes nor ours are seen on the other side."""

import torch

from innerloop.loading.in_memory import in_memory, own_modules
from small_runs import World
from tiny import tiny_model


def test_the_weights_are_shared_and_nothing_else(world: World) -> None:
    for family in ("llama", "gemma2"):  # gemma2 ties its head
        live = tiny_model(family).train().requires_grad_(True)
        own = own_modules(live)
        here, there = live.state_dict(keep_vars=True), own.state_dict(keep_vars=True)
        assert here.keys() == there.keys()
        assert all(here[name].data_ptr() == there[name].data_ptr() for name in here)
        assert len({id(value) for value in there.values()}) == len({id(value) for value in here.values()})
        assert live.training
        assert not own.training
        assert all(parameter.requires_grad for parameter in live.parameters())
        assert not any(parameter.requires_grad for parameter in own.parameters())
        assert not {id(module) for module in live.modules()} & {id(module) for module in own.modules()}


def test_a_hook_on_one_is_none_on_the_other() -> None:
    live = tiny_model("llama")
    tokens = torch.tensor([[5, 6, 7]])
    before = live(tokens).logits
    own = own_modules(live)
    own.model.layers[0].register_forward_hook(lambda *_: torch.zeros(1, 3, 32))
    assert not torch.equal(own(tokens).logits, before)
    assert torch.equal(live(tokens).logits, before)


def test_dropout_of_a_model_in_training_mode_is_not_seen(world: World) -> None:
    live = tiny_model("phi")
    tokens, expected = torch.tensor([[5, 6, 7]]), live(torch.tensor([[5, 6, 7]])).logits
    for module in live.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.5
    live.train()
    assert not torch.equal(live(tokens).logits, expected)  # it would be noticed
    assert torch.equal(in_memory(live, world.model.tokenizer).model(tokens).logits, expected)
