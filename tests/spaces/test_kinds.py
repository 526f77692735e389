"""A kind's row says what its space is: traits that others ask for, held against spaces that it makes."""

import pytest
import torch

from innerloop.numerics.optimizers import AdamW, Sgd
from innerloop.spaces.kinds import KINDS, SpaceKind, SpaceOptions
from innerloop.spaces.lora import LoraSettings
from tiny import tiny_model

OPTIONS = SpaceOptions(lora=LoraSettings(r=2), seed=3)


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_the_traits_are_those_of_the_space_that_is_made(kind: SpaceKind) -> None:
    model = tiny_model("llama")
    space, names = kind.make(model, OPTIONS), dict(model.named_parameters())
    assert space.limit == kind.limit
    assert (space.shared.keys() == names.keys()) == kind.trains_base
    assert any(name.endswith("lora_B") for name in space.shared) == kind.reads_lora
    assert kind.exported == ("model" if kind.trains_base else "adapter")
    assert (space.device, space.dtype) == (model.device, torch.float32)


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_only_a_space_as_large_as_the_model_keeps_a_gradient_of_that_size(kind: SpaceKind) -> None:
    space = kind.make(tiny_model("llama"), OPTIONS)
    assert not space.keeps_full_gradient(Sgd(lr=1.0))
    assert space.keeps_full_gradient(Sgd(lr=1.0, clip=1.0)) == kind.trains_base
    assert space.keeps_full_gradient(AdamW(lr=1.0)) == kind.trains_base


def test_a_kind_reads_its_own_part_of_the_options() -> None:
    ranks = {len(value) for r in (2, 5) for value in _shared("lora", r) if value.shape[0] in (2, 5)}
    assert ranks == {2, 5}
    assert len(list(_shared("all", 2))) == len(list(_shared("all", 5))) == len(list(tiny_model("llama").parameters()))


def _shared(name: str, r: int) -> list[torch.Tensor]:
    space = KINDS[name].make(tiny_model("llama"), SpaceOptions(lora=LoraSettings(r=r)))
    return list(space.shared.values())
