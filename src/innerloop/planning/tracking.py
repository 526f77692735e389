"""What an outer step keeps in memory: bytes by part, the peak of each phase, and floating-point operations.

ByteTracker     a dispatch mode that knows every storage while it lives, on real tensors or on fake ones
Footprint   the peaks of the phases and the parts they are made of
StepWindow  (phase, stage, place) of a moment: a peak is kept for each, because they grow differently with a model

A storage is seen when an operator returns it; what a kernel takes and gives back inside one call isn't.

| part           | is                                                                                            |
|----------------|-----------------------------------------------------------------------------------------------|
| base           | parameters and buffers of a model that isn't trained                                          |
| shared values  | what the outer optimizer moves; where all parameters are trained, the model's own             |
| fast weights   | each task's values and optimizer state, their cast for a forward, MAML's stored trajectory    |
| gradients      | the outer gradient, and what in a pass has the shape of a trained tensor, task axis or not    |
| meta-optimizer | moments of the outer optimizer, and all that its step allocates                               |
| logits         | what in a pass is as wide as the vocabulary, weight gradients aside                           |
| cache          | hidden states of the layers below the lowest trained one                                      |
| activations    | everything else in a forward or backward                                                      |
"""

import weakref
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

PARTS = ("base", "fast weights", "shared values", "gradients", "meta-optimizer", "activations", "logits", "cache")
PHASES = ("load", "inner", "query", "outer", "save")
PASSES = ("forward", "backward")

_aten = torch.ops.aten
_where = torch.ops.prim.device.default


class StepWindow(NamedTuple):
    """phase: of PHASES; stage: build, between, enter, forward or backward; place: which part of the model runs."""

    phase: str
    stage: str
    place: str = ""


@dataclass(frozen=True)
class Footprint:
    """What a run takes.

    peaks   phase -> part -> bytes on the device at that phase's peak; a part of no bytes is left out
    host    part -> bytes in host memory beside a GPU, the largest over the run
    flops   phase -> floating-point operations of one outer step over the chunk of tasks that was looked at
    """

    peaks: dict[str, dict[str, int]]
    host: dict[str, int]
    flops: dict[str, float]

    @property
    def peak_phase(self) -> str:
        return max(self.peaks, key=lambda phase: sum(self.peaks[phase].values()))

    @property
    def parts(self) -> dict[str, int]:
        """Of the phase with the highest peak."""
        return self.peaks[self.peak_phase]

    @property
    def peak(self) -> int:
        return sum(self.parts.values())

    def or_higher(self, other: "Footprint") -> "Footprint":
        """Of a run that does both: the higher peak of each phase. The operations are still this one's."""
        peaks = dict(self.peaks)
        for phase, parts in other.peaks.items():
            if sum(parts.values()) > sum(peaks.get(phase, {}).values()):
                peaks[phase] = parts
        ordered = {phase: peaks[phase] for phase in PHASES if phase in peaks}
        host = {part: max(self.host.get(part, 0), other.host.get(part, 0)) for part in {**self.host, **other.host}}
        return replace(self, peaks=ordered, host=host)

    def with_cache(self, size: int, *, on_host: bool) -> "Footprint":
        """The same with hidden states of so many bytes in every phase after loading, or in host memory beside a GPU."""
        if not size:
            return self
        if on_host:
            return replace(self, host=self.host | {"cache": size})
        peaks = {phase: parts | ({"cache": size} if phase != "load" else {}) for phase, parts in self.peaks.items()}
        return replace(self, peaks=peaks)

    @property
    def total_flops(self) -> float:
        return sum(self.flops.values())


class _Storage(NamedTuple):
    reference: "weakref.ref[Any]"
    size: int
    part: str
    host: bool


