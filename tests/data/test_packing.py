import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import examples
from innerloop.data.batches import collate
from innerloop.data.packing import WORTH, pack
from innerloop.data.tasks import Batch
from innerloop.data.token_ids import Encoded

LENGTHS = st.integers(1, 4).flatmap(
    lambda count: st.lists(st.lists(st.integers(1, 12), min_size=count, max_size=count), min_size=1, max_size=4)
)
EVEN = st.booleans()


def ragged(lengths: list[list[int]]) -> list[list[Encoded]]:
    """Examples of these lengths, no two tokens alike, each scored from its second token on."""
    count = iter(range(10**6))

    def one(length: int) -> Encoded:
        tokens = tuple(next(count) for _ in range(length))
        return Encoded(str(tokens[0]), tokens, 1)

    return [[one(length) for length in task] for task in lengths]


def whole(lengths: list[list[int]], *, even: bool) -> tuple[list[list[Encoded]], Batch]:
    drawn = ragged(lengths)
    return drawn, collate(drawn, packed=True, even=even)


@settings(max_examples=200, deadline=None)
@given(LENGTHS, EVEN)
def test_every_token_is_there_once_at_its_position(lengths: list[list[int]], even: bool) -> None:
    drawn, batch = whole(lengths, even=even)
    packing = batch.packing
    if packing is None:
        return
    each = list(map(sum, lengths))
    assert packing.sizes == (tuple([max(each)] * len(each)) if even else tuple(each))
    assert packing.source.shape == ((len(each), max(each)) if even else (1, sum(each)))
    packed = batch.tokens.flatten()[packing.source].flatten().split(packing.sizes)
    places = packing.positions.flatten().split(packing.sizes)
    for task, found, at in zip(drawn, packed, places, strict=True):
        tokens = [token for example in task for token in example.tokens]
        assert found[: len(tokens)].tolist() == tokens
        positions = [place for example in task for place in range(len(example.tokens))]
        assert at[: len(tokens)].tolist() == positions


@settings(max_examples=200, deadline=None)
@given(LENGTHS, EVEN)
def test_a_row_of_attention_holds_one_example_from_its_start(lengths: list[list[int]], even: bool) -> None:
    drawn, batch = whole(lengths, even=even)
    packing = batch.packing
    if packing is None:
        return
    packed = batch.tokens.flatten()[packing.source].flatten()
    rows = packed[packing.grid.flatten()].index_fill_(0, packing.holes, -1).view(-1, packing.longest)
    found = {tuple(row[row >= 0].tolist()): row for row in rows}
    for task in drawn:
        for example in task:
            row = found[example.tokens]
            assert row[: len(example.tokens)].tolist() == list(example.tokens)
            assert (row[len(example.tokens) :] == -1).all()
    assert torch.equal(packing.grid.flatten()[packing.place], torch.arange(len(packed)))
    assert len(packing.holes) == rows.numel() - len(packed)


@settings(max_examples=200, deadline=None)
@given(LENGTHS, EVEN)
def test_scored_rows_predict_the_same_tokens(lengths: list[list[int]], even: bool) -> None:
    _, batch = whole(lengths, even=even)
    if batch.packing is None:
        return
    packed = batch.tokens.flatten()[batch.packing.source].flatten()
    assert torch.equal(packed[batch.packing.scored], batch.tokens.flatten()[batch.scored_rows])


@settings(max_examples=200, deadline=None)
@given(LENGTHS, EVEN)
def test_it_is_made_where_it_saves_a_tenth(lengths: list[list[int]], even: bool) -> None:
    _, batch = whole(lengths, even=even)
    each = list(map(sum, lengths))
    tokens = max(each) if even else sum(each) / len(each)
    saves = tokens <= WORTH * max(map(max, lengths)) * len(lengths[0])
    assert (batch.packing is not None) == saves
    assert batch.token_count == sum(map(sum, lengths))
    assert batch.token_count <= batch.computed_tokens <= batch.tokens.numel()
    assert (batch.computed_tokens < batch.tokens.numel()) == saves
    assert even or not saves or batch.computed_tokens == batch.token_count


def test_without_being_asked_for_nothing_is_packed() -> None:
    assert collate(ragged([[1, 9]])).packing is None
    assert collate(ragged([[1, 9]]), packed=True).packing is not None


def test_a_part_of_a_batch_is_filled_up_to_its_own_longest_task() -> None:
    batch = collate(ragged([[2, 9], [1, 3], [9, 9]]), packed=True)
    assert batch.packing is None  # the last task has no padding to save
    batch = collate(ragged([[2, 9], [1, 3], [1, 5]]), packed=True)
    part = batch.select(1, 3)
    assert [batch.computed_tokens, part.computed_tokens, part.token_count] == [33, 12, 10]
    assert part.packing is not None
    alone = collate(ragged([[1, 3], [1, 5]]), packed=True)
    assert alone.packing is not None
    assert torch.equal(part.packing.positions, alone.packing.positions)


@settings(max_examples=100, deadline=None)
@given(LENGTHS, EVEN)
def test_a_part_of_a_batch_is_packed_as_if_it_were_alone(lengths: list[list[int]], even: bool) -> None:
    if len(lengths) == 1 or max(map(max, lengths[1:])) < max(lengths[0]):  # alone it would be padded less
        return
    drawn, batch = whole(lengths, even=even)
    part = batch.select(1, len(lengths))
    alone = collate(drawn[1:], packed=True, even=even)
    assert (part.packing is None) == (alone.packing is None)
    if part.packing is None or alone.packing is None:
        return
    assert part.packing.sizes == alone.packing.sizes
    for name, tensor in part.packing.tensors.items():
        assert torch.equal(tensor, alone.packing.tensors[name]), name


def test_without_fillers_unequal_tasks_are_worth_packing() -> None:
    batch = collate(ragged([[2, 9], [1, 3], [9, 9]]), packed=True, even=False)
    assert batch.packing is not None  # with them, the last task would leave nothing to save
    assert batch.packing.sizes == (11, 4, 18)
    assert batch.computed_tokens == 33
    part = batch.select(0, 2)
    assert part.packing is not None
    assert part.packing.sizes == (11, 4)


def test_it_moves_with_its_batch() -> None:
    moved = collate(examples(tasks=1, per_task=4, longest_prompt=30), packed=True).to("meta").packing
    assert moved is not None
    tensors = [value for value in vars(moved).values() if isinstance(value, torch.Tensor)]
    assert {tensor.device.type for tensor in tensors} == {"meta"}
    assert len(tensors) == 6
    assert moved.sizes == (len(moved.place),)


def test_pack_refuses_nothing_of_equal_length() -> None:
    assert pack([[5, 5], [5, 5]], width=5, scored=torch.tensor([0])) is None
