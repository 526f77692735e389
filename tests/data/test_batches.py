import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import Tasks, examples
from innerloop.data.batches import PAD, collate, inner_batches, mask_seed, task_batch, with_masks
from innerloop.data.packing import WORTH
from innerloop.data.sampler import Draw
from innerloop.data.tasks import Batch
from innerloop.data.token_ids import Encoded


def scored(batch: Batch) -> list[tuple[int, int, int]]:
    """(flat row, task, token to predict) of every scored row, by loops over the examples' tokens."""
    tasks, per_task, length = batch.tokens.shape
    found = []
    for t in range(tasks):
        for b in range(per_task):
            for s in range(length - 1):
                example = batch.examples[t][b]
                if example.prompt <= s + 1 < len(example.tokens):
                    found.append(((t * per_task + b) * length + s, t, example.tokens[s + 1]))
    return found


def as_listed(batch: Batch) -> list[tuple[int, int, int]]:
    return list(zip(batch.scored_rows.tolist(), batch.row_task.tolist(), batch.targets.tolist(), strict=True))


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 4), st.integers(1, 4), st.integers(0, 10**6))
def test_scored_rows_are_those_whose_right_neighbour_is_scored(tasks: int, per_task: int, seed: int) -> None:
    drawn = examples(tasks=tasks, per_task=per_task, seed=seed)
    batch = collate(drawn)
    assert as_listed(batch) == scored(batch)
    assert batch.tokens.shape == (tasks, per_task, max(len(e.tokens) for task in drawn for e in task))
    for t, task in enumerate(drawn):
        for b, example in enumerate(task):
            length = len(example.tokens)
            assert tuple(batch.tokens[t, b, :length].tolist()) == example.tokens
            assert (batch.tokens[t, b, length:] == PAD).all()
            assert batch.example_ids[t][b] == example.id


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 5), st.integers(0, 10**6), st.data())
def test_select_keeps_rows_tasks_and_targets(tasks: int, seed: int, data: st.DataObject) -> None:
    whole = collate(examples(tasks=tasks, per_task=2, seed=seed))
    first = data.draw(st.integers(0, tasks - 1))
    last = data.draw(st.integers(first + 1, tasks))
    part = whole.select(first, last)
    assert as_listed(part) == scored(part)
    assert torch.equal(part.tokens, whole.tokens[first:last])
    assert part.example_ids == whole.example_ids[first:last]


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 3), st.integers(1, 7), st.integers(1, 80), st.booleans(), st.integers(0, 10**6))
def test_parts_hold_every_example_once_and_no_more_tokens_than_asked(
    tasks: int, per_task: int, most: int, packed: bool, seed: int
) -> None:
    rows = examples(tasks=tasks, per_task=per_task, seed=seed)
    whole = collate(rows, packed=packed)
    parts = whole.parts(most)
    if len(parts) == 1:
        assert parts == [whole]
        return
    first = 0
    for part in parts:
        count = part.tokens.shape[1]
        alone = collate([row[first : first + count] for row in rows], packed=packed)
        assert (part.example_ids, part.lengths, part.keys) == (alone.example_ids, alone.lengths, alone.keys)
        assert torch.equal(part.tokens, alone.tokens)
        assert as_listed(part) == scored(part) == as_listed(alone)
        assert (part.packing is None) == (alone.packing is None)
        assert part.packing is None or torch.equal(part.packing.scored, alone.packing.scored)  # pyright: ignore
        # one a row where packing would save less than a tenth
        assert part.computed_tokens <= (most / WORTH if packed else most) or count == 1
        first += count
    assert first == per_task
    assert torch.allclose(sum(part.share for part in parts), torch.ones(tasks))  # pyright: ignore


def test_a_scored_first_token_has_nothing_to_be_predicted_from() -> None:
    batch = collate([[Encoded("a", (5, 6), 0)]])
    assert as_listed(batch) == [(0, 0, 6)]


def test_inner_batches_go_round_the_support() -> None:
    support = examples(tasks=2, per_task=3)
    batches = inner_batches(support, steps=4, batch_size=2)
    taken = [batch.example_ids[1] for batch in batches]
    ids = [example.id for example in support[1]]
    assert taken == [(ids[0], ids[1]), (ids[2], ids[0]), (ids[1], ids[2]), (ids[0], ids[1])]