class ByteTracker(TorchDispatchMode):
    """Live bytes by part, and for each window the parts at the moment of its peak.

    device        what counts as the device; a tensor elsewhere is in host memory beside it
    fake          the tensors are fake: a scalar that is read is True or 1
    host_follows  host and device are the same fake device: what is made of a host tensor is on the host too
    """

    def __init__(self, device: torch.device, *, fake: bool = False, host_follows: bool = False) -> None:
        super().__init__()
        self.device, self.fake, self.host_follows = device, fake, host_follows
        self.window, self.part = StepWindow("", "build"), "base"
        self._is_named = False  # whether a phase of a step is open
        self.peaks: dict[StepWindow, dict[str, int]] = {}
        self.flops: Counter[str] = Counter()
        self.host_peak: dict[str, int] = {}
        self._trained: set[tuple[int, ...]] = set()
        self._head: tuple[int, ...] = ()
        self._vocabulary = 0
        self._live: dict[int, _Storage] = {}
        self._bytes: defaultdict[tuple[bool, str], int] = defaultdict(int)
        self._now: Counter[bool] = Counter()
        self._highest: Counter[StepWindow] = Counter()
        self._highest_host = 0

    def at(self, *, phase: str | None = None, stage: str | None = None, place: str = "") -> None:
        """What happens from here on."""
        self.window = StepWindow(phase or self.window.phase, stage or self.window.stage, place)
        self._note_peak()

    def hear(self, name: str, begins: bool) -> None:
        """A listener of `spaces.phases`. A phase lasts until the next one begins: what a rule computes between two
        passes belongs to the first of them. A pass that a rule gave no phase to is of the query."""
        if name in PASSES:
            if begins:
                self.at(phase=None if self._is_named else "query", stage=name)
            return
        self._is_named = begins
        if begins:
            self.at(phase=name, stage="between" if name == "outer" else "enter")
        elif name != "outer":
            self.at(stage="between")

    def adopt(self, part: str, tensors: Iterable[Tensor], *, host: bool = False) -> None:
        """Storages that exist already, or were taken for another part, are of this one."""
        for tensor in tensors:
            storage = tensor.untyped_storage()
            self._forget(storage._cdata)
            self._add(storage, part, host=host or self._elsewhere(tensor))

    def train(self, values: Mapping[str, Tensor], head: Tensor) -> None:
        """Which shapes are those of trained tensors; the head's gradient alone is made in the forward."""
        self._trained = {tuple(value.shape) for value in values.values()}
        self._head, self._vocabulary = tuple(head.shape), head.shape[0]

    def parts(self, *, host: bool = False) -> dict[str, int]:
        """Part -> bytes that live now, on the device or in host memory beside it."""
        return {part: size for (where, part), size in self._bytes.items() if where == host and size}

    def stands_for_host(self, tensor: Tensor) -> bool:
        """It is on the one fake device, and would be in host memory beside a GPU."""
        found = self._live.get(tensor.untyped_storage()._cdata)
        return self.host_follows and found is not None and found.host

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self.fake and func is _where:  # two of three calls: autograd asks each time it takes a gradient
            return self.device
        if self.fake and func is _aten._local_scalar_dense.default:
            return True if args[0].dtype == torch.bool else 1
        out = func(*args, **kwargs)
        if flops := _flops(func, args, kwargs, out):
            self.flops[self.window.phase] += flops
        if self._accumulates(func, args):
            self._forget(args[0].untyped_storage()._cdata)
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor) and tensor.untyped_storage()._cdata not in self._live:
                host = self._elsewhere(tensor) or self._follows_host(args)
                self._add(tensor.untyped_storage(), self._part_of(tuple(tensor.shape)), host=host)
        return out

    def _accumulates(self, func: Any, args: Any) -> bool:
        """Autograd adds a second gradient into the first one, but takes a new tensor where a mode looks on."""
        if func is not _aten.add.Tensor or self.window.stage != "backward" or torch.is_grad_enabled():
            return False
        return all(isinstance(arg, Tensor) for arg in args) and args[0].shape == args[1].shape

    def _part_of(self, shape: tuple[int, ...]) -> str:
        phase, stage, _ = self.window
        if stage == "build":
            return self.part
        if phase == "outer":
            return "meta-optimizer"
        if stage == "enter":
            return "fast weights"
        trained = shape in self._trained or shape[1:] in self._trained
        if stage == "between":
            return "activations" if not trained else "fast weights" if phase == "inner" else "gradients"
        if trained and (stage == "backward" or shape == self._head):
            return "gradients"
        return "logits" if shape[-1:] == (self._vocabulary,) else "activations"

    def _elsewhere(self, tensor: Tensor) -> bool:
        return not self.fake and tensor.device.type != self.device.type  # fake tensors take long to say where they are

    def _follows_host(self, args: Any) -> bool:
        if not self.host_follows or self.window.stage == "enter":
            return False
        if self.window.phase == "outer" or self.window.stage == "build":
            return self.window.phase == "outer" or self.part != "base"
        return any(self.stands_for_host(arg) for arg in tree_leaves(args) if isinstance(arg, Tensor))

    def _add(self, storage: Any, part: str, *, host: bool) -> None:
        key, size = storage._cdata, storage.nbytes()
        self._live[key] = _Storage(weakref.ref(storage, lambda _: self._forget(key)), size, part, host)
        self._bytes[host, part] += size
        self._now[host] += size
        self._note_peak()

    def _forget(self, key: int) -> None:
        if gone := self._live.pop(key, None):
            self._bytes[gone.host, gone.part] -= gone.size
            self._now[gone.host] -= gone.size

    def _note_peak(self) -> None:
        if self._now[False] >= self._highest[self.window]:
            self._highest[self.window] = self._now[False]
            self.peaks[self.window] = self.parts(host=False)
        if self._now[True] >= self._highest_host:
            self._highest_host = self._now[True]
            self.host_peak = self.parts(host=True)


