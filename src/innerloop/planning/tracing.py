"""What an outer step takes, without weights: the real step on fake tensors, with few layers, extrapolated to all.

trace      config, model shape, one chunk of tasks -> Footprint
LayerKind  what tells decoder layers apart: equal kinds take equal memory
Measured   peaks of every window, host bytes and operations, as one flat table of numbers

A table is linear in the number of layers of each kind, window by window: a window is a phase, a stage and the kind
of layer that runs, so that the moment of its peak doesn't change with the number of layers. One model with a layer of
each kind and, for each kind, one with a layer more are enough. The highest window is chosen after that.
"""

import copy
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from innerloop.config.loading import RunConfig
from innerloop.data.tasks import TaskBatch
from innerloop.engine.hidden_states import HiddenStates
from innerloop.engine.parts import make_space, make_trainer
from innerloop.loading.architecture import decoder_layers, packs
from innerloop.numerics.tensors import TensorSet
from innerloop.planning.measuring import tracked
from innerloop.planning.tracking import ByteTracker, Footprint, StepWindow, footprint
from innerloop.spaces.attention import attending
from innerloop.spaces.lora import chosen_layers

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

_DEVICE = torch.device("cpu")

Measured = Mapping[tuple[Any, ...], int]


class LayerKind(NamedTuple):
    """trained: below, lowest, above (the lowest trained one) or untrained; own: what the shape says of this layer.

    A lowest one sends no gradient down; where all parameters are trained, the embedding below wants it.
    """

    trained: str
    own: tuple[Any, ...]

    def __str__(self) -> str:
        return " ".join(map(str, (self.trained, *self.own)))


def trace(config: RunConfig, shape: "PretrainedConfig", tasks: TaskBatch, *, on_cpu: bool = False) -> Footprint:
    """What one outer step of `config` over `tasks`, all in one forward, takes for a model of this shape.

    on_cpu: loading and saving happen in the same memory; beside a GPU they take none of the device's.
    Raises UserError for layers that the shape doesn't have.
    """

    def measure(layers: Sequence[int]) -> Measured:
        return _measure(config, shape, tasks, layers, on_cpu=on_cpu)

    kinds = _kinds(config, shape)
    total = Counter(kinds)
    each = dict.fromkeys(total, 1)
    more = [kind for kind, count in total.items() if count > 1]
    if len(each) * (1 + len(more)) + len(more) >= len(kinds):  # as many layers as in all the small models together
        return _footprint(measure(range(len(kinds))))
    # A further layer of a kind adds the same bytes and operations wherever it stands: docs/design/0007.
    start = measure(_grouped(kinds, each))
    found = Counter(start)
    for kind in more:
        for key, value in measure(_grouped(kinds, {**each, kind: 2})).items():
            found[key] += (total[kind] - 1) * (value - start.get(key, 0))
    return _footprint(found)


def _kinds(config: RunConfig, shape: "PretrainedConfig") -> list[LayerKind]:
    """The kind of every decoder layer, lowest first."""
    count = shape.num_hidden_layers
    settings = config.method.lora_settings()
    trained = set(range(count) if settings is None else chosen_layers(settings.layers, count))
    lowest = None if settings is None else min(trained)
    lists = [values for _, values in _layer_lists(shape)]

    def place(index: int) -> str:
        if index in trained:
            return "lowest" if index == lowest else "above"
        return "below" if lowest is not None and index < lowest else "untrained"

    return [LayerKind(place(index), tuple(values[index] for values in lists)) for index in range(count)]


def _layer_lists(shape: "PretrainedConfig") -> list[tuple[str, Sequence[Any]]]:
    """What a shape says layer by layer, such as which attend to a sliding window."""
    return [
        (name, value)
        for name, value in vars(shape).items()
        if "layer" in name and isinstance(value, list | tuple) and len(value) == shape.num_hidden_layers
    ]


def _grouped(kinds: Sequence[LayerKind], counts: Mapping[LayerKind, int]) -> list[int]:
    """Indices of layers, as many of each kind as asked for: those of a kind together, the kind of the topmost last.

    A further layer then lies beside one of its kind, wherever in the model its kind is.
    """
    last = {kind: index for index, kind in enumerate(kinds)}
    below = ("below", "lowest")
    order = sorted(counts, key=lambda kind: (kind.trained not in below, last[kind]))
    return [last[kind] for kind in order for _ in range(counts[kind])]


def _measure(
    config: RunConfig, shape: "PretrainedConfig", tasks: TaskBatch, layers: Sequence[int], *, on_cpu: bool
) -> Measured:
    """One real step of the model that has only these layers of the shape."""
    kinds = _kinds(config, shape)
    cut, config = _with_layers(shape, layers), _for_layers(config, kinds, layers)
    tracker = ByteTracker(_DEVICE, fake=True, host_follows=config.memory.offload)
    whole = config.method.row.space.exported == "model"
    dtype = getattr(torch, config.model.dtype)
    # Fake tensors have sizes and no storage: the step's own code runs, and no bytes are taken (docs/design/0007).
    with FakeTensorMode(allow_non_fake_inputs=True):
        with tracker:
            model = _load(cut, dtype, tracker, on_cpu=on_cpu)
            tracker.part = "shared values"
            # The parts of a real run, made as it makes them: a second description of a step would drift from it.
            space = make_space(config, model, hidden=_Cache(tracker, host=not on_cpu))
            tracker.part = "meta-optimizer"
            trainer = make_trainer(config, space)
        _name_places(model, tracker, [str(kinds[index]) for index in layers])
        # Phases tell the tracker where the step is; nothing of the trainer is replaced.
        with _as_if_real(model), tracked(trainer, tracker):
            trainer.step(tasks)
            _save(space.shared, tracker, dtype=dtype if on_cpu and whole else None)
    return _table(tracker)


