"""The batches of each outer step, a pure function of its number."""

from collections.abc import Iterable, Iterator, Sequence

from innerloop.config.loading import RunConfig
from innerloop.data.batches import in_context_batch, task_batch, with_masks
from innerloop.data.encoding import EncodedTask
from innerloop.data.sampler import TaskStream, drawn_steps, prompts_of
from innerloop.data.tasks import TaskBatch, token_key
from innerloop.engine.schedules import joint_steps
from innerloop.engine.sources import examples_a_round


class TaskBatches:
    """The batches of each outer step in host memory, a pure function of the step's number.

    packed: for a model that `packs`; even: packed `evenly`.
    """

    def __init__(
        self, config: RunConfig, tasks: Sequence[EncodedTask], *, packed: bool = False, even: bool = True
    ) -> None:
        self.inner, self.seed, self.joint_steps = config.method.inner, config.seed, joint_steps(config.outer)
        self.layout = {"packed": packed, "even": even}
        self.dropout = config.method.lora is not None and config.method.lora.lora_dropout > 0
        self.names = [task.task.name for task in tasks]
        self.pools = [task.pool for task in tasks]
        self.in_context = [task.in_context for task in tasks if task.in_context]
        self.in_a_prompt = config.tasks.support + 1
        support, query = examples_a_round(config)
        self.draws = TaskStream(
            self.names,
            [prompts_of(task.task.pool) for task in tasks],
            seed=config.seed,
            tasks_per_step=config.outer.tasks_in_step,
            support=support,
            query=query,
        )

    def drawn(self, steps: Iterable[int]) -> Iterator[tuple[bytes, ...]]:
        """Keys of the examples that these outer steps read alone, those of a step's task at a time."""
        keys = [[token_key(example.tokens) for example in pool] for pool in self.pools]
        for step in steps:
            draw = self.draws.draw(step)
            for task, support, query in zip(draw.tasks, draw.support, draw.query, strict=True):
                yield tuple(keys[task][position] for position in (*support, *query))

    def __getitem__(self, step: int) -> TaskBatch:
        return self.of(step, joint=step < self.joint_steps)

    def of(self, step: int, *, joint: bool) -> TaskBatch:
        """joint: the step's support and query examples as one batch, as joint training reads them."""
        if joint or not self.inner:
            return self._batch(step, 0, joint=joint)
        return self._batch(step, drawn_steps(self.inner.choices, seed=self.seed, step=step))

    @property
    def longest(self) -> TaskBatch:
        """The first step's tasks with as many inner steps as any step takes."""
        return self._batch(0, self.inner.most if self.inner else 0)

    @property
    def largest(self) -> TaskBatch:
        """That, or what joint training reads of them where it comes first: support and query in one batch."""
        return self.of(0, joint=True) if self.joint_steps else self.longest

    def _batch(self, step: int, inner_steps: int, *, joint: bool = False) -> TaskBatch:
        size = self.inner.batch_size if self.inner else 0
        draw = self.draws.draw(step).pooled if joint else self.draws.draw(step)
        loop = {"inner_steps": inner_steps, "batch_size": size, **self.layout}
        if self.in_context:
            if joint:  # a prompt of as many examples as any other has
                draw = draw._replace(query=[each[: self.in_a_prompt] for each in draw.query])
            chance = self.seed, step
            batch = in_context_batch(self.in_context, self.pools, self.names, draw, chance=chance, **loop)
        else:
            batch = task_batch(self.pools, self.names, draw, **loop)
        batch = batch._replace(step=max(step - self.joint_steps, 0))
        return with_masks(batch, seed=self.seed, step=step) if self.dropout else batch
