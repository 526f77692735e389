"""META-LORA's stage-1 values of the last step, and the outer gradient they gave."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from innerloop.data.tasks import TaskBatch
from innerloop.numerics.tensors import TensorSet


@dataclass
class LastRound:
    """adapters: task name -> values (...); query_ids: the examples whose gradients were averaged into `gradient`."""

    PLACES: ClassVar[tuple[str, ...]] = ("adapted/", "gradient/")  # with which the names of `tensors` begin
    adapters: dict[str, TensorSet] = field(default_factory=dict)
    query_ids: dict[str, tuple[str, ...]] = field(default_factory=dict)
    gradient: TensorSet = field(default_factory=dict)

    def keep(self, tasks: TaskBatch, adapted: TensorSet) -> None:
        """adapted: (T, ...) stage-1 values of these tasks."""
        assert tasks.query is not None
        for task, name in enumerate(tasks.names):
            self.adapters[name] = {key: value[task].to("cpu", copy=True) for key, value in adapted.items()}
            self.query_ids[name] = tasks.query.example_ids[task]

    @property
    def tensors(self) -> TensorSet:
        """Under names that `from_tensors` reads; a task's name may have slashes, a value's has none."""
        adapters = {f"adapted/{task}/{name}": v for task, values in self.adapters.items() for name, v in values.items()}
        return adapters | {f"gradient/{name}": value for name, value in self.gradient.items()}

    @classmethod
    def from_tensors(cls, tensors: TensorSet, query_ids: Mapping[str, Sequence[str]]) -> "LastRound":
        found = cls(query_ids={task: tuple(ids) for task, ids in query_ids.items()})
        for place, value in tensors.items():
            kind, _, rest = place.partition("/")
            task, _, name = rest.rpartition("/")
            if kind == "gradient":
                found.gradient[rest] = value
            elif kind == "adapted":
                found.adapters.setdefault(task, {})[name] = value
        return found