def footprint(
    peaks: Mapping[StepWindow, Mapping[str, int]], host: Mapping[str, int], flops: Mapping[str, float]
) -> Footprint:
    """The highest window of each phase."""
    phases: dict[str, dict[str, int]] = {}
    for phase in PHASES:
        of_phase = [parts for window, parts in peaks.items() if window.phase == phase]
        if of_phase:
            highest = max(of_phase, key=lambda parts: sum(parts.values()))
            phases[phase] = {part: highest[part] for part in PARTS if highest.get(part)}
    return Footprint(phases, {part: host[part] for part in PARTS if host.get(part)}, dict(flops))


def _flops(func: Any, args: Any, kwargs: Any, out: Any) -> int:
    count = _UNREGISTERED.get(func) or flop_registry.get(func._overloadpacket)
    return count(*args, **kwargs, out_val=out) if count else 0


def _in_place_flops(_: Tensor, left_MK: Tensor, right_KN: Tensor, **__: Any) -> int:
    return 2 * left_MK.numel() * right_KN.shape[1]


def _attention_flops(query_NHSD: Tensor, key_NHSD: Tensor, *_: Any, **__: Any) -> int:
    """Two products of queries and keys, as torch counts them: masked pairs too."""
    return 4 * query_NHSD.numel() * key_NHSD.shape[-2]


def _attention_backward_flops(_: Tensor, query_NHSD: Tensor, key_NHSD: Tensor, *__: Any, **___: Any) -> int:
    """Five products: the scores once more, and four gradients."""
    return 10 * query_NHSD.numel() * key_NHSD.shape[-2]


_UNREGISTERED: dict[Any, Callable[..., int]] = {  # in torch
    _aten.addmm_.default: _in_place_flops,
    _aten._scaled_dot_product_flash_attention_for_cpu.default: _attention_flops,
    _aten._scaled_dot_product_flash_attention_for_cpu_backward.default: _attention_backward_flops,
}
