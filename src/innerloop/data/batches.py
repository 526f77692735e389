"""Encoded examples become the tensors of a batch.

Legend: T = tasks, B = examples per task, S = tokens of the longest example, K = inner steps, R = scored rows.

collate         T lists of B encoded examples -> Batch
inner_batches   one support batch per inner step: the whole support each time, or fresh parts of it
task_batch      what one outer step reads, from a draw
in_context_batch   the same, of prompts with examples in them
mask_seed       the seed of an example's dropout masks in one forward
"""

import hashlib
import zlib
from collections.abc import Sequence
from dataclasses import replace

import torch

from innerloop.data.in_context import InContext
from innerloop.data.packing import pack
from innerloop.data.sampler import Draw
from innerloop.data.tasks import Batch, TaskBatch
from innerloop.data.token_ids import Encoded

PAD = 0  # any id does: on the right of a causal model, a padding token is read by nothing that is scored


def collate(examples: Sequence[Sequence[Encoded]], *, packed: bool = False, even: bool = True) -> Batch:
    """A batch of T tasks with equally many examples, padded on the right to the longest.

    packed: side by side, where padding would cost much; even: with fillers, as evaluation and GPUs want it.
    """
    tasks, per_task = len(examples), len(examples[0])
    length = max(len(example.tokens) for task in examples for example in task)
    tokens = torch.full((tasks, per_task, length), PAD)
    scored: list[list[int]] = [[] for _ in examples]
    for t, task in enumerate(examples):
        assert len(task) == per_task, "every task of a batch has equally many examples"
        for b, example in enumerate(task):
            tokens[t, b, : len(example.tokens)] = torch.tensor(example.tokens)
            # Position i predicts token i + 1: a row is scored where its right neighbour is.
            row = (t * per_task + b) * length
            for answer in example.answers:
                scored[t] += range(row + max(answer.start, 1) - 1, row + answer.stop - 1)
    rows = torch.tensor([row for task in scored for row in task], dtype=torch.int64)
    batch = Batch(
        tokens=tokens,
        scored_rows=rows,
        row_task=torch.arange(tasks).repeat_interleave(torch.tensor([len(task) for task in scored])),
        examples=tuple(map(tuple, examples)),
        packed=packed,
        even=even,
    )
    return replace(batch, packing=pack(batch.lengths, width=length, scored=rows, even=even)) if packed else batch


def inner_batches(
    support: Sequence[Sequence[Encoded]],
    *,
    steps: int,
    batch_size: int | None = None,
    packed: bool = False,
    even: bool = True,
) -> list[Batch]:
    """`steps` support batches of `batch_size` examples per task, going round the support in order.

    batch_size  None, or no fewer than there are: all of the support, in one batch that every step shares
    Training, adapt, eval and compare all take theirs from here.
    """
    count = len(support[0])
    if batch_size is None or batch_size >= count:
        return [collate(support, packed=packed, even=even)] * steps
    batches: list[Batch] = []
    for step in range(steps):
        positions = [(step * batch_size + i) % count for i in range(batch_size)]
        batches.append(collate([[task[p] for p in positions] for task in support], packed=packed, even=even))
    return batches


def task_batch(
    pools: Sequence[Sequence[Encoded]],
    names: Sequence[str],
    draw: Draw,
    *,
    inner_steps: int,
    batch_size: int,
    packed: bool = False,
    even: bool = True,
) -> TaskBatch:
    """The support batches (none where inner_steps is 0) and the query batch (None where the draw has no query).

    packed: also in the order of their lengths: alike tasks share a forward, and little in it is filled up.
    """
    drawn = list(zip(draw.tasks, draw.support, draw.query, strict=True))
    if packed:
        drawn.sort(key=lambda each: sum(len(pools[each[0]][p].tokens) for p in (*each[1], *each[2])))
    support = [[pools[t][p] for p in positions] for t, positions, _ in drawn]
    query = [[pools[t][p] for p in positions] for t, _, positions in drawn]
    inner: list[Batch] = []
    if inner_steps:
        inner = inner_batches(support, steps=inner_steps, batch_size=batch_size, packed=packed, even=even)
    return TaskBatch(
        names=tuple(names[t] for t, _, _ in drawn),
        support=inner,
        query=collate(query, packed=packed, even=even) if query[0] else None,
    )


def in_context_batch(
    prompts: Sequence[InContext],
    pools: Sequence[Sequence[Encoded]],
    names: Sequence[str],
    draw: Draw,
    *,
    chance: Sequence[int],
    inner_steps: int,
    batch_size: int,
    packed: bool = False,
    even: bool = True,
) -> TaskBatch:
    """The same, where examples stand in prompts with others of their task.

    Where no support was drawn, one prompt of all the query, every answer of it scored. Else each inner step reads
    prompts that leave one support example out, and the query stands behind 0 to all of the support.
    chance: what their orders are drawn from, beside each task's name and the inner step.
    """
    found: list[tuple[str, list[list[Encoded]], list[Encoded]]] = []
    for t, *places in zip(draw.tasks, draw.support, draw.query, strict=True):
        support, query = ([pools[t][p] for p in positions] for positions in places)
        seeds = *chance, zlib.crc32(names[t].encode("utf-8", "surrogatepass"))
        if support:
            steps = prompts[t].left_out(support, steps=inner_steps, batch_size=batch_size, chance=seeds)
            found.append((names[t], steps, prompts[t].drawn(query, support, chance=seeds)))
        else:
            found.append((names[t], [], [prompts[t].every(query)]))
    if packed:
        found.sort(key=lambda each: sum(len(one.tokens) for part in (*each[1], each[2]) for one in part))
    layout = {"packed": packed, "even": even}
    return TaskBatch(
        names=tuple(name for name, _, _ in found),
        support=[collate([steps[step] for _, steps, _ in found], **layout) for step in range(inner_steps)],
        query=collate([query for _, _, query in found], **layout) if found[0][2] else None,
    )


def with_masks(tasks: TaskBatch, *, seed: int, step: int) -> TaskBatch:
    """The same batch with dropout masks seeded by (seed, outer step, task, inner step, example's place in the task).

    The query comes last. Where an example lies in a forward has no part in it.
    """

    def seeded(batch: Batch, inner_step: int) -> Batch:
        examples = range(batch.tokens.shape[1])
        seeds = (tuple(mask_seed(seed, step, name, inner_step, b) for b in examples) for name in tasks.names)
        return replace(batch, mask_seeds=tuple(seeds))

    return tasks._replace(
        support=[seeded(batch, inner_step) for inner_step, batch in enumerate(tasks.support)],
        query=tasks.query and seeded(tasks.query, len(tasks.support)),
    )


def mask_seed(seed: int, step: int, task: str, inner_step: int, example: int) -> int:
    text = f"{seed}/{step}/{inner_step}/{example}/{task}"
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=7).digest(), "big")