def test_the_whole_support_is_one_batch_for_every_step() -> None:
    support = examples(tasks=2, per_task=3)
    for asked in ({"batch_size": 3}, {"batch_size": 5}, {"batch_size": None}, {}):
        batches = inner_batches(support, steps=4, **asked)
        assert len(batches) == 4
        assert len({id(batch) for batch in batches}) == 1
        assert batches[0].example_ids[1] == tuple(example.id for example in support[1])


def test_a_task_batch_holds_the_examples_that_were_drawn() -> None:
    pools = examples(tasks=3, per_task=6)
    draw = Draw([2, 0], [[5, 1], [0, 3]], [[2], [4]])
    names = ["first", "second", "third"]
    batch = task_batch(pools, names, draw, inner_steps=3, batch_size=2)
    assert batch.names == ("third", "first")
    assert [len(batch.support), batch.support[0].example_ids] == [
        3,
        ((pools[2][5].id, pools[2][1].id), (pools[0][0].id, pools[0][3].id)),
    ]
    assert batch.query is not None
    assert batch.query.example_ids == ((pools[2][2].id,), (pools[0][4].id,))
    computed = sum(each.computed_tokens for each in batch.batches)
    assert computed == 3 * batch.support[0].tokens.numel() + batch.query.tokens.numel()
    drawn = [[pools[2][p] for p in (5, 1, 5, 1, 5, 1, 2)], [pools[0][p] for p in (0, 3, 0, 3, 0, 3, 4)]]
    tokens = sum(each.token_count for each in batch.batches)
    assert tokens == sum(len(example.tokens) for task in drawn for example in task) < computed


def test_packed_tasks_come_in_the_order_of_their_lengths() -> None:
    pools = examples(tasks=3, per_task=6)
    draw = Draw([2, 0, 1], [[5, 1], [0, 3], [2, 4]], [[2], [4], [0]])
    batch = task_batch(pools, ["c", "a", "b"], draw, inner_steps=1, batch_size=2, packed=True)
    assert batch.query is not None
    tokens = [sum(a) + sum(b) for a, b in zip(batch.support[0].lengths, batch.query.lengths, strict=True)]
    assert tokens == sorted(tokens)
    assert sorted(batch.names) == ["a", "b", "c"]
    of = {"c": (pools[0], 1), "a": (pools[1], 2), "b": (pools[2], 0)}
    for name, ids in zip(batch.names, batch.support[0].example_ids, strict=True):
        pool, place = of[name]
        assert ids == tuple(pool[p].id for p in draw.support[place])


def test_a_task_batch_without_inner_loop_or_without_query() -> None:
    pools = examples(tasks=1, per_task=4)
    joint = task_batch(pools, ["a"], Draw([0], [[0, 1]], [[2, 3]]), inner_steps=0, batch_size=2)
    reptile = task_batch(pools, ["a"], Draw([0], [[0, 1]], [[]]), inner_steps=2, batch_size=2)
    assert joint.support == []
    assert reptile.query is None


def test_masks_are_seeded_by_seed_step_task_inner_step_and_example() -> None:
    tasks = Tasks(tasks=2, steps=2).batch
    seeded = with_masks(tasks, seed=7, step=3)
    assert seeded.query is not None
    seeds = [batch.mask_seeds for batch in (*seeded.support, seeded.query)]
    rows = [batch.tokens.shape[1] for batch in tasks.batches]
    assert seeds == [
        tuple(tuple(mask_seed(7, 3, name, k, b) for b in range(rows[k])) for name in tasks.names) for k in range(3)
    ]
    flat = [seed for row in seeds for task in row or () for seed in task]
    assert len(set(flat)) == len(flat)
    others = [(8, 3, "a", 0, 0), (7, 4, "a", 0, 0), (7, 3, "b", 0, 0), (7, 3, "a", 1, 0), (7, 3, "a", 0, 1)]
    assert len({mask_seed(*each) for each in [*others, (7, 3, "a", 0, 0)]}) == 6
    assert tasks.query is not None
    assert tasks.query.mask_seeds is None
    assert seeded.split(1)[1].support[0].mask_seeds == (seeds[0] or ())[1:2]
