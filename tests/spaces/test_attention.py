import pytest
import torch
from torch import Tensor

from helpers import all_space, close, examples, lora_space, perturbed, untouched
from innerloop.data.batches import collate
from innerloop.data.tasks import Batch
from innerloop.loading.architecture import base_model, packs
from innerloop.spaces.attention import attending, repack, unpack
from innerloop.spaces.loss import AnswerLoss
from tiny import FAMILIES, tiny_model

TASKS = 3
PACKED = [family for family in FAMILIES if packs(tiny_model(family, layers=1))]


def both(tasks: int = TASKS, *, even: bool = True) -> tuple[Batch, Batch]:
    """The same examples padded and packed; longer ones than the window of gemma3's layers, 16 tokens."""
    drawn = examples(tasks=tasks, per_task=4, longest_prompt=30)
    padded, packed = collate(drawn), collate(drawn, packed=True, even=even)
    assert packed.packing is not None
    assert len(set(packed.packing.sizes)) == (1 if even else tasks)
    assert max(map(max, packed.lengths)) > 16
    return padded, packed


def test_most_families_are_packed() -> None:
    assert set(FAMILIES) - set(PACKED) == {"gemma2"}  # soft-capped attention is not scaled-dot-product attention


@pytest.mark.parametrize("family", PACKED)
@pytest.mark.parametrize(("kind", "even"), [("lora", True), ("lora", False), ("all", True)])
def test_packing_changes_no_number(kind: str, even: bool, family: str) -> None:
    model = tiny_model(family)
    space = lora_space(model) if kind == "lora" else all_space(model)
    tasks = space.limit or TASKS
    values = perturbed(space.shared, tasks)
    results = []
    for batch in both(tasks, even=even):
        with untouched(model):
            loss, gradient = space.loss_and_gradient(values, batch)
        results.append({"loss": loss, **(gradient or {})})
    assert close(results[1], results[0])


def test_attention_across_examples_would_show() -> None:
    """The control: the model's own attention reads a packed row as one text."""
    model = tiny_model("llama")
    padded, packed = both(1)
    assert packed.packing is not None
    assert close(AnswerLoss(model)(packed), AnswerLoss(model)(padded))
    logits = model(input_ids=packed.tokens.flatten()[packed.packing.source]).logits.flatten(0, 1)
    mixed = torch.nn.functional.cross_entropy(logits[packed.packing.scored], packed.targets)
    assert not close(mixed[None], AnswerLoss(model)(padded), 1e-3)


@pytest.mark.parametrize("even", [True, False])
@pytest.mark.parametrize("family", ["gemma3", "llama"])
def test_checkpointing_recomputes_with_the_packing_of_its_batch(family: str, even: bool) -> None:
    results = []
    for checkpointing in (False, True):
        space = lora_space(tiny_model(family), loss={"checkpointing": checkpointing})
        loss, gradient = space.loss_and_gradient(perturbed(space.shared, TASKS), both(even=even)[1])
        results.append({"loss": loss, **(gradient or {})})
    assert close(results[1], results[0])


@pytest.mark.parametrize("even", [True, False])
def test_a_second_derivative_goes_through(even: bool) -> None:
    space = lora_space(tiny_model("llama", layers=2))
    values, vector = perturbed(space.shared, TASKS), perturbed(space.shared, TASKS, seed=5)
    products = [space.hessian_vector_product(values, batch, vector) for batch in both(even=even)]
    assert close(products[1], products[0], 1e-4)
    assert not close(products[1], vector, 1e-1)


@pytest.mark.parametrize("even", [True, False])
@pytest.mark.parametrize("cut", [1, 2])
def test_hidden_states_from_a_store_are_packed_too(cut: int, even: bool) -> None:
    model = tiny_model("qwen2")
    padded, packed = both(even=even)
    loss, store = AnswerLoss(model), {}
    above = AnswerLoss(model, cut=cut, store=store)
    assert close(above(packed), loss(padded))
    assert close(above(packed), loss(padded))  # all of them looked up
    assert [len(states) for states in store.values()] == [n for task in packed.lengths for n in task]


def test_scores_are_those_of_the_padded_batch() -> None:
    loss = AnswerLoss(tiny_model("mistral"))
    padded, packed = (loss.score(batch) for batch in both())
    assert close(packed.nats, padded.nats)
    assert packed.exact.equal(padded.exact)


def test_a_padded_batch_after_a_packed_one_is_read_as_such() -> None:
    loss = AnswerLoss(tiny_model("llama"))
    padded, packed = both()
    alone = loss(padded)
    loss(packed)
    assert loss(padded).equal(alone)


def test_the_model_itself_attends_as_before() -> None:
    model, tokens = tiny_model("gemma3"), torch.randint(3, 60, (2, 24), generator=torch.Generator().manual_seed(0))
    before = model(input_ids=tokens).logits
    AnswerLoss(model)(both()[1])
    assert model(input_ids=tokens).logits.equal(before)
    assert model.config._attn_implementation == "sdpa"


def test_a_window_hides_what_lies_behind_it() -> None:
    """Of a row as long as two windows, the end doesn't change with the start."""
    model = tiny_model("gemma3", layers=1)
    base = base_model(model)
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(3, 60, (1, 32), generator=generator)
    other = torch.cat([torch.randint(3, 60, (1, 8), generator=generator), tokens[:, 8:]], 1)
    near = torch.cat([tokens[:, :24], other[:, :1], tokens[:, 25:]], 1)
    with attending(base):
        first, second, third = (
            base(input_ids=row, use_cache=False).last_hidden_state[0] for row in (tokens, other, near)
        )
    assert first[-8:].equal(second[-8:])
    assert not third[-7:].equal(first[-7:])


def test_the_way_to_rows_and_back_is_its_own_transpose() -> None:
    packing = both()[1].packing
    assert packing is not None
    generator = torch.Generator().manual_seed(0)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64, requires_grad=True)

    packed, rows = drawn(len(packing.place), 2), drawn(packing.grid.numel(), 2)
    assert torch.allclose((unpack(packed, packing) * rows).sum(), (packed * repack(rows, packing)).sum())
    assert repack(unpack(packed, packing), packing).equal(packed)
    assert torch.autograd.gradcheck(lambda x: unpack(x, packing), packed)
    assert torch.autograd.gradgradcheck(lambda x: repack(x, packing), rows)


def test_a_model_attends_this_way_in_the_context_alone() -> None:
    base = base_model(tiny_model("llama"))

    def interrupted() -> None:
        with attending(base):
            assert base.config._attn_implementation == "innerloop"
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert base.config._attn_implementation == "sdpa"
