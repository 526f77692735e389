"""What adapts, by name: LoRA's B, the last layers, and what is refused."""

import pytest
import torch

from helpers import Tasks, all_space, lora_space, same
from innerloop.errors import UserError
from innerloop.learning.inner_loop import InnerLoop
from innerloop.numerics.optimizers import AdamW, Sgd
from innerloop.numerics.tensors import per_task
from innerloop.spaces.adapting import adapting
from innerloop.spaces.bounded import InParts
from tiny import tiny_model


def test_parts_are_known_by_their_names() -> None:
    model = tiny_model("llama", layers=3)
    lora, every = lora_space(model), all_space(tiny_model("llama", layers=3))
    assert adapting("all", lora.shared, model) == list(lora.shared)
    assert adapting("lora-b", lora.shared, model) == [name for name in lora.shared if name.endswith("lora_B")]
    for space in (lora, every):
        upper = adapting("last-2", space.shared, space.model)
        assert upper == [name for name in space.shared if ".layers.1." in name or ".layers.2." in name]
        assert 0 < len(upper) < len(space.shared)


@pytest.mark.parametrize(
    ("train", "layers", "words"), [("last-4", "all", "3 decoder layers"), ("last-1", (0, 1), "nothing that is trained")]
)
def test_layers_that_are_not_there_are_refused(train: str, layers: str | tuple[int, ...], words: str) -> None:
    space = lora_space(tiny_model("llama", layers=3), layers=layers)
    with pytest.raises(UserError, match=words) as caught:
        adapting(train, space.shared, space.model)
    assert caught.value.faults[0].where == "method.inner.train"


@pytest.mark.parametrize("optimizer", [Sgd(lr=0.1), Sgd(lr=0.1, clip=0.1), AdamW(lr=0.1, weight_decay=0.5)])
@pytest.mark.parametrize("kind", ["lora", "all"])
def test_what_does_not_adapt_stays_where_it_is(kind: str, optimizer: Sgd | AdamW) -> None:
    model = tiny_model("llama", layers=2)
    space = lora_space(model) if kind == "lora" else all_space(model)
    tasks = Tasks(tasks=space.limit or 2, steps=2).batch
    loop = InnerLoop(steps=2, optimizer=optimizer, train="last-1")
    for at in (space, InParts(space, tokens=20)):
        reached = loop.adapt(at, per_task(space.shared, len(tasks.names)), tasks.support).values
        assert list(reached) == list(space.shared), "in the order of the space"
        fixed = {name: value for name, value in reached.items() if ".layers.1." not in name}
        assert same(fixed, per_task({name: space.shared[name] for name in fixed}, len(tasks.names)))
        moved = [name for name in reached if name not in fixed]
        assert not any(torch.equal(reached[name][0], space.shared[name]) for name in moved)
