"""The part of a model below the lowest trained layer: computed once per example, then looked up.

Legend: N = rows (tasks x examples), S = tokens, D = width of the model.

with_layers   a model that shares every weight with another but runs other callables as its decoder layers
Store         where hidden states of examples are kept, by a digest of their tokens and of their company
Companies     which examples go through the trunk together: a function of each task's own examples
Trunk         hidden states (N, S, D) at the cut, from a store passed in; a causal model that starts there

Padding is on the right and the model is causal, so a hidden state doesn't depend on the batch it was computed in but
for rounding. For that, too, every example has its company for good: whenever, and in whichever run of the same task, it
is asked for, its states are the same, bit for bit. Notes 3, 8 and 13: docs/design/0003-trunk-cut.md,
0008-hidden-states-in-a-file.md and 0013-companies-below-a-cut.md.
"""

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from hashlib import blake2b
from typing import Any, NamedTuple, Protocol, cast

import torch
from torch import Tensor, nn

from innerloop.data.packing import moved_to
from innerloop.data.tasks import Batch

Forward = Callable[..., Any]
OnCompany = Callable[[int, int], None]  # (companies done, of how many)

# Tokens of a company at most, padding included: on two cores 1,024 were slower (benchmarks/trunk_pass.py). A GPU is
# assumed, not measured, to be busy from about 8,192 on.
TOGETHER = {"cpu": 512, "cuda": 8192}


class Store(Protocol):
    """Hidden states (S, D) of one model at one cut. It copies what it keeps, and need not keep all that it is given.

    A dict will do where every batch may stay in memory.
    """

    def get(self, key: bytes, /) -> Tensor | None: ...
    def __setitem__(self, key: bytes, states: Tensor, /) -> None: ...


class TrunkExample(NamedTuple):
    """key: digest of the tokens."""

    key: bytes
    tokens: Sequence[int]


class Company(NamedTuple):
    """Examples that go through the trunk together; digest: of all of them, in order."""

    examples: tuple[TrunkExample, ...]
    digest: bytes

    def place(self, key: bytes) -> bytes:
        """Where the store has the states of one: those of another company differ in rounding."""
        return self.digest + key


class Companies:
    """The examples of each task in the order of their lengths, cut into companies of at most so many tokens.

    tasks   the examples that a batch may have of each task: its pool, and its test examples
    most    tokens of a company, padding included, unless it is one example
    room    tokens of all companies: those of later tasks go through the trunk one by one
    """

    def __init__(
        self, tasks: Sequence[Sequence[TrunkExample]] = (), *, most: int = 1, room: float = float("inf")
    ) -> None:
        self._tasks: list[dict[bytes, Company]] = []
        self._of: dict[bytes, set[int]] = {}  # the tasks that have the example
        for number, examples in enumerate(tasks):
            members: dict[bytes, Company] = {}
            for company in _companies(examples, most):
                room -= sum(len(example.tokens) for example in company.examples)
                if room >= 0:
                    members |= {example.key: company for example in company.examples}
            self._tasks.append(members)
            for example in examples:
                self._of.setdefault(example.key, set()).add(number)

    def of(self, keys: Sequence[bytes]) -> dict[bytes, Company]:
        """The companies of examples that a batch has of one task, by key; none where no task has all of them.

        Where several have all of them, those of the first: two tasks with the same examples are hardly two tasks.
        """
        shared = set[int].intersection(*(self._of.get(key, set()) for key in keys))
        members = self._tasks[min(shared)] if shared else {}
        return {key: members[key] for key in keys if key in members}


def _companies(examples: Sequence[TrunkExample], most: int) -> Iterator[Company]:
    together: list[TrunkExample] = []
    for example in sorted(
        {each.key: each for each in examples}.values(), key=lambda each: (len(each.tokens), each.key)
    ):
        if together and (len(together) + 1) * len(example.tokens) > most:
            yield _company(together)
            together = []
        together.append(example)
    if together:
        yield _company(together)


def _company(examples: Sequence[TrunkExample]) -> Company:
    return Company(tuple(examples), blake2b(b"".join(example.key for example in examples), digest_size=16).digest())


def with_layers(base: nn.Module, forwards: Sequence[Forward | None]) -> nn.Module:
    """A shallow copy of `base` whose i-th decoder layer computes forwards[i]; None keeps the layer's own.

    Everything else a family's forward does (embedding, positions, masks, last norm) stays the family's own code,
    and `base` is left as it was.
    """
    layers = base.layers
    assert isinstance(layers, nn.ModuleList)
    assert len(layers) == len(forwards)
    replaced: list[nn.Module] = []
    for layer, forward in zip(layers, forwards, strict=True):
        twin = layer
        if forward is not None:
            twin = copy.copy(layer)  # keeps the attributes that a family's loop reads from its layers
            twin.forward = forward
        replaced.append(twin)
    twin_base = copy.copy(base)
    twin_base.__dict__["_modules"] = {**base._modules, "layers": nn.ModuleList(replaced)}  # pyright: ignore[reportPrivateUsage]
    return twin_base


