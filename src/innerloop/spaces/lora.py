"""LoRA with a task axis: many tasks go through one forward of the frozen base.

Legend: T = tasks, M = tokens per task, I = inputs, O = outputs, R = rank.

LoraSettings   PEFT's own option names, plus `layers`
LoraSpace      shared A (R, I) and B (O, R) of every target module (Hu et al. 2021, arXiv:2106.09685, section 4.1)

The model itself is never changed: while values are installed, a forward hook on each target adds
scale * B A x to its output, and it is gone afterwards.
"""

import hashlib
import math
import re
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from innerloop.data.tasks import Batch
from innerloop.errors import Fault, UserError, did_you_mean
from innerloop.loading.architecture import decoder_layers
from innerloop.numerics.tensors import TensorSet
from innerloop.spaces.ragged import add_updates
from innerloop.spaces.space import ParameterSpace, TaskLoss, Trained, gradients, math_attention

ALL_LINEAR = "all-linear"
GAUSSIAN = "gaussian"


@dataclass(frozen=True, kw_only=True)
class LoraSettings:
    """As in PEFT, but for layers: "all", "last-8" or a list.

    >>> LoraSettings(r=8, lora_alpha=16, layers="last-8").scale
    2.0
    """

    r: int = 16
    lora_alpha: float = 32
    target_modules: str | tuple[str, ...] = ALL_LINEAR
    lora_dropout: float = 0.0
    use_rslora: bool = False
    init_lora_weights: bool | str = True
    layers: str | tuple[int, ...] = "all"

    @property
    def scale(self) -> float:
        """lora_alpha / r; lora_alpha / sqrt(r) with rsLoRA (arXiv:2312.03732, section 3)."""
        return self.lora_alpha / (math.sqrt(self.r) if self.use_rslora else self.r)


class LoraSpace(ParameterSpace):
    """The LoRA matrices of the target modules; any number of tasks per forward."""

    limit = None

    def __init__(self, model: nn.Module, loss: TaskLoss, settings: LoraSettings, *, seed: int) -> None:
        super().__init__(model, loss)
        self.settings = settings
        self.targets = find_targets(model, settings)
        self.shared = fresh_lora(self.targets, settings, seed=seed)

    @contextmanager
    def installed(self, values: Mapping[str, Tensor]) -> Generator[nn.Module]:
        with torch.no_grad(), self._hooked(values):
            yield self.model

    def loss_and_gradient(
        self, values: Mapping[str, Tensor], batch: Batch, *, into: TensorSet | None = None
    ) -> tuple[Tensor, TensorSet | None]:
        leaves = _leaves(values, batch)
        with torch.enable_grad(), self._hooked(leaves, batch):
            loss = self.loss(batch)
            gradient = gradients(loss, list(leaves.values()))
        return loss.detach(), self._hand_over(dict(zip(leaves, gradient, strict=True)), into)

    def hessian_vector_product(
        self, values: Mapping[str, Tensor], batch: Batch, vector: Mapping[str, Tensor]
    ) -> TensorSet:
        leaves = _leaves(values, batch)
        inputs = list(leaves.values())
        with torch.enable_grad(), math_attention(), self._hooked(leaves, batch, twice=True):
            gradient = gradients(self.loss(batch, twice=True), inputs, create_graph=True)
            inner = torch.stack([(g * vector[name]).sum() for name, g in zip(leaves, gradient, strict=True)])
            product = gradients(inner, inputs)
        return dict(zip(leaves, product, strict=True))

    def trained(self) -> Trained:
        return Trained(
            tensors=len(self.shared),
            parameters=sum(value.numel() for value in self.shared.values()),
            model_parameters=sum(parameter.numel() for parameter in self.model.parameters()),
            dtype="float32",
            modules=tuple(self.targets),
        )

    @contextmanager
    def _hooked(
        self, values: Mapping[str, Tensor], batch: Batch | None = None, *, twice: bool = False
    ) -> Generator[None]:
        """batch: what goes through the model; None = tasks with equally many tokens, without dropout."""
        handles: list[RemovableHandle] = []
        with self._frozen():
            try:
                for name, module in self.targets.items():
                    handles.append(module.register_forward_hook(self._hook(name, values, batch, twice=twice)))
                yield
            finally:
                for handle in handles:
                    handle.remove()

    @contextmanager
    def _frozen(self) -> Generator[None]:
        """The base, whatever the caller's model is elsewhere."""
        thawed = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        try:
            for parameter in thawed:
                parameter.requires_grad_(False)
            yield
        finally:
            for parameter in thawed:
                parameter.requires_grad_(True)

    def _hook(
        self, name: str, values: Mapping[str, Tensor], batch: Batch | None, *, twice: bool
    ) -> Callable[[nn.Module, tuple[Any, ...], Any], Tensor]:
        A_TRI, B_TOR = values[f"{name}.lora_A"], values[f"{name}.lora_B"]
        tasks, scale, dropout = len(A_TRI), self.settings.scale, self.settings.lora_dropout

        def add_update(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> Tensor:
            x, sizes = inputs[0], _tokens_each(batch, tasks, inputs[0].shape[:-1].numel())
            if dropout and batch is not None and batch.mask_seeds is not None:
                x = x * dropout_mask(x, _spans(batch, sizes), rate=dropout, layer=name)
            if len(set(sizes)) > 1:
                return add_updates(output, x, A_TRI, B_TOR, sizes=sizes, scale=scale, twice=twice)
            x_TMI, y_TMO = (part.reshape(tasks, -1, part.shape[-1]) for part in (x, output))
            low_TMR = torch.bmm(x_TMI, A_TRI.mT.to(x_TMI.dtype))
            return torch.baddbmm(y_TMO, low_TMR, B_TOR.mT.to(x_TMI.dtype), alpha=scale).view_as(output)

        return add_update


def fresh_lora(targets: Mapping[str, nn.Module], settings: LoraSettings, *, seed: int) -> TensorSet:
    """PEFT's initialization: B zero, so that the update starts at zero; A uniform in +-1/sqrt(I) (Kaiming, a = sqrt 5).

    "gaussian": A normal with standard deviation 1/R.
    """
    generator = torch.Generator().manual_seed(seed)
    values: TensorSet = {}
    for name, module in targets.items():
        assert isinstance(module, nn.Linear)
        A = torch.empty(settings.r, module.in_features)
        if settings.init_lora_weights == GAUSSIAN:
            A.normal_(0, 1 / settings.r, generator=generator)
        else:
            bound = 1 / math.sqrt(module.in_features)
            A.uniform_(-bound, bound, generator=generator)
        values[f"{name}.lora_A"] = A.to(module.weight.device)
        values[f"{name}.lora_B"] = torch.zeros(module.out_features, settings.r, device=module.weight.device)
    return values


def find_targets(model: nn.Module, settings: LoraSettings) -> dict[str, nn.Linear]:
    """The linear modules of the chosen decoder layers that `target_modules` names, by path.

    Raises UserError for a name or a layer that matches nothing.
    """
    layers = decoder_layers(model)
    chosen = chosen_layers(settings.layers, len(layers))
    place = {id(module): index for index, layer in enumerate(layers) for module in layer.modules()}
    modules: dict[str, nn.Module] = dict(model.named_modules())  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]
    linears = {
        path: module
        for path, module in modules.items()
        if isinstance(module, nn.Linear) and place.get(id(module)) in chosen
    }
    if settings.target_modules == ALL_LINEAR:
        return linears
    if not settings.target_modules:
        right = f"names of linear modules, or {ALL_LINEAR}"
        raise UserError(Fault("nothing would be trained", "method.lora.target_modules", (), right))
    wanted = [settings.target_modules] if isinstance(settings.target_modules, str) else settings.target_modules
    known = {path.rsplit(".", 1)[-1] for path in linears}
    faults = [
        Fault(
            "no linear module of the chosen layers has this name",
            "method.lora.target_modules",
            name,
            did_you_mean(name, known | {ALL_LINEAR}),
        )
        for name in wanted
        if not any(_named(path, name) for path in linears)
    ]
    if faults:
        raise UserError(*faults)
    return {path: module for path, module in linears.items() if any(_named(path, name) for name in wanted)}