def _load(shape: "PretrainedConfig", dtype: torch.dtype, tracker: ByteTracker, *, on_cpu: bool) -> "PreTrainedModel":
    from transformers import AutoModelForCausalLM

    stored: Any = getattr(shape, "dtype", None) or dtype
    model: Any = AutoModelForCausalLM.from_config(shape, dtype=dtype)
    tracker.at(phase="load")
    if on_cpu:  # the pages of the file are mapped while it is converted and its fingerprint taken
        kind = getattr(torch, stored) if isinstance(stored, str) else stored
        pages = [torch.empty_like(parameter, dtype=kind) for parameter in model.parameters()]
        del pages
    return model.eval().requires_grad_(False)


def _save(shared: TensorSet, tracker: ByteTracker, *, dtype: torch.dtype | None) -> None:
    """What an export does with memory: looks for what isn't finite; a whole model's values are copied in its dtype."""
    tracker.at(phase="save", stage="build")
    tracker.part = "shared values"
    for value in shared.values():
        value.isfinite()
    if dtype:
        copies = [value.to(dtype) for value in shared.values()]
        del copies


def _with_layers(shape: "PretrainedConfig", layers: Sequence[int]) -> "PretrainedConfig":
    cut = copy.deepcopy(shape)
    for name, values in _layer_lists(shape):
        setattr(cut, name, [values[index] for index in layers])
    cut.num_hidden_layers = len(layers)
    return cut


def _for_layers(config: RunConfig, kinds: Sequence[LayerKind], layers: Sequence[int]) -> RunConfig:
    """The config of a run on these layers alone."""
    if config.method.lora is None:
        return config
    # Those that the run trains keep their places among the layers that are left.
    chosen = tuple(place for place, index in enumerate(layers) if kinds[index].trained in ("lowest", "above"))
    lora = config.method.lora.model_copy(update={"layers": chosen})
    return config.model_copy(update={"method": config.method.model_copy(update={"lora": lora})})


def _as_if_real(model: "PreTrainedModel") -> AbstractContextManager[None]:
    """Inside, attention is that of real tensors: for fake ones transformers builds masks that no run has."""
    # A family that packs attends this way in a real run too, and needs no other way here: docs/design/0018.
    masks = not packs(model) and model.config._attn_implementation == "sdpa"  # pyright: ignore[reportPrivateUsage]
    return attending(model) if masks else nullcontext()


def _name_places(model: nn.Module, tracker: ByteTracker, kinds: Sequence[str]) -> None:
    """Tells the tracker which kind of layer runs, in every forward, recomputation and backward."""

    def enter(kind: str) -> Callable[..., None]:
        return lambda *_: tracker.at(place=kind)

    def leave(kind: str, above: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            if tracker.window.stage == "forward":
                tracker.at(place="head")
            _on_gradient(output, tracker, below=kind, above=above)

        return hook

    for layer, kind, above in zip(decoder_layers(model), kinds, (*kinds[1:], "head"), strict=True):
        layer.register_forward_pre_hook(enter(kind))
        layer.register_forward_hook(leave(kind, above))
    cast(Any, model).get_input_embeddings().register_forward_hook(leave("embedding", kinds[0]))


def _on_gradient(hidden: Tensor, tracker: ByteTracker, *, below: str, above: str) -> None:
    """A backward pass goes on to what is below. Under a second derivative it comes up again and down once more."""
    if not hidden.requires_grad:
        return
    visits = 0

    def hook(gradient: Tensor) -> None:
        nonlocal visits
        visits += 1
        tracker.at(place=below if visits == 1 else f"{below} again")
        if gradient.requires_grad:
            gradient.register_hook(lambda _: tracker.at(place=f"{above} upwards"))

    # A tensor's hook, not a module's: those put functions of their own into the graph that is measured.
    hidden.register_hook(hook)


class _Cache(HiddenStates):
    """Keeps all of them; host: in the memory beside the device."""

    def __init__(self, tracker: ByteTracker, *, host: bool) -> None:
        super().__init__()
        self.tracker, self.host = tracker, host

    def keep(self, key: Any, states: Tensor, *, most: int) -> None:
        self._known[key] = states.clone()
        self.tracker.adopt("cache", [self._known[key]], host=self.host)


def _table(tracker: ByteTracker) -> Measured:
    table: Counter[tuple[Any, ...]] = Counter()
    for window, parts in tracker.peaks.items():
        table.update({("peak", window, part): size for part, size in parts.items()})
    table.update({("host", part): size for part, size in tracker.host_peak.items()})
    table.update({("flops", phase): count for phase, count in tracker.flops.items() if count})
    return table


def _footprint(table: Measured) -> Footprint:
    peaks: dict[StepWindow, dict[str, int]] = {}
    host: dict[str, int] = {}
    flops: dict[str, float] = {}
    for (what, *key), number in table.items():
        if what == "peak":
            peaks.setdefault(key[0], {})[key[1]] = number
        elif what == "host":
            host[key[0]] = number
        else:
            flops[key[0]] = number
    return footprint(peaks, host, flops)