class Trunk:
    """Decoder layers 0..cut-1 of a model that never change during a run."""

    def __init__(self, base: nn.Module, cut: int, store: Store, companies: Companies | None = None) -> None:
        self.cut = cut
        self.store, self.companies = store, companies or Companies()
        self.base = base

    def hidden(self, batch: Batch) -> Tensor:
        """(N, S, D) hidden states that enter layer `cut`: from the store, or computed and offered to it.

        An example is computed with its company, and alone where it has none. In any other, the last bit of its states
        would depend on what came before, and a run that was stopped and went on would not end with the same numbers.
        """
        # What a store refuses to keep still serves this batch (note 8).
        found: dict[bytes, Tensor] = {}
        places: list[bytes] = []
        for task, keys in enumerate(batch.keys):
            companies = self.companies.of(keys)
            for b, key in enumerate(keys):
                company = companies.get(key)  # under its digest: another company rounds otherwise (note 13)
                places.append(company.place(key) if company else key)
                if places[-1] in found:
                    continue
                # The store may have them from an earlier step, or from another run on the same model (note 8).
                if (states := self.store.get(places[-1])) is not None:
                    found[places[-1]] = states
                elif company:
                    found |= self._together(company, batch.tokens.device)
                else:
                    alone = self._run(batch.tokens[task, b : b + 1, : batch.lengths[task][b]])[0]
                    self.store[key] = found[key] = alone
        return _side_by_side([found[place] for place in places], batch.tokens.shape[-1], batch.tokens.device)

    def fill(self, drawn: Iterable[Sequence[bytes]], device: torch.device, on_company: OnCompany) -> None:
        """Compute what the store lacks of the companies of these examples, the keys of a task at a time.

        Ends early where the store has no room: what it doesn't keep is computed when it is asked for.
        """
        wanted = {each.digest: each for keys in drawn for each in self.companies.of(keys).values()}
        missing = [each for each in wanted.values() if self.store.get(each.place(each.examples[-1].key)) is None]
        for done, company in enumerate(missing):
            on_company(done, len(missing))
            self._together(company, device)
            if self.store.get(company.place(company.examples[-1].key)) is None:
                break
        if missing:
            on_company(len(missing), len(missing))

    def _together(self, company: Company, device: torch.device) -> dict[bytes, Tensor]:
        """The states of a company's examples, by their places in the store, which is offered them."""
        lengths = [len(example.tokens) for example in company.examples]
        # Padded on the right: no token of an example sees what stands behind it.
        tokens_NS = torch.zeros((len(lengths), max(lengths)), dtype=torch.int64)
        for row, example in enumerate(company.examples):
            tokens_NS[row, : lengths[row]] = torch.tensor(example.tokens)
        states_NSD = self._run(moved_to(tokens_NS, device))
        found: dict[bytes, Tensor] = {}
        for row, example in enumerate(company.examples):
            found[company.place(example.key)] = states_NSD[row, : lengths[row]]
        for place, states in found.items():
            self.store[place] = states
        return found

    @torch.no_grad()
    def _run(self, tokens_NS: Tensor) -> Tensor:
        """What enters layer `cut`; the layers from there on do nothing."""
        entered: list[Tensor] = []

        def capture(hidden_NSD: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            entered.append(hidden_NSD)
            return hidden_NSD

        # The family's own loop runs to its end, since it also picks masks and rotations by layer (note 3).
        above = len(cast(nn.ModuleList, self.base.layers)) - self.cut
        with_layers(self.base, [None] * self.cut + [capture] + [_pass_on] * (above - 1))(
            input_ids=tokens_NS, use_cache=False
        )
        return entered[0]


def _pass_on(hidden_NSD: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    return hidden_NSD


def _side_by_side(rows: Sequence[Tensor], length: int, device: torch.device) -> Tensor:
    """(N, S, D) on the device, zeros behind each example. What is in host memory goes to a GPU in one copy."""
    apart = any(states.device != device for states in rows)
    places = [torch.device("cpu"), device] if apart else [device]
    shape, dtype = (len(rows), length, rows[0].shape[-1]), rows[0].dtype
    hidden = torch.zeros(shape, dtype=dtype, device=places[0], pin_memory=apart)
    for place in places:
        hidden = hidden.to(place, non_blocking=True)
        for row, states in enumerate(rows):
            if states.device == place:
                hidden[row, : len(states)] = states
    return hidden
