"""Hidden states looked up at the cut = the layers below run again (law 5), for every family."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from helpers import close, examples, lora_space, perturbed, relative_error, same, untouched
from innerloop.data.batches import collate
from innerloop.data.tasks import Batch, token_key
from innerloop.data.token_ids import Encoded
from innerloop.loading.architecture import base_model
from innerloop.numerics.tensors import TensorSet
from innerloop.spaces.lora import LoraSpace
from innerloop.spaces.trunk import Companies, Trunk, TrunkExample, with_layers
from tiny import FAMILIES, tiny_model

LAYERS, CUT, TASKS = 4, 2, 3


def batch(seed: int = 0, *, longest_prompt: int = 24) -> Batch:
    """Ragged, and longer than the sliding windows of the families that have them."""
    return collate(examples(tasks=TASKS, per_task=2, seed=seed, longest_prompt=longest_prompt))


def space(
    family: str, *, cut: int = 0, store: dict[bytes, Tensor] | None = None, checkpointing: bool = False
) -> LoraSpace:
    model = tiny_model(family, layers=LAYERS)
    loss = {"cut": cut, "store": store, "checkpointing": checkpointing}
    return lora_space(model, loss=loss, layers=f"last-{LAYERS - CUT}")


def result(space: LoraSpace, batch: Batch) -> TensorSet:
    """Losses and gradients as one set."""
    losses, gradient = space.loss_and_gradient(perturbed(space.shared, TASKS), batch)
    assert gradient is not None
    return {"losses": losses, **gradient}


@contextmanager
def computed_rows(model: Any) -> Iterator[list[int]]:
    """How many rows went through the lowest layer in each forward inside."""
    rows: list[int] = []
    handle = model.model.layers[0].self_attn.q_proj.register_forward_hook(
        lambda _m, inputs, _o: rows.append(len(inputs[0]))
    )
    yield rows
    handle.remove()


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_trunk_changes_no_number(family: str, checkpointing: bool) -> None:
    store: dict[bytes, Tensor] = {}
    whole, cut = space(family), space(family, cut=CUT, store=store, checkpointing=checkpointing)
    expected = result(whole, batch())
    with untouched(cut.model):
        computed = result(cut, batch())
        looked_up = result(cut, batch())
    assert close(computed, expected)
    assert same(looked_up, computed)
    assert set(store) == {key for task in batch().keys for key in task}
    for value in store.values():
        value[0] *= 1.1
    assert relative_error(result(cut, batch()), expected) > 1e-3, "the store isn't read"


@pytest.mark.parametrize("family", FAMILIES)
def test_a_hidden_state_does_not_depend_on_the_batch_it_was_computed_in(family: str) -> None:
    """Stored in one company and padding, read in others."""
    store: dict[bytes, Tensor] = {}
    cut, short, long = space(family, cut=CUT, store=store), examples(tasks=TASKS, per_task=1), batch(1)
    alone = collate(short)
    mixed = collate(
        [
            [*one, two]
            for one, two in zip(
                short,
                [e[0] for e in examples(tasks=TASKS, per_task=1, seed=2, longest_prompt=30)],
                strict=True,
            )
        ]
    )
    assert mixed.tokens.shape[-1] > alone.tokens.shape[-1]
    for order in ([alone, mixed, long], [mixed, alone, long], [long, alone, mixed]):
        store.clear()
        for each in order:
            assert close(result(cut, each), result(space(family), each))


def test_each_example_is_computed_once() -> None:
    """A row is computed when its example is not in the store, and only then."""
    store: dict[bytes, Tensor] = {}
    model = tiny_model("llama", layers=LAYERS)
    trunk = Trunk(base_model(model), CUT, store)
    first = collate(examples(tasks=TASKS, per_task=2))
    more = collate(
        [
            [*task, *other]
            for task, other in zip(
                examples(tasks=TASKS, per_task=2), examples(tasks=TASKS, per_task=1, seed=4), strict=True
            )
        ]
    )
    with computed_rows(model) as rows:
        trunk.hidden(first)
        trunk.hidden(first.select(1, 2))
        trunk.hidden(more)
    assert rows == [1] * 3 * TASKS


class Full(dict[bytes, Tensor]):
    """Keeps as many as it has room for."""

    def __init__(self, room: int) -> None:
        self.room = room

    def __setitem__(self, key: bytes, states: Tensor) -> None:
        if len(self) < self.room:
            super().__setitem__(key, states)


@pytest.mark.parametrize("family", FAMILIES)
def test_states_do_not_depend_on_the_company_they_were_computed_in(family: str) -> None:
    """Bit for bit: a run that goes on meets its examples for the first time in other batches."""
    found: list[dict[bytes, Tensor]] = [{}, {}]
    together = batch()
    for task in range(together.tasks):
        Trunk(base_model(tiny_model(family, layers=LAYERS)), CUT, found[0]).hidden(together.select(task, task + 1))
    Trunk(base_model(tiny_model(family, layers=LAYERS)), CUT, found[1]).hidden(together)
    assert found[0].keys() == found[1].keys()
    assert all(torch.equal(found[0][key], found[1][key]) for key in found[0])


@pytest.mark.parametrize("family", FAMILIES)
def test_what_a_store_does_not_keep_is_computed_each_time(family: str) -> None:
    store = Full(2)
    cut, expected = space(family, cut=CUT, store=store), result(space(family), batch())
    for _ in range(2):
        assert close(result(cut, batch()), expected)
    assert len(store) == 2


def test_the_same_tokens_under_another_name_are_the_same_example() -> None:
    """Computed once, also where both are in one batch and neither is kept."""
    ((one, two),) = examples(tasks=1, per_task=2)
    twice = collate([[one, two, one._replace(id="another")]])
    for store in ({}, Full(0)):
        model = tiny_model("llama", layers=LAYERS)
        with computed_rows(model) as rows:
            found = Trunk(base_model(model), CUT, store).hidden(twice)
        assert rows == [1, 1]
        assert torch.equal(found[2], found[0])
        assert not torch.equal(found[1], found[0])


def test_another_examples_hidden_states_give_another_loss() -> None:
    store: dict[bytes, Tensor] = {}
    cut = space("llama", cut=CUT, store=store)
    expected = result(cut, batch())
    others = list(store.values())[1:] + list(store.values())[:1]
    for states, other in zip(list(store.values()), [other.clone() for other in others], strict=True):
        shared = min(len(states), len(other))
        states[:shared] = other[:shared]
    assert relative_error(result(cut, batch()), expected) > 1e-2


@pytest.mark.parametrize("cut", [1, 2, LAYERS - 1])
def test_the_store_holds_what_enters_the_layer_at_the_cut(cut: int) -> None:
    model, store = tiny_model("gemma2", layers=LAYERS), {}
    found = Trunk(base_model(model), cut, store).hidden(batch())
    for row, length in enumerate(n for task in batch().lengths for n in task):
        alone = batch().tokens.flatten(0, 1)[row : row + 1, :length]
        with torch.no_grad():
            states = base_model(model)(input_ids=alone, output_hidden_states=True).hidden_states
        assert torch.equal(found[row, :length], states[cut][0])
        assert (found[row, length:] == 0).all()
    assert not found.requires_grad


def test_dropout_masks_are_the_same_with_the_trunk() -> None:
    seeded = replace(batch(), mask_seeds=((3, 4), (5, 6), (7, 8)))
    settings = {"lora_dropout": 0.3, "layers": f"last-{LAYERS - CUT}"}
    whole, cut = (lora_space(tiny_model("llama", layers=LAYERS), loss={"cut": c}, **settings) for c in (0, CUT))
    assert close(result(cut, seeded), result(whole, seeded))
    assert not close(result(cut, batch()), result(whole, seeded), 0.01)


# companies


def pool(number: int, count: int = 9) -> list[TrunkExample]:
    (task,) = examples(tasks=1, per_task=count, seed=100 + number, longest_prompt=30)
    return [TrunkExample(token_key(each.tokens), each.tokens) for each in task]


def row_of(task: Sequence[TrunkExample], places: Sequence[int]) -> Batch:
    """A batch that has these examples of the task."""
    each = [Encoded(str(p), tuple(task[p].tokens), 1) for p in places]
    return collate([each])


def test_a_company_is_of_one_task_alike_in_length_and_bounded() -> None:
    tasks = [pool(0), pool(1)]
    companies = Companies(tasks, most=64)
    for task in tasks:
        found = companies.of([each.key for each in task])
        assert found.keys() == {each.key for each in task}
        every = {company.digest: company for company in found.values()}.values()
        assert sorted(each.key for company in every for each in company.examples) == sorted(found)
        assert all(len(c.examples) * len(c.examples[-1].tokens) <= 64 or len(c.examples) == 1 for c in every)
        assert 1 < len(every) < len(task)
        lengths = [[len(each.tokens) for each in company.examples] for company in every]
        assert sorted(lengths) == sorted(map(sorted, lengths)), "padding is little"
    assert companies.of([tasks[0][0].key, tasks[1][0].key]) == {}, "no task has both"
    assert companies.of([b"unknown"]) == {}


@pytest.mark.parametrize("family", FAMILIES)
def test_states_are_those_of_the_layers_in_any_company(family: str) -> None:
    task, model = pool(0), tiny_model(family, layers=LAYERS)
    batch = row_of(task, [4, 0, 7])
    together = Trunk(base_model(model), CUT, {}, Companies([task], most=100)).hidden(batch)
    alone = Trunk(base_model(model), CUT, {}).hidden(batch)
    assert close(together, alone)
    assert not close(together, alone.roll(1, 0), 0.01), "the control: another example's"


class Nothing(dict[bytes, Tensor]):
    """Keeps none."""

    def __setitem__(self, key: bytes, states: Tensor) -> None:
        pass


def test_a_tasks_states_depend_on_its_own_examples_alone() -> None:
    """Bit for bit: other tasks, which have some of its examples, the order, and what a store keeps have no part."""
    task, model = pool(0), tiny_model("llama", layers=LAYERS)
    others = [pool(1)[:4] + task[:4], pool(2)]
    rows = [[0, 6], [5, 2, 8], [7]]
    expected: dict[bytes, Tensor] = {}
    trunk = Trunk(base_model(model), CUT, expected, Companies([task], most=100))
    found = [trunk.hidden(row_of(task, row)) for row in rows]
    for tasks, store, order in (
        ([*others, task], {}, [2, 0, 1]),
        ([task, *others], Full(3), [1, 2, 0]),
        ([others[1], task], Nothing(), [0, 1, 2]),
    ):
        again = Trunk(base_model(model), CUT, store, Companies(tasks, most=100))
        again.hidden(row_of(others[1] if others[1] in tasks else task, [1]))
        for place in order:
            assert torch.equal(again.hidden(row_of(task, rows[place])), found[place])
        assert all(torch.equal(states, expected[key]) for key, states in store.items() if key in expected)
    fewer = Companies([task[:-1]], most=100)  # the control: other companies are never taken for these
    stale = Trunk(base_model(model), CUT, expected, fewer)
    kept = len(expected)
    stale.hidden(row_of(task, [0, 1, 2, 3, 4, 5, 6, 7]))
    assert len(expected) > kept


def test_what_is_filled_before_is_not_computed_again() -> None:
    tasks, model, said = [pool(0), pool(1), pool(2)], tiny_model("llama", layers=LAYERS), []
    store: dict[bytes, Tensor] = {}
    trunk = Trunk(base_model(model), CUT, store, Companies(tasks, most=100))
    drawn = [[each.key for each in task] for task in tasks[:2]]
    with computed_rows(model) as rows:
        trunk.fill(drawn, torch.device("cpu"), lambda *count: said.append(count))
    assert sum(rows) == 18, "each example of the two tasks once"
    assert max(rows) > 1
    assert said == [(done, len(rows)) for done in range(len(rows) + 1)]
    with computed_rows(model) as rows:
        for task in tasks[:2]:
            trunk.hidden(row_of(task, [3, 1]))
        trunk.fill(drawn, torch.device("cpu"), lambda *count: said.append(count))
    assert rows == []
    with computed_rows(model) as rows:
        trunk.hidden(row_of(tasks[2], [0]))
    assert rows


def test_a_store_without_room_ends_the_filling() -> None:
    task, model = pool(0, 40), tiny_model("llama", layers=LAYERS)
    companies = Companies([task], most=40)
    with computed_rows(model) as rows:
        trunk = Trunk(base_model(model), CUT, Nothing(), companies)
        trunk.fill([[each.key for each in task]], torch.device("cpu"), lambda *_: None)
    assert len(rows) == 1
    tokens = sum(len(each.tokens) for each in task)
    kept = Companies([task], most=40, room=tokens // 2).of([each.key for each in task])
    assert 0.2 < sum(len(each.tokens) for each in task if each.key in kept) / tokens <= 0.5


def test_a_twin_with_other_layers_shares_weights_and_leaves_its_base_alone() -> None:
    model = tiny_model("llama", layers=2)
    base, tokens = base_model(model), batch().tokens.flatten(0, 1)
    with untouched(model), torch.no_grad():
        own = base(input_ids=tokens).last_hidden_state
        twin = with_layers(base, [None, lambda hidden, *args, **kwargs: hidden])
        short = twin(input_ids=tokens).last_hidden_state
        assert torch.equal(base(input_ids=tokens).last_hidden_state, own)
        assert relative_error(short, own) > 1e-2
    assert torch.equal(with_layers(base, [None, None])(input_ids=tokens).last_hidden_state, own)
    assert {id(p) for p in twin.parameters()} == {id(p) for p in base.parameters()}
    assert base.layers[1].forward.__func__ is type(base.layers[1]).forward