def chosen_layers(layers: str | Sequence[int], count: int, *, where: str = "method.lora.layers") -> range | list[int]:
    """The indices that "all", "last-8" or a list names, of `count` layers. Raises UserError when outside."""
    if layers == "all":
        return range(count)
    if isinstance(layers, str):
        last = re.fullmatch(r"last-([1-9][0-9]*)", layers)
        if last and int(last[1]) <= count:
            return range(count - int(last[1]), count)
    elif layers and all(0 <= index < count for index in layers):
        return sorted(set(layers))
    right = f'"all", "last-N" with N up to {count}, or a list of 0..{count - 1}'
    raise UserError(Fault(f"the model has {count} decoder layers", where, layers, right))


class TokenSpan(NamedTuple):
    """An example's tokens among those of a forward: start .. start + length - 1. seed: of its dropout masks."""

    seed: int
    start: int
    length: int


def dropout_mask(x: Tensor, spans: Iterable[TokenSpan], *, rate: float, layer: str) -> Tensor:
    """0 and 1/(1-rate) in the shape of x (..., I), drawn from each example's own seed and the layer's name.

    An example's mask is the same alone as in company, padded as packed, and in a recomputation as in the forward.
    Padding and fillers, which no span covers, draw nothing: 1.
    """
    mask = torch.ones_like(x).view(-1, x.shape[-1])
    for seed, start, length in spans:
        digest = hashlib.blake2b(f"{seed}:{layer}".encode(), digest_size=7).digest()
        generator = torch.Generator(x.device).manual_seed(int.from_bytes(digest, "big"))
        kept = torch.rand(length, x.shape[-1], generator=generator, device=x.device) >= rate
        mask[start : start + length] = kept.to(x.dtype) / (1 - rate)
    return mask.view_as(x)


def _spans(batch: Batch, sizes: Sequence[int]) -> Iterator[TokenSpan]:
    """sizes: tokens of each task in the layout at hand, which is packed where they aren't those of padded rows."""
    assert batch.mask_seeds is not None
    rows, width = batch.tokens.shape[1:]
    padded, start = tuple(sizes) == (rows * width,) * batch.tasks, 0
    for seeds, lengths, size in zip(batch.mask_seeds, batch.lengths, sizes, strict=True):
        place = start
        for seed, length in zip(seeds, lengths, strict=True):
            yield TokenSpan(seed, place, length)
            place += width if padded else length
        start += size


def _tokens_each(batch: Batch | None, tasks: int, rows: int) -> tuple[int, ...]:
    """Tokens of each task among `rows` of them. A model that doesn't admit packing has padded ones: equally many."""
    packing = batch.packing if batch else None
    return packing.sizes if packing and sum(packing.sizes) == rows else (rows // tasks,) * tasks


def _leaves(values: Mapping[str, Tensor], batch: Batch) -> TensorSet:
    """What is differentiated by. Raises ValueError unless values and batch have equally many tasks."""
    if (tasks := len(next(iter(values.values())))) != batch.tasks:
        raise ValueError(f"values of {tasks} tasks for a batch of {batch.tasks}")
    return {name: value.detach().requires_grad_() for name, value in values.items()}


def _named(path: str, name: str) -> bool:
    return path == name or path.endswith("." + name)
